/* Files that broke other GGUF readers, rebuilt from what was published, one test each; then every truncation
 * of a right file and thousands of mutations of it. None may do more than be refused. */
#include "tests/hostile/refused.h"
#include <dirent.h>

/* ---- ggml, llama.cpp ---- */

/* info->ne[] unchecked: heap overflow. */
static void cve_2024_21802_tensor_dimensions(void **state)
{
        (void)state;
        Buf b = {0};
        g_head(&b, 1, 0);
        g_str(&b, "t"), g_u32(&b, 4);
        g_u64(&b, 0x100000), g_u64(&b, 0x100000), g_u64(&b, 0x100000), g_u64(&b, 0x100000);
        g_u32(&b, 0), g_u64(&b, 0);
        g_pad(&b, 32);
        g_fill(&b, 256);
        refused(&b, 24 + DIMS + 4 + 24, "tensor t has more than 2^63 values");
}

/* n_kv * sizeof(kv) wraps: the allocation is small, the loop is long. */
static void cve_2024_23605_kv_count(void **state)
{
        (void)state;
        for (u64 size = 16; size <= 128; size += 8) {
                Buf b = {0};
                g_head(&b, 0, UINT64_MAX / size + 2);
                g_fill(&b, 512);
                refused(&b, 16, "kv_count");
        }
}

static void cve_2024_21836_tensor_count(void **state)
{
        (void)state;
        for (u64 size = 16; size <= 512; size += 8) {
                Buf b = {0};
                g_head(&b, UINT64_MAX / size + 2, 0);
                g_fill(&b, 512);
                refused(&b, 8, "tensor_count");
        }
}

/* length + 1 wraps to 0. */
static void cve_2024_23496_string_length(void **state)
{
        (void)state;
        Buf b = {0};
        g_head(&b, 0, 1);
        g_u64(&b, UINT64_MAX);
        g_fill(&b, 4096);
        refused(&b, 24, "key 0 name takes 18446744073709551615 bytes");
}

/* count * element size wraps, for numbers and for arrays of strings. */
static void cve_2024_21825_array_count(void **state)
{
        (void)state;
        static const u32 size[] = {1, 1, 2, 2, 4, 4, 4, 1, 16, 0, 8, 8, 8};
        for (u32 t = 0; t < COUNT(size); t++)
                if (size[t] > 1) {
                        Buf b = {0};
                        g_head(&b, 0, 1);
                        g_key_arr(&b, "tokenizer.ggml.tokens", t, UINT64_MAX / size[t] + 2);
                        u64 at = b.len - 8;
                        g_fill(&b, 4096);
                        refused(&b, at, "key tokenizer.ggml.tokens array length");
                }
}

/* The five of one report: key count, string length, tensor count, array length, strings of an array. */
static void cve_2024_25664_to_25668(void **state)
{
        (void)state;
        Buf b = {0};
        g_head(&b, 0, 0x0555555555555556);
        refused(&b, 16, "kv_count");
        g_head(&b, 0, 1);
        g_key(&b, "general.name", GGUF_string), g_u64(&b, UINT64_MAX), g_fill(&b, 64);
        refused(&b, 24 + 8 + 12 + 4, "key general.name string");
        g_head(&b, 0x0555555555555556, 0);
        refused(&b, 8, "tensor_count");
        g_head(&b, 0, 1);
        g_key_arr(&b, "k", GGUF_i32, 0x4000000000000001), g_fill(&b, 64);
        refused(&b, 41, "key k array length");
        g_head(&b, 0, 1);
        g_key_arr(&b, "k", GGUF_string, 2), g_str(&b, "x"), g_u64(&b, UINT64_MAX), g_fill(&b, 64);
        refused(&b, 49 + 9, "key k string");
}

/* An early error once freed keys that were never read. */
static void cve_2024_32878_error_before_all_keys(void **state)
{
        (void)state;
        Buf b = {0};
        g_head(&b, 0, 100);
        g_key_u32(&b, "k", 1);
        u64 at = b.len;
        g_u64(&b, 1ull << 40), g_fill(&b, 2000);
        refused(&b, at, "key 1 name");
}

/* A file that ends behind its tensor table, not quite where data would start. */
static void cve_2024_41130_missing_data(void **state)
{
        (void)state;
        u64 at;
        Buf b = one_tensor(64, 0, 0, 0, 1, &at);
        refused(&b, at, "tensor t needs 256 bytes at offset 0, but the file has only 1");
}

/* A token's length cast to int32. */
static void cve_2025_49847_token_length(void **state)
{
        (void)state;
        static const u64 lie[] = {0x80000000, 0xffffffff, 0x100000001, 0xffffffff00000001};
        for (size_t i = 0; i < COUNT(lie); i++) {
                Buf b = {0};
                g_head(&b, 0, 1);
                g_key_arr(&b, "tokenizer.ggml.tokens", GGUF_string, 2);
                u64 at = b.len;
                g_u64(&b, lie[i]), g_fill(&b, 100);
                refused(&b, at, "key tokenizer.ggml.tokens string");
        }
}

/* The sum of all tensors' sizes wraps, though each is possible. */
static void cve_2025_53630_sum_of_sizes(void **state)
{
        (void)state;
        Buf b = {0};
        g_head(&b, 4, 0);
        u64 size = 1ull << 62, first = b.len;
        for (u64 i = 0; i < 4; i++)
                g_tensor(&b, (char[]){(char)('a' + i), 0}, size / 4, 0, 0, i * (size / 2));
        g_pad(&b, 32);
        g_fill(&b, 256);
        refused(&b, first + 2 * 33 + OFFSET1, "tensor c offset"); /* c would end at 2^63 */
        g_head(&b, 2, 0);
        g_tensor(&b, "a", size / 4, 0, 0, 0);
        g_tensor(&b, "b", size / 4, 0, 0, size);
        g_pad(&b, 32);
        g_fill(&b, 256);
        refused(&b, 24 + 33 + OFFSET1, "tensor b offset");
}

/* The allocator's overhead plus the size wraps: sizes just under 2^63 and 2^64. */
static void cve_2026_27940_overhead_plus_size(void **state)
{
        (void)state;
        u64 at;
        Buf b = one_tensor((1ull << 61) - 8, 0, 0, 0, 256, &at);
        refused(&b, at, "tensor t needs 9223372036854775776 bytes");
        b = one_tensor((1ull << 62) - 8, 0, 0, 0, 256, &at);
        refused(&b, at + TYPE1, "takes more than 2^63 bytes");
}

/* Dimensions whose byte count wraps to 4 MB. */
static void cve_2026_33298_bytes_wrap(void **state)
{
        (void)state;
        u64 at;
        Buf b = one_tensor(1ull << 62, 1, 0, 0, 4096, &at);
        refused(&b, at + TYPE2, "takes more than 2^63 bytes");
        b = one_tensor((1ull << 62) + (1ull << 20), 0, 0, 0, 4096, &at);
        refused(&b, at + TYPE1, "takes more than 2^63 bytes");
}

/* llama.cpp 15711, 18674, 27203 and the padding and row size overflows that followed. */
static void llama_cpp_products_that_wrap(void **state)
{
        (void)state;
        Buf b = {0};
        g_head(&b, UINT64_MAX / 368 + 1, 0);
        refused(&b, 8, "tensor_count");
        static const u64 dims[][2] = {{(1ull << 42) + 1, (1ull << 42) + 1}, {INT64_MAX, 2}, {1ull << 60, 16},
                {0xffffffff00000020, 1}};
        u64 at;
        for (size_t i = 0; i < COUNT(dims); i++)
                for (u32 type = 0; type < 3; type++) {
                        b = one_tensor(dims[i][0], dims[i][1], type, 0, 256, &at);
                        refused(&b, at + (dims[i][0] > INT64_MAX ? NE0 : NE1), "more than 2^63 values");
                }
        b = one_tensor((1ull << 63) - 1, 0, 1, 0, 256, &at); /* aligned up it is 0 */
        refused(&b, at + TYPE1, "more than 2^63 bytes");
        b = one_tensor((1ull << 63) - 32, 0, 2, 0, 256, &at); /* a quantised row */
        refused(&b, at, "tensor t needs");
}

static void gguf_py_dimension_count_and_type(void **state)
{
        (void)state;
        u64 at;
        Buf b = one_tensor(8, 0, 0, 0, 256, &at);
        memset(b.p + at + DIMS, 0xff, 4);
        refused(&b, at + DIMS, "tensor t has n_dims 4294967295");
        b = one_tensor(8, 0, UINT32_MAX, 0, 256, &at); /* listed, and of no size; refused when used */
        Opened o;
        g_open(&o, &b, NULL);
        assert_int_equal(o.error.status, 0);
        Trap t;
        if (TRAP(&t) == 0) {
                gguf_wtype(o.g, gguf_tensor(o.g, "t"));
                fail_msg("type 4294967295 was accepted");
        }
        check_error(&t.error, MOEC_UNSUPPORTED, at, "tensor t is of type unknown (4294967295)");
        g_shut(&o);
        buf_free(&b);
}

/* Arrays declared with elements of 1 byte and read as of 4. */
static void array_element_type_confusion(void **state)
{
        (void)state;
        Buf b = {0};
        g_head(&b, 0, 2);
        g_key_arr(&b, "tokenizer.ggml.scores", GGUF_i8, 4), g_u32(&b, 0);
        u64 at1 = b.len + 8 + 25 + 4;
        g_key_arr(&b, "tokenizer.ggml.token_type", GGUF_string, 0);
        GETTER_REFUSED(b, 24 + 8 + 21 + 4, "tokenizer.ggml.scores is an array of i8; expected floats",
                gguf_arr(g, "tokenizer.ggml.scores", GGUF_FLOATS, 0, 1 << 24));
        GETTER_REFUSED(b, at1, "tokenizer.ggml.token_type is an array of string; expected integers",
                gguf_arr(g, "tokenizer.ggml.token_type", GGUF_INTS, 0, 1 << 24));
        buf_free(&b);
}

/* Thousands of arrays in each other: recursion. */
static void nested_arrays(void **state)
{
        (void)state;
        Buf b = {0};
        g_head(&b, 0, 1);
        g_key(&b, "k", GGUF_array);
        for (int i = 0; i < 100000; i++)
                g_u32(&b, GGUF_array), g_u64(&b, 1);
        refused(&b, 37, "key k is an array of arrays");
}

/* Alignment 0 divides, 2^31 wraps 32 bits, and an i32 trips an assertion. */
static void alignment_of_0_of_2_to_31_of_i32(void **state)
{
        (void)state;
        for (int i = 0; i < 3; i++) {
                Buf b = {0};
                g_head(&b, 1, 1);
                g_key(&b, "general.alignment", i == 2 ? GGUF_i32 : GGUF_u32);
                u64 at = b.len;
                g_u32(&b, i == 0 ? 0 : i == 1 ? 0x80000000 : 32);
                g_tensor(&b, "t", 8, 0, 0, 0);
                g_fill(&b, 200);
                refused(&b, at, "key general.alignment is");
        }
}

/* An array written into a fixed one: the caller's bound is the reader's to check. */
static void unbounded_layer_array(void **state)
{
        (void)state;
        Buf b = {0};
        g_head(&b, 0, 1);
        g_key_arr(&b, "target_layers", GGUF_u32, 1000);
        u64 at = b.len - 12;
        g_fill(&b, 4000);
        GETTER_REFUSED(b, at, "key target_layers has 1000 elements; expected 1 to 512",
                gguf_arr(g, "target_layers", GGUF_INTS, 1, 512));
        buf_free(&b);
}

/* ---- Ollama ---- */

/* block_count of another type, later a divisor. */
static void cve_2024_8063_block_count_type(void **state)
{
        (void)state;
        static const u32 type[] = {GGUF_string, GGUF_f32, GGUF_bool, GGUF_array};
        for (size_t i = 0; i < COUNT(type); i++) {
                Buf b = {0};
                g_head(&b, 0, 1);
                g_key(&b, "llama.block_count", type[i]);
                u64 at = b.len, u;
                if (type[i] == GGUF_string)
                        g_str(&b, "32");
                else if (type[i] == GGUF_f32)
                        g_f32(&b, 32);
                else if (type[i] == GGUF_bool)
                        g_u8(&b, 1);
                else
                        g_u32(&b, GGUF_u32), g_u64(&b, 1), g_u32(&b, 32);
                GETTER_REFUSED(b, at, "key llama.block_count is of type",
                        gguf_u64(g, "llama.block_count", 1, 512, &u));
                buf_free(&b);
        }
}

static void cve_2024_39720_only_the_magic(void **state)
{
        (void)state;
        Buf b = {0};
        buf_str(&b, "GGUF");
        refused(&b, 4, "version takes 4 bytes but only 0 are left");
}

/* A key that is not there is an answer, not a null to follow. */
static void cve_2025_0312_missing_keys(void **state)
{
        (void)state;
        Buf b = {0};
        g_head(&b, 0, 0);
        Opened o;
        g_open(&o, &b, NULL);
        u64 u;
        float f;
        bool yes;
        GgufStr s;
        assert_false(gguf_u64(o.g, "general.file_type", 0, 1, &u));
        assert_false(gguf_f32(o.g, "eps", 0, 1, &f));
        assert_false(gguf_bool(o.g, "yes", &yes));
        assert_false(gguf_str(o.g, "general.architecture", &s));
        assert_null(gguf_arr(o.g, "tokenizer.ggml.tokens", GGUF_STRINGS, 1, 2));
        assert_null(gguf_tensor(o.g, "token_embd.weight"));
        g_shut(&o);
        buf_free(&b);
}

/* Each count and length in a tiny file at 2^40: memory stays what the file's size accounts for (refused()
 * asserts it). */
static void cve_2025_0315_unbounded_allocation(void **state)
{
        (void)state;
        Buf whole = {0};
        size_t data = g_valid(&whole);
        for (size_t i = 8; i + 8 <= data; i++) {
                Buf b = {0};
                buf_add(&b, whole.p, whole.len);
                memcpy(b.p + i, &(u64){1ull << 40}, 8);
                Opened o;
                g_open(&o, &b, NULL);
                assert_true(arena_used(o.a) <= 4096 + 16 * b.len);
                assert_true(o.error.status == 0 || o.error.status == MOEC_DAMAGED);
                g_shut(&o);
                buf_free(&b);
        }
        buf_free(&whole);
}

/* Version 1 has strings of its own; it is not read at all. */
static void cve_2025_66960_version_1_string(void **state)
{
        (void)state;
        Buf b = {0};
        buf_str(&b, "GGUF"), g_u32(&b, 1), g_u32(&b, 0), g_u32(&b, 1), g_u32(&b, UINT32_MAX), g_fill(&b, 64);
        refused_as(&b, MOEC_UNSUPPORTED, 4, "GGUF version 1");
}

/* Data past the end of the file: what was behind it on the heap went into the output. */
static void cve_2026_7482_data_past_the_end(void **state)
{
        (void)state;
        u64 at;
        Buf b = one_tensor(1 << 20, 0, 1, 0, 4096, &at);
        refused(&b, at, "tensor t needs 2097152 bytes at offset 0, but the file has only 4096");
        b = one_tensor(64, 0, 0, 4096, 4096, &at);
        refused(&b, at, "tensor t needs 256 bytes at offset 4096");
        b = one_tensor(1025, 0, 0, 0, 4096, &at);
        refused(&b, at, "tensor t needs 4100 bytes");
}

/* ---- everything else ---- */

/* Cut anywhere, a file is refused; but where it ends exactly at its data it is a shape file. */
static void every_truncation(void **state)
{
        (void)state;
        Buf b = {0};
        size_t data = g_valid(&b), size = b.len;
        for (size_t n = 0; n < size; n++) {
                b.len = n;
                Opened o;
                g_open(&o, &b, NULL);
                if (n == data)
                        assert_true(o.error.status == 0 && gguf_is_shape(o.g));
                else if (o.error.status != MOEC_DAMAGED || !strstr(o.error.msg, "byte "))
                        fail_msg("cut at %zu: status %d: %s", n, o.error.status, o.error.msg);
                g_shut(&o);
        }
        buf_free(&b);
}

static u64 rng = 0x9e3779b97f4a7c15;
static u64 next(void)
{
        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        return rng;
}

/* 1 to 4 changes; most of them before the data, where the lies are. */
static void mutate(Buf *b, size_t data)
{
        static const u64 odd[] = {0, 1, 2, 8, 31, 32, 255, 256, 0x7fffffff, 0x80000000, UINT32_MAX,
                1ull << 32, INT64_MAX, 1ull << 63, UINT64_MAX, UINT64_MAX - 7};
        for (u64 k = 1 + next() % 4; k > 0; k--) {
                size_t i = next() % (next() % 8 ? MIN(data, b->len) : b->len), n = next() % 64;
                switch (next() % 6) {
                case 0:
                        b->p[i] ^= (char)(1 << next() % 8);
                        break;
                case 1:
                        b->p[i] = (char)next();
                        break;
                case 2:
                        memcpy(b->p + i, &odd[next() % COUNT(odd)], MIN(8, b->len - i));
                        break;
                case 3:
                        memcpy(b->p + i, &odd[next() % COUNT(odd)], MIN(4, b->len - i));
                        break;
                case 4: /* a piece of it somewhere else */
                        memmove(b->p + i, b->p + next() % (i + 1), MIN(n, b->len - i));
                        break;
                default: /* a piece less */
                        if (b->len > 200)
                                b->len -= 1 + n;
                }
        }
}

static void twenty_thousand_mutations(void **state)
{
        (void)state;
        Buf whole = {0};
        size_t data = g_valid(&whole), good = 0;
        for (int i = 0; i < 20000; i++) {
                Buf b = {0};
                buf_add(&b, whole.p, whole.len);
                mutate(&b, data);
                Opened o;
                g_open(&o, &b, NULL);
                if (o.error.status == 0) {
                        good++;
                        walk(o.g);
                } else if (o.error.status != MOEC_DAMAGED && o.error.status != MOEC_UNSUPPORTED) {
                        fail_msg("mutation %d: status %d: %s", i, o.error.status, o.error.msg);
                }
                assert_true(arena_used(o.a) <= 4096 + 16 * b.len);
                g_shut(&o);
                buf_free(&b);
        }
        assert_true(
                good > 1000 && good < 19000); /* the mutations reach past the first check, and do damage */
        buf_free(&whole);
}

/* What fuzzing started from, and whatever it found since. */
static void fuzz_corpus(void **state)
{
        (void)state;
        const char *folder = "tests/fuzz/corpus/gguf";
        DIR *d = opendir(folder);
        assert_non_null(d);
        int n = 0;
        for (const struct dirent *f; (f = readdir(d)); n++) {
                char path[512];
                snprintf(path, sizeof path, "%s/%s", folder, f->d_name);
                Buf b = {0};
                if (f->d_name[0] == '.' || file_read(path, &b, 1 << 20, NULL) != MOEC_OK)
                        continue;
                Opened o;
                g_open(&o, &b, NULL);
                if (o.error.status == 0)
                        walk(o.g);
                else if (o.error.status != MOEC_DAMAGED)
                        fail_msg("%s: status %d: %s", path, o.error.status, o.error.msg);
                g_shut(&o);
                buf_free(&b);
        }
        closedir(d);
        assert_true(n > 20);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(cve_2024_21802_tensor_dimensions),
                cmocka_unit_test(cve_2024_23605_kv_count),
                cmocka_unit_test(cve_2024_21836_tensor_count),
                cmocka_unit_test(cve_2024_23496_string_length),
                cmocka_unit_test(cve_2024_21825_array_count),
                cmocka_unit_test(cve_2024_25664_to_25668),
                cmocka_unit_test(cve_2024_32878_error_before_all_keys),
                cmocka_unit_test(cve_2024_41130_missing_data),
                cmocka_unit_test(cve_2025_49847_token_length),
                cmocka_unit_test(cve_2025_53630_sum_of_sizes),
                cmocka_unit_test(cve_2026_27940_overhead_plus_size),
                cmocka_unit_test(cve_2026_33298_bytes_wrap),
                cmocka_unit_test(llama_cpp_products_that_wrap),
                cmocka_unit_test(gguf_py_dimension_count_and_type),
                cmocka_unit_test(array_element_type_confusion),
                cmocka_unit_test(nested_arrays),
                cmocka_unit_test(alignment_of_0_of_2_to_31_of_i32),
                cmocka_unit_test(unbounded_layer_array),
                cmocka_unit_test(cve_2024_8063_block_count_type),
                cmocka_unit_test(cve_2024_39720_only_the_magic),
                cmocka_unit_test(cve_2025_0312_missing_keys),
                cmocka_unit_test(cve_2025_0315_unbounded_allocation),
                cmocka_unit_test(cve_2025_66960_version_1_string),
                cmocka_unit_test(cve_2026_7482_data_past_the_end),
                cmocka_unit_test(every_truncation),
                cmocka_unit_test(twenty_thousand_mutations),
                cmocka_unit_test(fuzz_corpus),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The GGUF reader against headers and keys that lie. Each test is one rule of the reader; it asserts the
 * status, and that the message names the byte and the field. */
#include "tests/hostile/refused.h"
#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

static void rule_01_at_least_a_header(void **state)
{
        (void)state;
        Buf whole = {0};
        g_head(&whole, 0, 0);
        for (size_t n = 0; n < whole.len; n++) {
                Buf b = {0};
                buf_add(&b, whole.p, n);
                refused(&b, n < 4 ? 0 : n < 8 ? 4 : 8, n < 4 ? "magic" : n < 8 ? "version" : "header");
        }
        buf_free(&whole);
}

static void rule_02_magic_version_byte_order(void **state)
{
        (void)state;
        static const struct {
                u32 version;
                moec_status status;
                const char *what;
        } row[] = {{0, MOEC_DAMAGED, "version is 0"},
                {1, MOEC_UNSUPPORTED, "GGUF version 1 is not supported"},
                {4, MOEC_UNSUPPORTED, "GGUF version 4 is not supported"},
                {0x03000000, MOEC_UNSUPPORTED, "big-endian"}, {0x02000000, MOEC_UNSUPPORTED, "big-endian"},
                {UINT32_MAX, MOEC_UNSUPPORTED, "version 4294967295"}};
        for (size_t i = 0; i < COUNT(row); i++) {
                Buf b = {0};
                g_head(&b, 0, 0);
                memcpy(b.p + 4, &row[i].version, 4);
                refused_as(&b, row[i].status, 4, row[i].what);
        }
        static const char *const magic[] = {"FUGG", "ggml", "gguf", "\177ELF", "{\"a\""};
        for (size_t i = 0; i < COUNT(magic); i++) {
                Buf b = {0};
                g_head(&b, 0, 0);
                memcpy(b.p, magic[i], 4);
                refused(&b, 0, "not a GGUF file");
        }
        Buf b = {0};
        buf_str(&b, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
        refused(&b, 0, "Git LFS pointer");
}

static void rule_03_counts_bounded_before_allocation(void **state)
{
        (void)state;
        static const u64 lie[] = {UINT64_MAX, UINT64_MAX / 33, 1ull << 63, 1ull << 32, 1000, 3};
        for (size_t i = 0; i < COUNT(lie); i++) {
                Buf b = {0};
                g_head(&b, lie[i], 0);
                g_fill(&b, 66);
                refused(&b, 8, "tensor_count");
                g_head(&b, 0, lie[i]);
                g_fill(&b, 2 * 14);
                refused(&b, 16, "kv_count");
        }
        Buf b = {0}; /* room for either, not for both */
        g_head(&b, 2, 4);
        g_fill(&b, 66 + 40);
        refused(&b, 16, "kv_count is 4");
        g_head(&b, 0, GGUF_MAX_KEYS + 1); /* enough bytes, too many keys */
        g_fill(&b, 14 * (GGUF_MAX_KEYS + 1));
        refused(&b, 16, "over the limit");
        g_head(&b, GGUF_MAX_TENSORS + 1, 0);
        g_fill(&b, 33 * (GGUF_MAX_TENSORS + 1));
        refused(&b, 8, "over the limit");
}

static void rule_05_string_lengths(void **state)
{
        (void)state;
        static const u64 lie[] = {UINT64_MAX, UINT64_MAX - 7, 1ull << 63, 1ull << 32, 100};
        for (size_t i = 0; i < COUNT(lie); i++) {
                Buf b = {0};
                g_head(&b, 0, 1); /* a key's name */
                g_u64(&b, lie[i]);
                g_fill(&b, 50);
                refused(&b, 24, "key 0 name");
                g_head(&b, 0, 1); /* a value */
                g_key(&b, "k", GGUF_string);
                u64 at = b.len;
                g_u64(&b, lie[i]);
                g_fill(&b, 50);
                refused(&b, at, "key k string");
                g_head(&b, 1, 0); /* a tensor's name */
                g_u64(&b, lie[i]);
                g_fill(&b, 50);
                refused(&b, 24, "tensor 0 name");
        }
        Buf b = {0};
        g_head(&b, 0, 1);
        g_u64(&b, GGUF_MAX_KEY + 1);
        for (u32 i = 0; i <= GGUF_MAX_KEY; i++)
                buf_char(&b, 'k');
        g_u32(&b, GGUF_u8), g_u8(&b, 0);
        refused(&b, 24, "key 0 name is 65536 bytes long");
        g_head(&b, 0, 1);
        g_strn(&b, "a\0b", 3), g_u32(&b, GGUF_u8), g_u8(&b, 0);
        refused(&b, 33, "key 0 name has the byte 0x00");
        g_head(&b, 0, 1);
        g_strn(&b, "", 0), g_u32(&b, GGUF_u32), g_u32(&b, 0);
        refused(&b, 24, "key 0 name is 0 bytes long");
}

static void not_text(const char *value, size_t n)
{
        Buf b = {0};
        g_head(&b, 0, 1);
        g_key(&b, "general.architecture", GGUF_string);
        u64 at = b.len;
        g_strn(&b, value, n);
        GgufStr s;
        GETTER_REFUSED(b, at, "general.architecture is not text", gguf_str(g, "general.architecture", &s));
        buf_free(&b);
}

static void rule_06_text_is_utf8(void **state)
{
        (void)state;
        not_text("\xff", 1);
        not_text("a\xc3", 2);
        not_text("\xed\xa0\x80", 3);
        not_text("\xc0\xaf", 2);
        not_text("\xf4\x90\x80\x80", 4);
        not_text("qwen\0moe", 8);
}

static void rule_07_array_lengths_and_depth(void **state)
{
        (void)state;
        static const u64 lie[] = {UINT64_MAX, 1ull << 62, 1ull << 61, (1ull << 61) + 1, 1ull << 32, 13};
        static const u32 elem[] = {GGUF_u32, GGUF_u64, GGUF_string, GGUF_f32, GGUF_f64};
        for (size_t i = 0; i < COUNT(lie); i++)
                for (size_t j = 0; j < COUNT(elem); j++) {
                        Buf b = {0};
                        g_head(&b, 0, 1);
                        g_key_arr(&b, "k", elem[j], lie[i]);
                        u64 at = b.len - 8;
                        g_fill(&b, 48);
                        refused(&b, at, "key k array length");
                }
        Buf b = {0};
        g_head(&b, 0, 1);
        g_key_arr(&b, "k", GGUF_array, 1);
        g_u32(&b, GGUF_u8), g_u64(&b, 1), g_u8(&b, 1);
        refused(&b, 24 + 8 + 1 + 4, "key k is an array of arrays");
        g_head(&b, 0, 1);
        g_key_arr(&b, "k", GGUF_string, 2);
        g_str(&b, "fine");
        u64 at = b.len;
        g_u64(&b, 5), buf_str(&b, "four");
        refused(&b, at, "key k string takes 5 bytes");
}

static void rule_08_value_types_and_bools(void **state)
{
        (void)state;
        static const u32 lie[] = {13, 14, 255, 0x80000000, UINT32_MAX};
        for (size_t i = 0; i < COUNT(lie); i++) {
                Buf b = {0};
                g_head(&b, 0, 1);
                g_key(&b, "k", lie[i]);
                g_fill(&b, 16);
                refused(&b, 33, "key k has value type");
                g_head(&b, 0, 1);
                g_key_arr(&b, "k", lie[i], 1);
                g_fill(&b, 16);
                refused(&b, 37, "key k has array element type");
        }
        Buf b = {0};
        g_head(&b, 0, 1);
        g_key(&b, "k", GGUF_bool), g_u8(&b, 2);
        refused(&b, 37, "key k holds 2 as a bool");
        g_head(&b, 0, 1);
        g_key_arr(&b, "k", GGUF_bool, 3);
        u64 at = b.len;
        g_u8(&b, 1), g_u8(&b, 0), g_u8(&b, 255);
        refused(&b, at + 2, "key k holds 255 as a bool");
}

static void rule_09_getters_check_type_and_count(void **state)
{
        (void)state;
        Buf b = {0};
        g_valid(&b);
        Opened all;
        g_open(&all, &b, NULL);
        u64 u;
        float f;
        bool yes;
        GgufStr s;
        GETTER_REFUSED(
                b, AT("t.f32"), "t.f32 is of type f32; expected an integer", gguf_u64(g, "t.f32", 0, 9, &u));
        GETTER_REFUSED(b, AT("t.bool"), "expected an integer", gguf_u64(g, "t.bool", 0, 9, &u));
        GETTER_REFUSED(b, AT("general.architecture"), "expected an integer",
                gguf_u64(g, "general.architecture", 0, 9, &u));
        GETTER_REFUSED(b, AT("t.bools"), "type array; expected an integer", gguf_u64(g, "t.bools", 0, 9, &u));
        GETTER_REFUSED(b, AT("t.i32"), "expected a float", gguf_f32(g, "t.i32", 0, 9, &f));
        GETTER_REFUSED(b, AT("t.u8"), "expected a bool", gguf_bool(g, "t.u8", &yes));
        GETTER_REFUSED(b, AT("t.u64"), "expected a string", gguf_str(g, "t.u64", &s));
        GETTER_REFUSED(b, AT("tokenizer.ggml.tokens"), "expected a string",
                gguf_str(g, "tokenizer.ggml.tokens", &s));
        GETTER_REFUSED(
                b, AT("t.i32"), "expected an array of integers", gguf_arr(g, "t.i32", GGUF_INTS, 0, 9));
        GETTER_REFUSED(b, AT("tokenizer.ggml.tokens"), "is an array of string; expected integers",
                gguf_arr(g, "tokenizer.ggml.tokens", GGUF_INTS, 0, 9));
        GETTER_REFUSED(b, AT("tokenizer.ggml.scores"), "is an array of f32; expected strings",
                gguf_arr(g, "tokenizer.ggml.scores", GGUF_STRINGS, 0, 9));
        GETTER_REFUSED(b, AT("t.bools"), "expected floats", gguf_arr(g, "t.bools", GGUF_FLOATS, 0, 9));
        GETTER_REFUSED(b, AT("tokenizer.ggml.scores"), "expected bools",
                gguf_arr(g, "tokenizer.ggml.scores", GGUF_BOOLS, 0, 9));
        GETTER_REFUSED(b, AT("tokenizer.ggml.scores"), "has 3 elements; expected 4 to 4",
                gguf_arr(g, "tokenizer.ggml.scores", GGUF_FLOATS, 4, 4));
        GETTER_REFUSED(b, AT("t.empty"), "has 0 elements; expected 1 to 9",
                gguf_arr(g, "t.empty", GGUF_STRINGS, 1, 9));
        g_shut(&all);
        buf_free(&b);
}

static void rule_10_integers_of_any_width_in_range(void **state)
{
        (void)state;
        Buf b = {0};
        g_valid(&b);
        Opened all;
        g_open(&all, &b, NULL);
        u64 u;
        GETTER_REFUSED(b, AT("t.i8"), "t.i8 is -128; expected 0 to 9", gguf_u64(g, "t.i8", 0, 9, &u));
        GETTER_REFUSED(b, AT("t.i16"), "t.i16 is -1;", gguf_u64(g, "t.i16", 0, UINT64_MAX, &u));
        GETTER_REFUSED(b, AT("t.i64"), "t.i64 is -5;", gguf_u64(g, "t.i64", 0, UINT64_MAX, &u));
        GETTER_REFUSED(b, AT("t.u64"), "is 18446744073709551615", gguf_u64(g, "t.u64", 0, INT64_MAX, &u));
        GETTER_REFUSED(b, AT("t.u8"), "is 200; expected 201 to 300", gguf_u64(g, "t.u8", 201, 300, &u));
        GETTER_REFUSED(b, AT("tokenizer.ggml.token_type"), "element 2 is -6; expected 1 to 6",
                gguf_elem_u64(g, gguf_arr(g, "tokenizer.ggml.token_type", GGUF_INTS, 3, 3), 2, 1, 6));
        GETTER_REFUSED(b, AT("tokenizer.ggml.scores"), "element 1 is -2; expected 0 to 1",
                gguf_elem_f32(g, gguf_arr(g, "tokenizer.ggml.scores", GGUF_FLOATS, 3, 3), 1, 0, 1));
        g_shut(&all);
        buf_free(&b);
}

static void rule_11_duplicates(void **state)
{
        (void)state;
        Buf b = {0};
        g_head(&b, 0, 3);
        g_key_u32(&b, "a", 1);
        g_key_u32(&b, "b", 1);
        g_key_u32(&b, "a", 2);
        refused(&b, b.len - 4, "key a is defined twice; before at byte 37");
        g_head(&b, 2, 0);
        g_tensor(&b, "t", 8, 0, 0, 0);
        u64 at = b.len;
        g_tensor(&b, "t", 8, 0, 0, 32);
        g_pad(&b, 32);
        g_fill(&b, 64);
        refused(&b, at, "tensor t is defined twice; before at byte 24");
}

/* Seconds to open a file of n keys with names nearly alike. */
static double open_many(u32 n)
{
        Buf b = {0};
        g_head(&b, 0, n);
        char name[64];
        for (u32 i = 0; i < n; i++) {
                snprintf(name, sizeof name, "a.long.prefix.that.all.of.them.share.%08x", i * 2654435761u);
                g_key_u32(&b, name, i);
        }
        double best = 1e9;
        for (int k = 0; k < 3; k++) {
                Opened o;
                double start = g_cpu_s();
                g_open(&o, &b, NULL);
                double took = g_cpu_s() - start;
                best = MIN(best, took);
                assert_int_equal(o.error.status, 0);
                u64 u;
                assert_true(gguf_u64(o.g, name, 0, UINT32_MAX, &u) && u == n - 1);
                g_shut(&o);
        }
        buf_free(&b);
        return best;
}

/* Up to as many as are allowed: 8 times the names take about 10 times as long, not 64. */
static void rule_11_many_names_are_quick(void **state)
{
        (void)state;
        double few = open_many(GGUF_MAX_KEYS / 8), many = open_many(GGUF_MAX_KEYS);
        if (many > 32 * few)
                fail_msg("%g s for %u names, but %g s for 8 times as many", few, GGUF_MAX_KEYS / 8, many);
}

static void rule_12_alignment(void **state)
{
        (void)state;
        static const u32 lie[] = {0, 1, 4, 7, 12, 33, 48, 131072, 0x80000000, UINT32_MAX};
        for (size_t i = 0; i < COUNT(lie); i++) {
                Buf b = {0};
                g_head(&b, 1, 1);
                g_key_u32(&b, "general.alignment", lie[i]);
                u64 at = b.len - 4;
                g_tensor(&b, "t", 8, 0, 0, 0);
                g_fill(&b, 200);
                refused(&b, at, "key general.alignment is");
        }
        static const u32 type[] = {
                GGUF_i32, GGUF_u64, GGUF_f32, GGUF_u16, GGUF_string, GGUF_array, GGUF_bool};
        for (size_t i = 0; i < COUNT(type); i++) {
                Buf b = {0};
                g_head(&b, 0, 1);
                g_key(&b, "general.alignment", type[i]);
                u64 at = b.len;
                g_u32(&b, 0), g_u64(&b, 0), g_u64(&b, 0);
                refused(&b, at, "key general.alignment is of type");
        }
        static const u32 right[] = {8, 16, 32, 4096, 65536};
        for (size_t i = 0; i < COUNT(right); i++) {
                Buf b = {0};
                g_head(&b, 1, 1);
                g_key_u32(&b, "general.alignment", right[i]);
                g_tensor(&b, "t", 8, 0, 0, 0);
                g_pad(&b, right[i]);
                g_fill(&b, 32);
                accepted(&b);
        }
}

static void bad_block_count(u32 n)
{
        Buf b = {0};
        g_head(&b, 0, 1);
        g_key_u32(&b, "qwen3moe.block_count", n);
        u64 u;
        GETTER_REFUSED(
                b, b.len - 4, "key qwen3moe.block_count is", gguf_u64(g, "qwen3moe.block_count", 1, 512, &u));
        buf_free(&b);
}

static void bad_epsilon(u32 bits)
{
        Buf b = {0};
        g_head(&b, 0, 1);
        g_key(&b, "eps", GGUF_f32), g_u32(&b, bits);
        float f;
        GETTER_REFUSED(b, b.len - 4, "key eps is", gguf_f32(g, "eps", 0, HUGE_VAL, &f));
        buf_free(&b);
}

static void rule_20_hyperparameters_in_range(void **state)
{
        (void)state;
        bad_block_count(0);
        bad_block_count(513);
        bad_block_count(UINT32_MAX);
        bad_epsilon(0x7f800000); /* infinite */
        bad_epsilon(0xff800000);
        bad_epsilon(0x7fc00000); /* not a number */
        bad_epsilon(0xffffffff);
        bad_epsilon(0x80000001); /* below 0 */
        Buf b = {0};
        g_head(&b, 0, 1);
        g_key(&b, "eps", GGUF_f64), buf_add(&b, &(double){1e300}, 8); /* no f32 */
        float f;
        GETTER_REFUSED(b, b.len - 8, "key eps is 1e+300", gguf_f32(g, "eps", 0, 1e308, &f));
        buf_free(&b);
}

/* What would run, or split a line, in generated source: as names it may pass, for it is matched and never
 * written; line ends and control characters do not. */
static void rule_26_no_control_characters_in_names(void **state)
{
        (void)state;
        static const char *const bad[] = {"a\nb", "a\\\nb", "a\rb", "a\tb", "a\x1b]0;x\x07", "a\xe2\x80\xae"};
        for (size_t i = 0; i < COUNT(bad); i++) {
                Buf b = {0};
                g_head(&b, 0, 1);
                g_key_u32(&b, bad[i], 1);
                u64 at = 24 + 8 + 1 + (bad[i][1] == '\\');
                refused(&b, at, "key 0 name has the byte 0x");
        }
}

/* The file is sparse: the bytes are claimed, and even there, but never touched. */
static void sparse_refused(const Buf *head, u64 size, u64 at, const char *what)
{
        char path[] = "/tmp/moec-hostile-XXXXXX";
        int fd = mkstemp(path);
        assert_int_equal(write(fd, head->p, head->len), head->len);
        assert_int_equal(ftruncate(fd, (off_t)size), 0);
        close(fd);
        Arena *a = arena_new();
        Gguf *g = gguf_new(a);
        Trap t;
        if (TRAP(&t) == 0) {
                gguf_read(g, path);
                trap_pop(&t);
                fail_msg("%s was accepted", what);
        }
        check_error(&t.error, MOEC_DAMAGED, at, what);
        assert_true(arena_used(a) < 4096);
        gguf_close(g);
        arena_free(a);
        unlink(path);
}

static void rule_29_limits(void **state)
{
        (void)state;
        Buf b = {0};
        g_head(&b, 0, 1);
        g_key_arr(&b, "k", GGUF_u8, 600u << 20);
        sparse_refused(&b, 700u << 20, b.len - 8, "key k array length is 629145600");
        b.len = 0;
        g_head(&b, 0, 2);
        g_key_arr(&b, "k", GGUF_u8, (512u << 20) - 24 - 25);
        sparse_refused(&b, 700u << 20, 512u << 20, "of what metadata may take");
        b.len = 0;
        g_head(&b, 0, 1);
        g_key(&b, "k", GGUF_string);
        u64 at = b.len;
        g_u64(&b, GGUF_MAX_STRING + 1);
        sparse_refused(&b, 100u << 20, at, "key k string length is 67108865, over the limit");
        buf_free(&b);
}

/* The limit is for all parts together. */
static void rule_29_limit_of_all_parts(void **state)
{
        (void)state;
        enum { SIZE = 300 << 20 };
        Buf b = {0};
        g_head(&b, 0, 1);
        g_key_arr(&b, "k", GGUF_u8, SIZE - 49);
        Arena *a = arena_new();
        Gguf *g = gguf_new(a);
        for (int i = 0; i < 2; i++) {
                void *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
                assert_true(p != MAP_FAILED);
                memcpy(p, b.p, b.len);
                Trap t;
                if (TRAP(&t) == 0) {
                        gguf_add(g, "a.gguf", (Map){p, SIZE, -1});
                        trap_pop(&t);
                        assert_int_equal(i, 0);
                } else {
                        assert_int_equal(i, 1);
                        check_error(&t.error, MOEC_DAMAGED, 41, "key k array length");
                }
        }
        gguf_close(g);
        arena_free(a);
        buf_free(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(rule_01_at_least_a_header),
                cmocka_unit_test(rule_02_magic_version_byte_order),
                cmocka_unit_test(rule_03_counts_bounded_before_allocation),
                cmocka_unit_test(rule_05_string_lengths),
                cmocka_unit_test(rule_06_text_is_utf8),
                cmocka_unit_test(rule_07_array_lengths_and_depth),
                cmocka_unit_test(rule_08_value_types_and_bools),
                cmocka_unit_test(rule_09_getters_check_type_and_count),
                cmocka_unit_test(rule_10_integers_of_any_width_in_range),
                cmocka_unit_test(rule_11_duplicates),
                cmocka_unit_test(rule_11_many_names_are_quick),
                cmocka_unit_test(rule_12_alignment),
                cmocka_unit_test(rule_20_hyperparameters_in_range),
                cmocka_unit_test(rule_26_no_control_characters_in_names),
                cmocka_unit_test(rule_29_limits),
                cmocka_unit_test(rule_29_limit_of_all_parts),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The GGUF reader against tensor tables, data and split files that lie; as gguf_hostile_keys.c. */
#include "tests/hostile/refused.h"
#include <unistd.h>

static void rule_04_sums_do_not_wrap(void **state)
{
        (void)state;
        u64 at;
        Buf b = one_tensor(64, 0, 0, UINT64_MAX - 31, 256, &at);
        refused(&b, at + OFFSET1, "tensor t offset");
        b = one_tensor(64, 0, 0, INT64_MAX - 31, 256, &at);
        refused(&b, at + OFFSET1, "tensor t offset");
        b = one_tensor(64, 0, 0, INT64_MAX / 32 * 32 - 256, 256, &at);
        refused(&b, at, "tensor t needs 256 bytes");
}

static void rule_13_dimensions(void **state)
{
        (void)state;
        static const u32 dims[] = {0, 5, 0x7fffffff, UINT32_MAX};
        u64 at;
        for (size_t i = 0; i < COUNT(dims); i++) {
                Buf b = one_tensor(8, 8, 0, 0, 256, &at);
                memcpy(b.p + at + DIMS, &dims[i], 4);
                refused(&b, at + DIMS, "tensor t has n_dims");
        }
        Buf b = one_tensor(0, 8, 0, 0, 256, &at);
        refused(&b, at + NE0, "tensor t has dimension 0 of 0");
        b = one_tensor(8, 1, 0, 0, 256, &at);
        memset(b.p + at + NE1, 0, 8);
        refused(&b, at + NE1, "tensor t has dimension 1 of 0");
        static const u64 lie[][2] = {{INT64_MAX, 2}, {UINT64_MAX, UINT64_MAX}, {1ull << 32, 1ull << 32},
                {(1ull << 42) + 1, (1ull << 42) + 1}, {1ull << 33, 1ull << 31}, {2, 1ull << 63}};
        for (size_t i = 0; i < COUNT(lie); i++) {
                b = one_tensor(lie[i][0], lie[i][1], 0, 0, 256, &at);
                refused(&b, at + (lie[i][0] > INT64_MAX ? NE0 : NE1), "tensor t has more than 2^63 values");
        }
}

static void rule_14_types_blocks_sizes(void **state)
{
        (void)state;
        u64 at;
        Buf b = one_tensor(31, 2, 2, 0, 256, &at);
        refused(&b, at + TYPE2, "tensor t has rows of 31 values; type Q4_0 takes multiples of 32");
        b = one_tensor(128, 2, 12, 0, 256, &at); /* the product is a whole block, the row is not */
        refused(&b, at + TYPE2, "type Q4_K takes multiples of 256");
        b = one_tensor(100, 0, 16, 0, 256, &at); /* a type that is not ours either */
        refused(&b, at + TYPE1, "type IQ2_XXS takes multiples of 256");
        b = one_tensor(INT64_MAX, 0, 0, 0, 256, &at);
        refused(&b, at + TYPE1, "takes more than 2^63 bytes");
        b = one_tensor((1ull << 63) - 32, 0, 8, 0, 256, &at);
        refused(&b, at + TYPE1, "takes more than 2^63 bytes");
}

static void rule_15_data_inside_the_file(void **state)
{
        (void)state;
        u64 at;
        Buf b = one_tensor(8, 0, 0, 1, 256, &at);
        refused(&b, at + OFFSET1, "tensor t offset 1 is not a multiple of the alignment, 32");
        b = one_tensor(8, 0, 0, 256, 256, &at);
        refused(&b, at, "tensor t needs 32 bytes at offset 256, but the file has only 256");
        b = one_tensor(65, 0, 0, 0, 256, &at);
        refused(&b, at, "tensor t needs 260 bytes");
        b = one_tensor(64, 0, 0, 32, 256, &at);
        refused(&b, at, "tensor t needs 256 bytes at offset 32");
        b = one_tensor(5, 0, 4711, 256, 256, &at); /* size unknown: at least a byte */
        refused(&b, at, "tensor t needs 1 bytes at offset 256");
        b = one_tensor(64, 0, 0, 0, 255, &at);
        refused(&b, at, "cut short");
        b = one_tensor(64, 0, 0, 0, 256, &at);
        accepted(&b);
}

static Buf two_tensors(u64 ne0, u32 type0, u64 offset0, u64 ne1, u32 type1, u64 offset1, u64 *at1)
{
        Buf b = {0};
        g_head(&b, 2, 0);
        g_tensor(&b, "s", ne0, 0, type0, offset0);
        *at1 = b.len;
        g_tensor(&b, "t", ne1, 0, type1, offset1);
        g_pad(&b, 32);
        g_fill(&b, 512);
        return b;
}

static void rule_16_overlap(void **state)
{
        (void)state;
        u64 at;
        Buf b = two_tensors(64, 0, 0, 8, 0, 224, &at);
        refused(&b, at, "tensor t at offset");
        b = two_tensors(64, 0, 0, 64, 0, 32, &at);
        refused(&b, at, "overlaps tensor s of 256 bytes");
        b = two_tensors(64, 0, 0, 128, 1, 0, &at); /* the same bytes as another type */
        refused(&b, at, "overlaps tensor s");
        b = two_tensors(64, 0, 0, 32, 0, 0, &at); /* a part of them */
        refused(&b, at, "overlaps tensor s");
        b = two_tensors(5, 4711, 0, 8, 0, 0, &at);
        refused(&b, at, "overlaps tensor s");
        b = two_tensors(64, 0, 256, 64, 0, 0, &at); /* out of order, and not overlapping */
        accepted(&b);
        b = two_tensors(64, 0, 0, 64, 0, 0, &at); /* one tensor by two names */
        accepted(&b);
        b = two_tensors(64, 0, 0, 64, 0, 32, &at); /* a shape file cannot overlap either */
        b.len -= 512;
        refused(&b, at, "overlaps tensor s");
}

static void rule_17_tensor_names(void **state)
{
        (void)state;
        char name[65];
        memset(name, 'n', 64);
        name[64] = 0;
        Buf b = {0};
        g_head(&b, 1, 0);
        g_tensor(&b, name, 8, 0, 0, 0);
        g_pad(&b, 32);
        g_fill(&b, 32);
        refused(&b, 24, "tensor 0 name is 64 bytes long; expected 1 to 63");
        g_head(&b, 1, 0);
        g_tensor(&b, name + 1, 8, 0, 0, 0);
        g_pad(&b, 32);
        g_fill(&b, 32);
        accepted(&b);
        g_head(&b, 1, 0);
        g_tensor(&b, "", 8, 8, 0, 0);
        g_pad(&b, 32);
        g_fill(&b, 256);
        refused(&b, 24, "tensor 0 name is 0 bytes long");
        static const char *const bad[] = {"a b", "a\nb", "a\x1b[2J", "a\x7f", "a\xc3\xa9"};
        for (size_t i = 0; i < COUNT(bad); i++) {
                g_head(&b, 1, 0);
                g_tensor(&b, bad[i], 8, 0, 0, 0);
                g_pad(&b, 32);
                g_fill(&b, 32);
                refused(&b, 33, "not printable ASCII");
        }
}

static void rule_18_padding_inside_the_file(void **state)
{
        (void)state;
        u64 at;
        Buf b = one_tensor(8, 0, 0, 0, 0, &at);
        size_t meta = at + OFFSET1 + 8;
        assert_true(b.len > meta + 1);
        for (size_t n = meta; n < b.len; n++) {
                Buf cut = {0};
                buf_add(&cut, b.p, n);
                refused(&cut, meta, "the padding up to the tensor data");
        }
        accepted(&b); /* with all of it: a shape file */
}

static void split_part(Buf *b, i32 no, u32 count, i32 total, const char *tensor)
{
        g_head(b, 1, 3);
        g_key(b, "split.no", GGUF_u16), buf_add(b, &(u16){(u16)no}, 2);
        g_key(b, "split.count", GGUF_u16), buf_add(b, &(u16){(u16)count}, 2);
        g_key(b, "split.tensors.count", GGUF_i32), g_u32(b, (u32)total);
        g_tensor(b, tensor, 8, 0, 0, 0);
        g_pad(b, 32);
        g_fill(b, 32);
}

static void rule_19_split_files(void **state)
{
        (void)state;
        static const struct {
                i32 no0, no1;
                u32 count;
                i32 total;
                const char *t0, *t1;
                size_t cut;
                const char *what; /* NULL: fine */
        } row[] = {{0, 1, 2, 2, "s", "t", 0, NULL},
                {0, 0, 2, 2, "s", "t", 0, "b.gguf: byte 44: key split.no is 0"},
                {1, 0, 2, 2, "s", "t", 0, "a.gguf: byte 44: key split.no is 1"},
                {0, 1, 3, 2, "s", "t", 0, "split.count is 3"},
                {0, 1, 2, 3, "s", "t", 0, "split.tensors.count is 3"},
                {0, 1, 2, -1, "s", "t", 0, "split.tensors.count is -1"},
                {0, 1, 2, 2, "t", "t", 0, "tensor t is defined twice"},
                {0, 1, 2, 2, "s", "t", 32, "the tensor data is missing"}};
        for (size_t i = 0; i < COUNT(row); i++) {
                Buf a = {0}, b = {0};
                split_part(&a, row[i].no0, row[i].count, row[i].total, row[i].t0);
                split_part(&b, row[i].no1, row[i].count, row[i].total, row[i].t1);
                b.len -= row[i].cut;
                Opened o;
                g_open(&o, &a, &b);
                assert_int_equal(o.error.status, row[i].what ? MOEC_DAMAGED : 0);
                if (row[i].what && (!strstr(o.error.msg, row[i].what) || !strstr(o.error.msg, "byte ")))
                        fail_msg("expected \"%s\", got: %s", row[i].what, o.error.msg);
                g_shut(&o);
                buf_free(&a);
                buf_free(&b);
        }
}

static void rule_23_zeros_divide_nothing(void **state)
{
        (void)state;
        Buf b = {0};
        g_head(&b, 0, 2);
        g_key_u32(&b, "split.count", 0);
        g_key_arr(&b, "k", GGUF_u64, 0);
        accepted(&b);
        g_head(&b, 0, 1);
        g_key_str(&b, "k", "");
        accepted(&b);
}

/* Closing is safe whatever happened, and nothing leaks: files from disk, in their mapping. */
static void rule_24_every_error_path_cleans_up(void **state)
{
        (void)state;
        Buf b = {0};
        g_valid(&b);
        char path[] = "/tmp/moec-hostile-XXXXXX";
        close(mkstemp(path));
        for (size_t n = 0; n < b.len; n += 97) {
                moec_error e;
                assert_int_equal(file_write(path, b.p, n, 0644, &e), 0);
                Arena *a = arena_new();
                Gguf *g = gguf_new(a);
                Trap t;
                if (TRAP(&t) == 0) {
                        gguf_read(g, path);
                        trap_pop(&t);
                        fail_msg("%zu bytes were accepted", n);
                }
                assert_int_equal(t.error.status, MOEC_DAMAGED);
                assert_non_null(strstr(t.error.msg, path));
                gguf_close(g);
                gguf_close(g);
                arena_free(a);
        }
        unlink(path);
        buf_free(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(rule_04_sums_do_not_wrap),
                cmocka_unit_test(rule_13_dimensions),
                cmocka_unit_test(rule_14_types_blocks_sizes),
                cmocka_unit_test(rule_15_data_inside_the_file),
                cmocka_unit_test(rule_16_overlap),
                cmocka_unit_test(rule_17_tensor_names),
                cmocka_unit_test(rule_18_padding_inside_the_file),
                cmocka_unit_test(rule_19_split_files),
                cmocka_unit_test(rule_23_zeros_divide_nothing),
                cmocka_unit_test(rule_24_every_error_path_cleans_up),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

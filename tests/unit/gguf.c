/* The GGUF reader on files that are right: every value type, both versions, shapes, split files, shape files,
 * speed. */
#include "tests/hostile/gen.h"
#include "tests/hostile/walk.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[] = "/tmp/moec-gguf-XXXXXX";

static int make_dir(void **state)
{
        (void)state;
        return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
        (void)state;
        return rmdir(dir);
}

static const char *file(const char *name)
{
        static char path[4][128];
        static int i;
        i = (i + 1) % 4;
        snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
        return path[i];
}

static const char *save(const char *name, const Buf *b)
{
        moec_error e = {0};
        if (file_write(file(name), b->p, b->len, 0644, &e) != MOEC_OK)
                fail_msg("%s", e.msg);
        return file(name);
}

/* Opened from disk; NULL with *e filled if it was refused. Close with shut(). */
static Gguf *open_path(const char *path, Arena **a, moec_error *e)
{
        *a = arena_new();
        Gguf *volatile g = gguf_new(*a);
        Trap t;
        if (TRAP(&t) == 0) {
                gguf_read(g, path);
                trap_pop(&t);
                return g;
        }
        *e = t.error;
        gguf_close(g);
        return NULL;
}

static void shut(Gguf *g, Arena *a)
{
        if (g) {
                gguf_close(g);
                gguf_close(g); /* twice is fine */
        }
        arena_free(a);
}

static void reads_every_value_type(void **state)
{
        (void)state;
        Buf b = {0};
        g_valid(&b);
        Opened o;
        g_open(&o, &b, NULL);
        assert_int_equal(o.error.status, 0);
        const Gguf *g = o.g;
        u64 u;
        assert_true(gguf_u64(g, "t.u8", 0, 255, &u) && u == 200);
        assert_true(gguf_u64(g, "t.u16", 0, 65535, &u) && u == 0x1234);
        assert_true(gguf_u64(g, "t.i32", 0, 100, &u) && u == 77);
        assert_true(gguf_u64(g, "t.u64", 0, UINT64_MAX, &u) && u == UINT64_MAX);
        assert_true(gguf_u64(g, "general.alignment", 64, 64, &u) && u == 64);
        u = 5;
        assert_false(gguf_u64(g, "t.nothing", 0, 9, &u));
        assert_int_equal(u, 5);
        float f;
        assert_true(gguf_f32(g, "t.f32", 0, 2, &f) && f == 1.5f);
        assert_true(gguf_f32(g, "t.f64", -1, 0, &f) && f == -0.25f);
        bool yes = false;
        assert_true(gguf_bool(g, "t.bool", &yes) && yes);
        GgufStr s;
        assert_true(gguf_str(g, "general.architecture", &s) && s.n == 8 && memcmp(s.p, "qwen3moe", 8) == 0);
        assert_int_equal(gguf_key(g, "t.i8")->bits, 0x80);
        assert_int_equal(gguf_n_keys(g), 18);
        assert_string_equal(gguf_key_at(g, 1)->name, "general.alignment");
        assert_string_equal(gguf_type_name(gguf_key_at(g, 1)->type), "u32");
        walk(g);
        g_shut(&o);
        buf_free(&b);
}

static void reads_arrays(void **state)
{
        (void)state;
        Buf b = {0};
        g_valid(&b);
        Opened o;
        g_open(&o, &b, NULL);
        const GgufKey *k = gguf_arr(o.g, "tokenizer.ggml.tokens", GGUF_STRINGS, 3, 3);
        assert_non_null(k);
        GgufStr s = gguf_elem_str(k, 0);
        assert_true(s.n == 1 && s.p[0] == 'a');
        assert_int_equal(gguf_elem_str(k, 1).n, 0);
        s = gguf_elem_str(k, 2);
        assert_true(s.n == 5 && memcmp(s.p, "\xc4\xa0the", 5) == 0);
        k = gguf_arr(o.g, "tokenizer.ggml.scores", GGUF_FLOATS, 3, 3);
        assert_true(gguf_elem_f32(o.g, k, 2, -10, 10) == -3);
        k = gguf_arr(o.g, "tokenizer.ggml.token_type", GGUF_INTS, 1, 3);
        assert_int_equal(gguf_elem_u64(o.g, k, 1, 1, 6), 3);
        k = gguf_arr(o.g, "t.bools", GGUF_BOOLS, 2, 2);
        assert_true(!gguf_elem_bool(k, 0) && gguf_elem_bool(k, 1));
        assert_int_equal(gguf_arr(o.g, "t.empty", GGUF_STRINGS, 0, 0)->n, 0);
        assert_null(gguf_arr(o.g, "t.nothing", GGUF_INTS, 0, 1));
        g_shut(&o);
        buf_free(&b);
}

static void tensors_are_row_major_and_where_they_say(void **state)
{
        (void)state;
        Buf b = {0};
        size_t data = g_valid(&b);
        Opened o;
        g_open(&o, &b, NULL);
        assert_int_equal(gguf_n_tensors(o.g), 4);
        const GgufTensor *t = gguf_tensor(o.g, "blk.0.ffn_up_exps.weight");
        assert_ptr_equal(t, gguf_tensor_at(o.g, 2));
        assert_int_equal(t->n_dim, 2);
        assert_int_equal(t->dim[0], 4);
        assert_int_equal(t->dim[1], 64);
        assert_int_equal(t->n, 256);
        assert_int_equal(t->bytes, 256 / 32 * 34);
        assert_int_equal(t->offset, data + 704);
        assert_int_equal(gguf_wtype(o.g, t), W_Q8_0);
        assert_memory_equal(gguf_data(o.g, t), b.p + data + 704, t->bytes);
        assert_int_equal(gguf_part(o.g, 0)->data_start, data);
        assert_null(gguf_tensor(o.g, "blk.0.ffn_up_exps"));
        g_shut(&o);
        buf_free(&b);
}

static void version_2_is_read(void **state)
{
        (void)state;
        Buf b = {0};
        g_valid(&b);
        b.p[4] = 2;
        Opened o;
        g_open(&o, &b, NULL);
        assert_int_equal(o.error.status, 0);
        assert_int_equal(gguf_part(o.g, 0)->version, 2);
        walk(o.g);
        g_shut(&o);
        buf_free(&b);
}

static void four_dimensions(void **state)
{
        (void)state;
        Buf b = {0};
        g_head(&b, 1, 0);
        g_str(&b, "t"), g_u32(&b, 4);
        g_u64(&b, 5), g_u64(&b, 4), g_u64(&b, 3), g_u64(&b, 2), g_u32(&b, 1), g_u64(&b, 0);
        g_pad(&b, 32);
        g_fill(&b, 240);
        Opened o;
        g_open(&o, &b, NULL);
        const GgufTensor *t = gguf_tensor(o.g, "t");
        for (u32 i = 0; i < 4; i++)
                assert_int_equal(t->dim[i], 2 + i);
        assert_int_equal(t->bytes, 240);
        g_shut(&o);
        buf_free(&b);
}

/* A shape file is what is left when the tensor data is cut off; it keeps the model's identity. */
static void shape_file(void **state)
{
        (void)state;
        Buf b = {0};
        size_t data = g_valid(&b);
        Arena *a, *a2;
        moec_error e = {0};
        Gguf *full = open_path(save("full.gguf", &b), &a, &e);
        assert_non_null(full);
        assert_false(gguf_is_shape(full));
        b.len = data;
        Gguf *shape = open_path(save("shape.gguf", &b), &a2, &e);
        assert_non_null(shape);
        assert_true(gguf_is_shape(shape));
        assert_null(gguf_data(shape, gguf_tensor(shape, "token_embd.weight")));
        assert_true(hash_same(gguf_hash(full), gguf_hash(shape)));
        walk(shape);
        shut(full, a);
        shut(shape, a2);
        unlink(file("full.gguf"));
        unlink(file("shape.gguf"));
        b.p[30]++; /* another name: another model */
        Opened o;
        g_open(&o, &b, NULL);
        Opened o2;
        b.p[30]--;
        g_open(&o2, &b, NULL);
        assert_false(hash_same(gguf_hash(o.g), gguf_hash(o2.g)));
        g_shut(&o);
        g_shut(&o2);
        buf_free(&b);
}

/* Known to ggml or to nobody: listed, and refused only when it is used. */
static void unsupported_types_are_listed(void **state)
{
        (void)state;
        Buf b = {0};
        g_head(&b, 2, 0);
        g_tensor(&b, "iq", 256, 0, 16, 0);
        g_tensor(&b, "new", 7, 0, 4711, 96);
        g_pad(&b, 32);
        g_fill(&b, 97);
        Opened o;
        g_open(&o, &b, NULL);
        assert_int_equal(o.error.status, 0);
        const GgufTensor *t = gguf_tensor(o.g, "iq");
        assert_int_equal(t->bytes, 66);
        assert_false(t->usable);
        assert_string_equal(gguf_tensor_type(t->id), "IQ2_XXS");
        assert_string_equal(gguf_tensor_type(4711), "unknown");
        assert_string_equal(gguf_tensor_type(12), "Q4_K");
        assert_int_equal(gguf_tensor(o.g, "new")->bytes, 0);
        Trap trap;
        if (TRAP(&trap) == 0) {
                gguf_data(o.g, t);
                fail_msg("an IQ2_XXS tensor was used");
        }
        assert_int_equal(trap.error.status, MOEC_UNSUPPORTED);
        assert_non_null(strstr(trap.error.msg, "tensor iq is of type IQ2_XXS (16)"));
        assert_non_null(strstr(trap.error.msg, "byte 24"));
        assert_non_null(strstr(trap.error.msg, "Q4_K"));
        g_shut(&o);
        buf_free(&b);
}

static void same_bytes_may_have_two_names(void **state)
{
        (void)state;
        Buf b = {0};
        g_head(&b, 2, 0);
        g_tensor(&b, "token_embd.weight", 32, 0, 0, 0);
        g_tensor(&b, "output.weight", 32, 0, 0, 0);
        g_pad(&b, 32);
        g_fill(&b, 128);
        Opened o;
        g_open(&o, &b, NULL);
        assert_int_equal(o.error.status, 0);
        assert_ptr_equal(gguf_data(o.g, gguf_tensor_at(o.g, 0)), gguf_data(o.g, gguf_tensor_at(o.g, 1)));
        g_shut(&o);
        buf_free(&b);
}

static void no_tensors_and_no_keys(void **state)
{
        (void)state;
        Buf b = {0};
        g_head(&b, 0, 0);
        Opened o;
        g_open(&o, &b, NULL);
        assert_int_equal(o.error.status, 0);
        assert_false(gguf_is_shape(o.g));
        walk(o.g);
        g_shut(&o);
        buf_free(&b);
}

static void split_part(Buf *b, u32 no, u32 n, u32 total, const char *tensor, u8 fill)
{
        g_head(b, 1, no ? 2 : 4);
        if (!no) {
                g_key_str(b, "general.architecture", "qwen3moe");
                g_key(b, "split.tensors.count", GGUF_i32), g_u32(b, total);
        }
        g_key(b, "split.no", GGUF_u16), buf_add(b, &(u16){(u16)no}, 2);
        g_key(b, "split.count", GGUF_u16), buf_add(b, &(u16){(u16)n}, 2);
        g_tensor(b, tensor, 32, 0, 0, 0);
        g_pad(b, 32);
        for (int i = 0; i < 128; i++)
                g_u8(b, fill);
}

static void split_files(void **state)
{
        (void)state;
        const char *names[] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"};
        for (u32 i = 0; i < 3; i++) {
                Buf b = {0};
                split_part(&b, i, 3, 3, i == 0 ? "z" : i == 1 ? "y" : "x", (u8)(i + 1));
                save(names[i], &b);
                buf_free(&b);
        }
        Arena *a;
        moec_error e = {0};
        Gguf *g = open_path(file(names[0]), &a, &e);
        assert_non_null(g);
        assert_int_equal(gguf_n_parts(g), 3);
        assert_int_equal(gguf_n_tensors(g), 3);
        assert_int_equal(*gguf_data(g, gguf_tensor(g, "z")), 1);
        assert_int_equal(*gguf_data(g, gguf_tensor(g, "x")), 3);
        assert_int_equal(gguf_tensor(g, "y")->part, 1);
        assert_non_null(gguf_key(g, "general.architecture"));
        walk(g);
        Hash h = gguf_hash(g);
        shut(g, a);
        Buf other = {0}; /* a part of another model is seen in the hash */
        split_part(&other, 2, 3, 3, "w", 3);
        save(names[2], &other);
        buf_free(&other);
        g = open_path(file(names[0]), &a, &e);
        assert_non_null(g);
        assert_false(hash_same(h, gguf_hash(g)));
        shut(g, a);

        assert_null(open_path(file(names[1]), &a, &e)); /* not the first */
        assert_int_equal(e.status, MOEC_USAGE);
        assert_non_null(strstr(e.msg, "part 2 of 3"));
        arena_free(a);

        unlink(file(names[2]));
        assert_null(open_path(file(names[0]), &a, &e)); /* one is missing */
        assert_int_equal(e.status, MOEC_NOT_FOUND);
        assert_non_null(strstr(e.msg, "m-00003-of-00003.gguf"));
        arena_free(a);

        rename(file(names[0]), file("other.gguf"));
        assert_null(open_path(file("other.gguf"), &a, &e));
        assert_int_equal(e.status, MOEC_NOT_FOUND);
        assert_non_null(strstr(e.msg, "-00001-of-00003.gguf"));
        arena_free(a);
        char here[512]; /* a name shorter than that ending */
        assert_non_null(getcwd(here, sizeof here));
        assert_int_equal(chdir(dir) | rename("other.gguf", "a"), 0);
        assert_null(open_path("a", &a, &e));
        assert_int_equal(e.status, MOEC_NOT_FOUND);
        arena_free(a);
        unlink("a");
        assert_int_equal(chdir(here), 0);
        unlink(file(names[1]));
}

/* A vocabulary as large as any opens in under 30 ms, and costs 4 bytes a string. */
static void large_vocabulary_is_fast(void **state)
{
        (void)state;
        enum { N = 151936 };
        Buf b = {0};
        g_head(&b, 0, 3);
        char s[32];
        for (int pass = 0; pass < 2; pass++) {
                g_key_arr(&b, pass ? "tokenizer.ggml.merges" : "tokenizer.ggml.tokens", GGUF_string, N);
                for (int i = 0; i < N; i++) {
                        snprintf(s, sizeof s, "tok%d", i);
                        g_str(&b, s);
                }
        }
        g_key_arr(&b, "tokenizer.ggml.token_type", GGUF_i32, N);
        g_fill(&b, 4 * N);
        save("vocab.gguf", &b);
        double best = 1e9;
        for (int i = 0; i < 5; i++) {
                Arena *a;
                moec_error e = {0};
                double start = g_cpu_s();
                Gguf *g = open_path(file("vocab.gguf"), &a, &e);
                double took = g_cpu_s() - start;
                best = MIN(best, took);
                assert_non_null(g);
                assert_true(arena_used(a) < 2 * 4 * N + 4096);
                const GgufKey *k = gguf_arr(g, "tokenizer.ggml.tokens", GGUF_STRINGS, N, N);
                GgufStr last = gguf_elem_str(k, N - 1);
                assert_memory_equal(last.p, "tok151935", last.n);
                shut(g, a);
        }
        unlink(file("vocab.gguf"));
        buf_free(&b);
        assert_true(best < 0.030);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(reads_every_value_type),
                cmocka_unit_test(reads_arrays),
                cmocka_unit_test(tensors_are_row_major_and_where_they_say),
                cmocka_unit_test(version_2_is_read),
                cmocka_unit_test(four_dimensions),
                cmocka_unit_test(shape_file),
                cmocka_unit_test(unsupported_types_are_listed),
                cmocka_unit_test(same_bytes_may_have_two_names),
                cmocka_unit_test(no_tensors_and_no_keys),
                cmocka_unit_test(split_files),
                cmocka_unit_test(large_vocabulary_is_fast),
        };
        return cmocka_run_group_tests(tests, make_dir, drop_dir);
}

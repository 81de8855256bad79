/* Weights onto a CUDA device that is a fake, in a plan made by hand: every byte comes to its place, whatever
 * the type, and however late the device does what it is asked for; and every way to fail. */
#include "tests/unit/fake_help.h"
#include <fcntl.h>
#include <stdlib.h>
#include "runtime/cuda.h"
#include "runtime/pack.h"
#include "runtime/piece.h"

enum { MAX_WEIGHT = 64, HEADER = 64 };

typedef struct Shape {
        Wtype type;
        u32 layout, rank;
        u64 dim[4];
} Shape;

static FakeCuda *cuda, fresh;
static char path[64];
static u8 *file;
static u64 file_bytes;
static Shape shape[MAX_WEIGHT];
static u32 n_shape;

static void add(Wtype t, u32 layout, u32 rank, u64 a, u64 b, u64 c)
{
        assert_true(n_shape < MAX_WEIGHT);
        shape[n_shape++] = (Shape){t, layout, rank, {a, b, c, 1}};
}

/* Every type as a matrix, as experts, as a table; odd numbers of rows, and of blocks where a row may have
 * them. */
static void small_shapes(void)
{
        n_shape = 0;
        for (u32 t = 0; t < N_WTYPE; t++) {
                u64 per = wtype_info[t].per == 1 ? 8 : wtype_info[t].per;
                add((Wtype)t, PLAN_split, 2, 7, 3 * per, 1);
                add((Wtype)t, PLAN_split, 3, 3, 5, per);
                add((Wtype)t, PLAN_rows, 2, 11, 5 * per, 1);
        }
        add(W_F32, PLAN_rows, 1, 33, 1, 1);
}

/* And some that need many pieces, which end inside an expert. */
static void large_shapes(void)
{
        small_shapes();
        add(W_Q4_K, PLAN_split, 3, 16, 5001, 1024);
        add(W_F32, PLAN_rows, 2, 4099, 1027, 1);
        add(W_Q6_K, PLAN_split, 3, 4, 5003, 768);
}

static PlanWeight plan_weight(PlanWriter *w, u32 i, u64 *src, bool embed, u64 *wdata)
{
        PlanWeight p = {.type = shape[i].type, .layout = shape[i].layout, .rank = shape[i].rank, .src = *src};
        char name[32];
        snprintf(name, sizeof name, "w%u", i);
        p.name = plan_add_str(w, name);
        memcpy(p.dim, shape[i].dim, sizeof p.dim);
        p.src_bytes = plan_weight_bytes(p.type, PLAN_rows, p.rank, p.dim);
        p.dst_bytes = plan_weight_bytes(p.type, p.layout, p.rank, p.dim);
        p.embedded = embed ? *wdata : UINT64_MAX;
        *src += p.src_bytes;
        *wdata += (p.dst_bytes + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
        return p;
}

static void put_kernels(PlanWriter *w, bool utils)
{
        static const char *const name[] = {"repack", "random"};
        struct {
                u64 count;
                PlanImage image[2];
                char code[64];
        } code = {2, {{0}}, "code"};
        for (u32 i = 0; i < 2; i++) {
                PlanKernel k = {.name = plan_add_str(w, name[i]), .image = i, .threads = 64};
                PlanUtil u = {i == 0 ? PLAN_repack : PLAN_random, i};
                code.image[i] = (PlanImage){
                        plan_add_str(w, "sm_90"), PLAN_CUBIN, offsetof(__typeof__(code), code), 64};
                plan_add(w, PLAN_KERNEL, &k, sizeof k);
                if (utils)
                        plan_add(w, PLAN_UTIL, &u, sizeof u);
        }
        plan_add(w, PLAN_CODE, &code, sizeof code);
}

/* A plan of the shapes, whose weights are in the file or, embedded, the file's bytes as if laid out already.
 */
static Plan *make_plan(bool embed, bool utils)
{
        PlanWriter w = {0};
        Buf out = {0};
        Plan *p;
        moec_error e;
        u64 src = HEADER, wdata = 0;
        PlanMeta m = {.target = plan_add_str(&w, "cuda"),
                .isa = plan_add_str(&w, "sm_90"),
                .n_vocab = 8,
                .arena_bytes = 4096};
        PlanPhase f = {.max_tok = 1, .arena_bytes = 4096, .max_out = 1, .max_seq_tok = 1};
        PlanState s = {0, 1, 64, 64, D_f16, D_f16};
        plan_add(&w, PLAN_META, &m, sizeof m);
        plan_add(&w, PLAN_PHASE, &f, sizeof f);
        plan_add(&w, PLAN_STATE, &s, sizeof s);
        put_kernels(&w, utils);
        for (u32 i = 0; i < n_shape; i++) {
                PlanWeight pw = plan_weight(&w, i, &src, embed, &wdata);
                plan_add(&w, PLAN_WEIGHT, &pw, sizeof pw);
        }
        PlanPart part = {.path = plan_add_str(&w, path),
                .bytes = file_bytes,
                .header_bytes = HEADER,
                .hash = hash_bytes(file, HEADER)};
        plan_add(&w, PLAN_PART, &part, sizeof part);
        plan_finish(&w, &out);
        if (embed) {
                plan_embed(&out, wdata, plan_wdata_hash((Hash){0}, file, wdata));
                buf_add(&out, file, wdata);
        }
        if (plan_copy(out.p, out.len, &p, &e) != MOEC_OK)
                fail_msg("%s", e.msg);
        buf_free(&out);
        plan_writer_free(&w);
        return p;
}

/* ---- what the kernels are to do ---- */

static void repack(const Piece *p, u8 *to)
{
        const u8 *row = (const u8 *)p + PIECE_ROOM;
        for (u32 r = 0; r < p->rows; r++, row += p->row_bytes)
                for (u32 f = 0, at = 0; f < MAX_FIELD && p->field[f]; at += p->field[f++]) {
                        u64 n = (u64)p->blocks * p->field[f];
                        memset(to, 0, (n + 15) / 16 * 16);
                        for (u32 b = 0; b < p->blocks; b++)
                                memcpy(to + (u64)b * p->field[f], row + (u64)b * p->block_bytes + at,
                                        p->field[f]);
                        to += (n + 15) / 16 * 16;
                }
}

static void fill(const Piece *p, u8 *to)
{
        for (u32 t = 0; t < N_WTYPE; t++) {
                Piece same = piece_new((Wtype)t, p->rows, (u64)p->blocks * wtype_info[t].per);
                same.seed = p->seed;
                same.at = p->at;
                if (memcmp(&same, p, sizeof same) != 0)
                        continue;
                random_blocks((Wtype)t, p->seed, p->at, to, (u64)p->rows * p->blocks);
                return;
        }
        fail_msg("a piece of no type");
}

static void kernel(const char *name, const CuLaunch *how, void *const *arg)
{
        const Piece *p = arg[0];
        bool pack = !strcmp(name, "repack");
        u64 threads = (u64)how->grid[0] * how->block[0],
            wanted = (u64)p->rows * (pack ? p->split_bytes / 4 : p->row_bytes);
        if (threads < wanted || threads >= wanted + how->block[0])
                fail_msg("%s: %llu threads for %llu", name, (unsigned long long)threads,
                        (unsigned long long)wanted);
        (pack ? repack : fill)(p, arg[1]);
}

/* ---- loading ---- */

static CudaRt *open_plan(const Plan *p, const moec_options *opt, moec_status want, const char *words)
{
        moec_error e = {0};
        Rt *rt;
        moec_status st = rt_open(p, opt, 32, 1, &rt, &e);
        if (st != want || !strstr(e.msg, words))
                fail_msg("status %d, not %d, or no \"%s\" in: %s", st, want, words, e.msg);
        return (CudaRt *)(void *)rt;
}

/* The bytes of weight i that are to be on the device. */
static u8 *expected(const Plan *p, u64 i, bool random)
{
        const PlanWeight *w = &p->WEIGHT[i];
        u64 cols = w->dim[w->rank - 1];
        u8 *raw = malloc(w->src_bytes), *out = malloc(w->dst_bytes);
        assert_true(raw && out);
        if (random)
                random_blocks((Wtype)w->type, random_seed(plan_str(p, w->name)), 0, raw,
                        w->src_bytes / wtype_info[w->type].bytes);
        else
                memcpy(raw, file + w->src, w->src_bytes);
        if (w->embedded != UINT64_MAX)
                memcpy(out, p->WDATA + w->embedded, w->dst_bytes);
        else if (w->layout == PLAN_rows)
                memcpy(out, raw, w->dst_bytes);
        else
                pack_split((Wtype)w->type, raw, out, w->dst_bytes / pack_split_bytes((Wtype)w->type, cols),
                        cols);
        free(raw);
        return out;
}

static void loads(bool embed, bool random, int launches)
{
        Plan *p = make_plan(embed, !embed);
        moec_options opt = {.random_weights = random, .threads = 2};
        cuda->kernel = kernel;
        cuda->lazy = true;
        CudaRt *c = open_plan(p, &opt, MOEC_OK, "");
        const u8 *at = (const u8 *)(uintptr_t)c->weights;
        for (u64 i = 0; i < plan_count(p, PLAN_WEIGHT); at += cuda_weight_room(&p->WEIGHT[i++])) {
                u8 *want = expected(p, i, random);
                assert_int_equal((uintptr_t)(at - (const u8 *)(uintptr_t)c->weights) % 256, 0);
                if (memcmp(at, want, p->WEIGHT[i].dst_bytes) != 0)
                        fail_msg("weight %llu differs", (unsigned long long)i);
                free(want);
        }
        assert_int_equal(cuda->launches, launches);
        rt_close(&c->rt);
        plan_close(p);
}

/* Pieces: one of every weight but the last three: 16 * 5001 * 576 bytes are 3, 4 * 5003 * 630 one, the table
 * two. */
static void from_the_file(void **state)
{
        (void)state;
        large_shapes();
        loads(false, false, 2 * N_WTYPE + 4);
}

static void made_up_on_the_device(void **state)
{
        (void)state;
        large_shapes();
        loads(false, true, 2 * N_WTYPE + 4 + 3 * N_WTYPE + 1 + 6);
}

/* In the kernels' layout already: no kernel is needed. */
static void embedded(void **state)
{
        (void)state;
        small_shapes();
        loads(true, false, 0);
        loads(true, true, 0); /* and not made up */
}

typedef struct Told {
        u64 last, total;
        int times, stop_at;
} Told;
static bool told(void *user, const char *what, uint64_t done, uint64_t total)
{
        Told *t = user;
        assert_string_equal(what, "loading");
        assert_true(done > t->last && done <= total);
        t->last = done;
        t->total = total;
        return ++t->times != t->stop_at;
}

static void progress(void **state)
{
        (void)state;
        large_shapes();
        Plan *p = make_plan(false, true);
        Told t = {0};
        moec_options opt = {.random_weights = true, .threads = 1, .progress = told, .user = &t};
        rt_close(&open_plan(p, &opt, MOEC_OK, "")->rt);
        assert_true(t.times > 1);
        assert_int_equal(t.last, t.total);
        t = (Told){.stop_at = 1};
        open_plan(p, &opt, MOEC_INTERRUPTED, "stopped while loading weights");
        plan_close(p);
}

static void plans_that_lack_something(void **state)
{
        (void)state;
        static const char *const words[] = {
                "no kernel to repack weight w0 with", "no kernel to fill weight w0 with"};
        small_shapes();
        for (int random = 0; random < 2; random++) {
                Plan *p = make_plan(false, false);
                moec_options opt = {.random_weights = random};
                open_plan(p, &opt, MOEC_DAMAGED, words[random]);
                plan_close(p);
        }
        n_shape = 0;
        add(W_Q8_0, PLAN_panel, 2, 8, 32, 1);
        Plan *p = make_plan(false, true);
        open_plan(p, NULL, MOEC_DAMAGED, "weight w0 is laid out for another target");
        plan_close(p);
        n_shape = 0;
        add(W_F32, PLAN_rows, 2, 1, (16 << 18) + 8, 1);
        p = make_plan(false, true);
        open_plan(p, NULL, MOEC_UNSUPPORTED, "weight w0 has rows of more than 16777216 bytes");
        plan_close(p);
}

/* Every call of every function that loading needs fails once. */
static void every_call_fails(void **state)
{
        (void)state;
        static const char *const name[] = {"cuMemHostAlloc", "cuMemAlloc", "cuStreamCreate",
                "cuMemcpyHtoDAsync", "cuLaunchKernelEx", "cuStreamSynchronize"};
        small_shapes();
        Plan *p = make_plan(false, true);
        moec_options opt = {.threads = 1};
        for (size_t i = 0; i < COUNT(name); i++)
                for (int random = 0, after = 0; random < 2; after++) {
                        moec_error e = {0};
                        Rt *rt;
                        *cuda = fresh;
                        cuda->fails = name[i];
                        cuda->after = after;
                        cuda->rc = 719;
                        opt.random_weights = random;
                        moec_status st = rt_open(p, &opt, 32, 1, &rt, &e);
                        if (st == MOEC_OK) { /* there is no such call */
                                assert_true(after > 0);
                                random++;
                                after = -1;
                        } else if (st != MOEC_RUNTIME || !strstr(e.msg, "the CUDA device failed")) {
                                fail_msg("%s, call %d: %s", name[i], after, e.msg);
                        }
                        rt_close(rt);
                        if (cuda->live)
                                fail_msg("%s, call %d: %d things are left", name[i], after, cuda->live);
                }
        plan_close(p);
}

/* The context that is named does fit, and one more does not. */
static void the_longest_context(void **state)
{
        (void)state;
        moec_error e;
        Rt *rt;
        small_shapes();
        Plan *p = make_plan(false, true);
        cuda->memory = 80ull << 20;
        assert_int_equal(rt_open(p, NULL, 1 << 20, 3, &rt, &e), MOEC_NO_MEMORY);
        const char *fits = strstr(e.msg, "(-c ");
        assert_non_null(fits);
        assert_non_null(strstr(e.msg,
                "KV cache 768.00 MiB (context 1048576 x 3 sequences) + scratch 4.25 KiB + other buffers "
                "72.00 MiB = "));
        assert_non_null(strstr(e.msg, ", but the device (Fake H100) allows 80.00 MiB; the longest context"));
        u32 n = (u32)strtoul(fits + 4, NULL, 10);
        assert_int_equal(rt_open(p, NULL, n, 3, &rt, &e), MOEC_OK);
        rt_close(rt);
        assert_int_equal(rt_open(p, NULL, n + 1, 3, &rt, &e), MOEC_NO_MEMORY);
        cuda->memory = 64ull << 20;
        assert_int_equal(rt_open(p, NULL, 1, 1, &rt, &e), MOEC_NO_MEMORY);
        assert_non_null(strstr(e.msg, "no context is short enough"));
        plan_close(p);
}

/* ---- */

static int begin(void **state)
{
        (void)state;
        cuda = fake_load("cuda");
        fresh = *cuda;
        file_bytes = 80 << 20;
        file = malloc(file_bytes);
        strcpy(path, "/tmp/moec-test-XXXXXX");
        int fd = mkstemp(path);
        if (!file || fd < 0)
                return -1;
        for (u64 i = 0, x = 1; i + 8 <= file_bytes; i += 8) {
                x = x * 6364136223846793005u + 1442695040888963407u;
                memcpy(file + i, &x, 8);
        }
        for (u64 at = 0; at < file_bytes;) {
                ssize_t n = write(fd, file + at, file_bytes - at);
                if (n <= 0)
                        return -1;
                at += (u64)n;
        }
        return close(fd);
}

static int end(void **state)
{
        (void)state;
        free(file);
        return unlink(path);
}

static int again(void **state)
{
        (void)state;
        *cuda = fresh;
        return 0;
}

static int clean(void **state)
{
        (void)state;
        assert_int_equal(cuda->live, 0);
        return 0;
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, again, clean)
        const struct CMUnitTest tests[] = {
                TEST(from_the_file),
                TEST(made_up_on_the_device),
                TEST(embedded),
                TEST(progress),
                TEST(plans_that_lack_something),
                TEST(every_call_fails),
                TEST(the_longest_context),
        };
        return cmocka_run_group_tests(tests, begin, end);
}

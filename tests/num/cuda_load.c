/* The CUDA kernels that load weights, run on the CPU (tests/lib/oncuda.h): repack moves what pack_split
 * moves, and random makes what random_blocks makes, for every weight type. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "ir/quant.h"
#include "runtime/pack.h"
#include "runtime/piece.h"
#include "tests/lib/oncuda.h"
#include <cmocka.h>

static Arena *arena;
static Sel sel[N_PLAN_ROLE];
static Fibred *fn[N_PLAN_ROLE];
static OnCuda *on;

static int begin(void **state)
{
        (void)state;
        Key *key[N_PLAN_ROLE];
        arena = arena_new();
        for (u32 r = 0; r < N_PLAN_ROLE; r++) {
                assert_true(select_util(arena, (PlanRole)r, TARGET_cuda, &sel[r]));
                key[r] = sel[r].key;
        }
        on = oncuda_new(arena, key, N_PLAN_ROLE, fn);
        return 0;
}

static int end(void **state)
{
        (void)state;
        oncuda_free(on);
        arena_free(arena);
        return 0;
}

static void run(PlanRole role, Mem *a, Mem *b, u64 threads, bool backward)
{
        Sel *s = &sel[role];
        const KernelDim dim = {1, 1, 1, 1};
        Mem *arg[] = {a, b};
        s->mul[0] = (u32)threads;
        s->div[0] = s->threads;
        const char *wrong = oncuda_run(fn[role], s, arg, &dim, backward);
        if (wrong)
                fail_msg("%s: %s", s->key->op, wrong);
}

static void one_repack(Wtype t, u64 rows, u64 blocks)
{
        u64 cols = blocks * wtype_info[t].per, row = blocks * wtype_info[t].bytes,
            split = pack_split_bytes(t, cols);
        Mem in = mem_new(PIECE_ROOM + rows * row, MEM_IN), out = mem_new(rows * split, MEM_OUT);
        u8 *want = arena_alloc(arena, rows * split);
        Piece p = piece_new(t, rows, cols);
        memcpy(in.p, &p, sizeof p);
        for (u64 i = 0; i < rows * row; i++)
                in.p[PIECE_ROOM + i] = (u8)((i * 2654435761u + t) >> 13);
        pack_split(t, in.p + PIECE_ROOM, want, rows, cols);
        run(PLAN_repack, &in, &out, rows * split / 4, rows % 2);
        if (memcmp(out.p, want, rows * split) != 0)
                fail_msg("%s: %llu rows of %llu blocks", wtype_info[t].name, (unsigned long long)rows,
                        (unsigned long long)blocks);
        mem_free(&in);
        mem_free(&out);
}

static void one_random(Wtype t, u64 rows, u64 blocks, u64 seed, u64 first)
{
        u64 cols = blocks * wtype_info[t].per, row = blocks * wtype_info[t].bytes;
        Mem in = mem_new(sizeof(Piece), MEM_IN), out = mem_new(rows * row, MEM_OUT);
        u8 *want = arena_alloc(arena, rows * row);
        Piece p = piece_new(t, rows, cols);
        p.seed = seed;
        p.at = first * row;
        memcpy(in.p, &p, sizeof p);
        random_blocks(t, seed, p.at, want, rows * blocks);
        run(PLAN_random, &in, &out, rows * row, rows % 2);
        if (memcmp(out.p, want, rows * row) != 0)
                fail_msg("%s: %llu rows of %llu blocks from %llu", wtype_info[t].name,
                        (unsigned long long)rows, (unsigned long long)blocks, (unsigned long long)first);
        mem_free(&in);
        mem_free(&out);
}

static void same_bytes(void **state)
{
        (void)state;
        if (!on)
                skip();
        for (u32 t = 0; t < N_WTYPE; t++) {
                one_repack((Wtype)t, 1, 1);
                one_repack((Wtype)t, 3, 5);
                one_repack((Wtype)t, 10, 8);
                one_random((Wtype)t, 1, 1, 7, 0);
                one_random((Wtype)t, 3, 5, random_seed("blk.0.ffn_up_exps.weight"), 2);
                one_random((Wtype)t, 2, 4, UINT64_MAX, (1ull << 40) + 1);
        }
}

/* What random_blocks says of itself: finite, as large as it says, on both sides of 0; another number at every
 * place and of every tensor; the same in whatever pieces it is made. */
static void sane(void **state)
{
        (void)state;
        enum { BLOCKS = 512 };
        for (u32 t = 0; t < N_WTYPE; t++) {
                const WtypeInfo *w = &wtype_info[t];
                u64 n = (u64)BLOCKS * w->per, bytes = (u64)BLOCKS * w->bytes, seed = random_seed(w->name);
                u8 *all = arena_alloc(arena, bytes), *part = arena_alloc(arena, bytes);
                float *v = arena_alloc(arena, 4 * n);
                double sum = 0, square = 0, most = 0;
                random_blocks((Wtype)t, seed, 0, all, BLOCKS);
                for (u64 b = 0; b < BLOCKS; b += 128)
                        random_blocks((Wtype)t, seed, b * w->bytes, part + b * w->bytes, 128);
                assert_memory_equal(all, part, bytes);
                random_blocks((Wtype)t, seed + 1, 0, part, BLOCKS);
                assert_memory_not_equal(all, part, bytes);
                dequant((Wtype)t, all, v, n);
                for (u64 i = 0; i < n; i++) {
                        assert_true(isfinite(v[i]));
                        sum += (double)v[i];
                        square += (double)v[i] * (double)v[i];
                        most = fmax(most, fabs((double)v[i]));
                }
                print_message("%-7s mean %9.6f, of squares %9.6f, largest %.4f\n", w->name, sum / (double)n,
                        square / (double)n, most);
                assert_true(most < 32 && square > 0);
                assert_true(fabs(sum / (double)n) < 0.25 * sqrt(square / (double)n));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(same_bytes), cmocka_unit_test(sane)};
        return cmocka_run_group_tests(tests, begin, end);
}

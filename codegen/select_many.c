/* How CUDA cuts products of several tokens for tensor cores (templates OP_many): blocks of two groups of four
 * warps have 64 rows of weights each.
 *
 * Facts beside those of select_cuda.c: BLOCKS, of THREADS threads a processor, for which there must be
 * registers; CLUSTER, blocks that share their rows' K where there are few rows; SPLIT, blocks that take an
 * expert's tiles of NT tokens in turns. */
#include "codegen/select_part.h"

#define FEW    64  /* tokens: up to here weights' bytes are what takes the time */
#define VALUES 256 /* of K, a piece of weights */
#define BLOCKS 2   /* a processor */
#define TF32_K 128 /* 16 values for each of a block's warps, a multiple of which K is */

/* Whole pieces of 16 bytes of every row of x and of its scales. */
static bool product_fits(const Ctx *c, Slot weight)
{
        const Vtype x = sel_type(c, S_x);
        for (u32 i = 0; i < in_count(c->n, weight); i++)
                if (!wtype_info[c->g->weight[ref_idx(in_nth(c->n, weight, i))].type].quant)
                        return false;
        return x.dt == D_q8 && dim_last(&x) % 64 == 0;
}

/* One weight in f32, whose rows the warps of a block can share. */
static bool tf32_fits(const Ctx *c)
{
        const Vtype x = sel_type(c, S_x);
        return c->n->nout == 1 && c->g->weight[ref_idx(in_get(c->n, S_w))].type == W_F32 && x.dt == D_f32 &&
               dim_last(&x) % TF32_K == 0 && attr_i(c->n, A_act) == ACT_f32 && !in_get(c->n, S_norm);
}

bool many_fits(const Ctx *c)
{
        switch (c->n->op) {
        case OP_matmul:
                return product_fits(c, S_w) || tf32_fits(c);
        case OP_experts_up:
                return in_get(c->n, S_order) && product_fits(c, S_gate) && product_fits(c, S_up);
        case OP_experts_down:
                return in_get(c->n, S_order) && product_fits(c, S_down);
        case OP_attend:
                return attend_fits_many(c);
        default:
                return false;
        }
}

/* Blocks that share K, so that all processors have something to read. */
static i64 share_k(const Ctx *c)
{
        i64 blocks = sel_matmul_tiles(c), pieces = sel_tiles(sel_last(c, S_x), VALUES), n = 1;
        while (n < 8 && 2 * n <= pieces && 2 * n * blocks <= BLOCKS * PROCESSORS)
                n *= 2;
        return n;
}

/* Rows a block, of which all processors get some. */
static void tf32_begin(Ctx *c)
{
        c->k->op = arena_fmt(c->k->arena, "%s_tf32", c->k->op);
        c->s->threads = 256;
        c->tile = 16;
        c->rows = 64;
        key_int(c->k, "BLOCKS", BLOCKS);
        while (c->rows > 32 && sel_matmul_tiles(c) * sel_tiles(sel_tokens(c), c->tile) < PROCESSORS)
                c->rows /= 2;
}

void many_begin(Ctx *c)
{
        if (c->n->op == OP_matmul && tf32_fits(c)) {
                tf32_begin(c);
                return;
        }
        bool few = sel_tokens(c) <= FEW;
        c->k->op = arena_fmt(c->k->arena, "%s_many", c->k->op);
        c->s->flags = PLAN_F16;
        if (c->n->op == OP_attend) {
                attend_begin_many(c);
                return;
        }
        c->s->threads = 256;
        c->tile = 64;
        c->rows = 128;
        c->cols = 64;
        key_int(c->k, "BLOCKS", BLOCKS);
        i64 cluster = few && c->n->op == OP_matmul ? share_k(c) : 1;
        if (cluster > 1) {
                key_int(c->k, "CLUSTER", cluster);
                sel_grid(c, 2, DIM_const, cluster, 1);
        }
}

void many_grid(Ctx *c)
{
        key_int(c->k, "SPLIT", BLOCKS * PROCESSORS);
        sel_grid(c, 0, DIM_const, BLOCKS * PROCESSORS, 1);
        sel_grid(c, 1, DIM_const, 1, 1);
        sel_grid(c, 2, DIM_const, 1, 1);
}

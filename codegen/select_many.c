/* How CUDA cuts products of several tokens for tensor cores (templates OP_many): a warp has two tiles of 16
 * rows; MW warps of a block have other rows, KW share their rows' K.
 *
 * Facts beside those of select_cuda.c: MW, KW; DEPTH, pieces of 256 values of each row that are on their way
 * at a time; BLOCKS, of THREADS threads a processor, for which there must be registers; SPLIT, blocks that
 * take an expert's tiles of NT tokens in turns. */
#include "codegen/select_part.h"

#define FEW    64  /* tokens: up to here weights' bytes are what takes the time */
#define VALUES 256 /* of K, a step */
#define BLOCKS 3   /* a processor */

/* Whole pieces of 16 bytes of every row of x and of its scales. */
static bool product_fits(const Ctx *c, Slot weight)
{
        const Vtype x = sel_type(c, S_x);
        for (u32 i = 0; i < in_count(c->n, weight); i++)
                if (!wtype_info[c->g->weight[ref_idx(in_nth(c->n, weight, i))].type].quant)
                        return false;
        return x.dt == D_q8 && dim_last(&x) % 64 == 0;
}

bool many_fits(const Ctx *c)
{
        switch (c->n->op) {
        case OP_matmul:
                return product_fits(c, S_w);
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

/* Warps that share K where there are few tokens, so that more of the processors have something to read. */
static i64 share_k(const Ctx *c)
{
        i64 steps = sel_tiles(sel_last(c, S_x), VALUES);
        return steps % 4 == 0 || steps > 4 ? 4 : steps;
}

void many_begin(Ctx *c)
{
        bool few = c->g->max[DIM_n_tok] <= FEW, matmul = c->n->op == OP_matmul;
        c->k->op = arena_fmt(c->k->arena, "%s_many", c->k->op);
        c->s->flags = PLAN_F16;
        if (c->n->op == OP_attend) {
                attend_begin_many(c);
                return;
        }
        i64 kw = few ? share_k(c) : 1, mw = few ? 1 : 4;
        c->s->threads = (u32)(32 * mw * kw);
        c->tile = !few ? 64 : matmul ? 32 : 16;
        c->rows = 32 * mw;
        c->cols = 16 * mw;
        key_int(c->k, "MW", mw);
        key_int(c->k, "KW", kw);
        key_int(c->k, "DEPTH", few ? 2 : 0);
        key_int(c->k, "BLOCKS", BLOCKS);
}

void many_grid(Ctx *c)
{
        key_int(c->k, "SPLIT", BLOCKS * PROCESSORS);
        sel_grid(c, 0, DIM_const, BLOCKS * PROCESSORS, 1);
        sel_grid(c, 1, DIM_const, 1, 1);
        sel_grid(c, 2, DIM_const, 1, 1);
}

/* How CUDA cuts products in steps of one token (templates OP_one): a block or less a processor, whole rows of
 * weights to a warp, each on its way through shared memory before the launch in front has ended.
 *
 * Facts beside those of select_cuda.c: RPB and PART, chosen so that a launch is one wave of blocks; REGISTERS
 * of a thread at most: experts_down's blocks fit beside experts_up's, but not twice, as two blocks on a
 * processor would take twice as long as one each on two: of 64 K registers, 20 warps of 56 take more than
 * half, and leave 16 warps theirs. */
#include "codegen/select_part.h"

#define WARPS      16         /* of a block */
#define DOWN_WARPS 20         /* of experts_down's, some of which have no rows */
#define MOST       4          /* tokens */
#define LONG       256        /* rows a block, from which on several tokens are tensor cores' */
#define PAIRS      32         /* of token and slot: a lane has one */
#define ROOM       (96 << 10) /* shared memory of the smallest block that every device has */

static i64 row_bytes(const Ctx *c, Ref w)
{
        const Weight *t = &c->g->weight[ref_idx(w)];
        const u64 dim[4] = {1, t->dim[t->rank - 1], 1, 1};
        return (i64)plan_weight_bytes(t->type, PLAN_split, 2, dim);
}

/* A warp's rows and the activations of n values. */
static bool fits(const Ctx *c, i64 rows, i64 n)
{
        bool q8 = attr_i(c->n, A_act) == ACT_q8;
        return rows > 0 && WARPS * rows + n * (q8 ? 3 : 8) / 2 + 4096 <= ROOM;
}

static i64 blocks_of(const Ctx *c, i64 rpb)
{
        i64 n = 0;
        for (u32 i = 0; i < c->n->nout; i++)
                n += sel_tiles(dim_last(&sel_result(c, i)->type), rpb);
        return n;
}

/* The fewest rows a block with which the launch is one wave. */
static i64 rows_in_a_wave(const Ctx *c, i64 blocks)
{
        i64 least = 1, most = 1;
        while (blocks_of(c, most) > blocks)
                most *= 2;
        while (least < most) {
                i64 mid = (least + most) / 2;
                if (blocks_of(c, mid) > blocks)
                        least = mid + 1;
                else
                        most = mid;
        }
        return MAX(least, 8);
}

static bool matmul_fits(const Ctx *c)
{
        i64 most = 0;
        for (u32 i = 0; i < c->n->nout; i++)
                most = MAX(most, row_bytes(c, in_nth(c->n, S_w, i)));
        return sel_type(c, S_x).dim[0].sym != DIM_const && fits(c, most, sel_tokens(c) * sel_last(c, S_x)) &&
               (sel_tokens(c) == 1 || rows_in_a_wave(c, PROCESSORS) <= LONG);
}
static bool experts_fit(const Ctx *c)
{
        return !in_get(c->n, S_order) && sel_tokens(c) * sel_last(c, S_route) <= PAIRS;
}
static bool experts_up_fits(const Ctx *c)
{
        return experts_fit(c) &&
               fits(c, row_bytes(c, in_get(c->n, S_gate)) + row_bytes(c, in_get(c->n, S_up)),
                       sel_tokens(c) * sel_dim(c, S_gate, 2));
}
static bool experts_down_fits(const Ctx *c)
{
        i64 slots = sel_last(c, S_route);
        return experts_fit(c) &&
               fits(c, slots * row_bytes(c, in_get(c->n, S_down)), slots * sel_dim(c, S_down, 2));
}

bool one_fits(const Ctx *c)
{
        if (sel_tokens(c) > MOST)
                return false;
        switch (c->n->op) {
        case OP_matmul:
                return matmul_fits(c);
        case OP_experts_up:
                return experts_up_fits(c);
        case OP_experts_down:
                return experts_down_fits(c);
        default:
                return false;
        }
}

void one_begin(Ctx *c)
{
        c->k->op = arena_fmt(c->k->arena, "%s_one", c->k->op);
        c->tile = sel_tokens(c);
        c->s->threads = 32 * (c->n->op == OP_experts_down ? DOWN_WARPS : WARPS);
        c->rows = rows_in_a_wave(c, PROCESSORS);
        key_int(c->k, "REGISTERS", 56);
}

void one_grid(Ctx *c)
{
        key_int(c->k, "GRID", PROCESSORS);
        sel_grid(c, 0, DIM_const, PROCESSORS, 1);
}

/* How CUDA cuts operations in steps of one or a few tokens (templates OP_few): a block or less a processor,
 * whole rows of weights to a warp, each on its way through shared memory before the launch in front has
 * ended, and unpacked once for all of the step's tokens.
 *
 * Facts beside those of select_cuda.c: NT, the most tokens of a step; RPB and PART, chosen so that a launch
 * is one wave of blocks; GRID, as many blocks as share the experts of several tokens; CLUSTER, blocks that
 * join what they have through each other's shared memory; REGISTERS of a thread at most: attend's fit beside
 * a product's block, but not twice, as two blocks on a processor would take twice as long as one each on two.
 * So do experts_down's beside experts_up's: of 64 K registers, 20 warps of 56 take more than half, and leave
 * 16 warps theirs. */
#include "codegen/select_part.h"

#define WARPS      16         /* of a block */
#define DOWN_WARPS 20         /* of experts_down's, some of which have no rows */
#define ROOM       (96 << 10) /* shared memory of the smallest block that every device has */
#define FEW        8          /* tokens whose sums a warp has in registers */
#define ATTEND     32         /* that attend has */
#define ROUTE      64         /* that route has */
#define TURNS      16         /* clusters that have them */

static bool has(const Ctx *c, Slot s)
{
        return in_get(c->n, s) != REF_NONE;
}

static i64 row_bytes(const Ctx *c, Ref w)
{
        const Weight *t = &c->g->weight[ref_idx(w)];
        const u64 dim[4] = {1, t->dim[t->rank - 1], 1, 1};
        return (i64)plan_weight_bytes(t->type, PLAN_split, 2, dim);
}

static i64 tokens(const Ctx *c)
{
        return (i64)c->g->max[DIM_n_tok];
}

/* A warp's rows and the activations of n values of each token. */
static bool fits(const Ctx *c, i64 warps, i64 rows, i64 n)
{
        bool q8 = attr_i(c->n, A_act) == ACT_q8;
        return rows > 0 && warps * rows + tokens(c) * n * (q8 ? 3 : 8) / 2 + 4096 <= ROOM;
}
/* Whether a block finds the experts of several tokens by itself. */
static bool pairs_fit(const Ctx *c, Slot w)
{
        return tokens(c) == 1 || (sel_dim(c, w, 0) <= 512 && tokens(c) * sel_last(c, S_route) <= 256);
}

static bool matmul_fits(const Ctx *c)
{
        i64 most = 0;
        for (u32 i = 0; i < c->n->nout; i++)
                most = MAX(most, row_bytes(c, in_nth(c->n, S_w, i)));
        return sel_type(c, S_x).dim[0].sym != DIM_const && fits(c, WARPS, most, sel_last(c, S_x));
}
static bool experts_up_fits(const Ctx *c)
{
        return pairs_fit(c, S_gate) &&
               fits(c, WARPS, row_bytes(c, in_get(c->n, S_gate)) + row_bytes(c, in_get(c->n, S_up)),
                       sel_dim(c, S_gate, 2));
}
static bool experts_down_fits(const Ctx *c)
{
        i64 slots = sel_last(c, S_route), at_once = tokens(c) == 1 ? slots : 1;
        return slots <= 32 && pairs_fit(c, S_down) &&
               fits(c, WARPS, at_once * row_bytes(c, in_get(c->n, S_down)), slots * sel_dim(c, S_down, 2));
}
static bool route_fits(const Ctx *c)
{
        Ref w = in_get(c->n, S_w);
        return w != REF_NONE && !wtype_info[c->g->weight[ref_idx(w)].type].quant &&
               sel_dim(c, S_w, 0) <= 1024 && sel_dim(c, S_w, 1) <= 12288;
}
/* Heads of which a lane has eights, in registers. */
static bool attend_fits(const Ctx *c)
{
        const State *st = sel_state(c);
        return st->ktype == D_f16 && st->vtype == D_f16 && st->dv && !attr_i(c->n, A_dv) &&
               st->dk % 32 == 0 && st->dk <= 128 && st->dv % 64 == 0 && st->dv <= 128 &&
               attr_i(c->n, A_heads) / st->heads <= 8;
}

bool few_fits(const Ctx *c)
{
        if (tokens(c) > (c->n->op == OP_attend ? ATTEND : c->n->op == OP_route ? ROUTE : FEW))
                return false;
        switch (c->n->op) {
        case OP_matmul:
                return matmul_fits(c);
        case OP_experts_up:
                return !has(c, S_order) && experts_up_fits(c);
        case OP_experts_down:
                return !has(c, S_order) && experts_down_fits(c);
        case OP_route:
                return route_fits(c);
        case OP_attend:
                return attend_fits(c);
        default:
                return false;
        }
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
static i64 columns_in_a_wave(const Ctx *c)
{
        i64 f = sel_dim(c, S_gate, 1), slots = sel_last(c, S_route), cols = 16;
        while (cols < 512 && sel_tiles(f, cols) * slots > PROCESSORS)
                cols += 16;
        return cols;
}

void few_begin(Ctx *c)
{
        bool attend = c->n->op == OP_attend, down = c->n->op == OP_experts_down && tokens(c) == 1;
        c->k->op = arena_fmt(c->k->arena, "%s_few", c->k->op);
        c->tile = tokens(c);
        c->s->threads = attend ? 256 : 32 * (down ? DOWN_WARPS : WARPS);
        c->rows = c->n->op == OP_route ? 0 : rows_in_a_wave(c, PROCESSORS);
        if (c->n->op == OP_experts_up)
                c->cols = columns_in_a_wave(c);
        if (attend)
                key_int(c->k, "REGISTERS", 144);
        else if (c->n->op != OP_route)
                key_int(c->k, "REGISTERS", 56);
}

/* route: where each thread has four values of K, a warp has its part of all rows' (SLICED), and a cluster can
 * have several tokens, in turn. */
void few_grid_route(Ctx *c, i64 split)
{
        bool sliced = c->g->weight[ref_idx(in_get(c->n, S_w))].type == W_F32 &&
                      sel_dim(c, S_w, 1) == 4 * (i64)c->s->threads &&
                      sel_tiles(sel_dim(c, S_w, 0), split) <= 16;
        i64 turns = sliced ? MIN(c->tile, TURNS) : c->tile;
        key_int(c->k, "SLICED", sliced);
        key_int(c->k, "TURNS", turns);
        if (turns < c->tile || c->tile == 1)
                sel_grid(c, 1, DIM_const, turns, 1);
        else
                sel_grid(c, 1, DIM_n_tok, 1, 1);
}

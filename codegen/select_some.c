/* How CUDA cuts products in steps of several tokens, when the weights' bytes are what takes the time (templates
 * OP_some): tiles of 16 rows of weights and 8 tokens on tensor cores, of which each warp has a part of K.
 *
 * Facts beside those of select_cuda.c: NT, the most tokens of a step; GRID, as many blocks as share the experts;
 * RPB, rows a block, chosen so that a launch is one wave; CLUSTER, blocks that share the experts of the same
 * rows; BLOCKS, of THREADS threads a processor, for which there must be registers. */
#include "codegen/select_part.h"

#define WARPS    8
#define TILE     16         /* rows */
#define PIECE    256        /* of K */
#define COLUMNS  8          /* tokens */
#define BLOCKS   2          /* a processor */
#define MOST     64         /* tokens of experts; each 8 of an expert's unpack its weights again */
#define FEW      32         /* of other products, and of two blocks of experts_down on a processor */
#define WIDEST   4096       /* K, whose values are in a block's registers */
#define ROOM     (96 << 10) /* shared memory of the smallest block that every device has */
#define PUT_BY   80         /* bytes of a pair of token and expert in experts_down */

static i64 tokens(const Ctx *c)
{
        return (i64)c->g->max[DIM_n_tok];
}

/* Bytes of a tile's rows; 0 where they are not quantised. */
static i64 tile_bytes(const Ctx *c, Ref w)
{
        const Weight *t = &c->g->weight[ref_idx(w)];
        const u64 dim[4] = {1, t->dim[t->rank - 1], 1, 1};
        return wtype_info[t->type].quant ? TILE * ((i64)plan_weight_bytes(t->type, PLAN_split, 2, dim) + 16) : 0;
}

/* A block's part that does not depend on the tokens, beside so many bytes that do. */
static bool fits(i64 tile, i64 beside)
{
        return tile && tile + beside + 24576 <= ROOM;
}

static bool matmul_fits(const Ctx *c)
{
        const Vtype x = sel_type(c, S_x);
        i64 k = dim_last(&x);
        for (u32 i = 0; i < c->n->nout; i++)
                if (!fits(tile_bytes(c, in_nth(c->n, S_w, i)), 4 * k))
                        return false;
        return tokens(c) <= FEW && x.dim[0].sym != DIM_const && k % 64 == 0 && k <= WIDEST;
}

static bool pairs_fit(const Ctx *c, Slot w)
{
        return tokens(c) <= MOST && !in_get(c->n, S_order) && sel_dim(c, w, 0) <= 512 &&
               tokens(c) * sel_last(c, S_route) < 0xffff;
}
static bool experts_up_fits(const Ctx *c)
{
        Ref gate = in_get(c->n, S_gate), up = in_get(c->n, S_up);
        i64 k = sel_dim(c, S_gate, 2);
        return pairs_fit(c, S_gate) && c->g->weight[ref_idx(gate)].type == c->g->weight[ref_idx(up)].type &&
               k % 64 == 0 && k <= WIDEST && sel_dim(c, S_gate, 1) % TILE == 0 &&
               fits(2 * tile_bytes(c, gate), 4 * k);
}
static bool experts_down_fits(const Ctx *c)
{
        return pairs_fit(c, S_down) && sel_type(c, S_x).dt == D_q8 && sel_dim(c, S_down, 2) % 64 == 0 &&
               sel_dim(c, S_down, 1) % TILE == 0 &&
               fits(tile_bytes(c, in_get(c->n, S_down)), PUT_BY * tokens(c) * sel_last(c, S_route));
}

bool some_fits(const Ctx *c)
{
        if (tokens(c) == 1)
                return false;
        switch (c->n->op) {
        case OP_matmul:
                return attr_i(c->n, A_act) == ACT_q8 && matmul_fits(c);
        case OP_experts_up:
                return attr_i(c->n, A_act) == ACT_q8 && experts_up_fits(c);
        case OP_experts_down:
                return attr_i(c->n, A_act) == ACT_q8 && experts_down_fits(c);
        default:
                return false;
        }
}

/* A processor: one, of twice the warps, where all pairs of token and expert take its room in experts_down, or
 * where the warps of two would each have several pieces of K. */
static i64 blocks(const Ctx *c)
{
        switch (c->n->op) {
        case OP_experts_down:
                return tokens(c) > FEW ? 1 : BLOCKS;
        case OP_matmul:
                return sel_last(c, S_x) > WARPS * PIECE ? 1 : BLOCKS;
        default:
                return BLOCKS;
        }
}

/* The fewest whole tiles a block with which the launch is one wave, of up to 8 tokens. */
static i64 rows_in_a_wave(const Ctx *c)
{
        for (i64 rows = TILE;; rows += TILE) {
                i64 n = 0;
                for (u32 i = 0; i < c->n->nout; i++)
                        n += sel_tiles(dim_last(&sel_result(c, i)->type), rows);
                if (n <= blocks(c) * PROCESSORS)
                        return rows;
        }
}

void some_begin(Ctx *c)
{
        c->k->op = arena_fmt(c->k->arena, "%s_some", c->k->op);
        c->s->flags = PLAN_F16;
        c->s->threads = (u32)(32 * WARPS * BLOCKS / blocks(c));
        key_int(c->k, "BLOCKS", blocks(c));
        c->tile = tokens(c);
        c->rows = c->n->op == OP_matmul ? rows_in_a_wave(c) : TILE;
}

void some_grid(Ctx *c)
{
        switch (c->n->op) {
        case OP_matmul:
                sel_grid(c, 1, sel_type(c, S_x).dim[0].sym, 1, COLUMNS);
                return;
        case OP_experts_up:
                key_int(c->k, "GRID", BLOCKS * PROCESSORS);
                sel_grid(c, 0, DIM_const, BLOCKS * PROCESSORS, 1);
                return;
        default:
                key_int(c->k, "CLUSTER", blocks(c));
                sel_grid(c, 0, DIM_const, 1, 1);
                sel_grid(c, 1, DIM_const, sel_dim(c, S_down, 1), TILE);
                sel_grid(c, 2, DIM_const, blocks(c), 1);
        }
}

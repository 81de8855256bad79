/* How CUDA cuts operations in steps of a few tokens (templates OP_few). Products: when the weights' bytes are
 * what takes the time, tiles of 16 rows of weights and 8 tokens on tensor cores, of which each warp has a
 * part of K. attend and route: of one token, too.
 *
 * Facts beside those of select_cuda.c: NT, the most tokens of a step; GRID, as many blocks as share the
 * experts; RPB, rows a block, chosen so that a launch is one wave; CLUSTER, blocks that share the experts of
 * the same rows, or join what they have of a token through each other's shared memory; BLOCKS, of THREADS
 * threads a processor, for which there must be registers; REGISTERS of a thread at most: attend's blocks fit
 * beside a product's, those of more than FEW tokens twice on a processor; RUN, tokens from a sequence's first
 * to its last; SLICED, TOKENS: see few_grid_route. */
#include "codegen/select_part.h"

#define WARPS   8
#define TILE    16         /* rows */
#define PIECE   256        /* of K */
#define COLUMNS 8          /* tokens */
#define BLOCKS  2          /* a processor */
#define MOST    64         /* tokens of experts and route; each 8 of an expert's unpack its weights again */
#define FEW     32         /* of others, and of two blocks of experts_down on a processor */
#define ROUTES  16         /* clusters that have the tokens of a route */
#define WIDEST  4096       /* K, whose values are in a block's registers */
#define ROOM    (96 << 10) /* shared memory of the smallest block that every device has */
#define ACTS    12         /* bytes of a tile's values of one position */
#define PUT_BY  80         /* bytes of a pair of token and expert in experts_down */

/* Bytes of a tile's rows; 0 where they are not quantised. */
static i64 tile_bytes(const Ctx *c, Ref w)
{
        const Weight *t = &c->g->weight[ref_idx(w)];
        const u64 dim[4] = {1, t->dim[t->rank - 1], 1, 1};
        return wtype_info[t->type].quant ? TILE * ((i64)plan_weight_bytes(t->type, PLAN_split, 2, dim) + 16)
                                         : 0;
}

/* A block's part that does not depend on the tokens, beside so many bytes that do. */
static bool fits(i64 tile, i64 beside)
{
        return tile && tile + beside + 8192 <= ROOM;
}

static bool matmul_fits(const Ctx *c)
{
        const Vtype x = sel_type(c, S_x);
        i64 k = dim_last(&x);
        for (u32 i = 0; i < c->n->nout; i++)
                if (!fits(tile_bytes(c, in_nth(c->n, S_w, i)), ACTS * k))
                        return false;
        return sel_tokens(c) <= FEW && x.dim[0].sym != DIM_const && k % 64 == 0 && k <= WIDEST;
}

static bool pairs_fit(const Ctx *c, Slot w)
{
        return sel_tokens(c) <= MOST && !in_get(c->n, S_order) && sel_dim(c, w, 0) <= 512 &&
               sel_tokens(c) * sel_last(c, S_route) < 0xffff;
}
static bool experts_up_fits(const Ctx *c)
{
        Ref gate = in_get(c->n, S_gate), up = in_get(c->n, S_up);
        i64 k = sel_dim(c, S_gate, 2);
        return pairs_fit(c, S_gate) && c->g->weight[ref_idx(gate)].type == c->g->weight[ref_idx(up)].type &&
               k % 64 == 0 && k <= WIDEST && sel_dim(c, S_gate, 1) % TILE == 0 &&
               fits(tile_bytes(c, gate), ACTS * k);
}
static bool experts_down_fits(const Ctx *c)
{
        return pairs_fit(c, S_down) && sel_type(c, S_x).dt == D_q8 && sel_dim(c, S_down, 2) % 64 == 0 &&
               sel_dim(c, S_down, 1) % TILE == 0 &&
               fits(tile_bytes(c, in_get(c->n, S_down)), PUT_BY * sel_tokens(c) * sel_last(c, S_route));
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
        bool several = sel_tokens(c) > 1 && attr_i(c->n, A_act) == ACT_q8;
        switch (c->n->op) {
        case OP_route:
                return sel_tokens(c) <= MOST && route_fits(c);
        case OP_attend:
                return sel_tokens(c) <= MOST && sel_seq_tokens(c) <= FEW && attend_fits(c);
        case OP_matmul:
                return several && matmul_fits(c);
        case OP_experts_up:
                return several && experts_up_fits(c);
        case OP_experts_down:
                return several && experts_down_fits(c);
        default:
                return false;
        }
}

bool few_multiplies(const Ctx *c)
{
        return c->n->op == OP_matmul || c->n->op == OP_experts_up || c->n->op == OP_experts_down;
}

/* A processor: one, of twice the warps, where all pairs of token and expert take its room in experts_down, or
 * where the warps of two would each have several pieces of K. */
static i64 blocks(const Ctx *c)
{
        switch (c->n->op) {
        case OP_experts_down:
                return sel_tokens(c) > FEW ? 1 : BLOCKS;
        case OP_matmul:
        case OP_experts_up:
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

void few_begin(Ctx *c)
{
        c->k->op = arena_fmt(c->k->arena, "%s_few", c->k->op);
        c->tile = sel_tokens(c);
        if (!few_multiplies(c)) {
                c->s->threads = c->n->op == OP_attend ? 256 : 512;
                if (c->n->op == OP_attend) {
                        key_int(c->k, "RUN", sel_seq_tokens(c));
                        key_int(c->k, "REGISTERS", c->tile > FEW ? 128 : 144);
                }
                return;
        }
        c->s->flags = PLAN_F16;
        c->s->threads = (u32)(32 * WARPS * BLOCKS / blocks(c));
        key_int(c->k, "BLOCKS", blocks(c));
        c->rows = c->n->op == OP_matmul ? rows_in_a_wave(c) : TILE;
}

void few_grid(Ctx *c)
{
        switch (c->n->op) {
        case OP_matmul:
                sel_grid(c, 0, sel_type(c, S_x).dim[0].sym, 1, COLUMNS);
                sel_grid(c, 1, DIM_const, sel_matmul_tiles(c), 1);
                return;
        case OP_experts_up:
                key_int(c->k, "GRID", blocks(c) * PROCESSORS);
                sel_grid(c, 0, DIM_const, blocks(c) * PROCESSORS, 1);
                return;
        default:
                key_int(c->k, "CLUSTER", blocks(c));
                sel_grid(c, 0, DIM_const, 1, 1);
                sel_grid(c, 1, DIM_const, sel_dim(c, S_down, 1), TILE);
                sel_grid(c, 2, DIM_const, blocks(c), 1);
        }
}

/* route: where each thread has four values of K, a warp has its part of all rows' (SLICED), and a cluster can
 * have several tokens (TOKENS), of which each block chooses for one. */
void few_grid_route(Ctx *c, i64 split, i64 cluster)
{
        bool sliced = c->g->weight[ref_idx(in_get(c->n, S_w))].type == W_F32 &&
                      sel_dim(c, S_w, 1) == 4 * (i64)c->s->threads &&
                      sel_tiles(sel_dim(c, S_w, 0), split) <= 16;
        i64 tokens = sliced ? MIN(sel_tiles(c->tile, ROUTES), cluster) : 1;
        key_int(c->k, "SLICED", sliced);
        key_int(c->k, "TOKENS", tokens);
        sel_grid(c, 1, DIM_n_tok, 1, tokens);
}

/* How the CPU cuts operations into blocks. A weight's block is a panel (runtime/pack.h). */
#include "codegen/select_part.h"
#include "runtime/pack.h"

#define HIDDEN 32 /* columns of an expert's hidden layer: whole blocks of rounded activations */

/* A step of one token needs no tile. */
static void begin(Ctx *c)
{
        c->s->threads = 1;
        c->tile = 1;
        c->rows = PANEL_ROWS;
        c->cols = HIDDEN;
        if (sel_tokens(c) != 1 && c->tune)
                tab_int(c->tune, "NT", 1, 16, &c->tile);
        key_int(c->k, "NT", c->tile);
}

static void grid_matmul(Ctx *c)
{
        sel_grid(c, 0, DIM_const, sel_matmul_tiles(c), 1);
}
static void grid_headmul(Ctx *c)
{
        sel_grid(c, 0, DIM_const, sel_dim(c, S_w, 0) * sel_tiles(sel_dim(c, S_w, 1), c->rows), 1);
}
static void grid_kv_append(Ctx *c)
{
        sel_grid(c, 0, DIM_n_tok, sel_state(c)->heads, 1);
}
static void grid_attend(Ctx *c)
{
        if (in_get(c->n, S_k) && sel_tokens(c) != 1)
                err(MOEC_ERROR,
                        "graph %s: fuse_kv is for steps of one token: an attend that appends does not see "
                        "the keys of others beside it",
                        c->g->name);
        sel_grid(c, 0, DIM_n_tok, 1, c->tile);
        sel_grid(c, 1, DIM_const, sel_state(c)->heads, 1);
}
static void grid_route(Ctx *c)
{
        sel_grid(c, 0, DIM_n_tok, 1, 1);
}
static void grid_one(Ctx *c)
{
        sel_grid(c, 0, DIM_const, 1, 1);
}
static void grid_experts_up(Ctx *c)
{
        i64 parts = sel_tiles(sel_dim(c, S_gate, 1), c->cols);
        if (in_get(c->n, S_order) != REF_NONE)
                sel_grid(c, 0, DIM_const, sel_dim(c, S_gate, 0) * parts, 1);
        else
                sel_grid(c, 0, DIM_n_tok, sel_last(c, S_route) * parts, 1);
}
static void grid_experts_down(Ctx *c)
{
        i64 tiles = sel_tiles(sel_dim(c, S_down, 1), c->rows);
        sel_grid(c, 0, in_get(c->n, S_order) != REF_NONE ? DIM_const : DIM_n_tok, tiles, 1);
}

#define ROWS(op) [OP_##op] = sel_grid_rows
#define OWN(op)  [OP_##op] = grid_##op
const SelTarget sel_cpu = {
        begin, {ROWS(embed), ROWS(rows), ROWS(add), ROWS(mul), ROWS(glu), ROWS(scale), ROWS(slice),
                       ROWS(concat), ROWS(rmsnorm), ROWS(quantize), ROWS(rope), OWN(matmul), OWN(headmul),
                       OWN(kv_append), OWN(attend), OWN(route), OWN(experts_up),
                       OWN(experts_down), [OP_dequant] = sel_grid_table, [OP_sort] = grid_one}};

/* How CUDA cuts attention in steps of many tokens (template attend_many): as many blocks as processors, which
 * share out the step's keys among them. Facts beside those of select_cuda.c: GRID, these blocks. */
#include "codegen/select_part.h"

#define PROCESSORS 132
#define WIDEST     256 /* of a head: its sums are in registers */
#define MOST_HEADS 64  /* of one key head: the rows of the smallest tile */

bool many_attends(const Ctx *c)
{
        if (c->n->op != OP_attend || c->g->max[DIM_n_tok] == 1 || attr_i(c->n, A_dv))
                return false;
        const State *st = sel_state(c);
        return st->ktype == D_f16 && st->vtype == D_f16 && st->dv && st->dk % 16 == 0 && st->dk <= WIDEST &&
               st->dv % 16 == 0 && st->dv <= WIDEST && attr_i(c->n, A_heads) / st->heads <= MOST_HEADS;
}

void many_attend_begin(Ctx *c)
{
        c->k->op = arena_fmt(c->k->arena, "%s_many", c->k->op);
        c->s->threads = 256;
}

void many_attend_grid(Ctx *c)
{
        key_int(c->k, "GRID", PROCESSORS);
        sel_grid(c, 0, DIM_const, PROCESSORS, 1);
}

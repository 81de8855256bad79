/* How CUDA cuts attention in steps of several tokens (template attend_many): as many blocks as processors,
 * which share out the step's keys among them. Facts beside those of select_cuda.c: GRID, these blocks. */
#include "codegen/select_part.h"

#define WIDEST     256 /* of a head: its sums are in registers */
#define MOST_HEADS 64  /* of one key head: the rows of the smallest tile */

bool attend_fits_many(const Ctx *c)
{
        const State *st = sel_state(c);
        return !attr_i(c->n, A_dv) && st->ktype == D_f16 && st->vtype == D_f16 && st->dv &&
               st->dk % 16 == 0 && st->dk <= WIDEST && st->dv % 16 == 0 && st->dv <= WIDEST &&
               attr_i(c->n, A_heads) / st->heads <= MOST_HEADS;
}

void attend_begin_many(Ctx *c)
{
        c->s->threads = 256;
        key_int(c->k, "GRID", PROCESSORS);
        sel_grid(c, 0, DIM_const, PROCESSORS, 1);
}

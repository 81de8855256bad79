/* What the files of instruction selection share: select.c, which knows the operations, and one file a target,
 * which knows how each is cut into blocks. */
#ifndef MOEC_SELECT_PART_H
#define MOEC_SELECT_PART_H
#include "codegen/select.h"

#define PROCESSORS 132 /* of the largest of today's devices but one; fewer take a second wave */

typedef struct Ctx {
        const Graph *g;
        const Node *n;
        const Tab *tune; /* of the operation; NULL */
        Sel *s;
        Key *k;
        i64 tile;   /* tokens that share one unpacking of a weight */
        i64 rows;   /* of a weight, a block */
        i64 cols;   /* of an expert's hidden layer, a block */
        bool one;   /* by the template for steps of one token, or of very few */
        bool few;   /* by the template for steps of a few */
        bool many;  /* by the template for tensor cores */
        bool early; /* it may read ahead of its wait */
} Ctx;

/* begin: tile sizes and the facts that every kernel of the target gets; grid: by operation. */
typedef struct SelTarget {
        void (*begin)(Ctx *);
        void (*grid[N_OP])(Ctx *);
} SelTarget;
extern const SelTarget sel_cpu, sel_cuda;

i64 sel_tokens(const Ctx *c);     /* the most of a step */
i64 sel_seq_tokens(const Ctx *c); /* and from a sequence's first to its last */
Vtype sel_type(const Ctx *c, Slot s);
i64 sel_last(const Ctx *c, Slot s);
i64 sel_dim(const Ctx *c, Slot s, u32 i);
const Val *sel_result(const Ctx *c, u32 i);
const State *sel_state(const Ctx *c);

/* blocks along an axis: ceil(mul * size(sym) / div). Axes that nobody sets have one. */
void sel_grid(Ctx *c, u32 axis, DimSym sym, i64 mul, i64 div);
void sel_grid_rows(Ctx *c);  /* a block a row of the first result */
void sel_grid_table(Ctx *c); /* a block a row of the weight */
i64 sel_tiles(i64 n, i64 each);
i64 sel_matmul_tiles(const Ctx *c); /* c->rows of one weight each */

/* select_one.c: whether the operation, in a step of one token or of up to 4, has a kernel OP_one; then the
 * sizes of its blocks; the grid of experts. */
bool one_fits(const Ctx *c);
void one_begin(Ctx *c);
void one_grid(Ctx *c);

/* select_few.c: the same of a few tokens, of attend and route of one, too; whether it is a product, whose
 * sizes belong together, and its grid. */
bool few_fits(const Ctx *c);
bool few_multiplies(const Ctx *c);
void few_begin(Ctx *c);
void few_grid(Ctx *c);
void few_grid_route(Ctx *c, i64 split, i64 cluster);

/* select_many.c: whether the operation, in a step of several tokens, has a kernel OP_many; then the sizes of
 * its blocks; a grid of as many blocks as run at once. */
bool many_fits(const Ctx *c);
void many_begin(Ctx *c);
void many_grid(Ctx *c);

/* select_attend.c: of these, attend. */
bool attend_fits_many(const Ctx *c);
void attend_begin_many(Ctx *c);

#endif

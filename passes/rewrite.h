/* What passes rewrite with: it knows the users of every value, so that a rewrite costs as much as it changes,
 * and lets new nodes be made in any order. From rewrite_begin to rewrite_end nodes lie anywhere and only
 * these functions change them; rewrite_end puts every node at its place, operands first. */
#ifndef MOEC_REWRITE_H
#define MOEC_REWRITE_H
#include "ir/graph.h"

typedef struct Users {
        u32 *node; /* one entry an operand */
        u32 n, cap;
        u32 rets; /* times it is a result of the graph */
} Users;

typedef struct Rewrite {
        Graph *g;
        Users *users; /* by value */
        u64 *place;   /* by node: the lower, the earlier */
        u32 cap_users, cap_place;
} Rewrite;

Rewrite *rewrite_begin(Graph *g);
void rewrite_end(Rewrite *r);

/* Of a value: how many operands and results name it; who; the node that defines it. */
u32 rw_uses(const Rewrite *r, Ref ref);
const Users *rw_users(const Rewrite *r, Ref ref);
u32 rw_def(const Rewrite *r, Ref ref);

u32 rw_new(Rewrite *r, Op op, u32 at);    /* at node `at`'s place, for which it stands in: its attributes */
u32 rw_before(Rewrite *r, Op op, u32 at); /* in front of node `at`, of the same layer */
void rw_set(Rewrite *r, u32 n, Slot s, Ref ref); /* adds the operand if absent; nothing where REF_NONE */
void rw_swap(Rewrite *r, u32 n, u32 k, Ref ref); /* its k-th operand */
void rw_in(Rewrite *r, u32 n, Slot s, Ref ref);  /* one more operand */
void rw_copy(Rewrite *r, u32 n, u32 from);       /* adds all operands of `from` */
Ref rw_done(Rewrite *r, u32 n); /* after the last operand and attribute, of an old node too */
void rw_replace(Rewrite *r, Ref from, Ref to);
void rw_move(Rewrite *r, u32 n, u32 at); /* to node `at`'s place */
void rw_kill(Rewrite *r, u32 n);
void rw_kill_unused(Rewrite *r, u32 n); /* if nothing names its results */

/* Puts the nodes in the order of seq (every one, once), but operands before those who use them. */
void reorder(Graph *g, const u32 *seq);

/* Whether the operand is a matrix that the operation multiplies with. */
bool is_matrix(Op op, Slot s);

#endif

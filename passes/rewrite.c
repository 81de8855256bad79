#include "passes/rewrite.h"
#include <stdlib.h>
#include <string.h>

/* ---- order ---- */

typedef struct Emit {
        Graph *g;
        Node *node; /* the new array */
        u32 n;
        u8 *state; /* of old nodes: 0 waiting, 1 its operands are being put, 2 put */
} Emit;

static void emit(Emit *e, u32 i)
{
        const Node *n = &e->g->node[i];
        if (e->state[i] == 2)
                return;
        if (e->state[i] == 1)
                die("graph %s: %s depends on itself", e->g->name,
                        n->op < N_OP ? op_info(n->op)->name : "dead");
        e->state[i] = 1;
        for (u32 k = 0; k < n->nin; k++)
                if (ref_kind(n->in[k].ref) == R_VAL)
                        emit(e, e->g->val[ref_idx(n->in[k].ref)].node);
        e->state[i] = 2;
        e->node[e->n++] = *n;
}

void reorder(Graph *g, const u32 *seq)
{
        Emit e = {.g = g, .node = NEWN(g->arena, Node, g->n_node), .state = NEWN(g->arena, u8, g->n_node)};
        for (u32 i = 0; i < g->n_node; i++)
                emit(&e, seq[i]);
        if (e.n != g->n_node)
                die("reorder: %u of %u nodes", e.n, g->n_node);
        g->node = e.node;
        g->cap_node = g->n_node;
        for (u32 i = 0; i < g->n_node; i++)
                for (u32 k = 0; k < g->node[i].nout; k++)
                        g->val[g->node[i].out + k].node = i;
}

/* ---- users ---- */

static void add_user(Rewrite *r, Ref ref, u32 n)
{
        if (ref_kind(ref) != R_VAL)
                return;
        Users *u = &r->users[ref_idx(ref)];
        GROW(r->g->arena, u->node, u->n, u->cap);
        u->node[u->n++] = n;
}

static void drop_user(Rewrite *r, Ref ref, u32 n)
{
        if (ref_kind(ref) != R_VAL)
                return;
        Users *u = &r->users[ref_idx(ref)];
        for (u32 i = 0; i < u->n; i++)
                if (u->node[i] == n) {
                        memmove(&u->node[i], &u->node[i + 1], (--u->n - i) * sizeof *u->node);
                        return;
                }
        die("value %u does not know its user", ref_idx(ref));
}

/* Places of the nodes as they came, far enough apart for others in front of them. */
#define PLACE(i) ((u64)((i) + 1) << 20)

Rewrite *rewrite_begin(Graph *g)
{
        Rewrite *r = NEW(g->arena, Rewrite);
        *r = (Rewrite){.g = g, .cap_users = g->n_val, .cap_place = g->n_node};
        r->users = NEWN(g->arena, Users, g->n_val);
        r->place = NEWN(g->arena, u64, g->n_node);
        for (u32 i = 0; i < g->n_node; i++) {
                r->place[i] = PLACE(i);
                for (u32 k = 0; k < g->node[i].nin; k++)
                        add_user(r, g->node[i].in[k].ref, i);
        }
        for (u32 i = 0; i < g->n_ret; i++)
                if (ref_kind(g->ret[i]) == R_VAL)
                        r->users[ref_idx(g->ret[i])].rets++;
        return r;
}

typedef struct Placed {
        u64 place;
        u32 node;
} Placed;

static int by_place(const void *a, const void *b)
{
        const Placed *x = a, *y = b;
        if (x->place != y->place)
                return x->place < y->place ? -1 : 1;
        return x->node < y->node ? -1 : x->node > y->node;
}

void rewrite_end(Rewrite *r)
{
        Graph *g = r->g;
        Placed *p = NEWN(g->arena, Placed, g->n_node);
        u32 *seq = NEWN(g->arena, u32, g->n_node);
        for (u32 i = 0; i < g->n_node; i++)
                p[i] = (Placed){r->place[i], i};
        qsort(p, g->n_node, sizeof *p, by_place);
        for (u32 i = 0; i < g->n_node; i++)
                seq[i] = p[i].node;
        reorder(g, seq);
        r->g = NULL;
}

/* ---- read ---- */

const Users *rw_users(const Rewrite *r, Ref ref)
{
        return &r->users[ref_idx(ref)];
}

u32 rw_uses(const Rewrite *r, Ref ref)
{
        const Users *u = rw_users(r, ref);
        return u->n + u->rets;
}

u32 rw_def(const Rewrite *r, Ref ref)
{
        return r->g->val[ref_idx(ref)].node;
}

bool is_matrix(Op op, Slot s)
{
        static const struct {
                Op op;
                Slot slot;
        } matrix[] = {
                {OP_matmul, S_w},
                {OP_headmul, S_w},
                {OP_route, S_w},
                {OP_experts, S_gate},
                {OP_experts, S_up},
                {OP_experts, S_down},
                {OP_experts_up, S_gate},
                {OP_experts_up, S_up},
                {OP_experts_down, S_down},
        };
        for (u32 i = 0; i < COUNT(matrix); i++)
                if (matrix[i].op == op && matrix[i].slot == s)
                        return true;
        return false;
}

/* ---- write ---- */

static u32 make(Rewrite *r, Op op, u64 place)
{
        u32 n = node_new(r->g, op);
        GROW(r->g->arena, r->place, n, r->cap_place);
        r->place[n] = place;
        return n;
}

u32 rw_new(Rewrite *r, Op op, u32 at)
{
        u32 n = make(r, op, r->place[at]);
        node_copy_attrs(r->g, n, at);
        return n;
}

u32 rw_before(Rewrite *r, Op op, u32 at)
{
        u32 n = make(r, op, r->place[at] - 1);
        node_int(r->g, n, A_layer, attr_i(&r->g->node[at], A_layer));
        return n;
}

void rw_swap(Rewrite *r, u32 n, u32 k, Ref ref)
{
        struct In *in = &r->g->node[n].in[k];
        add_user(r, ref, n);
        drop_user(r, in->ref, n);
        in->ref = ref;
}

void rw_in(Rewrite *r, u32 n, Slot s, Ref ref)
{
        add_user(r, ref, n);
        node_in(r->g, n, s, ref);
}

void rw_set(Rewrite *r, u32 n, Slot s, Ref ref)
{
        Node *d = &r->g->node[n];
        if (ref == REF_NONE)
                return;
        for (u32 k = 0; k < d->nin; k++)
                if (d->in[k].slot == s) {
                        rw_swap(r, n, k, ref);
                        return;
                }
        rw_in(r, n, s, ref);
}

void rw_copy(Rewrite *r, u32 n, u32 from)
{
        for (u32 k = 0; k < r->g->node[from].nin; k++) {
                struct In in = r->g->node[from].in[k];
                rw_in(r, n, in.slot, in.ref);
        }
}

Ref rw_done(Rewrite *r, u32 n)
{
        Ref ref = node_done(r->g, n);
        if (r->cap_users < r->g->n_val) {
                u32 had = r->cap_users;
                r->cap_users = r->g->cap_val;
                const Users *old = r->users;
                r->users = NEWN(r->g->arena, Users, r->cap_users);
                memcpy(r->users, old, had * sizeof *old);
        }
        return ref;
}

void rw_replace(Rewrite *r, Ref from, Ref to)
{
        Users *u = &r->users[ref_idx(from)];
        for (u32 i = 0; i < u->n; i++) {
                Node *d = &r->g->node[u->node[i]];
                for (u32 k = 0; k < d->nin; k++)
                        if (d->in[k].ref == from) {
                                d->in[k].ref = to;
                                add_user(r, to, u->node[i]);
                                break;
                        }
        }
        u->n = 0;
        for (u32 i = 0; u->rets && i < r->g->n_ret; i++)
                if (r->g->ret[i] == from) {
                        r->g->ret[i] = to;
                        u->rets--;
                        if (ref_kind(to) == R_VAL)
                                r->users[ref_idx(to)].rets++;
                }
}

void rw_move(Rewrite *r, u32 n, u32 at)
{
        r->place[n] = r->place[at];
}

void rw_kill(Rewrite *r, u32 n)
{
        Node *d = &r->g->node[n];
        for (u32 k = 0; k < d->nin; k++)
                drop_user(r, d->in[k].ref, n);
        node_kill(r->g, n);
}

void rw_kill_unused(Rewrite *r, u32 n)
{
        const Node *d = &r->g->node[n];
        for (u32 k = 0; k < d->nout; k++)
                if (rw_uses(r, REF(R_VAL, d->out + k)))
                        return;
        rw_kill(r, n);
}

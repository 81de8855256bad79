/* The IR: straight-line SSA over one step of a model. Everything is referred to by index, never by pointer;
 * everything lives in the graph's arena. ir/ops.h says what operations mean, ir/ir.txt how the text form
 * looks.
 *
 * A graph holds weights (views of tensors in the file), states (the KV cache of a layer), nodes in execution
 * order and the values they define. Passes add nodes and values, redirect uses and mark nodes dead;
 * graph_compact renumbers. */
#ifndef MOEC_GRAPH_H
#define MOEC_GRAPH_H
#include <stdio.h>
#include "ir/ops.h"
#include "ir/types.h"

typedef enum Op {
#define O(name, slots, attrs, results) OP_##name,
        OPS(O)
#undef O
                N_OP,
        OP_dead = N_OP /* removed; graph_compact drops it */
} Op;

typedef enum Slot {
#define S(name) S_##name,
        SLOTS(S)
#undef S
                N_SLOT
} Slot;

typedef enum Attr {
#define A(name, kind, def) A_##name,
        ATTRS(A)
#undef A
                N_ATTR
} Attr;

typedef enum DimSym {
        DIM_const,
#define D(name) DIM_##name,
        DIMS(D)
#undef D
                N_DIM
} DimSym;

typedef enum Input {
#define I(name, dim) IN_##name,
        INPUTS(I)
#undef I
                N_INPUT
} Input;

typedef enum Layout {
#define L(name) LAYOUT_##name,
        LAYOUTS(L)
#undef L
                N_LAYOUT
} Layout;

/* A reference: kind in the top 4 bits, index below. */
typedef u32 Ref;
enum { R_NONE, R_VAL, R_WEIGHT, R_INPUT, R_STATE };
#define REF(kind, i) ((Ref)(kind) << 28 | (Ref)(i))
#define REF_NONE     ((Ref)0)
static inline u32 ref_kind(Ref r)
{
        return r >> 28;
}
static inline u32 ref_idx(Ref r)
{
        return r & 0x0fffffff;
}

typedef struct Dim {
        DimSym sym; /* DIM_const: n is the size */
        i64 n;
} Dim;

#define MAX_RANK 4
typedef struct Vtype {
        Dtype dt;
        u32 rank;
        Dim dim[MAX_RANK];
} Vtype;

#define NO_OFFSET UINT64_MAX
typedef struct Val {
        Vtype type;
        u32 node;   /* its definition */
        u64 offset; /* in the step's arena, set by `buffers`; NO_OFFSET before */
} Val;

typedef struct Weight {
        const char *name;   /* unique in the graph */
        const char *tensor; /* the tensor's name in the file */
        Wtype type;
        Layout layout;
        u32 rank;
        u64 dim[MAX_RANK]; /* outermost first */
        const void *data;  /* the file's bytes, NULL if not bound (shape file, parsed text) */
} Weight;

/* The KV cache of one layer: per sequence and position `heads` keys of dk values and values of dv values (dv
 * 0: values are a prefix of the keys), stored as ktype and vtype (below N_KV_TYPE). */
typedef struct State {
        const char *name;
        i64 heads, dk, dv;
        Dtype ktype, vtype;
} State;

typedef union Aval {
        i64 i; /* INT, and ENUM's index */
        double f;
} Aval;

typedef struct Node {
        Op op;
        u32 line;      /* in the text it was read from, 0 none */
        u32 nout, out; /* values out .. out + nout - 1 */
        u32 nin;
        struct In {
                Slot slot;
                Ref ref;
        } * in;     /* in slot order; repeated slots in order of operands */
        Aval *attr; /* [N_ATTR] */
} Node;

/* Names to numbers, so that a graph of many weights is not searched. */
typedef struct Name {
        const char *s; /* NULL: free */
        u32 len, i;
} Name;
typedef struct Index {
        Name *at; /* open addressing */
        u32 n, cap;
} Index;

typedef struct Graph {
        Arena *arena;
        const char *name; /* the phase: decode, prefill, ... */
        const char *file; /* where it was read from, for messages; NULL */
        Node *node;
        u32 n_node, cap_node;
        Val *val;
        u32 n_val, cap_val;
        Weight *weight;
        u32 n_weight, cap_weight;
        State *state;
        u32 n_state, cap_state;
        Index weights, states;
        Ref *ret; /* results: the logits, then the states' last values */
        u32 n_ret, cap_ret;
        u64 max[N_DIM];  /* upper bounds of the symbolic dimensions, set by the caller before `buffers`; 0
                            unknown */
        u64 max_seq_tok; /* no sequence's tokens of a step are further apart; 0: as far as they like */
        u64 arena_bytes; /* of the step's arena, set by `buffers` */
} Graph;

/* ---- tables (ir/ops.c) ---- */
typedef enum AttrKind { ATTR_INT, ATTR_FLT, ATTR_ENUM } AttrKind;
typedef struct AttrInfo {
        const char *name;
        AttrKind kind;
        Aval def;
        const char *const *word; /* ENUM: its words, NULL-terminated */
} AttrInfo;
typedef enum Arity { ARITY_one, ARITY_opt, ARITY_plus, ARITY_star } Arity;
typedef struct OpInfo {
        const char *name, *slots, *attrs, *results;
        u32 n_slot;
        struct {
                Slot slot;
                Arity arity;
        } slot[N_SLOT];    /* the slots string, parsed */
        bool attr[N_ATTR]; /* the attrs string, parsed */
} OpInfo;
const OpInfo *op_info(Op op);
extern const AttrInfo attr_info[N_ATTR];
extern const char *const slot_name[N_SLOT], *const dim_name[N_DIM], *const input_name[N_INPUT],
                                                                            *const layout_name[N_LAYOUT];
extern const DimSym input_dim[N_INPUT];

/* ---- names (ir/ops.c) ---- */
void index_add(
        Arena *a, Index *x, const char *s, size_t len, u32 i); /* s lives as long as x, and is new to it */
bool index_find(const Index *x, const char *s, size_t len, u32 *i);
int table_find(const char *const *word, u32 n, const char *s, size_t len); /* which of n words; -1: none */

/* ---- build (ir/graph.c) ---- */
Graph *graph_new(Arena *a, const char *name);
Graph *graph_clone(const Graph *g, Arena *a, const char *name); /* names and the weights' data are shared */
Ref graph_weight(Graph *g, const char *name, Wtype t, u32 rank, const u64 *dim,
        const void *data); /* the same name: the same ref */
bool graph_find_weight(const Graph *g, const char *name, size_t len, Ref *out);
bool graph_find_state(const Graph *g, const char *name, size_t len, Ref *out);
Ref graph_state(Graph *g, const char *name, i64 heads, i64 dk, i64 dv, Dtype ktype, Dtype vtype);
void graph_return(Graph *g, Ref r);

#define MAX_SIZE   ((i64)1 << 31) /* every dimension and INT attribute is below */
#define MAX_IN     64             /* operands of a node */
#define MAX_RESULT 16             /* results of a node */

/* A node at the end, or before node `at`; then its operands, attributes; then node_done, which checks the
 * signature, infers and defines its values (err with the node's line if it cannot be). Node pointers are good
 * until the next node is made. */
u32 node_new(Graph *g, Op op);
u32 node_insert(Graph *g, u32 at,
        Op op); /* at, and what follows moves one up; its values are numbered after the others' */
void node_in(Graph *g, u32 n, Slot s, Ref r);
void node_int(Graph *g, u32 n, Attr a, i64 v);
void node_flt(Graph *g, u32 n, Attr a, double v);
void node_copy_attrs(Graph *g, u32 n, u32 from); /* those that n's operation has, and layer */
Ref node_done(Graph *g,
        u32 n); /* its first value; again after a change of operands: infers again, same number of results */

/* ---- read ---- */
Ref in_get(const Node *n, Slot s);        /* REF_NONE if absent */
Ref in_nth(const Node *n, Slot s, u32 i); /* the i-th of a repeated slot */
u32 in_count(const Node *n, Slot s);
static inline i64 attr_i(const Node *n, Attr a)
{
        return n->attr[a].i;
}
static inline double attr_f(const Node *n, Attr a)
{
        return n->attr[a].f;
}
Vtype ref_type(const Graph *g, Ref r); /* a weight's: f32 whatever its storage, rank and dims of the weight */
const Node *ref_node(const Graph *g, Ref r); /* what defines a value; NULL for other kinds */
Ref ref_state(const Graph *g, Ref r);        /* the state that a kv value is a later version of */
i64 ref_experts(const Graph *g, Ref route);  /* the experts that a route value chooses from */
u32 ref_uses(const Graph *g, Ref r);         /* operands and returns that name it */
i64 dim_last(const Vtype *t);                /* the last dimension, a constant */
#define VTYPE_STR 128
bool attr_is_default(const Node *n, Attr a);
char *vtype_str(const Vtype *t, char out[VTYPE_STR]); /* f32[n_tok,2048] */
#define WHERE_STR 256
char *node_where(const Graph *g, u32 n, char out[WHERE_STR]); /* file:line: op, or where in the graph */
bool vtype_same(const Vtype *a, const Vtype *b);
u64 dim_at(Dim d, const u64 at[N_DIM]); /* its size where the symbols have these sizes */

/* ---- rewrite ---- */
void ref_replace(Graph *g, Ref from, Ref to); /* in operands and returns */
void node_kill(Graph *g, u32 n);
void graph_compact(Graph *g); /* drops dead nodes, unused values and weights; renumbers in order */

/* ---- buffers ---- */
u64 val_bytes(const Graph *g,
        u32 v); /* at the upper bounds; UINT64_MAX: too many, or a bound is unknown; states: 0 */
/* Whether the first result of n may be written where the value of its operand i lies, if nothing reads that
 * later: every element is read before, and by whom, it is written. Same type. */
bool in_place(const Graph *g, u32 n, u32 i);

/* ---- the other files of ir/ ---- */
/* infer.c: checks the signature, gives the types of the results; err where operands do not fit */
void infer(const Graph *g, u32 n, Vtype out[MAX_RESULT], u32 *nout);
void check(const Graph *g); /* check.c: die on the first broken invariant, naming the node */
void valid(const Graph *g); /* check.c: the same, but err: for a graph that the user wrote */
/* print.c. A name of other characters than these is quoted. */
#define NAME_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-+:/"
void print(const Graph *g, Buf *out);
void print_node(const Graph *g, u32 n, Buf *out); /* one line; values by their numbers in g */
Graph *parse(Arena *a, const char *text, size_t len, const char *file); /* parse.c: err with file and line */

#endif

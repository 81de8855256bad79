/* The tables of ir/ops.h as data. */
#include "ir/graph.h"
#include <pthread.h>
#include <string.h>

#define E(p, w)       #w,
#define U(attr, list) static const char *const word_##attr[] = {ENUM_##list(E) NULL};
ENUM_USES(U)
#undef U
#undef E

#define INIT_INT(name, d)                                                                                    \
        {                                                                                                    \
#name, ATTR_INT, {.i = (d) }, NULL                                                           \
        }
#define INIT_FLT(name, d)                                                                                    \
        {                                                                                                    \
#name, ATTR_FLT, {.f = (d) }, NULL                                                           \
        }
#define INIT_ENUM(name, d)                                                                                   \
        {                                                                                                    \
#name, ATTR_ENUM, {.i = (d) }, word_##name                                                   \
        }
const AttrInfo attr_info[N_ATTR] = {
#define A(name, kind, def) INIT_##kind(name, def),
        ATTRS(A)
#undef A
};

#define NAME(name) #name,
const char *const slot_name[N_SLOT] = {SLOTS(NAME)};
const char *const dim_name[N_DIM] = {"", DIMS(NAME)};
const char *const layout_name[N_LAYOUT] = {LAYOUTS(NAME)};
#undef NAME
#define I(name, dim) #name,
const char *const input_name[N_INPUT] = {INPUTS(I)};
#undef I
#define I(name, dim) DIM_##dim,
const DimSym input_dim[N_INPUT] = {INPUTS(I)};
#undef I

static OpInfo op_table[N_OP] = {
#define O(op, in, at, out) {.name = #op, .slots = in, .attrs = at, .results = out},
        OPS(O)
#undef O
};

/* The next word of a table's string, without what marks its arity; 0 at the end. */
static size_t next_word(const char **s, const char **word)
{
        *s += strspn(*s, " ");
        *word = *s;
        size_t n = strcspn(*s, " ");
        *s += n;
        return n;
}

static void parse_slots(OpInfo *o)
{
        const char *s = o->slots, *w;
        for (size_t n; (n = next_word(&s, &w)) != 0; o->n_slot++) {
                const char *mark = strchr("?+*", w[n - 1]);
                Arity arity = !mark          ? ARITY_one
                              : *mark == '?' ? ARITY_opt
                              : *mark == '+' ? ARITY_plus
                                             : ARITY_star;
                n -= mark != NULL;
                int found = N_SLOT;
                for (int i = 0; i < N_SLOT; i++)
                        if (strlen(slot_name[i]) == n && memcmp(slot_name[i], w, n) == 0)
                                found = i;
                if (found == N_SLOT)
                        die("ops.h: %s: no slot %.*s in SLOTS", o->name, (int)n, w);
                o->slot[o->n_slot].slot = (Slot)found;
                o->slot[o->n_slot].arity = arity;
        }
}

static void parse_attrs(OpInfo *o)
{
        const char *s = o->attrs, *w;
        o->attr[A_layer] = true;
        for (size_t n; (n = next_word(&s, &w)) != 0;) {
                int found = N_ATTR;
                for (int i = 0; i < N_ATTR; i++)
                        if (strlen(attr_info[i].name) == n && memcmp(attr_info[i].name, w, n) == 0)
                                found = i;
                if (found == N_ATTR)
                        die("ops.h: %s: no attribute %.*s in ATTRS", o->name, (int)n, w);
                o->attr[found] = true;
        }
}

static void parse_table(void)
{
        for (int i = 0; i < N_OP; i++) {
                parse_slots(&op_table[i]);
                parse_attrs(&op_table[i]);
        }
}

const OpInfo *op_info(Op op)
{
        static pthread_once_t once = PTHREAD_ONCE_INIT;
        pthread_once(&once, parse_table);
        if ((unsigned)op >= N_OP)
                die("no operation %d", (int)op);
        return &op_table[op];
}

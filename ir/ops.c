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

static bool word_same(const char *word, const char *s, size_t len)
{
        return strncmp(word, s, len) == 0 && !word[len];
}

int table_find(const char *const *word, u32 n, const char *s, size_t len)
{
        for (u32 i = 0; i < n; i++)
                if (word_same(word[i], s, len))
                        return (int)i;
        return -1;
}

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
                int found = table_find(slot_name, N_SLOT, w, n);
                if (found < 0)
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
                int found = 0;
                while (found < N_ATTR && !word_same(attr_info[found].name, w, n))
                        found++;
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

static Name *index_slot(const Index *x, const char *s, size_t len)
{
        u32 h = (u32)hash_str(s, len);
        Name *n = &x->at[h & (x->cap - 1)];
        while (n->s && (n->len != len || memcmp(n->s, s, len) != 0))
                n = &x->at[++h & (x->cap - 1)];
        return n;
}

void index_add(Arena *a, Index *x, const char *s, size_t len, u32 i)
{
        if (2 * (u64)x->n >= x->cap) {
                Index old = *x;
                x->cap = old.cap ? old.cap * 2 : 16;
                x->at = NEWN(a, Name, x->cap);
                for (u32 k = 0; k < old.cap; k++)
                        if (old.at[k].s)
                                *index_slot(x, old.at[k].s, old.at[k].len) = old.at[k];
        }
        *index_slot(x, s, len) = (Name){s, (u32)len, i};
        x->n++;
}

bool index_find(const Index *x, const char *s, size_t len, u32 *i)
{
        if (!x->n)
                return false;
        const Name *n = index_slot(x, s, len);
        if (n->s)
                *i = n->i;
        return n->s != NULL;
}

#include "frontend/lua.h"
#include "frontend/lua_host.h"
#include <float.h>
#include <string.h>

#define VALUE "value" /* the metatable of what operations give */

/* ---- hp: hyperparameters ---- */

typedef enum Kind { KIND_u32, KIND_f32, KIND_bool, KIND_str } Kind;

/* What a function asks of build.c, and the answer. */
typedef struct Ask {
        Build *b;
        Kind kind;
        const char *key;
        u64 min, max, u;
        double fmin, fmax, f;
        bool bit, found, need; /* need: no default */
        bool derived;          /* its default is `def`, which may follow from other keys */
        i64 def;
        moec_status st;
        const char *s;
        i64 dim[MAX_RANK];
        u32 rank;
        Aval attr[N_ATTR];
        Ref ref;
} Ask;

static void ask_key(void *p)
{
        Ask *q = p;
        switch (q->kind) {
        case KIND_u32:
                q->found = build_u64(q->b, q->key, q->min, q->max, &q->u);
                break;
        case KIND_f32:
                q->found = build_f32(q->b, q->key, q->fmin, q->fmax, &q->f);
                break;
        case KIND_bool:
                q->found = build_bool(q->b, q->key, &q->bit);
                break;
        case KIND_str:
                q->s = build_str(q->b, q->key);
                q->found = q->s != NULL;
                break;
        }
        if (!q->found && q->need)
                build_missing(q->b, q->key);
        if (!q->found && q->derived && (q->def < (i64)q->min || q->def > (i64)q->max))
                err(MOEC_DAMAGED,
                        "%s: key %s.%s is missing, and what follows for it, %lld, is not %llu to %llu",
                        gguf_path(q->b->gguf), q->b->arch, q->key, (long long)q->def,
                        (unsigned long long)q->min, (unsigned long long)q->max);
}

static void ask_refuse(void *p)
{
        const Ask *q = p;
        err(q->st, "%s: %s", gguf_path(q->b->gguf), q->s);
}

static void ask_rope(void *p)
{
        Ask *q = p;
        build_rope(q->b, q->attr);
}

/* The value of the key at index 1; at index `def` its default: nil where it must be in the file, false where
 * it may be missing.
 */
static int key(lua_State *L, Ask *q, Kind kind, int def)
{
        lua_settop(L, MAX(def, lua_gettop(L)));
        q->b = lua_host(L)->b;
        q->kind = kind;
        q->key = luaL_checkstring(L, 1);
        q->need = lua_isnil(L, def);
        lua_guard(L, ask_key, q);
        if (!q->found)
                lua_pushvalue(L, def);
        else if (kind == KIND_u32)
                lua_pushinteger(L, (lua_Integer)q->u);
        else if (kind == KIND_f32)
                lua_pushnumber(L, q->f);
        else if (kind == KIND_bool)
                lua_pushboolean(L, q->bit);
        else
                lua_pushstring(L, q->s);
        return 1;
}

/* hp.u32(key, min, max, default) */
static int hp_u32(lua_State *L)
{
        lua_Integer min = luaL_checkinteger(L, 2), max = luaL_checkinteger(L, 3);
        luaL_argcheck(L, min >= 0, 2, "must not be negative");
        luaL_argcheck(L, max >= min, 3, "must not be less than the minimum");
        Ask q = {
                .min = (u64)min, .max = (u64)max, .derived = lua_isinteger(L, 4), .def = lua_tointeger(L, 4)};
        return key(L, &q, KIND_u32, 4);
}

/* hp.f32(key, default, min, max); without bounds: above 0 */
static int hp_f32(lua_State *L)
{
        Ask q = {.fmin = luaL_optnumber(L, 3, FLT_MIN), .fmax = luaL_optnumber(L, 4, FLT_MAX)};
        return key(L, &q, KIND_f32, 2);
}

/* hp.bool(key, default) */
static int hp_bool(lua_State *L)
{
        return key(L, &(Ask){0}, KIND_bool, 2);
}

/* hp.str(key, default) */
static int hp_str(lua_State *L)
{
        return key(L, &(Ask){0}, KIND_str, 2);
}

static int refuse(lua_State *L, moec_status st, int msg)
{
        Ask q = {.b = lua_host(L)->b, .st = st, .s = luaL_checkstring(L, msg)};
        lua_guard(L, ask_refuse, &q);
        return 0;
}

/* hp.check(condition, message): the file contradicts itself if it does not hold */
static int hp_check(lua_State *L)
{
        return lua_toboolean(L, 1) ? 0 : refuse(L, MOEC_DAMAGED, 2);
}

/* hp.unsupported(message) */
static int hp_unsupported(lua_State *L)
{
        return refuse(L, MOEC_UNSUPPORTED, 1);
}

/* hp.rope(): a table of the attributes that the keys rope.* make */
static int hp_rope(lua_State *L)
{
        Ask q = {.b = lua_host(L)->b};
        for (int i = 0; i < N_ATTR; i++)
                q.attr[i] = attr_info[i].def;
        lua_guard(L, ask_rope, &q);
        lua_newtable(L);
        for (int i = 0; i < N_ATTR; i++) {
                if (memcmp(&q.attr[i], &attr_info[i].def, sizeof q.attr[i]) == 0)
                        continue;
                if (attr_info[i].kind == ATTR_FLT)
                        lua_pushnumber(L, q.attr[i].f);
                else
                        lua_pushinteger(L, q.attr[i].i);
                lua_setfield(L, -2, attr_info[i].name);
        }
        return 1;
}

static const luaL_Reg hp_functions[] = {{"u32", hp_u32}, {"f32", hp_f32}, {"bool", hp_bool}, {"str", hp_str},
        {"check", hp_check}, {"unsupported", hp_unsupported}, {"rope", hp_rope}, {NULL, NULL}};

/* ---- g: the graph ---- */

static void push_ref(lua_State *L, Ref r)
{
        *(Ref *)lua_newuserdatauv(L, sizeof r, 0) = r;
        luaL_setmetatable(L, VALUE);
}

static void ask_weight(void *p)
{
        Ask *q = p;
        u64 dim[MAX_RANK];
        for (u32 i = 0; i < q->rank; i++)
                dim[i] = (u64)q->dim[i];
        q->ref = build_weight(q->b, q->key, q->rank, dim, !q->need);
}

static int weight(lua_State *L, bool need)
{
        Ask q = {.b = lua_host(L)->b, .key = luaL_checkstring(L, 2), .need = need};
        luaL_checktype(L, 3, LUA_TTABLE);
        lua_Unsigned n = lua_rawlen(L, 3);
        luaL_argcheck(L, n >= 1 && n <= MAX_RANK, 3, "a shape has 1 to 4 dimensions");
        for (q.rank = 0; q.rank < n; q.rank++) {
                lua_rawgeti(L, 3, (lua_Integer)q.rank + 1);
                q.dim[q.rank] = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : 0;
                luaL_argcheck(L, q.dim[q.rank] > 0, 3, "dimensions are integers from 1");
                lua_pop(L, 1);
        }
        lua_guard(L, ask_weight, &q);
        if (q.ref == REF_NONE)
                lua_pushnil(L);
        else
                push_ref(L, q.ref);
        return 1;
}

/* g:w(name, shape) */
static int g_w(lua_State *L)
{
        return weight(L, true);
}

/* g:opt(name, shape): nil where the file has no such tensor */
static int g_opt(lua_State *L)
{
        return weight(L, false);
}

static void ask_state(void *p)
{
        Ask *q = p;
        q->ref = build_state(q->b, q->key, q->dim[0], q->dim[1], q->dim[2]);
}

/* g:state(name, heads, dk, dv) */
static int g_state(lua_State *L)
{
        Ask q = {.b = lua_host(L)->b, .key = luaL_checkstring(L, 2)};
        for (int i = 0; i < 3; i++)
                q.dim[i] = luaL_checkinteger(L, 3 + i);
        lua_guard(L, ask_state, &q);
        push_ref(L, q.ref);
        return 1;
}

/* g:layer(i): what follows belongs to layer i; g:layer(): to none */
static int g_layer(lua_State *L)
{
        lua_Integer i = luaL_optinteger(L, 2, -1);
        luaL_argcheck(L, i >= -1 && i < 65536, 2, "no layer's number");
        lua_host(L)->b->layer = i;
        return 0;
}

static const luaL_Reg g_functions[] = {
        {"w", g_w}, {"opt", g_opt}, {"state", g_state}, {"layer", g_layer}, {NULL, NULL}};

/* ---- operations ---- */

typedef struct Call {
        Build *b;
        Op op;
        u32 n_in, node;
        struct In in[MAX_IN];
        Aval attr[N_ATTR];
        bool has[N_ATTR];
} Call;

static void add_node(void *p)
{
        Call *c = p;
        c->node = build_node(c->b, c->op, c->in, c->n_in, c->attr, c->has);
}

/* The value on the top of the stack. */
static void add_operand(lua_State *L, Call *c, Slot slot)
{
        const Ref *r = luaL_testudata(L, -1, VALUE);
        const char *op = op_info(c->op)->name;
        if (!r)
                luaL_error(
                        L, "%s: operand %s is a %s, not a value", op, slot_name[slot], luaL_typename(L, -1));
        if (c->n_in == MAX_IN)
                luaL_error(L, "%s: more than %d operands", op, MAX_IN);
        c->in[c->n_in++] = (struct In){slot, *r};
}

static void read_slots(lua_State *L, Call *c)
{
        const OpInfo *info = op_info(c->op);
        for (u32 i = 0; i < info->n_slot; i++) {
                Slot slot = info->slot[i].slot;
                Arity arity = info->slot[i].arity;
                int type = lua_getfield(L, 2, slot_name[slot]);
                if (type == LUA_TTABLE && (arity == ARITY_plus || arity == ARITY_star)) {
                        lua_Unsigned n = lua_rawlen(L, -1);
                        for (lua_Unsigned k = 1; k <= n; k++) {
                                lua_rawgeti(L, -1, (lua_Integer)k);
                                add_operand(L, c, slot);
                                lua_pop(L, 1);
                        }
                } else if (type != LUA_TNIL)
                        add_operand(L, c, slot);
                else if (arity == ARITY_one || arity == ARITY_plus)
                        luaL_error(L, "%s: operand %s is missing", info->name, slot_name[slot]);
                lua_pop(L, 1);
        }
}

static i64 read_word(lua_State *L, const Call *c, const AttrInfo *info)
{
        const char *s = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
        luaL_Buffer all;
        luaL_buffinit(L, &all);
        for (i64 i = 0; info->word[i]; i++) {
                if (s && strcmp(s, info->word[i]) == 0)
                        return i;
                luaL_addstring(&all, i ? ", " : "");
                luaL_addstring(&all, info->word[i]);
        }
        luaL_pushresult(&all);
        return luaL_error(L, "%s: %s is one of: %s", op_info(c->op)->name, info->name, lua_tostring(L, -1));
}

/* Those that the table at `at` has. */
static void read_attrs(lua_State *L, Call *c, int at)
{
        const OpInfo *op = op_info(c->op);
        for (int i = 0; i < N_ATTR; i++) {
                const AttrInfo *info = &attr_info[i];
                int ok = 1;
                if (!op->attr[i])
                        continue;
                if (lua_getfield(L, at, info->name) != LUA_TNIL) {
                        if (info->kind == ATTR_ENUM)
                                c->attr[i].i = read_word(L, c, info);
                        else if (lua_type(L, -1) != LUA_TNUMBER)
                                ok = 0;
                        else if (info->kind == ATTR_INT)
                                c->attr[i].i = lua_tointegerx(L, -1, &ok);
                        else
                                c->attr[i].f = lua_tonumber(L, -1);
                        if (!ok)
                                luaL_error(L, "%s: %s must be %s", op->name, info->name,
                                        info->kind == ATTR_INT ? "an integer" : "a number");
                        c->has[i] = true;
                }
                lua_pop(L, 1);
        }
}

/* A misspelt operand or attribute must not be ignored. */
static void refuse_unknown(lua_State *L, const Call *c, int at, bool slots)
{
        const OpInfo *op = op_info(c->op);
        for (lua_pushnil(L); lua_next(L, at); lua_pop(L, 1)) {
                const char *k = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
                bool known = !k && slots && lua_isinteger(L, -2) && lua_tointeger(L, -2) == 1;
                for (u32 i = 0; k && slots && i < op->n_slot; i++)
                        known |= strcmp(k, slot_name[op->slot[i].slot]) == 0;
                for (int i = 0; k && i < N_ATTR; i++)
                        known |= op->attr[i] && strcmp(k, attr_info[i].name) == 0;
                if (!known)
                        luaL_error(L, "%s has no operand or attribute %s", op->name, k ? k : "of that key");
        }
}

/* g:op{operands, attributes}: its results. Item [1] may be a table of further attributes. */
static int g_op(lua_State *L)
{
        Call c = {.b = lua_host(L)->b, .op = (Op)lua_tointeger(L, lua_upvalueindex(1))};
        const char *name = op_info(c.op)->name;
        lua_settop(L, 2);
        if (!lua_istable(L, 2))
                return luaL_error(L, "write g:%s{...}", name);
        refuse_unknown(L, &c, 2, true);
        if (lua_rawgeti(L, 2, 1) == LUA_TTABLE) {
                refuse_unknown(L, &c, 3, false);
                read_attrs(L, &c, 3);
        } else if (!lua_isnil(L, 3))
                luaL_error(L, "%s: item 1 must be a table of attributes", name);
        read_attrs(L, &c, 2);
        read_slots(L, &c);
        lua_guard(L, add_node, &c);
        const Node *n = &c.b->g->node[c.node];
        luaL_checkstack(L, (int)n->nout, name);
        for (u32 i = 0; i < n->nout; i++)
                push_ref(L, REF(R_VAL, n->out + i));
        return (int)n->nout;
}

/* ---- build(g, hp) ---- */

static void push_g(lua_State *L)
{
        luaL_newlib(L, g_functions);
        for (int i = 0; i < N_OP; i++) {
                lua_pushinteger(L, i);
                lua_pushcclosure(L, g_op, 1);
                lua_setfield(L, -2, op_info((Op)i)->name);
        }
        for (int i = 0; i < N_INPUT; i++) {
                push_ref(L, REF(R_INPUT, i));
                lua_setfield(L, -2, input_name[i]);
        }
}

static void push_hp(lua_State *L, u64 n_vocab)
{
        luaL_newlib(L, hp_functions);
        lua_pushinteger(L, (lua_Integer)n_vocab);
        lua_setfield(L, -2, "n_vocab");
}

static void add_return(void *p)
{
        const Ask *q = p;
        graph_return(q->b->g, q->ref);
}

static void give_back(lua_State *L, const char *what)
{
        const Ref *r = luaL_testudata(L, -1, VALUE);
        Host *h = lua_host(L);
        Ask q = {.b = h->b, .ref = r ? *r : REF_NONE};
        if (!r)
                luaL_error(L, "%s: build must return the logits and a list of the states; %s is a %s",
                        h->name, what, luaL_typename(L, -1));
        lua_guard(L, add_return, &q);
}

static void job_build(lua_State *L)
{
        Host *h = lua_host(L);
        luaL_newmetatable(L, VALUE);
        lua_pop(L, 1);
        if (lua_getfield(L, -1, "build") != LUA_TFUNCTION)
                luaL_error(L, "%s: no function `build`", h->name);
        push_g(L);
        push_hp(L, h->b->n_vocab);
        lua_call(L, 2, 2);
        lua_pushvalue(L, -2);
        give_back(L, "the first result");
        lua_pop(L, 1);
        lua_Unsigned n = lua_istable(L, -1) ? lua_rawlen(L, -1) : 0;
        if (n != h->b->g->n_state)
                luaL_error(L, "%s: build returned %d states of the %d it made", h->name, (int)n,
                        (int)h->b->g->n_state);
        for (lua_Unsigned i = 1; i <= n; i++) {
                lua_rawgeti(L, -1, (lua_Integer)i);
                give_back(L, "a state");
                lua_pop(L, 1);
        }
}

void lua_build(Build *b, const char *name, const char *text, size_t len)
{
        Host h = {.name = name, .text = text, .len = len, .job = job_build, .arena = b->g->arena, .b = b};
        lua_run(&h);
}

/* How CUDA cuts operations into blocks of threads.
 *
 * Facts of every kernel: THREADS of a block; NARG arguments; NT, tokens a
 * tile; ROWS, what counts the rows of x or of the result. Where they matter: MAXTOK, the most tokens of a
 * step; RPB, rows of a weight a block; PART, columns of an expert's hidden layer a block; SPLIT, blocks that
 * share a head's past or a router's product. tune.lua may set THREADS, NT, RPB, PART and SPLIT of an
 * operation, and others in its table `few` for templates of few tokens; not of the templates for tensor
 * cores, whose sizes belong together.
 *
 * Grids, as blockIdx.x, y, z (a grid is the phase's largest: blocks behind the step's sizes have nothing to
 * do); the templates OP_one (but for matmul) have GRID blocks, those of a few and of many tokens what
 * select_few.c and select_many.c say:
 *   matmul              block of RPB rows over all weights (START, END), tile of NT rows of x
 *   headmul             block of RPB rows, head, tile of NT tokens
 *   experts_up          part, slot, token;      with an order: part, expert
 *   experts_down        block of RPB rows, token;      with an order: block of RPB rows, the experts in turn
 *   attend              token, head of keys, split
 *   kv_append           token
 *   route               token, split
 *   sort                one block
 *   add mul glu scale   row, 1024 columns
 *   all others          row */
#include "codegen/select_part.h"

#define COLUMNS      1024 /* of an elementwise operation, a block */
#define MANY_TOKENS  512  /* room for as many in every phase, so that they share a kernel */
#define SORT_EXPERTS 256  /* for whose counts 32 warps have room */

static bool one_token(const Ctx *c)
{
        return sel_tokens(c) == 1;
}
static bool has(const Ctx *c, Slot s)
{
        return in_get(c->n, s) != REF_NONE;
}
static i64 clamp(i64 v, i64 least, i64 most)
{
        return MAX(least, MIN(v, most));
}

/* tune.lua's, or def. */
static i64 size(const Ctx *c, const char *name, i64 least, i64 most, i64 def)
{
        const Tab *few = c->tune && (c->one || c->few) ? tab_tab(c->tune, "few") : NULL;
        if (c->tune)
                tab_int(c->tune, name, least, most, &def);
        if (few)
                tab_int(few, name, least, most, &def);
        return def;
}

/* A warp has whole rows of a weight: as many as keep two blocks a processor busy. */
static i64 rows_a_block(const Ctx *c)
{
        i64 rows = 0, a_warp = 1;
        if (c->n->op != OP_matmul)
                return c->n->op == OP_headmul && !one_token(c) ? 32 : 8;
        if (!one_token(c))
                return 32;
        for (u32 i = 0; i < c->n->nout; i++)
                rows += dim_last(&sel_result(c, i)->type);
        while (a_warp < 8 && rows > 264 * 8 * a_warp)
                a_warp += a_warp == 4 ? 4 : 1;
        return 8 * a_warp;
}

/* What each kernel reads ahead of its wait, and when it lets the launch behind it start: by operation and
 * template. Whether it may is schedule.c's to say. */
enum { GENERIC, ONE, FEW, MANY, N_TEMPLATE };
typedef struct Ahead {
        PlanTrigger trigger;
        u32 n;
        Slot early[3];
        bool late_alone; /* a step of one token: triggers behind its wait, so that fewer launches lie ahead */
} Ahead;
static const Ahead ahead[N_OP][N_TEMPLATE] = {
        [OP_rmsnorm] = {[GENERIC] = {.trigger = PLAN_TRIGGER_first}},
        [OP_quantize] = {[GENERIC] = {.trigger = PLAN_TRIGGER_first}},
        [OP_kv_append] = {[GENERIC] = {.trigger = PLAN_TRIGGER_first}},
        [OP_sort] = {[GENERIC] = {.trigger = PLAN_TRIGGER_first}},
        [OP_matmul] = {[ONE] = {.trigger = PLAN_TRIGGER_first},
                [FEW] = {.trigger = PLAN_TRIGGER_first},
                [MANY] = {.trigger = PLAN_TRIGGER_first}},
        [OP_attend] = {[FEW] = {.trigger = PLAN_TRIGGER_first, .n = 3, .early = {S_pos, S_seq, S_kv}},
                [MANY] = {.trigger = PLAN_TRIGGER_first, .n = 2, .early = {S_pos, S_seq}}},
        [OP_route] = {[GENERIC] = {.trigger = PLAN_TRIGGER_first},
                [FEW] = {.trigger = PLAN_TRIGGER_first, .late_alone = true}},
        [OP_experts_up] = {[ONE] = {.trigger = PLAN_TRIGGER_waited},
                [FEW] = {.trigger = PLAN_TRIGGER_waited},
                [MANY] = {.trigger = PLAN_TRIGGER_first}},
        [OP_experts_down] =
                {[ONE] = {.trigger = PLAN_TRIGGER_first, .n = 1, .early = {S_route}, .late_alone = true},
                        [FEW] = {.trigger = PLAN_TRIGGER_first, .n = 1, .early = {S_route}},
                        [MANY] = {.trigger = PLAN_TRIGGER_first}},
};

static void facts_ahead(Ctx *c)
{
#define T(name) #name,
        static const char *const word[] = {PLAN_TRIGGERS(T)};
#undef T
        const Ahead *h = &ahead[c->n->op][c->one ? ONE : c->few ? FEW : c->many ? MANY : GENERIC];
        c->s->trigger = h->late_alone && one_token(c) ? PLAN_TRIGGER_waited : h->trigger;
        key_word(c->k, "TRIGGER", word[c->s->trigger]);
        for (u32 i = 0; i < c->s->n_arg; i++)
                for (u32 k = 0; k < h->n; k++) {
                        struct SelArg *a = &c->s->arg[i];
                        if (a->slot != h->early[k])
                                continue;
                        bool values = i && a->slot == S_kv && c->s->arg[i - 1].slot == S_kv;
                        a->early = c->early;
                        key_fmt(c->k, c->early ? "1" : "0", "EARLY_%s", values ? "kvv" : slot_name[a->slot]);
                }
}

static void begin(Ctx *c)
{
        bool sort = c->n->op == OP_sort && attr_i(c->n, A_experts) <= SORT_EXPERTS;
        c->s->threads = sort ? 1024 : c->n->op == OP_kv_append ? 128 : 256;
        c->tile = one_token(c) ? 1 : size(c, "NT", 1, 256, 8);
        if (!has(c, S_order) && (c->n->op == OP_experts_up || c->n->op == OP_experts_down))
                c->tile = 1;
        c->rows = rows_a_block(c);
        c->one = one_fits(c);
        c->few = !c->one && few_fits(c);
        c->many = !c->one && !c->few && !one_token(c) && !has(c, S_k) && many_fits(c);
        if (c->one)
                one_begin(c);
        else if (c->few)
                few_begin(c);
        else if (c->many)
                many_begin(c);
        if (!c->many && !(c->few && few_multiplies(c))) {
                c->rows = size(c, "RPB", 1, 1 << 20, c->rows);
                c->s->threads = (u32)size(c, "THREADS", 32, 1024, c->s->threads);
        }
        if (c->s->threads % 32)
                tab_err(c->tune, "THREADS is a multiple of 32");
        key_int(c->k, "THREADS", c->s->threads);
        key_int(c->k, "NARG", c->s->n_arg);
        if (!c->one && !c->few && (c->n->op == OP_route || c->n->op == OP_experts_down))
                key_int(c->k, "MAXTOK", MAX(sel_tokens(c), c->many ? MANY_TOKENS : 1));
        key_int(c->k, "NT", c->tile);
        facts_ahead(c);
}

static void fact_rows(Ctx *c)
{
        const Vtype *t = &sel_result(c, 0)->type;
        if (t->dim[0].sym == DIM_const)
                key_int(c->k, "ROWS", t->dim[0].n);
        else
                key_word(c->k, "ROWS", dim_name[t->dim[0].sym]);
}

static void grid_rows(Ctx *c)
{
        fact_rows(c);
        sel_grid_rows(c);
}
static void grid_elements(Ctx *c)
{
        grid_rows(c);
        sel_grid(c, 1, DIM_const, dim_last(&sel_result(c, 0)->type), COLUMNS);
}
static void grid_matmul(Ctx *c)
{
        Vtype x = sel_type(c, S_x);
        key_int(c->k, "RPB", c->rows);
        sel_grid(c, 0, DIM_const, sel_matmul_tiles(c), 1);
        if (c->few)
                few_grid(c);
        else if (!c->one)
                sel_grid(c, 1, x.dim[0].sym, x.dim[0].sym == DIM_const ? x.dim[0].n : 1, c->tile);
}
static void grid_headmul(Ctx *c)
{
        key_int(c->k, "RPB", c->rows);
        sel_grid(c, 0, DIM_const, sel_dim(c, S_w, 1), c->rows);
        sel_grid(c, 1, DIM_const, sel_dim(c, S_w, 0), 1);
        sel_grid(c, 2, DIM_n_tok, 1, c->tile);
}
static void grid_kv_append(Ctx *c)
{
        sel_grid(c, 0, DIM_n_tok, 1, 1);
}
static void grid_attend(Ctx *c)
{
        if (c->many)
                return;
        i64 heads = sel_state(c)->heads,
            split = one_token(c) || c->few ? size(c, "SPLIT", 1, 32, clamp(128 / heads, 1, 32)) : 1;
        if (c->few) {
                split = MAX(split, c->tile);
                key_int(c->k, "EACH", size(c, "EACH", 1, 1024, 4));
        }
        key_int(c->k, "SPLIT", split);
        if (!c->few)
                sel_grid(c, 0, DIM_n_tok, 1, 1);
        sel_grid(c, 1, DIM_const, heads, 1);
        sel_grid(c, 2, DIM_const, split, 1);
}
static void grid_route(Ctx *c)
{
        i64 split = has(c, S_w) ? size(c, "SPLIT", 1, 64, clamp(sel_tiles(sel_dim(c, S_w, 0), 8), 1, 32)) : 1;
        if (c->few) {
                i64 cluster = size(c, "CLUSTER", 1, 8, 8);
                split = size(c, "SPLIT", 1, 128, cluster);
                key_int(c->k, "CLUSTER", cluster);
                key_int(c->k, "SPLIT", split);
                few_grid_route(c, split, cluster);
                sel_grid(c, 2, DIM_const, split, 1);
                return;
        }
        key_int(c->k, "SPLIT", split);
        sel_grid(c, 0, DIM_n_tok, 1, 1);
        sel_grid(c, 1, DIM_const, split, 1);
}
static void grid_sort(Ctx *c)
{
        sel_grid(c, 0, DIM_const, 1, 1);
}
static void grid_experts_up(Ctx *c)
{
        bool order = has(c, S_order);
        if (c->one) {
                one_grid(c);
                return;
        }
        if (c->few) {
                few_grid(c);
                return;
        }
        if (!c->many)
                c->cols = size(c, "PART", 16, 512, order ? 32 : 16);
        if (c->cols % 16)
                tab_err(c->tune, "PART is a multiple of 16");
        key_int(c->k, "PART", c->cols);
        sel_grid(c, 0, DIM_const, sel_dim(c, S_gate, 1), c->cols);
        sel_grid(c, 1, DIM_const, order ? sel_dim(c, S_gate, 0) : sel_last(c, S_route), 1);
        sel_grid(c, 2, order ? DIM_const : DIM_n_tok, 1, 1);
        if (c->many)
                many_grid(c);
}
static void grid_experts_down(Ctx *c)
{
        if (c->few) {
                few_grid(c);
                return;
        }
        key_int(c->k, "RPB", c->rows);
        if (c->one) {
                one_grid(c);
                return;
        }
        sel_grid(c, 0, DIM_const, sel_dim(c, S_down, 1), c->rows);
        sel_grid(c, 1, has(c, S_order) ? DIM_const : DIM_n_tok, 1, 1);
        if (c->many)
                many_grid(c);
}

#define ROWS(op)     [OP_##op] = grid_rows
#define ELEMENTS(op) [OP_##op] = grid_elements
#define OWN(op)      [OP_##op] = grid_##op
const SelTarget sel_cuda = {begin,
        {ELEMENTS(add), ELEMENTS(mul), ELEMENTS(glu), ELEMENTS(scale), ROWS(slice), ROWS(concat),
                ROWS(rmsnorm), ROWS(rope), OWN(matmul), OWN(headmul), OWN(kv_append), OWN(attend), OWN(route),
                OWN(sort), OWN(experts_up), OWN(experts_down), [OP_dequant] = sel_grid_table,
                [OP_embed] = sel_grid_rows, [OP_rows] = sel_grid_rows, [OP_quantize] = sel_grid_rows}};

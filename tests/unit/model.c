/* From a file to its graph: what is read, what is refused and how it is said, architectures of the user's.
 * Run from the root of the repository. */
#include <math.h>
#include "tests/unit/model_help.h"
#include "ir/eval.h"
#include "runtime/token.h"

static Opening o;

static int teardown(void **state)
{
        (void)state;
        if (o.a)
                shut_model(&o);
        o = (Opening){0};
        return 0;
}

/* The model opens, but its graph is refused with this. */
static void refused(const Tiny *tiny, moec_status st, const char *says)
{
        open_tiny(&o, tiny, NULL);
        assert_int_equal(o.error.status, MOEC_OK);
        if (o.m.why.status != st || !strstr(o.m.why.msg, says))
                fail_msg("gave %d: %s\n not %d: %s", o.m.why.status, o.m.why.msg, st, says);
        assert_null(o.m.graph);
        teardown(NULL);
}

static void accepted(const Tiny *tiny)
{
        open_tiny(&o, tiny, NULL);
        assert_int_equal(o.error.status, MOEC_OK);
        if (o.m.why.status)
                fail_msg("%s", o.m.why.msg);
        assert_non_null(o.m.graph);
}

static u32 count(const Graph *g, Op op)
{
        u32 n = 0;
        for (u32 i = 0; i < g->n_node; i++)
                n += g->node[i].op == op;
        return n;
}

static const Node *nth(const Graph *g, Op op, u32 i)
{
        for (u32 k = 0; k < g->n_node; k++)
                if (g->node[k].op == op && i-- == 0)
                        return &g->node[k];
        fail_msg("no such node");
        return NULL;
}

/* ---- what is read ---- */

static void test_demo(void **state)
{
        (void)state;
        open_model(&o, "examples/fables.gguf", NULL);
        assert_int_equal(o.error.status, MOEC_OK);
        const ModelInfo *i = &o.m.info;
        assert_string_equal(o.m.arch, "qwen3moe");
        assert_string_equal(o.m.name, "Fables 16M");
        assert_string_equal(o.m.type->about, "Qwen3 mixture of experts");
        assert_int_equal(i->n_vocab, 4096);
        assert_int_equal(i->n_ctx_train, 2048);
        assert_int_equal(i->n_layer, 4);
        assert_int_equal(i->n_embd, 256);
        assert_int_equal(i->n_expert, 16);
        assert_int_equal(i->n_expert_used, 4);
        assert_int_equal(i->n_params, 16009984);
        assert_true(i->has_tokenizer && !i->is_shape);
        const Graph *g = o.m.graph;
        assert_non_null(g);
        assert_int_equal(g->n_weight, 51);
        assert_int_equal(g->n_state, 4);
        assert_int_equal(g->n_ret, 5);
        assert_int_equal(count(g, OP_experts), 4);
        assert_int_equal(count(g, OP_dequant), 2 + 4 * 7); /* all matrices but the routers, which are F32 */
        assert_int_equal(attr_i(nth(g, OP_rope, 7), A_layer), 3);
        assert_int_equal(attr_i(nth(g, OP_route, 0), A_renorm), 1);
        assert_true(fabs(attr_f(nth(g, OP_rope, 0), A_rbase) - 1e6) < 1);
        assert_true(fabs(attr_f(nth(g, OP_attend, 0), A_scale) - 0.125) < 1e-9);
        for (u32 k = 0; k < g->n_weight; k++)
                assert_non_null(g->weight[k].data);
        Graph *f32 = model_graph(&o.m, o.a, D_f32, D_f16);
        assert_int_equal(f32->state[0].ktype, D_f32);
        assert_int_equal(f32->state[0].vtype, D_f16);
}

/* One row of the embedding, 2 of 8 experts, all of the rest. */
static void test_token_reads(void **state)
{
        (void)state;
        accepted(&(Tiny){.arch = "qwen3moe"});
        u64 q = TINY_HEADS * TINY_DK, kv = TINY_KV * TINY_DK, e = TINY_EMBD;
        u64 layer = e + 2 * q * e + 2 * kv * e + 2 * TINY_DK + e + TINY_EXPERTS * e;
        u64 expert = 3 * TINY_FF * e;
        u64 read = e + TINY_LAYERS * (layer + TINY_USED * expert) + e + TINY_VOCAB * e;
        assert_int_equal(o.m.info.token_params, read);
        assert_int_equal(o.m.info.token_bytes, read * 4);
        u64 sum = 0;
        for (u32 i = 0; i < gguf_n_tensors(o.m.gguf); i++)
                sum += o.m.read[i];
        assert_int_equal(sum, read * 4);
        ModelMemory mem = model_memory(&o.m, 100, 8);
        u64 all = 2 * TINY_VOCAB * e + e + TINY_LAYERS * (layer + TINY_EXPERTS * expert);
        assert_int_equal(o.m.info.n_params, all);
        assert_int_equal(mem.weights, all * 4);
        assert_int_equal(mem.kv, TINY_LAYERS * TINY_KV * TINY_DK * 2 * sizeof(u16) * 100);
        /* q, k, v and the residual alone are alive at once */
        assert_true(mem.scratch >= 8 * (e + q + 2 * kv) * 4);
        assert_true(mem.scratch <= 8 * 4 * (e + 2 * q + 2 * kv + e));
        assert_int_equal(mem.total, mem.weights + mem.kv + mem.scratch);
        teardown(NULL);
        accepted(&(Tiny){.arch = "qwen3moe", .tied = true});
        assert_int_equal(o.m.info.token_params, read);
        assert_int_equal(o.m.info.n_params, all - TINY_VOCAB * e);
}

static void test_dequant(void **state)
{
        (void)state;
        accepted(&(Tiny){.arch = "qwen3moe", .quant = "*", .tied = true});
        const Graph *g = o.m.graph;
        assert_int_equal(count(g, OP_dequant), 1 + TINY_LAYERS * 8); /* the tied table once */
        for (u32 i = 0; i < g->n_node; i++)
                for (u32 k = 0; k < g->node[i].nin; k++) {
                        Ref r = g->node[i].in[k].ref;
                        if (ref_kind(r) == R_WEIGHT && g->node[i].op != OP_dequant)
                                assert_int_equal(g->weight[ref_idx(r)].type, W_F32);
                }
        teardown(NULL);
        accepted(&(Tiny){.arch = "qwen3moe"});
        assert_int_equal(count(o.m.graph, OP_dequant), 0);
}

static void test_shape(void **state)
{
        (void)state;
        accepted(&(Tiny){.arch = "qwen3moe", .shape = true});
        assert_true(o.m.info.is_shape);
        assert_null(o.m.graph->weight[0].data);
        assert_true(o.m.info.token_bytes > 0);
}

static void test_rope(void **state)
{
        (void)state;
        accepted(&(Tiny){.arch = "qwen3moe", .more_key = "qwen3moe.rope.scaling.type", .more_text = "none"});
        assert_true(fabs(attr_f(nth(o.m.graph, OP_rope, 0), A_rbase) - 10000) < 1e-3); /* GGUF's default */
        assert_true(fabs(attr_f(nth(o.m.graph, OP_rope, 0), A_rfactor) - 1) < 1e-9);
        teardown(NULL);
        refused(&(Tiny){.arch = "qwen3moe",
                        .more_key = "qwen3moe.rope.scaling.type",
                        .more_text = "longrope"},
                MOEC_UNSUPPORTED,
                "key qwen3moe.rope.scaling.type is \"longrope\"; none, linear and yarn are supported");
        refused(&(Tiny){.arch = "qwen3moe", .more_key = "qwen3moe.rope.scaling.factor", .more_text = "x"},
                MOEC_DAMAGED, "qwen3moe.rope.scaling.factor");
}

static void test_tokenizer(void **state)
{
        (void)state;
        Buf blob = {0};
        open_model(&o, "examples/fables.gguf", NULL);
        assert_true(model_token(&o.m, &blob));
        Token *tok;
        moec_error e;
        assert_int_equal(token_open(blob.p, blob.len, &tok, &e), MOEC_OK);
        assert_int_equal(token_count(tok), 4096);
        assert_int_equal(token_bos(tok), 4093);
        token_close(tok);
        buf_free(&blob);
        teardown(NULL);
        accepted(&(Tiny){.arch = "qwen3moe"});
        assert_false(model_token(&o.m, &blob));
        assert_null(blob.p);
}

/* ---- what is refused ---- */

static void test_unknown(void **state)
{
        (void)state;
        refused(&(Tiny){.arch = "mamba"}, MOEC_UNSUPPORTED,
                "architecture mamba is not supported; these are: qwen3moe");
        refused(&(Tiny){.arch = "x", .called = "no \x1b[31m name"}, MOEC_UNSUPPORTED,
                "does not name its architecture");
}

static void test_keys(void **state)
{
        (void)state;
        static const char *const needed[] = {"block_count", "embedding_length", "expert_count",
                "expert_used_count", "expert_feed_forward_length", "attention.head_count"};
        for (size_t i = 0; i < COUNT(needed); i++) {
                char says[128];
                snprintf(says, sizeof says, "key qwen3moe.%s is missing (at arch/qwen3moe.lua:", needed[i]);
                refused(&(Tiny){.arch = "qwen3moe", .drop = needed[i]}, MOEC_DAMAGED, says);
        }
        static const struct {
                const char *key, *full;
                u32 value;
        } bad[] = {
                {"block_count", "qwen3moe.block_count", 0},
                {"block_count", "qwen3moe.block_count", 513},
                {"expert_count", "qwen3moe.expert_count", 1025},
                {"expert_used_count", "qwen3moe.expert_used_count", 9},
                {"expert_used_count", "qwen3moe.expert_used_count", 0},
                {"attention.head_count", "qwen3moe.attention.head_count", 0},
                {"attention.head_count_kv", "qwen3moe.attention.head_count_kv", 5},
        };
        for (size_t i = 0; i < COUNT(bad); i++)
                refused(&(Tiny){.arch = "qwen3moe",
                                .drop = bad[i].key,
                                .more_key = bad[i].full,
                                .more_value = bad[i].value},
                        MOEC_DAMAGED, bad[i].full);
        refused(&(Tiny){.arch = "qwen3moe",
                        .drop = "attention.head_count",
                        .more_key = "qwen3moe.attention.head_count",
                        .more_value = 60},
                MOEC_DAMAGED,
                "key qwen3moe.attention.key_length is missing, and what follows for it, 1, is not 2 to 1024");
        refused(&(Tiny){.arch = "qwen3moe",
                        .drop = "attention.head_count_kv",
                        .more_key = "qwen3moe.attention.head_count_kv",
                        .more_value = 3},
                MOEC_DAMAGED,
                "attention.head_count 4 is no multiple of head_count_kv 3 (at arch/qwen3moe.lua:");
        refused(&(Tiny){.arch = "qwen3moe", .more_key = "qwen3moe.attention.key_length", .more_value = 7},
                MOEC_DAMAGED, "heads of an odd width");
}

static void test_tensors(void **state)
{
        (void)state;
        static const char *const all[] = {"token_embd.weight", "blk.1.attn_norm.weight",
                "blk.0.attn_q.weight", "blk.1.attn_k.weight", "blk.1.attn_v.weight",
                "blk.0.attn_q_norm.weight", "blk.0.attn_k_norm.weight", "blk.1.attn_output.weight",
                "blk.1.ffn_norm.weight", "blk.0.ffn_gate_inp.weight", "blk.0.ffn_gate_exps.weight",
                "blk.1.ffn_up_exps.weight", "blk.1.ffn_down_exps.weight", "output_norm.weight"};
        char says[160];
        for (size_t i = 0; i < COUNT(all); i++) {
                if (i > 0) { /* without token_embd.weight the vocabulary has no size */
                        snprintf(says, sizeof says, "tensor %s is missing", all[i]);
                        refused(&(Tiny){.arch = "qwen3moe", .drop = all[i]}, MOEC_DAMAGED, says);
                        snprintf(says, sizeof says, "tensor %s is F32 [", all[i]);
                        refused(&(Tiny){.arch = "qwen3moe", .bad = all[i]}, MOEC_DAMAGED, says);
                }
        }
        refused(&(Tiny){.arch = "qwen3moe", .drop = "token_embd.weight"}, MOEC_DAMAGED,
                "size of the vocabulary");
        refused(&(Tiny){.arch = "qwen3moe", .bad = "blk.1.ffn_up_exps.weight"}, MOEC_DAMAGED,
                "tensor blk.1.ffn_up_exps.weight is F32 [9, 32, 64]; architecture qwen3moe expects [8, 32, "
                "64] of any "
                "supported type (at arch/qwen3moe.lua:");
        refused(&(Tiny){.arch = "qwen3moe", .quant = "output_norm.weight"}, MOEC_UNSUPPORTED,
                "tensor output_norm.weight is Q8_0 [64]; architecture qwen3moe expects [64] of F32, F16 or "
                "BF16");
        refused(&(Tiny){.arch = "qwen3moe", .more_tensor = "blk.0.attn_q.bias"}, MOEC_UNSUPPORTED,
                "1 tensor has no place in architecture qwen3moe: blk.0.attn_q.bias");
}

static void test_not_a_model(void **state)
{
        (void)state;
        open_model(&o, "no/such.gguf", NULL);
        assert_int_equal(o.error.status, MOEC_NOT_FOUND);
        teardown(NULL);
        open_model(&o, "Makefile", NULL);
        assert_int_equal(o.error.status, MOEC_DAMAGED);
}

/* ---- architectures of the user's ---- */

static void make_arch(char dir[64], const char *text)
{
        char path[128];
        strcpy(dir, "/tmp/moec-test-XXXXXX");
        assert_non_null(mkdtemp(dir));
        snprintf(path, sizeof path, "%s/arch", dir);
        assert_int_equal(mkdir(path, 0700), 0);
        snprintf(path, sizeof path, "%s/arch/own.lua", dir);
        moec_error e;
        assert_int_equal(file_write(path, text, strlen(text), 0644, &e), MOEC_OK);
}

static void remove_arch(const char *dir)
{
        char path[128];
        snprintf(path, sizeof path, "%s/arch/own.lua", dir);
        unlink(path);
        snprintf(path, sizeof path, "%s/arch", dir);
        rmdir(path);
        rmdir(dir);
}

/* A tiny model through a file of the user's that has this body of `build`. */
static void own_says(const char *body, moec_status st, const char *says)
{
        char dir[64];
        Buf text = {0};
        buf_fmt(&text, "return {name = {'other', 'own'}, about = 'x', build = function(g, hp)\n%s\nend}\n",
                body);
        make_arch(dir, text.p);
        buf_free(&text);
        open_tiny(&o, &(Tiny){.arch = "own"}, dir);
        remove_arch(dir);
        assert_int_equal(o.error.status, MOEC_OK);
        if (o.m.why.status != st || !strstr(o.m.why.msg, says))
                fail_msg("%s\n gave %d: %s\n not %d: %s", body, o.m.why.status, o.m.why.msg, st, says);
        teardown(NULL);
}

static void test_arch_mistakes(void **state)
{
        (void)state;
        own_says("return g.nothing.x", MOEC_ERROR,
                "own.lua:2: attempt to index a nil value (field 'nothing')");
        own_says("g.add{}", MOEC_ERROR, "write g:add{...}");
        own_says("g:add{a=g.ids}", MOEC_ERROR, "own.lua:2: add: operand b is missing");
        own_says("g:add{a=1, b=2}", MOEC_ERROR, "add: operand a is a number, not a value");
        own_says("g:add{a=g.ids, b=g.ids, c=1}", MOEC_ERROR, "add has no operand or attribute c");
        own_says("g:add{a=g.ids, b=g.ids, eps=1}", MOEC_ERROR, "add has no operand or attribute eps");
        own_says("g:add{a=g.ids, b=g.ids, {eps=1}}", MOEC_ERROR, "add has no operand or attribute eps");
        own_says("g:add{a=g.ids, b=g.ids, {a=1}}", MOEC_ERROR, "add has no operand or attribute a");
        own_says("g:add{a=g.ids, b=g.ids, [2]=1}", MOEC_ERROR, "add has no operand or attribute of that key");
        own_says("g:route{x=g.ids, k=1.5}", MOEC_ERROR, "route: k must be an integer");
        own_says("g:route{x=g.ids, k='4'}", MOEC_ERROR, "route: k must be an integer");
        own_says("g:route{x=g.ids, wscale=true}", MOEC_ERROR, "route: wscale must be a number");
        own_says("g:route{x=g.ids, gate='hard'}", MOEC_ERROR,
                "route: gate is one of: softmax, sigmoid, softmax_k");
        own_says("g:w('x', {})", MOEC_ERROR, "a shape has 1 to 4 dimensions");
        own_says("g:w('x', {1, 0})", MOEC_ERROR, "dimensions are integers from 1");
        own_says("g:w('blk.%d.x', {1})", MOEC_ERROR, "blk.%d.x: no layer was begun (at ");
        own_says("g:layer(-2)", MOEC_ERROR, "no layer's number");
        own_says("hp.u32('block_count', 3, 2)", MOEC_ERROR, "must not be less than the minimum");
        own_says("hp.u32('attention.x', 0, 9)", MOEC_DAMAGED, "key own.attention.x is missing (at ");
        own_says("hp.str('block_count')", MOEC_DAMAGED, "own.block_count");
        own_says("hp.unsupported('too new')", MOEC_UNSUPPORTED, "too new (at ");
        own_says("return 1, {}", MOEC_ERROR, "the first result is a number");
        own_says("g:state('s', 1, 2, 2) return g.ids, {}", MOEC_ERROR,
                "build returned 0 states of the 1 it made");
        own_says("g:state('s', 1, 2, 2) return g.ids, {1}", MOEC_ERROR, "a state is a number");
        own_says("g:state('s', 0, 2, 2)", MOEC_DAMAGED, "state s: ");
        own_says("while true do end", MOEC_ERROR, "more than 20000000 instructions");
        own_says("local x = g:w('token_embd.weight', {hp.n_vocab, 64})\nreturn g:embed{w=x, ids=g.ids}",
                MOEC_UNSUPPORTED,
                "tensors have no place in architecture own: blk.0.attn_norm.weight, blk.0.attn_q.weight, "
                "...");
}

static void test_arch_answers(void **state)
{
        (void)state;
        own_says("assert(hp.u32('no.key', 1, 9, 7) == 7)\n"
                 "assert(hp.u32('no.key', 1, 2, false) == false)\n"
                 "assert(hp.u32('block_count', 1, 2, 7) == 2)\n"
                 "assert(hp.f32('no.key', 0.5) == 0.5)\n"
                 "assert(hp.bool('no.key', true) == true)\n"
                 "assert(hp.str('no.key', 'none') == 'none')\n"
                 "assert(hp.n_vocab == 96)\n"
                 "assert(hp.rope().rbase == nil)\n" /* the default */
                 "assert(g:opt('no.tensor', {1}) == nil)\n"
                 "hp.check(true, 'no')\n"
                 "hp.unsupported('all well')",
                MOEC_UNSUPPORTED, "all well");
        own_says("g:layer(1)\nlocal w = g:w('blk.%d.ffn_norm.weight', {64})\nlocal x = "
                 "g:embed{w=g:w('token_embd.weight', {96, 64}), "
                 "ids=g.ids}\nlocal a, b = g:matmul{x=x, w={g:w('output.weight', {96, 64}), "
                 "g:w('blk.%d.attn_k.weight', {32, 64})}}\n"
                 "assert(a and b)\nhp.unsupported('two results')",
                MOEC_UNSUPPORTED, "two results");
}

static void test_arch_file(void **state)
{
        (void)state;
        static const struct {
                const char *text, *says;
        } row[] = {
                {"return {name = 'own', about = 'x'}", "no function `build`"},
                {"return {name = 'own', build = function() end}", "about is missing"},
                {"return {about = 'x', build = function() end}", "name is missing"},
                {"return {name = 'own', about = 'x', bild = 1, build = function() end}",
                        "bild is not known here"},
                {"return {name = 'own', about = 'x', roles = {{'a'}}, build = function() end}",
                        "a role is {pattern, role}"},
                {"retrun", "own.lua:1: syntax error"},
        };
        for (size_t i = 0; i < COUNT(row); i++) {
                char dir[64];
                make_arch(dir, row[i].text);
                open_tiny(&o, &(Tiny){.arch = "own"}, dir);
                remove_arch(dir);
                assert_int_equal(o.error.status, MOEC_ERROR);
                if (!strstr(o.error.msg, row[i].says))
                        fail_msg("%s\n gave: %s", row[i].text, o.error.msg);
                teardown(NULL);
        }
}

/* A user's file comes before the built-in one of the same architecture; `ignore` and `roles` are heard. */
static void test_arch_override(void **state)
{
        (void)state;
        char dir[64];
        make_arch(dir, "return {name = 'qwen3moe', about = 'mine', ignore = {'blk.*.attn_norm.weight', "
                       "'output.weight'},\n"
                       "roles = {{'output.weight', 'head'}}, build = function(g, hp)\n"
                       "return g:embed{w=g:w('token_embd.weight', {96, 64}), ids=g.ids} end}");
        open_tiny(&o, &(Tiny){.arch = "qwen3moe"}, dir);
        remove_arch(dir);
        assert_string_equal(o.m.type->about, "mine");
        assert_int_equal(o.m.why.status, MOEC_UNSUPPORTED);
        assert_non_null(strstr(
                o.m.why.msg, ": 23 tensors have no place in architecture qwen3moe: blk.0.attn_q.weight"));
        assert_string_equal(model_role(&o.m, "output.weight"), "head");
        assert_string_equal(model_role(&o.m, "blk.11.ffn_up_exps.weight"), "experts");
        assert_string_equal(model_role(&o.m, "blk..ffn_up_exps.weight"), "other");
        assert_string_equal(model_role(&o.m, "blk.1.ffn_up_exps.weights"), "other");
}

/* ---- the example, against its formulas written out once more ---- */

typedef struct Ref64 {
        const Model *m;
        double x[8][TINY_EMBD], k[TINY_LAYERS][8][TINY_KV * TINY_DK], v[TINY_LAYERS][8][TINY_KV * TINY_DK];
} Ref64;

static const float *data(const Model *m, int il, const char *name)
{
        char full[64];
        if (il >= 0)
                snprintf(full, sizeof full, "blk.%d.%s.weight", il, name);
        else
                snprintf(full, sizeof full, "%s.weight", name);
        const GgufTensor *t = gguf_tensor(m->gguf, full);
        assert_non_null(t);
        return (const float *)(const void *)gguf_data(m->gguf, t);
}

static void norm(const double *x, const float *w, int n, double *y)
{
        double s = 0;
        for (int i = 0; i < n; i++)
                s += x[i] * x[i];
        for (int i = 0; i < n; i++)
                y[i] = x[i] / sqrt(s / n + 1e-5) * (double)w[i];
}

static void product(const float *w, int out, int in, const double *x, double *y)
{
        for (int i = 0; i < out; i++) {
                y[i] = 0;
                for (int k = 0; k < in; k++)
                        y[i] += (double)w[i * in + k] * x[k];
        }
}

static void rotate(double *x, int heads, int pos)
{
        for (int h = 0; h < heads; h++)
                for (int i = 0; i < TINY_DK / 2; i++) {
                        double a = pos * pow(10000, -2.0 * i / TINY_DK), *p = x + h * TINY_DK + i;
                        double re = p[0] * cos(a) - p[TINY_DK / 2] * sin(a);
                        p[TINY_DK / 2] = p[0] * sin(a) + p[TINY_DK / 2] * cos(a);
                        p[0] = re;
                }
}

static void attend(Ref64 *r, int il, int pos, const double *q, double *y)
{
        for (int h = 0; h < TINY_HEADS; h++) {
                int at = h / (TINY_HEADS / TINY_KV) * TINY_DK;
                double w[8], sum = 0;
                for (int t = 0; t <= pos; t++) {
                        double s = 0;
                        for (int i = 0; i < TINY_DK; i++)
                                s += q[h * TINY_DK + i] * r->k[il][t][at + i];
                        sum += w[t] = exp(s / sqrt(TINY_DK));
                }
                for (int i = 0; i < TINY_DK; i++) {
                        y[h * TINY_DK + i] = 0;
                        for (int t = 0; t <= pos; t++)
                                y[h * TINY_DK + i] += w[t] / sum * r->v[il][t][at + i];
                }
        }
}

static void feed(const Model *m, int il, const double *h, double *y)
{
        double z[TINY_EXPERTS], sum = 0, gate[TINY_FF], up[TINY_FF], out[TINY_EMBD];
        product(data(m, il, "ffn_gate_inp"), TINY_EXPERTS, TINY_EMBD, h, z);
        for (int e = 0; e < TINY_EXPERTS; e++)
                sum += exp(z[e]);
        for (int e = 0; e < TINY_EXPERTS; e++) {
                int better = 0;
                for (int f = 0; f < TINY_EXPERTS; f++)
                        better += z[f] > z[e];
                if (better >= TINY_USED)
                        continue;
                size_t at = (size_t)e * TINY_FF * TINY_EMBD;
                product(data(m, il, "ffn_gate_exps") + at, TINY_FF, TINY_EMBD, h, gate);
                product(data(m, il, "ffn_up_exps") + at, TINY_FF, TINY_EMBD, h, up);
                for (int i = 0; i < TINY_FF; i++)
                        up[i] *= gate[i] / (1 + exp(-gate[i]));
                product(data(m, il, "ffn_down_exps") + at, TINY_EMBD, TINY_FF, up, out);
                for (int i = 0; i < TINY_EMBD; i++)
                        y[i] += exp(z[e]) / sum * out[i]; /* not brought to a sum of 1 */
        }
}

static void layer(Ref64 *r, int il, int pos)
{
        enum { Q = TINY_HEADS * TINY_DK, KV = TINY_KV * TINY_DK };
        const Model *m = r->m;
        double h[TINY_EMBD], q[Q], k[KV], y[Q], *x = r->x[pos];
        norm(x, data(m, il, "attn_norm"), TINY_EMBD, h);
        product(data(m, il, "attn_q"), Q, TINY_EMBD, h, q);
        product(data(m, il, "attn_k"), KV, TINY_EMBD, h, k);
        product(data(m, il, "attn_v"), KV, TINY_EMBD, h, r->v[il][pos]);
        norm(q, data(m, il, "attn_q_norm"), Q, q);
        norm(k, data(m, il, "attn_k_norm"), KV, r->k[il][pos]);
        rotate(q, TINY_HEADS, pos);
        rotate(r->k[il][pos], TINY_KV, pos);
        attend(r, il, pos, q, y);
        product(data(m, il, "attn_output"), TINY_EMBD, Q, y, h);
        for (int i = 0; i < TINY_EMBD; i++)
                x[i] += h[i];
        norm(x, data(m, il, "ffn_norm"), TINY_EMBD, h);
        feed(m, il, h, x);
}

static void test_olmoe(void **state)
{
        (void)state;
        enum { N = 6 };
        const i32 ids[N] = {3, 95, 0, 41, 41, 7}, pos[N] = {0, 1, 2, 3, 4, 5}, seq[N] = {0};
        open_tiny(&o, &(Tiny){.arch = "olmoe", .wide_norms = true}, "examples");
        if (o.m.why.status)
                fail_msg("%s", o.m.why.msg);
        assert_string_equal(o.m.type->about, "OLMoE");
        Tensor *ret = NEWN(o.a, Tensor, o.m.graph->n_ret);
        EvalKv *kv = eval_kv_new(1, N);
        eval(o.m.graph, kv, &(EvalIn){N, N, ids, pos, seq, pos}, &(EvalOpt){.exact = true}, o.a, ret);
        const float *logits = ret[0].data;
        Ref64 r = {.m = &o.m};
        double worst = 0, size = 0;
        for (int t = 0; t < N; t++) {
                double h[TINY_EMBD], want[TINY_VOCAB];
                for (int i = 0; i < TINY_EMBD; i++)
                        r.x[t][i] = (double)data(&o.m, -1, "token_embd")[ids[t] * TINY_EMBD + i];
                for (int il = 0; il < TINY_LAYERS; il++)
                        layer(&r, il, t);
                norm(r.x[t], data(&o.m, -1, "output_norm"), TINY_EMBD, h);
                product(data(&o.m, -1, "output"), TINY_VOCAB, TINY_EMBD, h, want);
                for (int i = 0; i < TINY_VOCAB; i++) {
                        worst = fmax(worst, fabs(want[i] - (double)logits[t * TINY_VOCAB + i]));
                        size = fmax(size, fabs(want[i]));
                }
        }
        assert_true(size > 0.1);
        if (worst > 1e-5 * size)
                fail_msg("off by %g of %g", worst, size);
        eval_kv_free(kv);
}

int main(void)
{
#define T(name) cmocka_unit_test_teardown(name, teardown)
        const struct CMUnitTest tests[] = {T(test_demo), T(test_token_reads), T(test_dequant), T(test_shape),
                T(test_rope), T(test_tokenizer), T(test_unknown), T(test_keys), T(test_tensors),
                T(test_not_a_model), T(test_arch_mistakes), T(test_arch_answers), T(test_arch_file),
                T(test_arch_override), T(test_olmoe)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}

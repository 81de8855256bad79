/* Passes against goldens: tests/pass/DIR/NAME.ir holds a graph, then for each line "# >>> WORDS" what the
 * passes WORDS make of it. "# >>> TARGET PHASE" runs that phase of passes/pipeline.lua, with activations
 * rounded. Run from the root of the repository. Then what goldens do not show: options, pipelines, the
 * buffers' bounds, time. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "frontend/lua.h"
#include "passes/passes.h"
#include <cmocka.h>

#define MARK "# >>> "

static Arena *arena;
static const Tab *pipelines;

static char *read_text(const char *path)
{
        Buf b = {0};
        moec_error e;
        if (file_read(path, &b, 1 << 20, &e) != MOEC_OK)
                fail_msg("%s", e.msg);
        char *s = arena_strn(arena, b.p, b.len);
        buf_free(&b);
        return s;
}

static int setup(void **state)
{
        (void)state;
        arena = arena_new();
        char *text = read_text("passes/pipeline.lua");
        pipelines = lua_config(arena, "pipeline.lua", text, strlen(text));
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        arena_free(arena);
        return 0;
}

static char *text_of(const Graph *g)
{
        Buf b = {0};
        print(g, &b);
        char *s = arena_strn(arena, b.p, b.len);
        buf_free(&b);
        return s;
}

/* ---- goldens ---- */

/* "cpu decode": that phase's passes; else the words themselves. */
static const char *passes_of(const char *words, PassOpt *opt)
{
        char target[16], phase[16], more;
        if (sscanf(words, "%15[a-z] %15[a-z]%c", target, phase, &more) != 2 || !tab_has(pipelines, target))
                return words;
        const Phase *p = pipeline_phase(pipeline_read(arena, pipelines, target), phase);
        assert_non_null(p);
        opt->act = ACT_q8;
        return p->passes;
}

static char *passed(const char *text, const char *path, const char *words)
{
        PassOpt opt = {0};
        const char *passes = passes_of(words, &opt);
        Graph *g = parse(arena, text, strlen(text), path);
        check(g);
        run_passes(g, passes, &opt, NULL, NULL);
        return text_of(g);
}

/* The next mark at the beginning of a line, or the end. */
static char *next_mark(char *s)
{
        char *m = strstr(s, "\n" MARK);
        return m ? m + 1 : s + strlen(s);
}

static u32 golden(const char *path)
{
        u32 n = 0;
        char *all = read_text(path), *at = next_mark(all), *text = arena_strn(arena, all, (size_t)(at - all));
        for (char *end; *at; at = end, n++) {
                char *line = strchr(at, '\n');
                assert_non_null(line);
                const char *words = arena_strn(arena, at + strlen(MARK), (size_t)(line - at) - strlen(MARK));
                end = next_mark(line);
                const char *want = arena_strn(arena, line + 1, (size_t)(end - line - 1)),
                           *got = passed(text, path, words);
                if (strcmp(want, got) != 0)
                        fail_msg("%s: %s%s gives\n%s", path, MARK, words, got);
        }
        if (!n)
                fail_msg("%s has no line \"%s\"", path, MARK);
        return n;
}

static int visible(const struct dirent *d)
{
        return d->d_name[0] != '.';
}

static u32 goldens_in(const char *dir)
{
        struct dirent **d;
        u32 n = 0;
        int count = scandir(dir, &d, visible, alphasort);
        assert_true(count > 0);
        for (int i = 0; i < count; i++) {
                const char *path = arena_fmt(arena, "%s/%s", dir, d[i]->d_name), *dot = strrchr(path, '.');
                n += dot && strcmp(dot, ".ir") == 0 ? golden(path) : 0;
                free(d[i]);
        }
        free(d);
        if (!n)
                fail_msg("%s has no goldens", dir);
        return n;
}

#define GOLDENS(dir)                                                                                         \
        static void test_##dir(void **state)                                                                 \
        {                                                                                                    \
                (void)state;                                                                                 \
                goldens_in("tests/pass/" #dir);                                                              \
        }
PASSES(GOLDENS)
GOLDENS(pipeline)

/* ---- lists of passes ---- */

static Graph *small(void)
{
        static const char text[] = "graph g {\n max n_tok 5, n_out 1\n $t =Q8_0[8,64]\n $w =Q8_0[64,64]\n"
                                   " %0 =f32[n_tok,64] embed w $t, ids @ids\n %1 =f32[n_tok,64] scale x %0\n"
                                   " %2 =q8[n_tok,64] quantize x %1\n %3 =f32[n_tok,64] matmul x %2, w $w, "
                                   "act q8\n return %3\n}\n";
        return parse(arena, text, sizeof text - 1, "small.ir");
}

typedef struct Seen {
        const char *name[8];
        u32 n, stop;
} Seen;

static bool note(void *user, const char *pass, Graph *g)
{
        Seen *s = user;
        s->name[s->n++] = pass;
        for (u32 i = 0; i < g->n_node; i++)
                assert_int_not_equal(g->node[i].op, OP_dead);
        return s->n != s->stop;
}

static void test_words(void **state)
{
        PassOpt opt = {0};
        Seen all = {.stop = 9}, two = {.stop = 2};
        (void)state;
        Graph *g = small();
        run_passes(g, " fold,dce\n qmatmul act=q8\tfuse dup_norm=1 route_max=7, buffers ", &opt, note, &all);
        assert_int_equal(all.n, 5);
        assert_string_equal(all.name[0], "fold");
        assert_string_equal(all.name[4], "buffers");
        assert_int_not_equal(g->arena_bytes, 0);
        g = small();
        run_passes(g, "fold dce buffers", &opt, note, &two);
        assert_int_equal(two.n, 2);
        assert_int_equal(g->arena_bytes, 0);
        run_passes(g, " ,\n", &opt, NULL, NULL);
}

/* An option on one pass is not on the next; what the caller sets is on all. */
static void test_options(void **state)
{
        PassOpt none = {0}, seen = {.no_reuse = 1};
        (void)state;
        Graph *a = small(), *b = small(), *c = small();
        run_passes(a, "buffers no_reuse, buffers", &none, NULL, NULL);
        run_passes(b, "buffers", &none, NULL, NULL);
        run_passes(c, "buffers", &seen, NULL, NULL);
        assert_string_equal(text_of(a), text_of(b));
        assert_true(c->arena_bytes > b->arena_bytes);
}

static void assert_refused(const char *words, const char *say)
{
        Trap t;
        if (TRAP(&t) == 0) {
                check_words(words);
                trap_pop(&t);
                fail_msg("\"%s\" is taken", words);
        }
        assert_int_equal(t.error.status, MOEC_USAGE);
        if (!strstr(t.error.msg, say))
                fail_msg("\"%s\": %s", words, t.error.msg);
}

static void test_bad_words(void **state)
{
        (void)state;
        assert_refused("fold, nosuch, dce", "nosuch");
        assert_refused("nosuch", "nosuch");
        assert_refused("fold panel", "pass fold has no option panel");
        assert_refused("layout panel=2", "panel cannot be 2");
        assert_refused("layout panel=", "panel cannot be");
        assert_refused("fuse route_max=4294967296", "route_max cannot be 4294967296");
        assert_refused("fuse route_max=-1", "route_max cannot be -1");
        assert_refused("fuse route_max=00000000000000000000000000000001", "route_max cannot be");
        assert_refused("qmatmul act=f16", "act cannot be f16");
        check_words("qmatmul act=f32 fuse route_max=4294967295");
}

/* ---- pipelines ---- */

static const Tab *table(const char *text)
{
        return lua_config(arena, "test.lua", text, strlen(text));
}

static void test_pipeline_read(void **state)
{
        (void)state;
        const Pipeline *p = pipeline_read(arena, pipelines, "cpu");
        assert_string_equal(p->target, "cpu");
        assert_int_equal(p->n_phase, 2);
        assert_int_equal(pipeline_phase(p, "decode")->max_tok, 1);
        assert_int_equal(pipeline_phase(p, "decode")->max_out, 1);
        assert_int_equal(pipeline_phase(p, "prefill")->max_tok, 0);
        assert_null(pipeline_phase(p, "nosuch"));
        p = pipeline_read(arena,
                table("return {x={{name='a', max_tok=3, passes={'fold', 'fuse dup_norm'}}, {name='b', "
                      "passes={}}}}"),
                "x");
        assert_string_equal(p->phase[0].passes, "fold, fuse dup_norm");
        assert_string_equal(p->phase[1].passes, "");
        p = pipeline_read(arena,
                table("return {x={{name='a', max_tok=4, max_seq_tok=2, passes={}}, {name='b', max_tok=4, "
                      "passes={}}, {name='c', passes={}}}}"),
                "x");
        assert_int_equal(p->phase[0].max_seq_tok, 2);
        assert_int_equal(p->phase[1].max_seq_tok, 0);
}

static void assert_unreadable(const char *text, const char *say)
{
        Trap t;
        const Tab *tab = table(text);
        if (TRAP(&t) == 0) {
                pipeline_read(arena, tab, "x");
                trap_pop(&t);
                fail_msg("taken: %s", text);
        }
        if (!strstr(t.error.msg, say))
                fail_msg("%s: %s", text, t.error.msg);
}

static void test_bad_pipelines(void **state)
{
        static const char *const bad[][2] = {
                {"return {cuda={}, cpu={}}", "no target x; there are: cpu cuda"},
                {"return {x={}}", "needs a phase"},
                {"return {x={{passes={}}}}", "a phase has a name and passes"},
                {"return {x={{name='a'}}}", "a phase has a name and passes"},
                {"return {x={{name='a', max_tik=1, passes={}}}}", "max_tik"},
                {"return {x={{name='a', max_tok=-1, passes={}}}}", "max_tok"},
                {"return {x={{name='a', passes={'fold nosuch'}}}}", "nosuch"},
                {"return {x={{name='a', passes={1}}}}", "[1]"},
                {"return {x={{name='a', max_tok=1, passes={}}}}", "the last phase takes any batch"},
                {"return {x={{name='a', passes={}}, {name='b', passes={}}}}", "by rising max_tok"},
                {"return {x={{name='a', max_tok=4, passes={}}, {name='b', max_tok=4, passes={}}, {name='c', "
                 "passes={}}}}",
                        "by rising max_tok"},
                {"return {x={{name='a', max_tok=4, max_seq_tok=5, passes={}}, {name='b', passes={}}}}",
                        "max_seq_tok"},
                {"return {x={{name='a', max_tok=4, max_seq_tok=2, passes={}}, {name='b', max_tok=4, "
                 "max_seq_tok=2, passes={}}, {name='c', passes={}}}}",
                        "by rising max_tok and max_seq_tok"},
                {"return {x={{name='a', max_seq_tok=1, passes={}}}}", "max_seq_tok"},
        };
        (void)state;
        for (u32 i = 0; i < COUNT(bad); i++)
                assert_unreadable(bad[i][0], bad[i][1]);
}

/* ---- buffers ---- */

static void test_sizes(void **state)
{
        static const char text[] =
                "graph g {\n max n_tok 5\n $t =F32[8,64]\n $r =F32[8,64]\n state &kv =kv[1,64,0] f16 f16\n"
                " %0 =f32[n_tok,64] embed w $t, ids @ids\n %1 =q8[n_tok,64] quantize x %0\n"
                " %2 =route[n_tok,3] route x %0, w $r, k 3\n %3 =order[n_tok,3] sort route %2, experts 8\n"
                " %4 =kv[1,64,0] kv_append kv &kv, k %0, pos @pos, seq @seq\n return %1, %3, %4\n}\n";
        (void)state;
        const Graph *g = parse(arena, text, sizeof text - 1, "sizes.ir");
        assert_int_equal(value_bytes(g, 0), 5 * 64 * 4);
        assert_int_equal(value_bytes(g, 1), 5 * (64 + 4 * (64 / Q8_BLOCK) + 4 * (64 / 16)));
        assert_int_equal(value_bytes(g, 2), 5 * 3 * 8);
        assert_int_equal(value_bytes(g, 3), 4 * (8 + 1) + 4 * 5 * 3);
        assert_int_equal(value_bytes(g, 4), 0);
}

static void test_too_large(void **state)
{
        PassOpt opt = {0};
        Trap t;
        (void)state;
        Graph *g = small();
        g->max[DIM_n_tok] = UINT64_MAX / 64;
        if (TRAP(&t) == 0) {
                run_passes(g, "buffers", &opt, NULL, NULL);
                trap_pop(&t);
                fail_msg("buffers larger than the address space");
        }
        assert_int_equal(t.error.status, MOEC_NO_MEMORY);
}

/* ---- a large model: Qwen3-235B-A22B ---- */

enum {
        LAYERS = 94,
        EMBD = 4096,
        HEADS = 64,
        KV_HEADS = 4,
        DK = 128,
        EXPERTS = 128,
        USED = 8,
        FF = 1536,
        VOCAB = 151936
};

static Graph *big;
static u32 cur, layer;

static Ref weight(const char *what, Wtype t, u64 a, u64 b, u64 c)
{
        u64 dim[3] = {a, b, c};
        return graph_weight(big, arena_fmt(arena, "blk.%u.%s.weight", layer, what), t,
                c   ? 3
                : b ? 2
                    : 1,
                dim, NULL);
}

static Ref plain(const char *what, u64 a, u64 b, u64 c)
{
        u32 n = node_new(big, OP_dequant);
        node_in(big, n, S_w, weight(what, W_Q4_K, a, b, c));
        return node_done(big, n);
}

static void op(Op o)
{
        cur = node_new(big, o);
        node_int(big, cur, A_layer, layer);
}
#define IN(slot, r)  node_in(big, cur, S_##slot, (r))
#define INT(attr, v) node_int(big, cur, A_##attr, (v))

static Ref matmul(Ref x, const char *what, u64 out, u64 in)
{
        Ref w = plain(what, out, in, 0);
        op(OP_matmul), IN(x, x), IN(w, w);
        return node_done(big, cur);
}

static Ref norm(Ref x, const char *what, u64 n, i64 group)
{
        op(OP_rmsnorm), IN(x, x), IN(w, weight(what, W_F32, n, 0, 0)), INT(group, group);
        node_flt(big, cur, A_eps, 1e-6);
        return node_done(big, cur);
}

static Ref turned(Ref x, i64 heads)
{
        op(OP_rope), IN(x, x), IN(pos, REF(R_INPUT, IN_pos)), INT(heads, heads), INT(rdim, DK),
                INT(rstyle, ROPE_neox);
        return node_done(big, cur);
}

static Ref sum(Ref a, Ref b)
{
        op(OP_add), IN(a, a), IN(b, b);
        return node_done(big, cur);
}

static Ref attention(Ref x, Ref *kv)
{
        Ref h = norm(x, "attn_norm", EMBD, 0), pos = REF(R_INPUT, IN_pos), seq = REF(R_INPUT, IN_seq);
        Ref q = matmul(h, "q", HEADS * DK, EMBD), k = matmul(h, "k", KV_HEADS * DK, EMBD),
            v = matmul(h, "v", KV_HEADS * DK, EMBD);
        q = turned(norm(q, "q_norm", DK, DK), HEADS);
        k = turned(norm(k, "k_norm", DK, DK), KV_HEADS);
        Ref s = graph_state(big, arena_fmt(arena, "kv.%u", layer), KV_HEADS, DK, DK, D_f16, D_f16);
        op(OP_kv_append), IN(kv, s), IN(k, k), IN(v, v), IN(pos, pos), IN(seq, seq);
        *kv = node_done(big, cur);
        op(OP_attend), IN(q, q), IN(kv, *kv), IN(pos, pos), IN(seq, seq), INT(heads, HEADS);
        return sum(x, matmul(node_done(big, cur), "out", EMBD, HEADS * DK));
}

static Ref mixture(Ref x)
{
        Ref h = norm(x, "ffn_norm", EMBD, 0);
        op(OP_matmul), IN(x, h), IN(w, weight("router", W_F32, EXPERTS, EMBD, 0));
        Ref z = node_done(big, cur);
        op(OP_route), IN(x, z), INT(k, USED), INT(renorm, 1);
        Ref r = node_done(big, cur), gate = plain("gate", EXPERTS, FF, EMBD),
            up = plain("up", EXPERTS, FF, EMBD), down = plain("down", EXPERTS, EMBD, FF);
        op(OP_experts), IN(x, h), IN(route, r), IN(gate, gate), IN(up, up), IN(down, down);
        return sum(x, node_done(big, cur));
}

static Graph *large(void)
{
        Ref kv[LAYERS];
        big = graph_new(arena, "large");
        layer = LAYERS;
        Ref w = plain("embd", VOCAB, EMBD, 0);
        op(OP_embed), IN(w, w), IN(ids, REF(R_INPUT, IN_ids));
        Ref x = node_done(big, cur);
        for (layer = 0; layer < LAYERS; layer++)
                x = mixture(attention(x, &kv[layer]));
        op(OP_rows), IN(x, x), IN(out, REF(R_INPUT, IN_out));
        graph_return(big, matmul(norm(node_done(big, cur), "norm", EMBD, 0), "output", VOCAB, EMBD));
        for (u32 i = 0; i < LAYERS; i++)
                graph_return(big, kv[i]);
        return big;
}

/* The least of several runs' processor time: the machine may be busy with others. */
static double pass_time(const Graph *from, const Phase *p, u64 batch, Graph **out)
{
        double best = 1e9;
        PassOpt opt = {.act = ACT_q8};
        for (int i = 0; i < 5; i++) {
                Graph *h = graph_clone(from, arena, p->name);
                h->max[DIM_n_tok] = p->max_tok ? p->max_tok : batch;
                h->max[DIM_n_out] = p->max_out ? p->max_out : batch;
                clock_t t = clock();
                run_passes(h, p->passes, &opt, NULL, NULL);
                best = MIN(best, (double)(clock() - t) / CLOCKS_PER_SEC);
                *out = h;
        }
        return best;
}

/* The most that is alive at one time: no arena can be smaller. */
static u64 peak(const Graph *h)
{
        u64 most = 0, alive = 0, *dies = NEWN(arena, u64, h->n_node + 1);
        u32 *last = NEWN(arena, u32, h->n_val);
        for (u32 i = 0; i < h->n_node; i++)
                for (u32 k = 0; k < h->node[i].nin; k++)
                        if (ref_kind(h->node[i].in[k].ref) == R_VAL)
                                last[ref_idx(h->node[i].in[k].ref)] = i;
        for (u32 i = 0; i < h->n_ret; i++)
                last[ref_idx(h->ret[i])] = h->n_node;
        for (u32 v = 0; v < h->n_val; v++)
                dies[last[v]] += value_bytes(h, v);
        for (u32 i = 0; i < h->n_node; i++) {
                const Node *n = &h->node[i];
                u64 moved = 0;
                for (u32 k = 0; k < n->nout; k++)
                        alive += value_bytes(h, n->out + k);
                for (u32 k = 0; k < n->nin; k++)
                        if (in_place(h, i, k) &&
                                h->val[ref_idx(n->in[k].ref)].offset == h->val[n->out].offset)
                                moved = value_bytes(h, n->out);
                most = MAX(most, alive - moved);
                alive -= dies[i];
        }
        return most;
}

static void test_large(void **state)
{
        static const struct {
                const char *phase;
                u32 nodes, more; /* a layer, and around the layers */
        } t[] = {{"decode", 6, 3}, {"prefill", 13, 4}};
        const Pipeline *p = pipeline_read(arena, pipelines, "cpu");
        const Graph *from = large();
        (void)state;
        for (u32 i = 0; i < COUNT(t); i++) {
                Graph *h;
                double s = pass_time(from, pipeline_phase(p, t[i].phase), 512, &h),
                       waste = (double)h->arena_bytes / (double)peak(h);
                print_message("%s: %.1f ms, arena %.1f MB, %.2f of what is alive\n", t[i].phase, s * 1e3,
                        (double)h->arena_bytes / 1e6, waste);
                assert_int_equal(h->n_node, t[i].nodes * LAYERS + t[i].more);
                assert_true(s < 0.050);
                assert_true(waste >= 1 && waste < 1.05);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
#define T(dir) cmocka_unit_test(test_##dir),
                PASSES(T) T(pipeline) T(words) T(options) T(bad_words) T(pipeline_read) T(bad_pipelines)
                        T(sizes) T(too_large) T(large)
#undef T
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}

/* Graphs: tables, building, reading, rewriting, sizes. */
#include "ir/graph.h"
#include "tests/lib/randgraph.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

static Arena *arena;
static Graph *g;

static int set_up(void **state)
{
        (void)state;
        arena = arena_new();
        g = graph_new(arena, "test");
        return 0;
}

static int tear_down(void **state)
{
        (void)state;
        arena_free(arena);
        return 0;
}

static Ref weight(const char *name, u64 rows, u64 cols)
{
        return graph_weight(g, name, W_F32, 2, (u64[]){rows, cols}, NULL);
}

static Ref embed(void)
{
        u32 n = node_new(g, OP_embed);
        node_in(g, n, S_ids, REF(R_INPUT, IN_ids));
        node_in(g, n, S_w, weight("table", 10, 8));
        return node_done(g, n);
}

static Ref scale(Ref x, double by)
{
        u32 n = node_new(g, OP_scale);
        node_in(g, n, S_x, x);
        node_flt(g, n, A_by, by);
        return node_done(g, n);
}

static u32 node_of(Ref r)
{
        return g->val[ref_idx(r)].node;
}

static Graph *from_text(const char *text)
{
        return parse(arena, text, strlen(text), "FILE");
}

static const char *text_of(const Graph *what)
{
        Buf b = {0};
        print(what, &b);
        const char *s = arena_str(arena, b.p);
        buf_free(&b);
        return s;
}

static moec_error failure;

/* What node_done says. */
static const char *done_says(u32 n)
{
        Trap t;
        if (TRAP(&t) == 0) {
                node_done(g, n);
                trap_pop(&t);
                return "";
        }
        failure = t.error;
        return failure.msg;
}

/* ---- tables ---- */

static void *ask(void *out)
{
        const OpInfo *o = op_info(OP_attend);
        *(u32 *)out = o->n_slot;
        return NULL;
}

static void tables_say_what_ops_h_says(void **state)
{
        (void)state;
        pthread_t thread[8];
        u32 n_slot[COUNT(thread)];
        for (size_t i = 0; i < COUNT(thread); i++)
                assert_int_equal(pthread_create(&thread[i], NULL, ask, &n_slot[i]), 0);
        for (size_t i = 0; i < COUNT(thread); i++) {
                pthread_join(thread[i], NULL);
                assert_int_equal(n_slot[i], 10);
        }
        const OpInfo *o = op_info(OP_matmul);
        assert_string_equal(o->name, "matmul");
        assert_int_equal(o->n_slot, 5);
        assert_true(o->slot[1].slot == S_w && o->slot[1].arity == ARITY_plus);
        assert_true(o->slot[2].slot == S_norm && o->slot[2].arity == ARITY_opt);
        assert_true(o->slot[3].slot == S_bias && o->slot[3].arity == ARITY_star);
        assert_true(o->attr[A_act] && o->attr[A_eps] && o->attr[A_layer] && !o->attr[A_heads]);
        assert_true(op_info(OP_rope)->attr[A_rdim]);
        assert_string_equal(attr_info[A_glu].word[GLU_swiglu_oai], "swiglu_oai");
        assert_true(attr_info[A_limit].def.f == 7);
        assert_int_equal(input_dim[IN_out], DIM_n_out);
}

/* ---- building and reading ---- */

static void operands_are_kept_in_order_of_slots(void **state)
{
        (void)state;
        Ref x = embed(), w[6];
        char name[8];
        for (int i = 0; i < 6; i++) {
                snprintf(name, sizeof name, "w%d", i);
                w[i] = weight(name, 4 + (u64)i, 8);
        }
        Ref norm = graph_weight(g, "norm", W_F32, 1, (u64[]){8}, NULL);
        u32 n = node_new(g, OP_matmul);
        node_in(g, n, S_norm, norm);
        for (int i = 0; i < 6; i++)
                node_in(g, n, S_w, w[i]);
        node_in(g, n, S_x, x);
        Ref y = node_done(g, n);
        const Node *d = ref_node(g, y);
        assert_int_equal(d->in[0].slot, S_x);
        assert_int_equal(d->in[7].slot, S_norm);
        assert_int_equal(in_count(d, S_w), 6);
        assert_int_equal(d->nout, 6);
        for (u32 i = 0; i < 6; i++) {
                Vtype t = ref_type(g, y + i);
                assert_int_equal(in_nth(d, S_w, i), w[i]);
                assert_int_equal(dim_last(&t), 4 + i);
        }
        assert_int_equal(in_get(d, S_res), REF_NONE);
        assert_int_equal(in_nth(d, S_w, 6), REF_NONE);
        assert_int_equal(ref_uses(g, x), 1);
        assert_int_equal(ref_uses(g, w[3]), 1);
}

static void the_same_name_is_the_same_weight(void **state)
{
        (void)state;
        char name[16];
        Ref first = weight("w", 3, 4), r;
        for (int i = 0; i < 1000; i++) { /* through several sizes of the index */
                snprintf(name, sizeof name, "w%d", i);
                weight(name, 1, 1);
        }
        assert_int_equal(weight("w", 3, 4), first);
        assert_true(graph_find_weight(g, "w999x", 4, &r));
        assert_string_equal(g->weight[ref_idx(r)].name, "w999");
        assert_false(graph_find_weight(g, "w1000", 5, &r));
        assert_false(graph_find_state(g, "w", 1, &r));
        Trap t;
        if (TRAP(&t) == 0) {
                weight("w", 4, 3);
                trap_pop(&t);
                fail();
        }
        assert_int_equal(t.error.status, MOEC_DAMAGED);
        assert_string_equal(t.error.msg, "weight w: used with two types or shapes");
}

static void inserted_nodes_shift_the_others(void **state)
{
        (void)state;
        Ref x = embed(), a = scale(x, 2), b = scale(a, 3);
        u32 n = node_insert(g, 1, OP_scale);
        node_in(g, n, S_x, x);
        Ref c = node_done(g, n);
        ref_replace(g, x, c);
        g->node[n].in[0].ref = x;
        graph_return(g, b);
        assert_int_equal(node_of(x), 0);
        assert_int_equal(node_of(c), 1);
        assert_int_equal(node_of(a), 2);
        assert_int_equal(node_of(b), 3);
        assert_int_equal(in_get(ref_node(g, a), S_x), c);
        check(g);
        graph_compact(g);
        check(g);
        for (u32 v = 0; v < 4; v++) /* numbered in order of definition again */
                assert_int_equal(g->val[v].node, v);
}

static void an_error_names_the_node_and_both_shapes(void **state)
{
        (void)state;
        Ref x = embed(), w = weight("w", 4, 7);
        u32 n = node_new(g, OP_matmul);
        node_int(g, n, A_layer, 5);
        node_in(g, n, S_x, x);
        node_in(g, n, S_w, w);
        assert_string_equal(done_says(n), "test, layer 5: matmul: operand w is f32[4,7], but must be "
                                          "f32[4,8], since x is f32[n_tok,8]");
        assert_int_equal(failure.status, MOEC_DAMAGED);
}

static void states_and_routes_are_traced(void **state)
{
        (void)state;
        Graph *h = from_text("graph g {\n"
                             "$t =F32[9,8]\n$w =F32[6,8]\n"
                             "state &kv =kv[2,4,4] f16 f32\n"
                             "%0 =f32[n_tok,8] embed w $t, ids @ids\n"
                             "%1 =kv[2,4,4] kv_append kv &kv, k %0, v %0, pos @pos, seq @seq\n"
                             "%2 =f32[n_tok,8], %3 =kv[2,4,4] attend q %0, kv %1, k %0, v %0, pos @pos, seq "
                             "@seq, heads 2\n"
                             "%4 =route[n_tok,3] route x %2, w $w, k 3\n"
                             "%5 =route[n_tok,3] route x %2, k 3\n"
                             "return %2, %3\n}\n");
        assert_int_equal(ref_state(h, REF(R_VAL, 3)), REF(R_STATE, 0));
        assert_int_equal(ref_experts(h, REF(R_VAL, 4)), 6);
        assert_int_equal(ref_experts(h, REF(R_VAL, 5)), 8);
        assert_null(ref_node(h, REF(R_STATE, 0)));
        Vtype t = ref_type(h, REF(R_INPUT, IN_out));
        char s[VTYPE_STR];
        assert_string_equal(vtype_str(&t, s), "i32[n_out]");
        assert_int_equal(dim_at(t.dim[0], (u64[N_DIM]){[DIM_n_out] = 7}), 7);
}

/* Misuse: M(name, what is done, what is said). It is ours, so that it dies. */
#define MISUSES(M)                                                                                           \
        M(op, node_new(g, OP_dead), "no operation")                                                          \
        M(insert, node_insert(g, 2, OP_add), "node_insert at 2 of 1")                                        \
        M(node, node_int(g, 1, A_layer, 0), "no node 1")                                                     \
        M(nothing, node_in(g, 0, S_x, REF_NONE), "operand x is no reference")                                \
        M(type, ref_type(g, REF(R_VAL, 1)), "no reference 10000001")                                         \
        M(value, ref_node(g, REF(R_VAL, 1)), "no value 1")                                                   \
        M(state, ref_state(g, REF(R_VAL, 0)), "value 0 is no state")                                         \
        M(route, ref_experts(g, REF(R_VAL, 0)), "is no route")                                               \
        M(last, dim_last(&(Vtype){.rank = 1, .dim = {{DIM_n_tok, 0}}}), "not constant")                      \
        M(dead, (graph_return(g, REF(R_VAL, 0)), node_kill(g, 0), graph_compact(g)), "whose node is dead")
#define M(name, act, says)                                                                                   \
        static void misuse_##name(void)                                                                      \
        {                                                                                                    \
                (void)(act);                                                                                 \
        }
MISUSES(M)
#undef M

static void misuse_dies(void **state)
{
        static const struct {
                const char *says;
                void (*act)(void);
        } misuses[] = {
#define M(name, act, says) {says, misuse_##name},
                MISUSES(M)
#undef M
        };
        (void)state;
        for (size_t i = 0; i < COUNT(misuses); i++) {
                Trap t;
                g = graph_new(arena, "test");
                embed();
                if (TRAP(&t) == 0) {
                        misuses[i].act();
                        trap_pop(&t);
                        fail_msg("%s: nothing is said", misuses[i].says);
                }
                assert_int_equal(t.error.status, MOEC_ERROR);
                assert_non_null(strstr(t.error.msg, misuses[i].says));
        }
}

/* ---- rewriting ---- */

static void a_clone_is_apart(void **state)
{
        (void)state;
        for (u64 seed = 0; seed < 50; seed++) {
                Arena *other = arena_new();
                const Graph *from = rand_graph(arena, seed, seed % 2);
                const char *before = text_of(from);
                Graph *c = graph_clone(from, other, "random");
                assert_string_equal(text_of(c), before);
                for (u32 i = 0; i < c->n_node; i++) { /* change what can be changed */
                        c->node[i].attr[A_layer].i = 77;
                        for (u32 k = 0; k < c->node[i].nin; k++)
                                c->node[i].in[k].ref = REF(R_INPUT, 0);
                        node_in(c, i, S_res, REF(R_INPUT, 0));
                }
                graph_weight(c, "one more", W_F32, 1, (u64[]){1}, NULL);
                graph_return(c, c->ret[0]);
                c->weight[0].layout = LAYOUT_panel;
                assert_string_equal(text_of(from), before);
                Ref r;
                assert_false(graph_find_weight(from, "one more", 8, &r));
                arena_free(other);
        }
}

static void replacing_reaches_operands_and_returns(void **state)
{
        (void)state;
        Ref x = embed(), a = scale(x, 2), b = scale(a, 3);
        graph_return(g, a);
        graph_return(g, b);
        assert_int_equal(ref_uses(g, a), 2);
        ref_replace(g, a, x);
        assert_int_equal(ref_uses(g, a), 0);
        assert_int_equal(ref_uses(g, x), 3);
        assert_true(g->ret[0] == x && g->ret[1] == b && in_get(ref_node(g, b), S_x) == x);
        node_kill(g, node_of(b)); /* a dead node uses nothing */
        assert_int_equal(ref_uses(g, x), 2);
}

static void compact_drops_what_is_dead(void **state)
{
        (void)state;
        Ref x = embed(), a = scale(x, 2), w = weight("unused", 1, 1), b = scale(a, 3), r;
        Ref kept = graph_weight(g, "row", W_F32, 1, (u64[]){8}, NULL);
        u32 n = node_new(g, OP_mul);
        node_in(g, n, S_a, b);
        node_in(g, n, S_b, kept);
        Ref y = node_done(g, n);
        graph_return(g, y);
        (void)w;
        node_kill(g, node_of(a));
        ref_replace(g, a, x);
        check(g);
        graph_compact(g);
        check(g);
        assert_string_equal(text_of(g), "graph test {\n"
                                        "        $table =F32[10,8]\n"
                                        "        $row =F32[8]\n"
                                        "        %0 =f32[n_tok,8] embed w $table, ids @ids\n"
                                        "        %1 =f32[n_tok,8] scale x %0, by 0x1.8p+1\n"
                                        "        %2 =f32[n_tok,8] mul a %1, b $row\n"
                                        "        return %2\n"
                                        "}\n");
        assert_int_equal(g->n_val, 3);
        assert_false(graph_find_weight(g, "unused", 6, &r));
        assert_true(graph_find_weight(g, "row", 3, &r) && ref_idx(r) == 1);
}

static void compact_changes_no_meaning(void **state)
{
        (void)state;
        for (u64 seed = 0; seed < 100; seed++) {
                Graph *h = rand_graph(arena, seed, seed % 2);
                const char *before = text_of(h);
                graph_compact(h);
                check(h);
                assert_string_equal(text_of(h), before);
        }
}

static void copied_attributes_are_those_of_both(void **state)
{
        (void)state;
        Ref x = embed();
        u32 from = node_new(g, OP_rope), to = node_new(g, OP_kv_append), n = node_new(g, OP_scale);
        (void)x;
        node_int(g, from, A_layer, 3);
        node_int(g, from, A_rdim, 16);
        node_int(g, from, A_heads, 2);
        node_flt(g, from, A_rbase, 5);
        node_copy_attrs(g, to, from);
        node_copy_attrs(g, n, from);
        assert_int_equal(attr_i(&g->node[to], A_rdim), 16);
        assert_true(attr_f(&g->node[to], A_rbase) == 5);
        assert_int_equal(attr_i(&g->node[to], A_heads), 0); /* kv_append has none */
        assert_int_equal(attr_i(&g->node[n], A_layer), 3);
        assert_int_equal(attr_i(&g->node[n], A_rdim), 0);
}

static void results_are_inferred_again(void **state)
{
        (void)state;
        Ref x = embed(), w = weight("w", 4, 8), w5 = weight("w5", 5, 8);
        u32 n = node_new(g, OP_matmul);
        node_in(g, n, S_x, x);
        node_in(g, n, S_w, w);
        Ref y = node_done(g, n);
        g->node[n].in[1].ref = w5;
        assert_int_equal(node_done(g, n), y);
        Vtype t = ref_type(g, y);
        assert_int_equal(dim_last(&t), 5);
        node_in(g, n, S_w, w);
        assert_non_null(strstr(done_says(n), "matmul: 1 results became 2"));
}

/* ---- buffers ---- */

static void bytes_are_of_the_bounds(void **state)
{
        (void)state;
        Graph *h = from_text("graph g {\n"
                             "$t =F32[9,64]\n$w =F32[6,64]\n"
                             "state &kv =kv[2,32,32] f16 f16\n"
                             "%0 =f32[n_tok,64] embed w $t, ids @ids\n"
                             "%1 =q8[n_tok,64] quantize x %0\n"
                             "%2 =route[n_tok,3] route x %0, w $w, k 3\n"
                             "%3 =order[n_tok,3] sort route %2, experts 6\n"
                             "%4 =kv[2,32,32] kv_append kv &kv, k %0, v %0, pos @pos, seq @seq\n"
                             "return %0, %4\n}\n");
        assert_true(val_bytes(h, 0) == UINT64_MAX);
        h->max[DIM_n_tok] = 10;
        assert_int_equal(val_bytes(h, 0), 10 * 64 * 4);
        assert_int_equal(val_bytes(h, 1), 10 * (64 + 64 / Q8_BLOCK * 4));
        assert_int_equal(val_bytes(h, 2), 10 * 3 * 8);
        assert_int_equal(val_bytes(h, 3), (10 * 3 + 7) * 4);
        assert_int_equal(val_bytes(h, 4), 0);
        h->max[DIM_n_tok] = UINT64_MAX / 64;
        assert_true(val_bytes(h, 0) == UINT64_MAX);
}

static void in_place_where_nothing_is_read_late(void **state)
{
        (void)state;
        Graph *h = from_text("graph g {\n"
                             "$t =F32[9,8]\n$w =F32[8,8]\n$r =F32[8]\n"
                             "%0 =f32[n_tok,8] embed w $t, ids @ids\n"
                             "%1 =f32[n_tok,8] add a %0, b $r\n"
                             "%2 =f32[n_tok,8] matmul x %0, w $w, res %1\n"
                             "%3 =f32[n_tok,8] matmul x %1, w $w, res %1\n"
                             "%4 =f32[n_tok,8] mul a %2, b %2\n"
                             "%5 =f32[n_out,8] rows x %4, out @out\n"
                             "return %5\n}\n");
        assert_true(in_place(h, 1, 0));
        assert_false(in_place(h, 1, 1)); /* a weight */
        assert_false(in_place(h, 2, 0)); /* x */
        assert_true(in_place(h, 2, 2));
        assert_false(in_place(h, 3, 2)); /* res is x too */
        assert_true(in_place(h, 4, 0) && in_place(h, 4, 1));
        assert_false(in_place(h, 5, 0));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(tables_say_what_ops_h_says),
                TEST(operands_are_kept_in_order_of_slots),
                TEST(the_same_name_is_the_same_weight),
                TEST(inserted_nodes_shift_the_others),
                TEST(an_error_names_the_node_and_both_shapes),
                TEST(states_and_routes_are_traced),
                TEST(misuse_dies),
                TEST(a_clone_is_apart),
                TEST(replacing_reaches_operands_and_returns),
                TEST(compact_drops_what_is_dead),
                TEST(compact_changes_no_meaning),
                TEST(copied_attributes_are_those_of_both),
                TEST(results_are_inferred_again),
                TEST(bytes_are_of_the_bounds),
                TEST(in_place_where_nothing_is_read_late),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The check finds every fault that is put into a sound graph. */
#include "ir/graph.h"
#include "tests/lib/randgraph.h"
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

static Arena *arena;
static moec_error failure;

static int set_up(void **state)
{
        (void)state;
        arena = arena_new();
        return 0;
}

static int tear_down(void **state)
{
        (void)state;
        arena_free(arena);
        return 0;
}

static Graph *from_text(const char *text)
{
        return parse(arena, text, strlen(text), "FILE");
}

/* What the check says of a graph; "" if nothing. */
static const char *check_says(const Graph *h)
{
        Trap t;
        if (TRAP(&t) == 0) {
                check(h);
                trap_pop(&t);
                return "";
        }
        failure = t.error;
        return failure.msg;
}

static const char sound[] = "graph g {\n"
                            "max n_tok 2, n_out 1\n"
                            "arena 4096\n"
                            "$t =F32[9,64]\n$w =Q8_0[64,64]\n$r =F32[4,64]\n$r2 =F32[4,64]\n"
                            "state &kv =kv[2,32,32] f16 f16\n"
                            "%0 =f32[n_tok,64] @0 embed w $t, ids @ids\n"
                            "%1 =f32[n_tok,64] @512 scale x %0, by 2\n"
                            "%2 =f32[n_tok,64] @1024 matmul x %1, w $w, res %0\n"
                            "%3 =kv[2,32,32] kv_append kv &kv, k %2, v %2, pos @pos, seq @seq\n"
                            "%4 =f32[n_tok,64] @0 attend q %2, kv %3, pos @pos, seq @seq, heads 2\n"
                            "%5 =route[n_tok,2] @2048 route x %4, w $r, k 2\n"
                            "%6 =order[n_tok,2] @2560 sort route %5, experts 4\n"
                            "return %4, %3, %6\n}\n";

/* Faults: F(name, what is done to the sound graph, what the check says of it). */
#define FAULTS(F)                                                                                            \
        F(op, h->node[1].op = (Op)(OP_dead + 1), "node 1 has operation")                                     \
        F(operand_kind, h->node[1].in[0].ref = REF(9, 0), "which does not exist")                            \
        F(operand_value, h->node[1].in[0].ref = REF(R_VAL, 7), "which does not exist")                       \
        F(operand_weight, h->node[2].in[1].ref = REF(R_WEIGHT, 4), "which does not exist")                   \
        F(operand_input, h->node[0].in[1].ref = REF(R_INPUT, N_INPUT), "which does not exist")               \
        F(operand_state, h->node[3].in[0].ref = REF(R_STATE, 1), "which does not exist")                     \
        F(slot, h->node[1].in[0].slot = N_SLOT, "operands out of order")                                     \
        F(slot_order, h->node[2].in[0].slot = S_res, "operands out of order")                                \
        F(results, h->node[1].nout = 0, "0 results")                                                         \
        F(results_range, h->node[6].nout = 2, "2 results")                                                   \
        F(definition, h->val[1].node = 2, "says that node 2 defines it, not 1")                              \
        F(type_of_nothing, h->val[1].type.dt = N_DTYPE, "damaged type")                                      \
        F(rank, h->val[1].type.rank = MAX_RANK + 1, "damaged type")                                          \
        F(dim_symbol, h->val[1].type.dim[0].sym = N_DIM, "damaged type")                                     \
        F(enum_word, h->node[1].attr[A_act].i = 2, "damaged attribute act")                                  \
        F(before_use, h->node[1].in[0].ref = REF(R_VAL, 2), "operand x is not defined before its use")       \
        F(dead_use, node_kill(h, 0), "operand x is not defined before its use")                              \
        F(signature, h->node[2].in[2].slot = S_norm, "matmul: operand norm is f32[n_tok,64]")                \
        F(missing, h->node[1].nin = 0, "operand x is missing")                                               \
        F(attr, h->node[1].attr[A_heads].i = 2, "attribute heads is not one of this operation's")            \
        F(type, h->val[1].type.dim[1].n = 63, "result 0 is f32[n_tok,63] instead of f32[n_tok,64]")          \
        F(dtype, h->val[5].type.dt = D_f32, "result 0 is f32[n_tok,2] instead of route[n_tok,2]")            \
        F(state_read_late, h->node[4].in[1].ref = REF(R_STATE, 0), "uses a state that has been changed")     \
        F(state_lost, h->n_ret = 1, "state kv is changed, but its last value is not returned")               \
        F(state_old, h->ret[1] = REF(R_STATE, 0), "result 1 is not the last value of state kv")              \
        F(state_twice, h->ret[2] = h->ret[1], "state kv is returned twice")                                  \
        F(result_kind, h->ret[0] = REF(R_WEIGHT, 0), "result 0 is neither a value nor a state")              \
        F(result_range, h->ret[0] = REF(R_VAL, 7), "which does not exist")                                   \
        F(result_dead, node_kill(h, 6), "result 2 is not defined")                                           \
        F(weight_block, h->weight[1].dim[1] = 65, "rows of 65 values are not whole blocks of Q8_0")          \
        F(weight_zero, h->weight[0].dim[0] = 0, "weight t has a dimension of 0")                             \
        F(weight_type, h->weight[0].type = N_WTYPE, "weight t has a damaged type")                           \
        F(weight_layout, h->weight[0].layout = N_LAYOUT, "weight t has a damaged type")                      \
        F(weight_name, h->weight[0].name = "w", "weight w is not found by its name")                         \
        F(state_shape, h->state[0].heads = 0, "state kv has a damaged shape")                                \
        F(state_name, h->state[0].name = "x", "state x is not found by its name")                            \
        F(route_experts, h->node[6].attr[A_experts].i = 5, "experts is 5, but the route has 4")              \
        F(offset_missing, h->val[1].offset = NO_OFFSET, "result 0 has no offset")                            \
        F(offset_of_state, h->val[3].offset = 0, "a state has an offset")                                    \
        F(offset_bound, h->max[DIM_n_tok] = 0, "result 0 has an offset, but no bound")                       \
        F(offset_behind, h->val[6].offset = 4080, "ends behind the arena's 4096 bytes")                      \
        F(offset_overlap, h->val[1].offset = 508, "scale: result 0 overlaps a live value")                   \
        F(offset_live_operand, h->val[2].offset = 512, "matmul: result 0 overlaps a live value")             \
        F(offset_result, h->val[6].offset = 0, "sort: result 0 overlaps a live value")

#define F(name, fault, says)                                                                                 \
        static void fault_##name(Graph *h)                                                                   \
        {                                                                                                    \
                fault;                                                                                       \
        }
FAULTS(F)
#undef F

static void every_fault_is_found(void **state)
{
        (void)state;
        static const struct {
                const char *name, *says;
                void (*make)(Graph *);
        } faults[] = {
#define F(name, fault, says) {#name, says, fault_##name},
                FAULTS(F)
#undef F
        };
        for (size_t i = 0; i < COUNT(faults); i++) {
                Graph *h = from_text(sound);
                check(h);
                faults[i].make(h);
                const char *msg = check_says(h);
                if (!*msg)
                        fail_msg("%s is not found", faults[i].name);
                if (failure.status != MOEC_ERROR || !strstr(msg, "internal error") ||
                        !strstr(msg, faults[i].says))
                        fail_msg("%s: %s", faults[i].name, msg);
        }
}

static void the_check_prints_the_node(void **state)
{
        (void)state;
        Graph *h = from_text(sound);
        h->val[1].type.dim[1].n = 63;
        const char *msg = check_says(h);
        assert_non_null(strstr(msg, "FILE:10: scale: result 0 is"));
        assert_non_null(strstr(msg, "in: %1 =f32[n_tok,63] @512 scale x %0, by 0x1p+1"));
}

static void overlap_in_place_is_sound(void **state)
{
        (void)state;
        Graph *h = from_text(sound);
        h->val[2].offset = 0; /* over res, which nothing reads later */
        assert_non_null(strstr(check_says(h), "attend: result 0 overlaps")); /* over its own q */
        h->val[4].offset = 512;
        assert_string_equal(check_says(h), "");
}

/* Offsets as a simple allocator gives them, each value behind those alive: must be sound; moved together:
 * must not. */
static void random_buffers(void **state)
{
        (void)state;
        u32 found = 0;
        for (u64 seed = 0; seed < 60; seed++) {
                Graph *h = rand_graph(arena, seed, seed % 2);
                for (int d = 1; d < N_DIM; d++)
                        h->max[d] = 3;
                for (u32 v = 0; v < h->n_val; v++)
                        if (h->val[v].type.dt != D_kv) {
                                h->val[v].offset = h->arena_bytes;
                                h->arena_bytes += val_bytes(h, v);
                        }
                check(h);
                Rand r = {seed};
                u32 n = 1 + rand_below(&r, h->n_node - 1);
                const Node *d = &h->node[n];
                if (ref_kind(d->in[0].ref) != R_VAL || h->val[d->out].type.dt == D_kv || d->op == OP_scale ||
                        d->op == OP_glu || d->op == OP_add || d->op == OP_mul ||
                        h->val[ref_idx(d->in[0].ref)].type.dt == D_kv)
                        continue;
                h->val[d->out].offset = h->val[ref_idx(d->in[0].ref)].offset;
                h->arena_bytes *= 2;
                if (!strstr(check_says(h), "overlaps a live value"))
                        fail_msg("seed %llu: node %u over its operand", (unsigned long long)seed, n);
                found++;
        }
        assert_true(found > 20);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(every_fault_is_found),
                TEST(the_check_prints_the_node),
                TEST(overlap_in_place_is_sound),
                TEST(random_buffers),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

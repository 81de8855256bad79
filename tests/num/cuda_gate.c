/* What the fibres (tests/lib/oncuda.h) say of kernels that read before their wait, or let the next launch
 * start, otherwise than selection has it; and that the kernels that need not read early then do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "codegen/select_graph.h"
#include "tests/lib/oncuda.h"
#include <cmocka.h>

enum { MAX_KERNEL = 16 };
static Arena *arena;
static Key *keys[MAX_KERNEL];
static Fibred *fn[MAX_KERNEL];
static u32 n_keys;
static Graph *g;
static Sel down;

static const char text[] =
        "graph gate {\n$e =F32[64,256]\n$z =F32[4,256]\n$g =F32[4,64,256]\n$d =F32[4,256,64]\n"
        "%0 =f32[n_tok,256] embed w $e, ids @ids\n%1 =f32[n_tok,4] matmul x %0, w $z\n"
        "%2 =route[n_tok,2] route x %1, k 2\n%3 =f32[n_tok,256] experts x %0, route %2, gate "
        "$g, up $g, down $d\n%4 =f32[n_out,256] rows x %3, out @out\nreturn %4\n}\n";

static const char scale[] =
        "m4_include(«prelude.m4»)\n"
        "moe_kernel\n{\n"
        "        moe_if(MOE_AT, first, «if (TID == 3)\n                pdl_trigger();», «»)\n"
        "        pdl_wait();\n"
        "        moe_if(MOE_AT, waited, «if (TID == 3)\n                pdl_trigger();», «»)\n"
        "}\n";

/* The kernel of that template which triggers `at` some place. */
static u32 trigger_key(const char *says, const char *at)
{
        Key *k = keys[n_keys] = key_new(arena, "scale");
        key_int(k, "THREADS", 32);
        key_int(k, "NARG", 1);
        key_word(k, "TRIGGER", says);
        key_word(k, "AT", at);
        key_done(k);
        return n_keys++;
}

static u32 down_key(bool early)
{
        for (u32 i = 0; i < g->n_node; i++)
                if (g->node[i].op == OP_experts_down)
                        assert_true(select_node(arena, g, i, TARGET_cuda, NULL, early, &down));
        assert_string_equal(down.key->op, "experts_down_one");
        keys[n_keys] = down.key;
        return n_keys++;
}

static void says(const char *got, const char *words)
{
        if (!got && !words)
                return;
        if (!got || !words || !strstr(got, words))
                fail_msg("%s, not %s", got ? got : "nothing", words ? words : "nothing");
}

static const char *run_scale(u32 key)
{
        Sel s = {.mul = {1, 1, 1}, .div = {1, 1, 1}};
        return oncuda_run(fn[key], &s, NULL, &(KernelDim){1, 1, 1, 1}, false);
}

/* With all bytes zero, which is a route to expert 0 for all slots. */
static const char *run_down(u32 key, bool allowed)
{
        Mem own[MAX_ARG], *arg[MAX_ARG];
        for (u32 i = 0; i < down.n_arg; i++) {
                Ref r = down.arg[i].ref;
                const Weight *w = down.arg[i].kind == PLAN_W ? &g->weight[ref_idx(r)] : NULL;
                own[i] = w ? mem_new(plan_weight_bytes(w->type, w->layout, w->rank, w->dim), MEM_WEIGHT)
                           : mem_new(value_bytes(g, ref_idx(r)), i ? MEM_IN : MEM_OUT);
                memset(own[i].p, 0, own[i].bytes);
                arg[i] = &own[i];
                down.arg[i].early = allowed && down.arg[i].slot == S_route;
        }
        const char *wrong = oncuda_run(fn[key], &down, arg, &(KernelDim){1, 1, 1, 1}, false);
        for (u32 i = 0; i < down.n_arg; i++)
                mem_free(&own[i]);
        return wrong;
}

static void test_gate(void **state)
{
        static const char *const word[] = {"none", "waited", "first"},
                                 *const fault[3][3] = {/* of what the selection says, by what is */
                                         {NULL, "the selection does not say", "the selection does not say"},
                                         {"never lets", NULL, "before its own wait"},
                                         {"never lets", "after its own wait", NULL}};
        (void)state;
        PassOpt opt = {0};
        arena = arena_new();
        g = parse(arena, text, sizeof text - 1, "gate");
        for (u32 i = 0; i < N_DIM; i++)
                g->max[i] = 1;
        run_passes(g, "experts, layout split, order, buffers", &opt, NULL, NULL);
        for (u32 i = 0; i < 9; i++)
                trigger_key(word[i / 3], word[i % 3]);
        u32 early = down_key(true), late = down_key(false);
        OnCuda *o = oncuda_with(arena, keys, n_keys, fn, scale);
        if (!o) {
                print_message("no C++ compiler\n");
                skip();
        }
        for (u32 i = 0; i < 9; i++)
                says(run_scale(i), fault[i / 3][i % 3]);
        says(run_down(early, true), NULL);
        says(run_down(early, false), "touches argument 2 at byte 0");
        says(run_down(late, false), NULL);
        oncuda_free(o);
        arena_free(arena);
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_gate)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}

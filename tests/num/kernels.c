/* Every kernel against the interpreter, launch by launch, on random graphs: few that have all traits that
 * many have. tests/slow/kernels.c runs more of them, for every instruction set. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "tests/lib/oncpu.h"
#include <cmocka.h> /* last: its fail is a macro */

enum { SEEDS = 300 };

typedef struct Candidate {
        u8 has[MAX_TRAIT];
        u32 cost; /* kernels to compile */
} Candidate;

static u32 missing(const Candidate *c, const u8 *have, u32 n)
{
        u32 new = 0;
        for (u32 i = 0; i < n; i++)
                new += c->has[i] && !have[i];
        return new;
}

/* Repeatedly the one that brings most for what it costs, until none brings anything; how many. */
static u32 choose(const Candidate *c, u32 n_trait, u32 *chosen)
{
        u8 have[MAX_TRAIT] = {0};
        for (u32 n = 0;; n++) {
                u32 best = SEEDS, most = 0;
                for (u32 i = 0; i < SEEDS; i++) {
                        u32 new = missing(&c[i], have, n_trait);
                        if (new && (best == SEEDS || new *c[best].cost > most *c[i].cost)) {
                                best = i;
                                most = new;
                        }
                }
                if (best == SEEDS)
                        return n;
                chosen[n] = best;
                for (u32 i = 0; i < n_trait; i++)
                        have[i] |= c[best].has[i];
        }
}

static void assert_has(const Traits *t, const char *fmt, ...)
{
        char word[96];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(word, sizeof word, fmt, ap);
        va_end(ap);
        if (traits_find(t, word) == t->n)
                fail_msg("no graph has %s", word);
}

/* What must be tried, whatever becomes of the generator: every operation that has a kernel, every operand of
 * it, present and absent, every word of every attribute (but a rope of nothing, which is folded away), every
 * type of weights times every type of activations, and some shapes. */
static void assert_complete(const Traits *t)
{
        static const char *const shape[] = {"slice, several heads", "concat, several heads",
                "rope, several heads", "attend, several heads", "attend, shared keys",
                "rmsnorm, several groups", "route, some groups left out", "route, more than two",
                "matmul, several weights", "experts_up, part of 32, f32", "experts_up, part of 32, q8",
                "rope, some of each head", "kv_append keys q8_0", "kv_append values q8_0", "attend keys q8_0",
                "attend values q8_0", "attend.k, keys q8_0", "attend, values in keys q8_0"};
        for (int op = 0; op < N_OP; op++) {
                const OpInfo *o = op_info((Op)op);
                if (op == OP_experts || op == OP_dequant)
                        continue;
                for (u32 i = 0; i < o->n_slot; i++) {
                        assert_has(t, "%s.%s", o->name, slot_name[o->slot[i].slot]);
                        if (o->slot[i].arity == ARITY_opt)
                                assert_has(t, "%s, no %s", o->name, slot_name[o->slot[i].slot]);
                }
                for (int i = 0; i < N_ATTR; i++)
                        for (u32 w = op == OP_rope && i == A_rstyle;
                                o->attr[i] && attr_info[i].kind == ATTR_ENUM && attr_info[i].word[w]; w++)
                                assert_has(t, "%s %s=%s", o->name, attr_info[i].name, attr_info[i].word[w]);
        }
        for (int w = 0; w < N_WTYPE; w++)
                for (int i = 0; i < 2; i++)
                        assert_has(t, "%s act=%s", wtype_info[w].name, attr_info[A_act].word[i]);
        for (size_t i = 0; i < COUNT(shape); i++)
                assert_has(t, "%s", shape[i]);
}

static void test_random(void **state)
{
        Arena *a = arena_new();
        Traits *t = NEW(a, Traits);
        Candidate *c = NEWN(a, Candidate, SEEDS);
        Trial trial[SEEDS];
        u32 chosen[SEEDS];
        (void)state;
        t->arena = a;
        for (u32 i = 0; i < SEEDS; i++) {
                Arena *b = arena_new();
                Trial r = trial_random(b, i);
                const Graph *g = trial_graph(&r, b, false);
                traits_add(t, c[i].has, g, r.max_tok);
                c[i].cost = g->n_node;
                arena_free(b);
        }
        assert_complete(t);
        u32 n = choose(c, t->n, chosen);
        for (u32 i = 0; i < n; i++)
                trial[i] = trial_random(a, chosen[i]);
        print_message("%u traits in %u graphs\n", t->n, n);
        trials_run(trial, n, &(TrialOpt){"native", 20});
        arena_free(a);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_random),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

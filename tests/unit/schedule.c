/* The schedule check: by its rules on launches written out here, by faults put into real models' schedules,
 * and what selection does where a kernel would read too early. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "codegen/nvrtc.h"
#include "codegen/select_graph.h"
#include <cmocka.h> /* last: its fail is a macro */

#define DECODE                                                                                               \
        "fold, dce, experts, qmatmul act=q8, fuse dup_norm fuse_kv round_attend "                            \
        "route_max=4194304, layout split, order, buffers"
#define PREFILL                                                                                              \
        "fold, dce, experts grouped, qmatmul act=q8, fuse quantize round_attend, layout split, order, "      \
        "buffers"

static int setup(void **state)
{
        *state = arena_new();
        return 0;
}

static int teardown(void **state)
{
        arena_free(*state);
        return 0;
}

static void has_fault(Arena *a, const Launch *l, u32 n, const char *words)
{
        const char *got = schedule_fault(a, "test", l, n);
        if (!words && got)
                fail_msg("%s", got);
        if (words && (!got || !strstr(got, words)))
                fail_msg("no \"%s\" in: %s", words, got ? got : "no fault");
}

/* ---- rules ---- */

/* n launches in a row, each writing value i at 64 * i and reading value i - 1. */
typedef struct Chain {
        Launch launch[8];
        Touch touch[8][3];
} Chain;

static Chain *chain(Arena *a, const PlanTrigger *trigger, u32 n)
{
        Chain *c = NEW(a, Chain);
        for (u32 i = 0; i < n; i++) {
                c->touch[i][0] = (Touch){TOUCH_ARENA, i, 64 * i, 64, true, false, false};
                c->touch[i][1] = (Touch){TOUCH_ARENA, i - 1, 64 * (i - 1), 64, false, false, false};
                c->launch[i] = (Launch){"a launch", trigger[i], c->touch[i], i ? 2 : 1};
        }
        return c;
}

/* The last launch of each chain reads value v early as well. */
static void early_reads(void **state)
{
#define N PLAN_TRIGGER_none
#define W PLAN_TRIGGER_waited
#define F PLAN_TRIGGER_first
        static const struct {
                PlanTrigger trigger[8];
                u32 n, ended;
        } all[] = {
                {{N}, 1, 0},
                {{N, N}, 2, 0},
                {{F, N}, 2, 0},
                {{N, N, N}, 3, 1},
                {{F, W, N}, 3, 1},
                {{N, F, N}, 3, 0},
                {{W, W, F, N}, 4, 1},
                {{W, F, F, N}, 4, 0},
                {{N, N, N, F, F, W, N}, 7, 5},
                {{N, N, N, F, W, F, N}, 7, 4},
                {{N, N, N, W, F, F, N}, 7, 3},
                {{N, N, W, F, F, F, N}, 7, 2},
                {{F, F, F, F, F, F, F}, 7, 0},
        };
        Arena *a = *state;
        for (size_t i = 0; i < COUNT(all); i++) {
                Chain *c = chain(a, all[i].trigger, all[i].n);
                u32 last = all[i].n - 1;
                assert_int_equal(schedule_ended(c->launch, last), all[i].ended);
                has_fault(a, c->launch, all[i].n, NULL);
                for (u32 v = 0; v < last; v++) {
                        c->touch[last][2] = (Touch){TOUCH_ARENA, v, 64 * v, 64, false, true, false};
                        c->launch[last].n_touch = 3;
                        has_fault(a, c->launch, all[i].n, v < all[i].ended ? NULL : "before its wait");
                }
        }
}

static void early_words(void **state)
{
        static const PlanTrigger none[8];
        Chain *c = chain(*state, none, 3);
        c->touch[2][1].early = true;
        has_fault(*state, c->launch, 3,
                "phase test: launch 2 (a launch) reads value 1 (bytes 64 to 128 of the arena) before its "
                "wait, "
                "when launch 1 (a launch) may still use that: only the first 1 have surely ended");
        c->touch[2][1].early = false;
        c->touch[2][0].early = true; /* writes: nobody may, where another still reads */
        c->touch[2][0].at = c->touch[1][1].at;
        c->launch[2].n_touch = 1;
        has_fault(*state, c->launch, 3, "writes value 2 (bytes 0 to 64 of the arena) before its wait");
}

static void bytes_hold_what_is_read(void **state)
{
        static const PlanTrigger none[8];
        Chain *c = chain(*state, none, 4);
        c->touch[3][2] = (Touch){TOUCH_ARENA, 1, 64, 64, false, false, false};
        c->launch[3].n_touch = 3;
        has_fault(*state, c->launch, 4, NULL);
        c->touch[2][0].at = 127; /* one byte of value 1 */
        c->touch[3][1].at = 127;
        has_fault(*state, c->launch, 4,
                "launch 2 (a launch) writes value 2 (bytes 127 to 191 of the arena), where it "
                "also reads value 1");
        c->touch[2][0].at = c->touch[3][1].at = 0;
        has_fault(*state, c->launch, 4, NULL); /* value 0 is done with */
        c->touch[2][1] = (Touch){TOUCH_ARENA, 0, 0, 64, false, false, false};
        has_fault(*state, c->launch, 4, "also reads value 0");
        c->touch[2][1].in_place = true;
        has_fault(*state, c->launch, 4, NULL);
        c->touch[2][0].at = c->touch[3][1].at = 32; /* in place is in the same place */
        has_fault(*state, c->launch, 4, "also reads value 0");
        c->touch[2][0].at = c->touch[3][1].at = 0;
        c->touch[3][2].value = 0;
        c->touch[3][2].at = 0;
        has_fault(*state, c->launch, 4,
                "reads value 0 (bytes 0 to 64 of the arena), but launch 2 (a launch) has "
                "written value 2");
        c->touch[3][2].at = 1000;
        has_fault(*state, c->launch, 4, "which no launch in front of it writes");
}

static void states(void **state)
{
        static const Touch read = {TOUCH_STATE, NO_VALUE, 0, 1, false, true, true},
                           write = {TOUCH_STATE, 5, 0, 1, true, false, false};
        Touch t[4][2] = {{read, write}, {read}, {read}, {read}};
        Launch l[4];
        for (u32 i = 0; i < 4; i++)
                l[i] = (Launch){"attend", PLAN_TRIGGER_waited, t[i], i ? 1 : 2};
        has_fault(*state, l, 1, NULL); /* its own place is not what it reads early */
        has_fault(*state, l, 2, "launch 1 (attend) reads state 0, but launch 0 (attend) has written state 0");
        t[1][0].value = t[2][0].value = t[3][0].value = 5;
        has_fault(*state, l, 2, "launch 1 (attend) reads state 0 before its wait");
        t[1][0].early = false;
        has_fault(*state, l, 4, NULL);
        l[1].trigger = PLAN_TRIGGER_first;
        has_fault(*state, l, 4, "launch 2 (attend) reads state 0 before its wait");
        t[2][0].space = t[3][0].space = TOUCH_STATE + 1; /* another layer's */
        t[2][0].value = t[3][0].value = NO_VALUE;
        has_fault(*state, l, 4, NULL);
}

/* ---- real models ---- */

typedef struct Real {
        Graph *g;
        Sel *sel;
        Launch *launch;
        u32 n;
} Real;

static Real select_text(
        Arena *a, const char *text, size_t n, const char *name, const char *words, u64 max_tok)
{
        PassOpt opt = {0};
        Real r = {.g = parse(a, text, n, name)};
        r.g->max[DIM_n_tok] = r.g->max[DIM_n_out] = max_tok;
        r.g->max[DIM_n_seq] = 2;
        r.g->max[DIM_n_ctx] = 1000;
        run_passes(r.g, words, &opt, NULL, NULL);
        r.sel = NEWN(a, Sel, r.g->n_node);
        select_graph(a, r.g, TARGET_cuda, NULL, r.sel);
        r.launch = graph_launches(a, r.g, r.sel, &r.n);
        return r;
}

static Real select_file(Arena *a, const char *name, const char *words, u64 max_tok)
{
        Buf b = {0};
        moec_error e;
        if (file_read(arena_fmt(a, "tests/ir/%s.ir", name), &b, 1 << 24, &e))
                fail_msg("%s", e.msg);
        const char *text = arena_strn(a, b.p, b.len);
        size_t n = b.len;
        buf_free(&b);
        return select_text(a, text, n, name, words, max_tok);
}

static Touch *touch(const Real *r, u32 launch, u32 i)
{
        return (Touch *)(uintptr_t)&r->launch[launch].touch[i];
}

static u32 count_early(const Real *r)
{
        u32 n = 0;
        for (u32 i = 0; i < r->n; i++)
                for (u32 k = 0; k < r->launch[i].n_touch; k++)
                        n += r->launch[i].touch[k].early;
        return n;
}

static void models_pass(void **state)
{
        static const struct {
                const char *name;
                u32 one, few, many; /* inputs, values and states that steps of so many tokens read early */
        } all[] = {{"qwen3moe", 4, 4, 2}, {"gpt-oss", 3, 4, 2}, {"deepseek2", 0, 1, 0}};
        for (size_t i = 0; i < COUNT(all); i++) {
                Real one = select_file(*state, all[i].name, DECODE, 1),
                     few = select_file(*state, all[i].name, DECODE, 8),
                     many = select_file(*state, all[i].name, PREFILL, 64);
                has_fault(*state, one.launch, one.n, NULL);
                has_fault(*state, few.launch, few.n, NULL);
                has_fault(*state, many.launch, many.n, NULL);
                assert_int_equal(few.n, one.n);
                assert_int_equal(count_early(&one), all[i].one);
                assert_int_equal(count_early(&few), all[i].few);
                assert_int_equal(count_early(&many), all[i].many);
        }
}

/* Every two launches changed for one another that depend on each other, every two values put into one place
 * that live together, every value read early that the launch in front may still write: each is found. */
static void every_swap_is_found(void **state)
{
        Real r = select_file(*state, "qwen3moe", DECODE, 1);
        u32 tried = 0;
        for (u32 i = 0; i + 1 < r.n; i++) {
                bool depends = false;
                for (u32 k = 0; k < r.launch[i + 1].n_touch; k++)
                        for (u32 m = 0; m < r.launch[i].n_touch; m++)
                                depends |= !touch(&r, i + 1, k)->write && touch(&r, i, m)->write &&
                                           touch(&r, i + 1, k)->value == touch(&r, i, m)->value;
                Launch was = r.launch[i];
                r.launch[i] = r.launch[i + 1], r.launch[i + 1] = was;
                if (depends)
                        has_fault(*state, r.launch, r.n, "launch"), tried++;
                r.launch[i + 1] = r.launch[i], r.launch[i] = was;
        }
        assert_true(tried + 3 > r.n);
        has_fault(*state, r.launch, r.n, NULL);
}

/* Moves value v, wherever it is touched. */
static void move(const Real *r, u32 v, u64 to)
{
        for (u32 i = 0; i < r->n; i++)
                for (u32 k = 0; k < r->launch[i].n_touch; k++)
                        if (touch(r, i, k)->space == TOUCH_ARENA && touch(r, i, k)->value == v)
                                touch(r, i, k)->at = to;
}

static void every_alias_is_found(void **state)
{
        Real r = select_file(*state, "qwen3moe", DECODE " no_reuse", 1);
        u32 tried = 0;
        for (u32 i = 0; i + 1 < r.n; i++)
                for (u32 k = 0; k < r.launch[i].n_touch; k++)
                        for (u32 m = 0; m < r.launch[i + 1].n_touch; m++) {
                                Touch *t = touch(&r, i, k), *u = touch(&r, i + 1, m);
                                if (t->space || u->space || !t->write || u->write || t->value == u->value)
                                        continue; /* a value made in i, another read behind it */
                                u64 was = t->at;
                                move(&r, t->value, u->at);
                                has_fault(*state, r.launch, r.n, "(bytes");
                                move(&r, t->value, was);
                                tried++;
                        }
        assert_true(tried > 0);
        has_fault(*state, r.launch, r.n, NULL);
}

static void every_early_read_is_found(void **state)
{
        Real r = select_file(*state, "qwen3moe", DECODE, 1);
        u32 tried = 0;
        for (u32 i = 1; i + 1 < r.n; i++)
                for (u32 k = 0; k < r.launch[i].n_touch; k++)
                        for (u32 m = 0; m < r.launch[i - 1].n_touch; m++) {
                                Touch *t = touch(&r, i, k), *u = touch(&r, i - 1, m);
                                if (t->write || !u->write || t->space != u->space || t->value != u->value)
                                        continue;
                                t->early = true;
                                has_fault(*state, r.launch, r.n, "before its wait");
                                t->early = false;
                                tried++;
                        }
        assert_true(tried + 3 > r.n);
        /* the routes, read by a launch two behind them, are safe while the one between triggers late */
        for (u32 i = 0; i < r.n; i++)
                if (strstr(r.launch[i].label, "experts_up")) {
                        r.launch[i].trigger = PLAN_TRIGGER_first;
                        has_fault(*state, r.launch, r.n, "experts_down) reads value");
                        r.launch[i].trigger = PLAN_TRIGGER_waited;
                }
        /* so is the position, which a token drawn on the device has from a launch in front of the first */
        r.launch[1].trigger = PLAN_TRIGGER_first;
        has_fault(*state, r.launch, r.n,
                "blk.0.attend) reads input 1 before its wait, when launch 0 (the inputs)");
        r.launch[1].trigger = PLAN_TRIGGER_none;
        has_fault(*state, r.launch, r.n, NULL);
}

/* ---- selection ---- */

static const char *fact(const Sel *s, const char *name)
{
        for (u32 i = 0; i < s->key->n; i++)
                if (!strcmp(s->key->fact[i].name, name))
                        return s->key->fact[i].value;
        return "none";
}

static const Sel *nth(const Real *r, const char *op, u32 n)
{
        for (u32 i = 0; i < r->g->n_node; i++)
                if (r->sel[i].key && !strcmp(r->sel[i].key->op, op) && n-- == 0)
                        return &r->sel[i];
        fail_msg("no such %s", op);
        return NULL;
}

/* Two layers that share a cache: the second attends to what the first has appended in this step. */
static void a_shared_cache_waits(void **state)
{
        static const char text[] =
                "graph shared {\n$e =F32[512,128]\n$q =F32[512,128]\n$k =F32[128,128]\nstate &kv "
                "=kv[2,64,64] f16 "
                "f16\n%0 =f32[n_tok,128] embed w $e, ids @ids\n%1 =f32[n_tok,512] matmul x %0, w $q\n"
                "%2 =f32[n_tok,128] matmul x %0, w $k\n"
                "%3 =f32[n_tok,512], %4 =kv[2,64,64] attend q %1, kv &kv, pos @pos, seq @seq, k %2, v %2, "
                "heads "
                "8\n%5 =f32[n_tok,512] attend q %3, kv %4, pos @pos, seq @seq, heads 8\n"
                "%6 =f32[n_out,512] rows x %5, out @out\nreturn %6, %4\n}\n";
        Real r = select_text(*state, text, sizeof text - 1, "shared", "order, buffers", 1);
        const Sel *first = nth(&r, "attend_few", 0), *second = nth(&r, "attend_few", 1);
        assert_string_equal(fact(first, "EARLY_kv"), "1");
        assert_string_equal(fact(first, "EARLY_kvv"), "1");
        assert_string_equal(fact(second, "EARLY_kv"), "0");
        assert_string_equal(fact(second, "EARLY_pos"), "0");
        assert_string_equal(fact(second, "TRIGGER"), "first");
        for (u32 i = 0; i < second->n_arg; i++)
                assert_false(second->arg[i].early);
}

/* The expanded source of a key of which one fact has another value, or none; or what was wrong. */
static const char *expanded(Arena *a, const Sel *s, const char *name, const char *value)
{
        Key *k = key_new(a, s->key->op);
        for (u32 i = 0; i < s->key->n; i++)
                if (strcmp(s->key->fact[i].name, name) != 0)
                        key_word(k, s->key->fact[i].name, s->key->fact[i].value);
        if (value)
                key_word(k, name, value);
        key_done(k);
        BuildOpt opt = {.threads = 1};
        const char *source;
        Trap t;
        if (TRAP(&t))
                return arena_str(a, t.error.msg);
        nvrtc_sources(a, &k, 1, "sm_90a", &opt, &source);
        trap_pop(&t);
        return source;
}

static u32 waits(const char *source)
{
        u32 n = 0;
        for (const char *s = strstr(source, "pdl_wait();"); s; s = strstr(s + 1, "pdl_wait();"))
                n++;
        return n;
}

/* A template that does not do as the selection says does not expand. */
static void templates_obey(void **state)
{
        Real r = select_file(*state, "qwen3moe", DECODE, 1);
        const Sel *down = nth(&r, "experts_down_one", 0), *up = nth(&r, "experts_up_one", 0),
                  *matmul = nth(&r, "matmul_one", 0);
        const char *early = expanded(*state, down, "EARLY_route", "1"),
                   *late = expanded(*state, down, "EARLY_route", "0");
        assert_int_equal(waits(early), 1);
        assert_int_equal(waits(late), 2);
        assert_true(strstr(late, "pdl_wait();") < strstr(late, "c.load(route"));
        assert_non_null(strstr(expanded(*state, down, "EARLY_route", NULL), "no fact MOE_EARLY_route"));
        assert_non_null(
                strstr(expanded(*state, matmul, "TRIGGER", "waited"), "says MOE_TRIGGER=waited, not first"));
        assert_non_null(
                strstr(expanded(*state, up, "TRIGGER", "first"), "says MOE_TRIGGER=first, not waited"));
        /* one that can do either does as it is told */
        const char *first = expanded(*state, down, "TRIGGER", "first");
        assert_true(strstr(first, "pdl_trigger();") < strstr(first, "pdl_wait();"));
        assert_true(strstr(early, "pdl_trigger();") > strstr(early, "pdl_wait();"));
        assert_int_equal(down->trigger, PLAN_TRIGGER_waited);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        const struct CMUnitTest tests[] = {TEST(early_reads), TEST(early_words),
                TEST(bytes_hold_what_is_read), TEST(states), TEST(models_pass), TEST(every_swap_is_found),
                TEST(every_alias_is_found), TEST(every_early_read_is_found), TEST(a_shared_cache_waits),
                TEST(templates_obey)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}

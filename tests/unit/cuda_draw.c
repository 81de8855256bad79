/* Tokens drawn on a device that is a fake: its graphs draw as sample() does, from logits that this test makes
 * up. */
#include "runtime/exec.h"
#include "runtime/sample.h"
#include "tests/lib/tempdir.h"
#include "tests/unit/fake_help.h"
#include <math.h>
#include <stdlib.h>

#define MODEL "examples/fables.gguf"
enum { N_CTX = 64, PROMPT = 3 };

static FakeCuda *cuda, fresh;
static moec_model *model;
static char cache[64];
static u32 n_vocab;
static void *scratch;
static float *logits;              /* [n_vocab], for expect */
static int end_id, end_at, bad_at; /* the position whose logits say so; -1: none's do */

/* Logits behind a sequence of `len` tokens. */
static void make_up(u32 len, float *l)
{
        u32 x = len * 2654435761u + 1;
        for (u32 i = 0; i < n_vocab; i++) {
                x = x * 1664525u + 1013904223u;
                l[i] = (float)(x >> 20) * 0x1p-9f;
        }
        l[end_id] = (int)len == end_at ? 100 : -100;
        if ((int)len == bad_at)
                l[7] = NAN;
}

static void on_graph(void *p)
{
        PlanDraw *d = p;
        if (!d || d->state)
                return;
        i32 *said = (i32 *)(void *)(d + 1), id;
        const moec_sampling s = {
                d->temp, d->top_p, d->min_p, d->repeat_penalty, d->top_k, d->repeat_last, d->seed};
        moec_error e = {0};
        if (sample((float *)(uintptr_t)d->logits, n_vocab, &s, said, d->len, d->seq, d->len, scratch, &id,
                    &e)) {
                d->state = strstr(e.msg, "infinity") ? DRAW_NO_LOGIT : DRAW_BAD_LOGIT;
                d->bad = 7;
                d->value = NAN;
                return;
        }
        d->id[d->n++] = said[d->len++] = id;
        d->logits = d->next;
        make_up(d->len, (float *)(uintptr_t)d->next);
        for (u32 i = 0; i < d->n_end; i++)
                if (d->end[i] == id)
                        d->state = DRAW_ENDED;
}

static int begin(void **state)
{
        (void)state;
        moec_info info;
        cuda = fake_load("cuda");
        cuda->on_graph = on_graph;
        fresh = *cuda;
        setenv("MOEC_NVRTC", fake_path("nvrtc"), 1);
        temp_new(cache);
        if (moec_open(MODEL, NULL, &model, NULL) != MOEC_OK)
                return -1;
        moec_get_info(model, &info);
        n_vocab = (u32)info.n_vocab;
        scratch = malloc(sample_scratch(n_vocab));
        logits = malloc(n_vocab * sizeof *logits);
        for (end_id = 0; !moec_is_end(model, end_id); end_id++)
                ;
        return 0;
}

static int end(void **state)
{
        (void)state;
        moec_close(model);
        temp_remove(cache);
        free(scratch);
        free(logits);
        return 0;
}

static int again(void **state)
{
        (void)state;
        *cuda = fresh;
        end_at = bad_at = -1;
        return 0;
}

static int clean(void **state)
{
        (void)state;
        assert_int_equal(cuda->live, 0);
        return 0;
}

static moec_context *load(int max_seqs)
{
        moec_options opt = {.target = "cuda",
                .cache_dir = cache,
                .n_ctx = N_CTX,
                .n_batch = 8,
                .max_seqs = max_seqs,
                .threads = 2};
        moec_context *c;
        moec_error e = {0};
        if (moec_load(model, &opt, &c, &e) != MOEC_OK)
                fail_msg("%s", e.msg);
        return c;
}

static void prompt(moec_context *c, int seq, bool fetched)
{
        moec_token t[PROMPT];
        const float *l;
        for (int i = 0; i < PROMPT; i++)
                t[i] = (moec_token){.id = i + 10, .seq = seq, .logits = i + 1 == PROMPT};
        assert_int_equal(moec_step(c, t, PROMPT, fetched ? &l : NULL, NULL), MOEC_OK);
}

/* What follows `said` where the steps' logits are made up; those of the prompt, whose step is no graph that
 * draws, are 0. */
static void expect(const moec_sampling *s, i32 *said, int len, int n, u64 seq, const i32 *got)
{
        moec_error e = {0};
        for (int i = 0; i < n; i++, len++) {
                if (len == PROMPT)
                        memset(logits, 0, n_vocab * sizeof *logits);
                else
                        make_up((u32)len, logits);
                assert_int_equal(
                        sample(logits, n_vocab, s, said, (u32)len, seq, (u64)len, scratch, &said[len], &e),
                        MOEC_OK);
                assert_int_equal(got[i], said[len]);
        }
}

static const moec_sampling greedy = {.top_p = 1, .repeat_penalty = 1};
static const moec_sampling settings[] = {{.top_p = 1, .repeat_penalty = 1}, MOEC_SAMPLING_DEFAULT,
        {0.7f, 0.9f, 0.1f, 1.3f, 0, -1, 77}, {1.5f, 1, 0, 0.8f, 100, 5, 1ull << 40}};

static void the_same_tokens(void **state)
{
        (void)state;
        for (size_t k = 0; k < 2 * COUNT(settings); k++) {
                const moec_sampling *s = &settings[k / 2];
                moec_context *c = load(1);
                i32 said[N_CTX] = {10, 11, 12}, ids[N_CTX], id;
                int n, graphs = cuda->graphs;
                prompt(c, 0, k % 2);
                assert_int_equal(moec_generate(c, 0, s, 40, false, ids, &n, NULL), MOEC_OK);
                assert_int_equal(n, 40);
                assert_int_equal(cuda->graphs - graphs, 41);
                expect(s, said, PROMPT, 40, 0, ids);
                assert_int_equal(moec_seq_len(c, 0), PROMPT + 40);
                assert_int_equal(moec_sample(c, 0, s, &id, NULL), MOEC_OK); /* of the last one's logits */
                expect(s, said, PROMPT + 40, 1, 0, &id);
                assert_int_equal(moec_generate(c, 0, s, 2, false, ids, &n, NULL), MOEC_OK);
                expect(s, said, PROMPT + 40, 2, 0, ids);
                assert_int_equal(moec_generate(c, 0, s, 50, false, ids, &n, NULL), MOEC_REFUSED); /* full */
                assert_int_equal(n, N_CTX - PROMPT - 42);
                expect(s, said, PROMPT + 42, n, 0, ids);
                moec_unload(c);
        }
}

static void nothing_is_fetched_that_nobody_wants(void **state)
{
        (void)state;
        moec_context *c = load(1);
        i32 id, ids[20];
        int n, fetches = cuda->fetches;
        prompt(c, 0, false);
        assert_int_equal(cuda->fetches, fetches);
        assert_int_equal(moec_generate(c, 0, &greedy, 20, true, ids, &n, NULL), MOEC_OK);
        assert_int_equal(cuda->fetches, fetches + 1); /* the tokens */
        for (int i = 0; i < 3; i++) {
                assert_int_equal(moec_sample(c, 0, &greedy, &id, NULL), MOEC_OK);
                assert_int_equal(cuda->fetches, fetches + 2); /* once */
        }
        moec_unload(c);
}

static void end_tokens_end(void **state)
{
        (void)state;
        i32 said[N_CTX] = {10, 11, 12}, ids[N_CTX], id;
        int n;
        moec_context *c = load(1);
        end_at = 8;
        prompt(c, 0, false);
        assert_int_equal(moec_generate(c, 0, &greedy, 40, false, ids, &n, NULL), MOEC_OK);
        assert_int_equal(n, 6);
        assert_int_equal(ids[5], end_id);
        expect(&greedy, said, PROMPT, 6, 0, ids);
        assert_int_equal(moec_seq_len(c, 0), 9);
        assert_int_equal(moec_sample(c, 0, &greedy, &id, NULL), MOEC_OK);
        expect(&greedy, said, 9, 1, 0, &id);
        assert_int_equal(moec_seq_trim(c, 0, 0, NULL), MOEC_OK);
        prompt(c, 0, false);
        assert_int_equal(moec_generate(c, 0, &greedy, 40, true, ids, &n, NULL), MOEC_OK);
        assert_int_equal(n, 40);
        assert_int_equal(ids[5], end_id);
        moec_unload(c);
}

static void damaged_logits(void **state)
{
        (void)state;
        for (int at = PROMPT + 1; at < PROMPT + 40; at += 19) {
                moec_context *c = load(1);
                i32 ids[N_CTX], id;
                int n;
                moec_error e;
                bad_at = at;
                prompt(c, 0, false);
                assert_int_equal(moec_generate(c, 0, &greedy, 50, false, ids, &n, &e), MOEC_RUNTIME);
                assert_non_null(strstr(e.msg, "the logit of token 7 is nan"));
                assert_int_equal(n, at - PROMPT);
                assert_int_equal(moec_seq_len(c, 0), at);
                assert_int_equal(moec_sample(c, 0, &greedy, &id, &e), MOEC_RUNTIME); /* they still are */
                assert_int_equal(moec_generate(c, 0, &greedy, 1, false, ids, &n, &e), MOEC_RUNTIME);
                assert_int_equal(n, 0);
                assert_int_equal(
                        moec_sample(c, 0, &greedy, &id, &e), MOEC_USAGE); /* a draw that failed takes them */
                moec_unload(c);
        }
}

static void settings_are_checked(void **state)
{
        (void)state;
        moec_context *c = load(1);
        const moec_sampling bad = {.temp = 1, .top_p = 7, .repeat_penalty = 1};
        i32 ids[4];
        int n;
        assert_int_equal(moec_generate(c, 0, &greedy, 4, false, ids, &n, NULL), MOEC_USAGE); /* no logits */
        assert_int_equal(moec_generate(c, 1, &greedy, 4, false, ids, &n, NULL), MOEC_USAGE);
        prompt(c, 0, false);
        assert_int_equal(moec_generate(c, 0, &bad, 4, false, ids, &n, NULL), MOEC_USAGE);
        assert_int_equal(moec_generate(c, 0, &greedy, 4, false, ids, &n, NULL), MOEC_OK);
        moec_unload(c);
}

/* Each has its own tokens, and its logits outlive what others do. */
static void sequences(void **state)
{
        (void)state;
        const moec_sampling *s = &settings[2];
        moec_context *c = load(3);
        i32 said[3][N_CTX] = {{10, 11, 12}, {10, 11, 12}, {10, 11, 12}}, ids[N_CTX];
        int n, len = PROMPT;
        for (int q = 0; q < 3; q++)
                prompt(c, q, q == 1);
        for (int turn = 0; turn < 4; turn++, len += 5)
                for (int q = 0; q < 3; q++) {
                        assert_int_equal(moec_generate(c, q, s, 5, false, ids, &n, NULL), MOEC_OK);
                        assert_int_equal(n, 5);
                        expect(s, said[q], len, 5, (u64)q, ids);
                }
        moec_unload(c);
}

static void profiles_go_step_by_step(void **state)
{
        (void)state;
        moec_context *c = load(1);
        const moec_profile_row *row;
        i32 ids[5];
        int n, rows;
        prompt(c, 0, false);
        assert_int_equal(moec_profile_start(c, NULL), MOEC_OK);
        assert_int_equal(moec_generate(c, 0, &greedy, 5, true, ids, &n, NULL), MOEC_OK);
        assert_int_equal(moec_profile_stop(c, &row, &rows, NULL, NULL), MOEC_OK);
        assert_int_equal(n, 5);
        assert_true(rows > 5);
        for (int i = 0; i < rows; i++) /* every launch in each of 5 steps; the draws are the host's */
                assert_true(row[i].calls > 0 && row[i].calls % 5 == 0 && !strstr(row[i].kernel, "draw"));
        moec_unload(c);
}

static bool stop(void *user, const char *what, u64 done, u64 total)
{
        int *calls = user;
        (void)done;
        (void)total;
        return strcmp(what, "generating") != 0 || ++*calls < 1;
}

static void interrupted(void **state)
{
        (void)state;
        int calls = 0, n;
        moec_options opt = {.target = "cuda",
                .cache_dir = cache,
                .n_ctx = N_CTX,
                .n_batch = 8,
                .progress = stop,
                .user = &calls};
        moec_context *c;
        i32 ids[N_CTX];
        assert_int_equal(moec_load(model, &opt, &c, NULL), MOEC_OK);
        prompt(c, 0, false);
        assert_int_equal(moec_generate(c, 0, &greedy, 50, false, ids, &n, NULL), MOEC_INTERRUPTED);
        assert_int_equal(n, PLAN_DRAWS);
        assert_int_equal(moec_seq_len(c, 0), PROMPT + PLAN_DRAWS);
        moec_unload(c);
}

/* Every call to the driver, failing at its first time. */
static void driver_fails(void **state)
{
        static const struct {
                const char *name, *words;
        } all[] = {{"cuLaunchKernelEx", "draw of a token"}, {"cuStreamBeginCapture", "graph"},
                {"cuStreamEndCapture", "graph"}, {"cuGraphInstantiate", "graph"}, {"cuGraphLaunch", "graph"},
                {"cuMemcpyHtoDAsync", "draw from"}, {"cuMemcpyDtoHAsync", "fetching tokens"},
                {"cuStreamSynchronize", "drawing"}, {"cuCtxSetCurrent", "device"}};
        (void)state;
        for (size_t i = 0; i < 4 * COUNT(all); i++) {
                moec_error e;
                i32 ids[4];
                int n;
                *cuda = fresh;
                moec_context *c = load(1);
                prompt(c, 0, true);
                cuda->fails = all[i / 4].name;
                cuda->after = (int)i % 4;
                cuda->rc = 719;
                moec_status st = moec_generate(c, 0, &settings[2], 4, false, ids, &n, &e);
                if (st == MOEC_OK) /* not called as often */
                        assert_true(i % 4 > 0);
                else {
                        assert_int_equal(st, MOEC_RUNTIME);
                        if (i % 4 == 0 && (!strstr(e.msg, all[i / 4].words) ||
                                                  !strstr(e.msg, "unspecified launch failure")))
                                fail_msg("%s: %s", all[i / 4].name, e.msg);
                        assert_int_equal(n, 0);
                        assert_int_equal(moec_seq_len(c, 0), PROMPT);
                        cuda->fails = NULL;
                        assert_int_equal(moec_generate(c, 0, &greedy, 4, false, ids, &n, NULL), MOEC_USAGE);
                        prompt(c, 0, false);
                        assert_int_equal(moec_generate(c, 0, &greedy, 4, false, ids, &n, NULL), MOEC_OK);
                        assert_int_equal(n, 4);
                }
                moec_unload(c);
                assert_int_equal(cuda->live, 0);
        }
}

/* Logits that are fetched late, and cannot be. */
static void fetching_fails(void **state)
{
        static const char *const name[] = {"cuMemcpyDtoHAsync", "cuStreamSynchronize", "cuCtxSetCurrent"};
        (void)state;
        moec_context *c = load(2);
        i32 id;
        moec_error e;
        for (size_t i = 0; i < COUNT(name); i++) {
                prompt(c, 0, false);
                cuda->fails = name[i];
                cuda->after = 0;
                cuda->rc = 719;
                assert_int_equal(moec_sample(c, 0, &greedy, &id, &e), MOEC_RUNTIME);
                moec_token t = {.id = 1, .seq = 1}; /* which would save them */
                assert_int_equal(moec_step(c, &t, 1, NULL, &e), MOEC_RUNTIME);
                assert_int_equal(moec_seq_len(c, 1), 0);
                cuda->fails = NULL;
                assert_int_equal(moec_sample(c, 0, &greedy, &id, &e), MOEC_OK);
        }
        moec_unload(c);
}

/* A kernel that does not do its part. */
static void nothing(void *p)
{
        (void)p;
}
static void idle_kernel(void **state)
{
        (void)state;
        moec_context *c = load(1);
        i32 ids[4];
        int n;
        moec_error e;
        prompt(c, 0, false);
        cuda->on_graph = nothing;
        assert_int_equal(moec_generate(c, 0, &greedy, 4, false, ids, &n, &e), MOEC_RUNTIME);
        assert_non_null(strstr(e.msg, "drew 0 tokens of 4"));
        moec_unload(c);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, again, clean)
        const struct CMUnitTest tests[] = {
                TEST(the_same_tokens),
                TEST(nothing_is_fetched_that_nobody_wants),
                TEST(end_tokens_end),
                TEST(damaged_logits),
                TEST(settings_are_checked),
                TEST(sequences),
                TEST(profiles_go_step_by_step),
                TEST(interrupted),
                TEST(driver_fails),
                TEST(fetching_fails),
                TEST(idle_kernel),
        };
        return cmocka_run_group_tests(tests, begin, end);
}

/* Sequences and the contexts that hold them: lengths, refusals that change nothing, trimming, whose logits
 * are whose. */
#include "tests/unit/plan_help.h"

static void places(void **state)
{
        (void)state;
        Kv *kv;
        assert_int_equal(kv_new(2, 4, &kv, NULL), MOEC_OK);
        moec_token t[5] = {{10, 0, false}, {20, 1, false}, {11, 0, true}, {21, 1, false}, {12, 0, false}};
        i32 pos[5];
        assert_int_equal(kv_place(kv, t, 5, pos, NULL), MOEC_OK);
        static const i32 want[] = {0, 0, 1, 1, 2};
        assert_memory_equal(pos, want, sizeof want);
        assert_int_equal(kv_len(kv, 0), 0); /* nothing yet */
        kv_append(kv, t, 5);
        assert_int_equal(kv_len(kv, 0), 3);
        assert_int_equal(kv_len(kv, 1), 2);
        static const i32 said[] = {10, 11, 12};
        assert_memory_equal(kv_ids(kv, 0), said, sizeof said);
        moec_error e = {0};
        assert_int_equal(kv_place(kv, t, 3, pos, &e), MOEC_REFUSED); /* two more of sequence 0: full */
        assert_non_null(strstr(e.msg, "sequence 0 is full"));
        assert_int_equal(kv_place(kv, t, 2, pos, NULL), MOEC_OK); /* the refused call left nothing behind */
        assert_int_equal(pos[0], 3);
        t[0].seq = 2;
        assert_int_equal(kv_place(kv, t, 1, pos, NULL), MOEC_REFUSED);
        t[0].seq = -1;
        assert_int_equal(kv_place(kv, t, 1, pos, NULL), MOEC_REFUSED);
        assert_int_equal(kv_trim(kv, 0, 4, NULL), MOEC_USAGE);
        assert_int_equal(kv_trim(kv, 0, -1, NULL), MOEC_USAGE);
        assert_int_equal(kv_trim(kv, 2, 0, NULL), MOEC_USAGE);
        assert_int_equal(kv_trim(kv, 0, 1, NULL), MOEC_OK);
        assert_int_equal(kv_len(kv, 0), 1);
        assert_int_equal(kv_len(kv, 1), 2);
        kv_free(kv);
        assert_int_equal(kv_new(UINT32_MAX, UINT32_MAX, &kv, NULL), MOEC_NO_MEMORY);
        assert_null(kv);
}

/* ---- through the API ---- */

static moec_model *open_model(void)
{
        char path[128];
        moec_model *m;
        moec_error e = {0};
        snprintf(path, sizeof path, "%s/plan", tiny_dir);
        Buf b = tiny_plan();
        assert_int_equal(file_write(path, b.p, b.len, 0644, NULL), MOEC_OK);
        buf_free(&b);
        if (model_from_plan(path, 0, NULL, &m, &e) != MOEC_OK)
                fail_msg("%s", e.msg);
        return m;
}

static moec_context *load(const moec_model *m, moec_options opt)
{
        moec_context *c;
        moec_error e = {0};
        if (moec_load(m, &opt, &c, &e) != MOEC_OK)
                fail_msg("%s", e.msg);
        return c;
}

static void expect_logits(const i32 *ids, int n, const float *got)
{
        float want[VOCAB];
        tiny_expect(ids, n, want);
        assert_memory_equal(got, want, sizeof want);
}

static void steps(void **state)
{
        (void)state;
        moec_model *m = open_model();
        moec_context *c = load(m, (moec_options){.n_ctx = 16, .max_seqs = 2, .n_batch = 12, .threads = 2});
        assert_int_equal(moec_n_ctx(c), 16);
        moec_token t[13] = {{0}};
        for (int i = 0; i < 13; i++)
                t[i] = (moec_token){i, i % 3 == 2, i >= 10};
        const float *logits = (const float *)t;
        moec_error e = {0};
        assert_int_equal(moec_step(c, t, 13, &logits, &e), MOEC_REFUSED);
        assert_non_null(strstr(e.msg, "13"));
        assert_null(logits);
        assert_int_equal(moec_step(c, t, -1, &logits, NULL), MOEC_USAGE);
        t[3].id = VOCAB;
        assert_int_equal(moec_step(c, t, 12, &logits, NULL), MOEC_USAGE);
        t[3].id = -1;
        assert_int_equal(moec_step(c, t, 12, &logits, NULL), MOEC_USAGE);
        t[3].id = 3;
        assert_int_equal(moec_seq_len(c, 0), 0);
        assert_int_equal(moec_step(c, t, 0, &logits, NULL), MOEC_OK);
        assert_int_equal(moec_step(c, t, 12, &logits, NULL), MOEC_OK);
        assert_int_equal(moec_seq_len(c, 0), 8);
        assert_int_equal(moec_seq_len(c, 1), 4);
        assert_int_equal(moec_seq_len(c, 2), 0);
        static const i32 zero[] = {0, 1, 3, 4, 6, 7, 9, 10}, one[] = {2, 5, 8, 11};
        expect_logits(zero, 8, logits);
        expect_logits(one, 4, logits + VOCAB);
        assert_int_equal(moec_seq_trim(c, 0, 2, NULL), MOEC_OK);
        moec_token more = {7, 0, true};
        static const i32 then[] = {0, 1, 7};
        assert_int_equal(moec_step(c, &more, 1, &logits, NULL), MOEC_OK);
        expect_logits(then, 3, logits);
        for (int i = 3; i < 16; i++)
                assert_int_equal(moec_step(c, &more, 1, NULL, NULL), MOEC_OK);
        assert_int_equal(moec_step(c, &more, 1, NULL, NULL), MOEC_REFUSED);
        assert_int_equal(moec_seq_len(c, 0), 16);
        moec_unload(c);
        moec_close(m);
}

/* Greedy: the largest logit, of equal ones the first. */
static i32 greedy(const i32 *ids, int n)
{
        float want[VOCAB];
        int best = 0;
        tiny_expect(ids, n, want);
        for (int v = 1; v < VOCAB; v++)
                if (want[v] > want[best])
                        best = v;
        return best;
}

/* Logits belong to the last position of the sequence they were kept of, whatever other sequences do
 * meanwhile. */
static void whose_logits(void **state)
{
        (void)state;
        moec_model *m = open_model();
        moec_context *c = load(m, (moec_options){.n_ctx = 16, .max_seqs = 3, .threads = 1});
        const moec_sampling s = {.temp = 0, .top_p = 1, .repeat_penalty = 1};
        moec_error e = {0};
        i32 id;
        assert_int_equal(moec_sample(c, 0, &s, &id, &e), MOEC_USAGE);
        assert_non_null(strstr(e.msg, "no logits"));
        assert_int_equal(moec_sample(c, 3, &s, &id, NULL), MOEC_USAGE);
        static const i32 zero[] = {4, 9}, one[] = {3, 8, 1};
        moec_token t[5] = {{4, 0, false}, {3, 1, false}, {9, 0, true}, {8, 1, false}, {1, 1, true}};
        assert_int_equal(moec_step(c, t, 5, NULL, NULL), MOEC_OK);
        for (int i = 0; i < 3; i++) { /* with sequence 2 at work in between */
                assert_int_equal(moec_sample(c, 0, &s, &id, NULL), MOEC_OK);
                assert_int_equal(id, greedy(zero, 2));
                assert_int_equal(moec_sample(c, 1, &s, &id, NULL), MOEC_OK);
                assert_int_equal(id, greedy(one, 3));
                moec_token other[4] = {{i, 2, true}, {i + 1, 2, true}, {i + 5, 2, true}, {7, 2, i == 2}};
                assert_int_equal(moec_step(c, other, 4, NULL, NULL), MOEC_OK);
                assert_int_equal(moec_sample(c, 2, &s, &id, NULL), i == 2 ? MOEC_OK : MOEC_USAGE);
        }
        moec_token more = {2, 0, false};
        assert_int_equal(moec_step(c, &more, 1, NULL, NULL), MOEC_OK);
        assert_int_equal(moec_sample(c, 0, &s, &id, NULL), MOEC_USAGE); /* those are of an earlier position */
        assert_int_equal(moec_seq_trim(c, 1, 2, NULL), MOEC_OK);
        more.seq = 1;
        assert_int_equal(moec_step(c, &more, 1, NULL, NULL), MOEC_OK);
        assert_int_equal(
                moec_sample(c, 1, &s, &id, NULL), MOEC_USAGE); /* as long as then, but not the same */
        const moec_sampling bad = {.temp = 1, .top_p = 7, .repeat_penalty = 1};
        assert_int_equal(moec_sample(c, 2, &bad, &id, NULL), MOEC_USAGE);
        moec_unload(c);
        moec_close(m);
}

static void generates(void **state)
{
        (void)state;
        moec_model *m = open_model();
        moec_context *c = load(m, (moec_options){.n_ctx = 10, .max_seqs = 2, .threads = 2});
        const moec_sampling s = {.temp = 0, .top_p = 1, .repeat_penalty = 1};
        i32 said[11] = {6}, ids[10];
        int n = -1;
        assert_int_equal(moec_generate(c, 1, &s, 3, false, ids, &n, NULL), MOEC_USAGE);
        assert_int_equal(n, 0);
        moec_token t = {6, 1, true};
        assert_int_equal(moec_step(c, &t, 1, NULL, NULL), MOEC_OK);
        assert_int_equal(moec_generate(c, 1, &s, 0, false, ids, &n, NULL), MOEC_OK);
        assert_int_equal(n, 0);
        assert_int_equal(moec_generate(c, 1, &s, 4, false, ids, &n, NULL), MOEC_OK);
        assert_int_equal(n, 4);
        for (int i = 0; i < 4; i++) {
                assert_int_equal(ids[i], greedy(said, i + 1));
                said[i + 1] = ids[i];
        }
        assert_int_equal(moec_seq_len(c, 1), 5);
        assert_int_equal(
                moec_generate(c, 1, &s, 9, false, ids, &n, NULL), MOEC_REFUSED); /* up to the context's end */
        assert_int_equal(n, 5);
        for (int i = 0; i < 5; i++) {
                assert_int_equal(ids[i], greedy(said, i + 5));
                said[i + 5] = ids[i];
        }
        moec_unload(c);
        moec_close(m);
}

/* What moec_sample and moec_step would do, at any settings. */
static void generates_as_sampled(void **state)
{
        (void)state;
        moec_model *m = open_model();
        const moec_options opt = {.n_ctx = 60, .max_seqs = 2, .threads = 2};
        static const moec_sampling all[] = {{.top_p = 1, .repeat_penalty = 1.5f, .repeat_last = -1},
                MOEC_SAMPLING_DEFAULT, {50, 1, 0, 1, 0, 0, 9}, {20, 0.9f, 0.01f, 0.9f, 7, 3, 1ull << 50}};
        for (size_t i = 0; i < COUNT(all); i++) {
                moec_context *a = load(m, opt), *b = load(m, opt);
                moec_token t = {6, 1, true};
                i32 ids[50];
                int n = 0, sum = 0;
                assert_int_equal(moec_step(a, &t, 1, NULL, NULL), MOEC_OK);
                assert_int_equal(moec_step(b, &t, 1, NULL, NULL), MOEC_OK);
                for (int ask = 1; sum < 50; ask += 3, sum += n) /* in pieces */
                        assert_int_equal(moec_generate(a, 1, &all[i], ask < 50 - sum ? ask : 50 - sum, false,
                                                 ids + sum, &n, NULL),
                                MOEC_OK);
                for (int k = 0; k < 50; k++) {
                        assert_int_equal(moec_sample(b, 1, &all[i], &t.id, NULL), MOEC_OK);
                        assert_int_equal(ids[k], t.id);
                        assert_int_equal(moec_step(b, &t, 1, NULL, NULL), MOEC_OK);
                }
                moec_unload(a);
                moec_unload(b);
        }
        moec_close(m);
}

static void options(void **state)
{
        (void)state;
        moec_model *m = open_model();
        moec_context *c = load(m, (moec_options){0});
        assert_int_equal(moec_n_ctx(c), 64); /* the model's */
        moec_timing t;
        moec_get_timing(c, &t);
        assert_false(t.compiled);
        assert_int_equal(t.kv_bytes, 64 * 2 * H * 4);
        assert_int_equal(t.weight_bytes, WEIGHT + 24 * H * 4);
        assert_int_equal(strncmp(t.target, "cpu ", 4), 0);
        double rate;
        assert_int_equal(moec_read_bandwidth(c, &rate, NULL), MOEC_OK);
        assert_true(rate > 1e8 && rate < 1e14);
        moec_unload(c);
        static const struct {
                moec_options opt;
                moec_status want;
        } bad[] = {{{.n_ctx = -1}, MOEC_USAGE}, {{.n_ctx = 1 << 25}, MOEC_USAGE},
                {{.max_seqs = -1}, MOEC_USAGE}, {{.n_batch = -5}, MOEC_USAGE}, {{.threads = -1}, MOEC_USAGE},
                {{.threads = 100000}, MOEC_USAGE}, {{.target = "eval"}, MOEC_USAGE},
                {{.target = "cuda"}, MOEC_USAGE}, {{.ctk = "f16"}, MOEC_USAGE}, {{.ctv = "q8_0"}, MOEC_USAGE},
                {{.weights = "/nowhere.gguf"}, MOEC_NOT_FOUND}};
        for (size_t i = 0; i < COUNT(bad); i++) {
                assert_int_equal(moec_load(m, &bad[i].opt, &c, NULL), bad[i].want);
                assert_null(c);
        }
        c = load(m, (moec_options){.target = "cpu", .ctk = "f32", .ctv = "f32", .n_ctx = 3});
        assert_int_equal(moec_n_ctx(c), 3);
        moec_unload(c);
        moec_close(m);
        moec_close(NULL);
        moec_unload(NULL);
}

static void profiles(void **state)
{
        (void)state;
        moec_model *m = open_model();
        moec_context *c = load(m, (moec_options){0});
        const moec_profile_row *rows;
        int n;
        char path[128];
        snprintf(path, sizeof path, "%s/trace.json", tiny_dir);
        assert_int_equal(moec_profile_stop(c, &rows, &n, path, NULL), MOEC_USAGE);
        assert_int_equal(moec_profile_start(c, NULL), MOEC_OK);
        moec_token t = {1, 0, true};
        for (int i = 0; i < 5; i++)
                assert_int_equal(moec_step(c, &t, 1, NULL, NULL), MOEC_OK);
        assert_int_equal(moec_profile_stop(c, &rows, &n, path, NULL), MOEC_OK);
        assert_int_equal(n, 3);
        for (int i = 0; i < n; i++) {
                assert_int_equal(rows[i].calls, 5);
                assert_int_equal(rows[i].bytes, 5 * (110 + 1000 + (1 << 16)) + 1 + 2 + 3 + 4 + 5);
                assert_true(i == 0 || rows[i].seconds <= rows[i - 1].seconds);
        }
        Buf b = {0};
        assert_int_equal(file_read(path, &b, 1 << 20, NULL), MOEC_OK);
        int events = 0;
        for (const char *s = b.p; (s = strstr(s, "\"ph\":\"X\"")); s++)
                events++;
        assert_int_equal(events, 15);
        assert_int_equal(strcmp(b.p + b.len - 3, "]}\n"), 0);
        buf_free(&b);
        assert_int_equal(moec_profile_start(c, NULL), MOEC_OK);
        assert_int_equal(moec_profile_stop(c, &rows, &n, "/nowhere/trace", NULL), MOEC_NOT_FOUND);
        moec_unload(c);
        moec_close(m);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(places),
                cmocka_unit_test(steps),
                cmocka_unit_test(whose_logits),
                cmocka_unit_test(generates),
                cmocka_unit_test(generates_as_sampled),
                cmocka_unit_test(options),
                cmocka_unit_test(profiles),
        };
        return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}

/* bench: prompt (pp) and decode (tg) speed with llama-bench's meaning: random tokens, one warm-up, the tokens
 * of the depth evaluated before the clock starts, tokens a second as mean and standard deviation over the
 * repetitions. */
#include "cli/bench.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct Test {
        int n_prompt, n_gen, n_depth; /* n_prompt or n_gen is 0 */
        double *s;                    /* [reps] seconds */
        double avg_s, dev_s, avg_ts, dev_ts;
        char when[32];
} Test;

typedef struct Bench {
        const Args *a;
        const char *path;
        moec_model *m;
        moec_context *c;
        moec_info info;
        moec_token *tok; /* [batch] */
        int32_t *ids;    /* [n_ctx] */
        int batch, n_ctx;
        uint32_t random;
        Test *test;
        int n_test;
        double *s; /* all tests' */
        double bandwidth;
        moec_timing timing;
        Profile profile; /* of the last test, where wanted */
} Bench;

/* ---- which tests ---- */

int read_list(const char *name, const char *text, List *l)
{
        const char *bad;
        if (parse_ids(text, &l->v, &l->n, &bad))
                return 0;
        return usage("%s %s: give a number, or several with commas between", name, text);
}

static int add_test(Bench *b, int n_prompt, int n_gen, int n_depth)
{
        long long need = (long long)n_prompt + n_gen + n_depth;
        if (need == n_depth)
                return 0;
        if (need > 1 << 24)
                return usage("a test of %lld tokens: at most %d", need, 1 << 24);
        if (need > b->n_ctx)
                b->n_ctx = (int)need;
        b->test[b->n_test] = (Test){.n_prompt = n_prompt, .n_gen = n_gen, .n_depth = n_depth};
        b->test[b->n_test].s = b->s + (size_t)b->n_test * (size_t)b->a->reps;
        b->n_test++;
        return 0;
}

static int make_tests(Bench *b, const List *pp, const List *tg, const List *depth)
{
        size_t most = (size_t)depth->n * (size_t)(pp->n + tg->n);
        int status = 0;
        b->test = calloc(most + 1, sizeof *b->test);
        b->s = calloc(most * (size_t)b->a->reps + 1, sizeof *b->s);
        if (!b->test || !b->s)
                return complain(MOEC_NO_MEMORY, "out of memory for %zu tests", most);
        for (int d = 0; d < depth->n && !status; d++) {
                for (int i = 0; i < pp->n && !status; i++)
                        status = add_test(b, pp->v[i], 0, depth->v[d]);
                for (int i = 0; i < tg->n && !status; i++)
                        status = add_test(b, 0, tg->v[i], depth->v[d]);
        }
        if (!status && !b->n_test)
                status = usage("nothing to measure: -p and -n are both 0");
        if (!status && b->a->trace && b->n_test > 1)
                status = usage("a trace is of one test, and these are %d: set -p or -n to 0", b->n_test);
        return status;
}

static int read_tests(Bench *b)
{
        const Args *a = b->a;
        List pp = {0}, tg = {0}, depth = {0};
        int status = read_list("-p", a->n_prompt, &pp);
        if (!status)
                status = read_list("-n", a->n_gen, &tg);
        if (!status)
                status = read_list("-d", a->n_depth, &depth);
        if (!status)
                status = make_tests(b, &pp, &tg, &depth);
        free(pp.v);
        free(tg.v);
        free(depth.v);
        return status;
}

/* ---- measuring ---- */

int32_t random_token(uint32_t *state, int n_vocab)
{
        *state = *state * 1664525u + 1013904223u;
        return (int32_t)((uint64_t)*state * (uint64_t)n_vocab >> 32);
}

moec_status step_unless_interrupted(moec_context *c, const moec_token *tok, int n, moec_error *e)
{
        moec_status st = moec_step(c, tok, n, NULL, e);
        if (st == MOEC_OK && interrupted()) {
                e->status = st = MOEC_INTERRUPTED;
                e->msg[0] = 0;
        }
        return st;
}

static moec_status step(Bench *b, int n, moec_error *e)
{
        for (int i = 0; i < n; i++)
                b->tok[i] =
                        (moec_token){.id = random_token(&b->random, b->info.n_vocab), .logits = i + 1 == n};
        return step_unless_interrupted(b->c, b->tok, n, e);
}

static moec_status steps(Bench *b, int n, int at_once, moec_error *e)
{
        moec_status st = MOEC_OK;
        for (int k; st == MOEC_OK && n > 0; n -= k)
                st = step(b, k = n < at_once ? n : at_once, e);
        return st;
}

/* One random token, then what it makes of it, as run generates; greedily, and an end token ends nothing. */
static moec_status generate(Bench *b, int n, moec_error *e)
{
        static const moec_sampling greedy = {.top_p = 1, .repeat_penalty = 1};
        int did;
        moec_status st = step(b, 1, e);
        return st ? st : moec_generate(b->c, 0, &greedy, n - 1, true, b->ids, &did, e);
}

static moec_status once(Bench *b, const Test *t, moec_error *e)
{
        moec_status st = moec_seq_trim(b->c, 0, t->n_depth, e);
        return st ? st : t->n_gen ? generate(b, t->n_gen, e) : steps(b, t->n_prompt, b->batch, e);
}

static void sum_up(Test *t, int reps)
{
        int n = t->n_prompt + t->n_gen;
        double ds = 0, dt = 0;
        for (int i = 0; i < reps; i++) {
                t->avg_s += t->s[i] / reps;
                t->avg_ts += n / t->s[i] / reps;
        }
        for (int i = 0; i < reps; i++) {
                ds += pow(t->s[i] - t->avg_s, 2);
                dt += pow(n / t->s[i] - t->avg_ts, 2);
        }
        t->dev_s = reps > 1 ? sqrt(ds / (reps - 1)) : 0;
        t->dev_ts = reps > 1 ? sqrt(dt / (reps - 1)) : 0;
}

static int measure(Bench *b, Test *t)
{
        moec_error e = {0};
        time_t now = time(NULL);
        struct tm tm;
        strftime(t->when, sizeof t->when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
        moec_status st = moec_seq_trim(b->c, 0, 0, &e);
        if (st == MOEC_OK)
                st = steps(b, t->n_depth, b->batch, &e);
        if (st == MOEC_OK) /* warm-up */
                st = t->n_gen ? generate(b, t->n_gen > 1 ? 2 : 1, &e) : once(b, t, &e);
        for (int i = 0; st == MOEC_OK && i < b->a->reps; i++) {
                double start = seconds();
                st = once(b, t, &e);
                t->s[i] = seconds() - start;
        }
        if (st)
                return failed(&e);
        sum_up(t, b->a->reps);
        return 0;
}

/* ---- telling ---- */

/* The share of the time that reading the weights at the measured bandwidth would take; below 0: has no
 * meaning. */
static double roofline(const Bench *b, const Test *t)
{
        return t->n_gen && b->bandwidth > 0 ? t->avg_ts * (double)b->info.bytes_per_token / b->bandwidth : -1;
}

/* Operations a second in products with weights: two a value of those that a token uses, and the output matrix
 * for the last one alone; below 0: not of a prompt. */
static double operations(const Bench *b, const Test *t)
{
        double all = (double)b->info.params_per_token, out = (double)b->info.n_vocab * b->info.n_embd;
        return t->n_prompt ? 2 * ((all - out) * t->n_prompt + out) / t->avg_s : -1;
}

static const char *model_name(const Bench *b)
{
        return b->info.name && *b->info.name ? b->info.name : b->info.arch;
}

static void tell_md(const Bench *b, const Test *t)
{
        const double bytes = (double)b->info.weight_bytes, params = (double)b->info.n_params;
        const bool giga = bytes >= 1 << 30, billions = params >= 1e9;
        char test[64], share[32] = "";
        const double roof = roofline(b, t), ops = operations(b, t);
        if (t == b->test) {
                printf("| %-30s | %10s | %10s | %-12s | %7s | %15s | %20s | %13s |\n", "model", "size",
                        "params", "backend", "threads", "test", "t/s", "roofline");
                printf("| %.30s | %.9s: | %.9s: | %.12s | %.6s: | %.14s: | %.19s: | %.12s: |\n",
                        "------------------------------", "---------", "---------", "------------", "------",
                        "--------------", "-------------------", "------------");
        }
        int n = snprintf(
                test, sizeof test, "%s%d", t->n_gen ? "tg" : "pp", t->n_gen ? t->n_gen : t->n_prompt);
        if (t->n_depth)
                snprintf(test + n, sizeof test - (size_t)n, " @ d%d", t->n_depth);
        if (roof >= 0)
                snprintf(share, sizeof share, "%.1f %%", 100 * roof);
        else if (ops >= 0)
                snprintf(share, sizeof share, "%.1f %cFLOP/s", ops * (ops < 1e12 ? 1e-9 : 1e-12),
                        ops < 1e12 ? 'G' : 'T');
        printf("| %-30.30s | %6.2f %s | %8.2f %c | %-12.*s | %7d | %15s | %10.2f ± %7.2f | %13s |\n",
                model_name(b), bytes / (giga ? 1 << 30 : 1 << 20), giga ? "GiB" : "MiB",
                params / (billions ? 1e9 : 1e6), billions ? 'B' : 'M', (int)strcspn(b->timing.target, ","),
                b->timing.target, b->timing.threads, test, t->avg_ts, t->dev_ts, share);
}

typedef struct Field {
        const char *name;
        char value[96];
        bool quoted;
} Field;

static Field text_field(const char *name, const char *value)
{
        Field f = {.name = name, .quoted = true};
        snprintf(f.value, sizeof f.value, "%s", value);
        return f;
}

static Field number_field(const char *name, double value, int digits)
{
        Field f = {.name = name};
        snprintf(f.value, sizeof f.value, "%.*f", digits, value);
        return f;
}

/* Below 0: it has no meaning. */
static Field share_field(const char *name, double value, int digits)
{
        Field f = number_field(name, value, digits);
        if (value < 0)
                snprintf(f.value, sizeof f.value, "null");
        return f;
}

enum { N_FIELD = 24 };
static void fields_of(const Bench *b, const Test *t, Field f[N_FIELD])
{
        const Args *a = b->a;
        int n = 0;
        f[n++] = text_field("moec_version", MOEC_VERSION);
        f[n++] = text_field("backends", b->timing.target);
        f[n++] = text_field("model_filename", b->path);
        f[n++] = text_field("model_type", model_name(b));
        f[n++] = number_field("model_size", (double)b->info.weight_bytes, 0);
        f[n++] = number_field("model_n_params", (double)b->info.n_params, 0);
        f[n++] = number_field("n_batch", b->batch, 0);
        f[n++] = number_field("n_threads", b->timing.threads, 0);
        f[n++] = text_field("type_k", a->ctk ? a->ctk : "f16");
        f[n++] = text_field("type_v", a->ctv ? a->ctv : "f16");
        f[n++] = text_field("act", a->act ? a->act : "q8");
        f[n++] = number_field("n_prompt", t->n_prompt, 0);
        f[n++] = number_field("n_gen", t->n_gen, 0);
        f[n++] = number_field("n_depth", t->n_depth, 0);
        f[n++] = text_field("test_time", t->when);
        f[n++] = number_field("avg_ns", t->avg_s * 1e9, 0);
        f[n++] = number_field("stddev_ns", t->dev_s * 1e9, 0);
        f[n++] = number_field("avg_ts", t->avg_ts, 6);
        f[n++] = number_field("stddev_ts", t->dev_ts, 6);
        f[n++] = number_field("bytes_per_token", (double)b->info.bytes_per_token, 0);
        f[n++] = number_field("params_per_token", (double)b->info.params_per_token, 0);
        f[n++] = number_field("read_bandwidth", b->bandwidth, 0);
        f[n++] = share_field("roofline", roofline(b, t), 4);
        f[n] = share_field("flop_per_s", operations(b, t), 0);
}

static void tell_csv(const Bench *b, const Test *t)
{
        Field f[N_FIELD];
        fields_of(b, t, f);
        for (int i = 0; t == b->test && i < N_FIELD; i++)
                printf("%s%s", f[i].name, i + 1 < N_FIELD ? "," : "\n");
        for (int i = 0; i < N_FIELD; i++) {
                putchar('"');
                for (const char *p = strcmp(f[i].value, "null") ? f[i].value : ""; *p; p++)
                        fputs(*p == '"' ? "\"\"" : (char[]){*p, 0}, stdout);
                printf("\"%s", i + 1 < N_FIELD ? "," : "\n");
        }
}

static void tell_json(const Bench *b, const Test *t)
{
        Field f[N_FIELD];
        fields_of(b, t, f);
        printf(t == b->test ? "[\n  {" : ",\n  {");
        for (int i = 0; i < N_FIELD; i++) {
                printf("\"%s\": ", f[i].name);
                if (f[i].quoted)
                        json_string(stdout, f[i].value, strlen(f[i].value));
                else
                        fputs(f[i].value, stdout);
                fputs(", ", stdout);
        }
        for (int k = 0; k < 2; k++) {
                printf("\"samples_%s\": [", k ? "ts" : "ns");
                for (int i = 0; i < b->a->reps; i++)
                        printf("%s%.*f", i ? ", " : "", k ? 3 : 0,
                                k ? (t->n_prompt + t->n_gen) / t->s[i] : t->s[i] * 1e9);
                printf(k ? "]" : "], ");
        }
        if (b->a->profile) {
                printf(", \"profile\": ");
                profile_json(&b->profile, stdout);
        }
        printf("}");
        if (t == b->test + b->n_test - 1)
                printf("\n]\n");
}

/* ---- profile ---- */

/* One more run, timed launch by launch. */
static int profile(Bench *b, const Test *t)
{
        Profile *p = &b->profile;
        moec_error e = {0};
        *p = (Profile){.seconds = t->avg_s, .bandwidth = b->bandwidth};
        moec_status st = moec_seq_trim(b->c, 0, t->n_depth, &e);
        if (st == MOEC_OK)
                st = moec_profile_start(b->c, &e);
        if (st == MOEC_OK)
                st = steps(b, t->n_prompt + t->n_gen, t->n_gen ? 1 : b->batch, &e);
        if (st == MOEC_OK)
                st = moec_profile_stop(b->c, &p->row, &p->n, b->a->trace, &e);
        return st ? failed(&e) : 0;
}

static void tell_profile(const Bench *b, const Test *t)
{
        char title[64];
        snprintf(title, sizeof title, "%s%d at depth %d", t->n_gen ? "tg" : "pp", t->n_gen + t->n_prompt,
                t->n_depth);
        if (b->a->profile)
                profile_tell(&b->profile, title, b->a->bench_as);
}

/* ---- */

static int run_tests(Bench *b)
{
        static const struct {
                const char *name;
                void (*tell)(const Bench *, const Test *);
        } as[] = {{"md", tell_md}, {"json", tell_json}, {"csv", tell_csv}};
        int status = 0;
        for (int i = 0; i < b->n_test && !status; i++) {
                status = measure(b, &b->test[i]);
                if (!status && (b->a->profile || b->a->trace))
                        status = profile(b, &b->test[i]);
                for (size_t k = 0; !status && k < sizeof as / sizeof *as; k++)
                        if (!strcmp(as[k].name, b->a->bench_as))
                                as[k].tell(b, &b->test[i]);
                if (!status)
                        status = end_output(stdout);
                if (!status)
                        tell_profile(b, &b->test[i]);
        }
        return status;
}

static int load(Bench *b)
{
        moec_options opt;
        moec_error e = {0};
        options_of(b->a, &opt);
        opt.n_ctx = b->n_ctx;
        b->batch = b->a->batch > 0 ? b->a->batch : 512;
        b->tok = calloc((size_t)b->batch, sizeof *b->tok);
        b->ids = calloc((size_t)b->n_ctx, sizeof *b->ids);
        if (!b->tok || !b->ids)
                return complain(MOEC_NO_MEMORY, "out of memory for a batch of %d tokens", b->batch);
        if (moec_open(b->path, &opt, &b->m, &e) != MOEC_OK || moec_load(b->m, &opt, &b->c, &e) != MOEC_OK ||
                moec_read_bandwidth(b->c, &b->bandwidth, &e) != MOEC_OK)
                return failed(&e);
        clear_progress();
        moec_get_info(b->m, &b->info);
        moec_get_timing(b->c, &b->timing);
        fprintf(stderr, "target: %s\nread bandwidth: %.1f GB/s\n", b->timing.target, b->bandwidth * 1e-9);
        return 0;
}

int cmd_bench(const Args *a)
{
        if (a->batched)
                return bench_batched(a);
        Bench b = {.a = a, .path = model_path(a)};
        int status = b.path ? read_tests(&b) : MOEC_USAGE;
        catch_interrupt();
        if (!status)
                status = load(&b);
        if (!status)
                status = run_tests(&b);
        moec_unload(b.c);
        moec_close(b.m);
        free(b.tok);
        free(b.ids);
        free(b.test);
        free(b.s);
        return status;
}

/* run: a prompt in, text out. Linked into compiled executables too. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "cli/common.h"

typedef struct Run {
        const Args *a;
        moec_model *m;
        moec_context *c;
        Text prompt;
        int32_t *ids;
        int n_ids;
        moec_sampling s;
        moec_utf8 utf8;
        int n_new, n_step; /* tokens sampled; of them, evaluated */
        int at_once;       /* tokens to ask for: many, but text is to come often */
        double prompt_s, decode_s;
        const char *stop; /* why: "limit", "end", "context", "interrupt" */
} Run;

/* ---- options ---- */

static int read_prompt(Run *r)
{
        const Args *a = r->a;
        const char *path = a->file ? a->file : "-";
        if (a->prompt && a->file)
                return usage("a prompt by -p and another by -f");
        if (!a->prompt && !a->file)
                return 0;
        if (a->prompt && strcmp(a->prompt, "-") != 0) {
                r->prompt.p = strdup(a->prompt);
                r->prompt.n = strlen(a->prompt);
                return r->prompt.p ? 0 : complain(MOEC_NO_MEMORY, "out of memory for the prompt");
        }
        int status = read_text(path, &r->prompt);
        if (!status && r->prompt.n && r->prompt.p[r->prompt.n - 1] == '\n')
                r->prompt.n--; /* the one that ends a text file */
        return status;
}

static int read_seed(const Args *a, uint64_t *seed)
{
        char *end;
        if (!strcmp(a->seed, "-1")) {
                if (getrandom(seed, sizeof *seed, 0) != (ssize_t)sizeof *seed)
                        return complain(MOEC_ERROR, "no random numbers for a seed; give one with -s");
                *seed &= UINT32_MAX; /* enough, and easy to type again */
                return 0;
        }
        if (a->seed[0] < '0' || a->seed[0] > '9' || strlen(a->seed) > 19)
                return usage(
                        "--seed %s: give a number of at most 19 digits, or -1 for a random one", a->seed);
        *seed = strtoull(a->seed, &end, 10);
        return *end ? usage("--seed %s: give a whole number", a->seed) : 0;
}

/* What was settled when a plan was compiled cannot be asked for again. */
static int check_plan(const Run *r)
{
        const Args *a = r->a;
        const struct {
                const char *value, *name;
        } settled[] = {
                {a->march, "--march"}, {a->act, "--act"}, {a->templates, "--templates"}, {a->keep, "--keep"}};
        moec_info info;
        moec_get_info(r->m, &info);
        for (size_t i = 0; info.is_plan && i < sizeof settled / sizeof *settled; i++)
                if (settled[i].value)
                        return usage(
                                "%s says how a model is compiled, and this one is compiled already; give the "
                                "GGUF",
                                settled[i].name);
        return 0;
}

/* What moec_sample would say, but before anything is compiled. */
static int check_sampling(const Args *a)
{
        if (!(a->top_p > 0 && a->top_p <= 1))
                return usage("--top-p %g: give a number above 0, at most 1", a->top_p);
        if (!(a->min_p >= 0 && a->min_p <= 1))
                return usage("--min-p %g: give a number from 0 to 1", a->min_p);
        if (!(a->repeat_penalty > 0))
                return usage("--repeat-penalty %g: give a number above 0", a->repeat_penalty);
        return 0;
}

static int settle(Run *r)
{
        const Args *a = r->a;
        r->s = (moec_sampling){.temp = (float)a->temp,
                .top_p = (float)a->top_p,
                .min_p = (float)a->min_p,
                .repeat_penalty = (float)a->repeat_penalty,
                .top_k = a->top_k,
                .repeat_last = a->repeat_last};
        int status = check_sampling(a);
        if (!status)
                status = read_seed(a, &r->s.seed);
        return status ? status : read_prompt(r);
}

/* ---- the prompt ---- */

static int tokenize(Run *r)
{
        moec_error e = {0};
        if (moec_tokenize(r->m, r->prompt.p ? r->prompt.p : "", r->prompt.n, true, true, &r->ids, &r->n_ids,
                    &e) != MOEC_OK)
                return failed(&e);
        if (r->n_ids == 0)
                return usage("the prompt is empty, and the model has no BOS to start from; give one with -p "
                             "or -f");
        return 0;
}

static int check_room(const Run *r)
{
        int room = moec_n_ctx(r->c);
        if (r->n_ids > room)
                return usage("the prompt has %d tokens, the context %d; give a larger one with -c", r->n_ids,
                        room);
        return 0;
}

static int put(Run *r, const char *p, size_t n, bool flush)
{
        char *out = malloc(3 * (n + 4));
        if (!out)
                return complain(MOEC_NO_MEMORY, "out of memory for %zu bytes of text", n);
        fwrite(out, 1, moec_utf8_push(&r->utf8, p, n, flush, out), stdout);
        free(out);
        return end_output(stdout);
}

static int evaluate_prompt(Run *r)
{
        const int step = r->a->batch > 0 ? r->a->batch : 512;
        moec_token *tok = calloc((size_t)step, sizeof *tok);
        moec_error e = {0};
        moec_status st = MOEC_OK;
        double start = seconds();
        if (!tok)
                return complain(MOEC_NO_MEMORY, "out of memory for a batch of %d tokens", step);
        for (int done = 0, n; st == MOEC_OK && done < r->n_ids && !interrupted(); done += n) {
                n = r->n_ids - done < step ? r->n_ids - done : step;
                for (int i = 0; i < n; i++)
                        tok[i] = (moec_token){.id = r->ids[done + i], .logits = done + i + 1 == r->n_ids};
                st = moec_step(r->c, tok, n, NULL, &e);
                show_progress(NULL, "reading the prompt", (uint64_t)(done + n), (uint64_t)r->n_ids);
        }
        clear_progress();
        free(tok);
        r->prompt_s = seconds() - start;
        return st ? failed(&e) : 0;
}

/* ---- generating ---- */

#define MOST  32    /* tokens at once */
#define OFTEN 0.025 /* seconds between pieces of text, unless one token takes longer */

static int say(Run *r, int32_t id)
{
        moec_error e = {0};
        const char *piece;
        size_t len;
        if (moec_piece(r->m, id, false, &piece, &len, &e) != MOEC_OK)
                return failed(&e);
        r->n_new++;
        if (!r->a->ignore_eos && moec_is_end(r->m, id))
                r->stop = "end";
        else if (r->n_new == r->a->n_predict)
                r->stop = "limit";
        return put(r, piece, len, false);
}

/* A token behind which there is none: it is not evaluated. */
static int last(Run *r)
{
        moec_error e = {0};
        int32_t id;
        if (moec_sample(r->c, 0, &r->s, &id, &e) != MOEC_OK)
                return failed(&e);
        r->stop = "context";
        return say(r, id);
}

/* n tokens, or fewer; each is evaluated. */
static int some(Run *r, int n)
{
        moec_error e = {0};
        int32_t ids[MOST];
        int did = 0, status = 0;
        double start = seconds();
        moec_status st = moec_generate(r->c, 0, &r->s, n, r->a->ignore_eos, ids, &did, &e);
        double each = (seconds() - start) / (did ? did : 1);
        r->n_step += did;
        for (int i = 0; i < did && !status; i++)
                status = say(r, ids[i]);
        int most = 2 * n < MOST ? 2 * n : MOST;
        r->at_once = each * most < OFTEN ? most : each < OFTEN ? (int)(OFTEN / each) : 1;
        return status ? status : st != MOEC_OK && !interrupted() ? failed(&e) : 0;
}

static int next(Run *r)
{
        int room = moec_n_ctx(r->c) - moec_seq_len(r->c, 0), n = r->at_once;
        if (r->a->n_predict > 0 && r->a->n_predict - r->n_new - 1 < room)
                room = r->a->n_predict - r->n_new - 1;
        return room ? some(r, n < room ? n : room) : last(r);
}

static int generate(Run *r)
{
        int status = 0;
        double start = seconds();
        r->stop = r->a->n_predict ? NULL : "limit";
        r->at_once = 1;
        while (!r->stop && !status && !interrupted())
                status = next(r);
        if (interrupted() && !r->stop)
                r->stop = "interrupt";
        r->decode_s = seconds() - start;
        if (!status)
                status = put(r, "", 0, true);
        putchar('\n');
        return status ? status : end_output(stdout);
}

/* ---- telling ---- */

static double rate(int n, double s)
{
        return s > 0 ? n / s : 0;
}

static void tell_start(const Run *r)
{
        moec_timing t;
        moec_info info;
        char how[48] = "cached";
        moec_get_timing(r->c, &t);
        moec_get_info(r->m, &info);
        if (t.compiled)
                snprintf(how, sizeof how, "compiled in %.2f s", t.compile_s);
        else if (info.is_plan)
                snprintf(how, sizeof how, "compiled before");
        else if (r->a->target && !strcmp(r->a->target, "eval"))
                snprintf(how, sizeof how, "not compiled");
        fprintf(stderr, "target: %s\n", t.target);
        fprintf(stderr,
                "load: %.2f s, %s; weights %.1f MiB, KV cache %.1f MiB for %d tokens, scratch %.1f MiB\n",
                t.load_s, how, (double)t.weight_bytes / (1 << 20), (double)t.kv_bytes / (1 << 20),
                moec_n_ctx(r->c), (double)t.scratch_bytes / (1 << 20));
        fprintf(stderr, "seed: %llu\n", (unsigned long long)r->s.seed);
}

static void tell_end(const Run *r)
{
        if (!strcmp(r->stop, "context"))
                fprintf(stderr, "stopped: the context of %d tokens is full\n", moec_n_ctx(r->c));
        fprintf(stderr, "prompt: %d tokens in %.2f s, %.1f tok/s\n", r->n_ids, r->prompt_s,
                rate(r->n_ids, r->prompt_s));
        fprintf(stderr, "decode: %d tokens in %.2f s, %.1f tok/s\n", r->n_step, r->decode_s,
                rate(r->n_step, r->decode_s));
}

static void tell_json(const Run *r)
{
        moec_timing t;
        moec_get_timing(r->c, &t);
        printf("{\"target\": ");
        json_string(stdout, t.target, strlen(t.target));
        printf(", \"seed\": %llu, \"compiled\": %s, \"compile_s\": %.6f, \"load_s\": %.6f, \"n_ctx\": %d, "
               "\"prompt_tokens\": %d, \"prompt_s\": %.6f, \"prompt_tok_s\": %.3f, "
               "\"new_tokens\": %d, \"decode_tokens\": %d, \"decode_s\": %.6f, \"decode_tok_s\": %.3f, "
               "\"stop\": \"%s\"}\n",
                (unsigned long long)r->s.seed, t.compiled ? "true" : "false", t.compile_s, t.load_s,
                moec_n_ctx(r->c), r->n_ids, r->prompt_s, rate(r->n_ids, r->prompt_s), r->n_new, r->n_step,
                r->decode_s, rate(r->n_step, r->decode_s), r->stop);
}

/* ---- */

static int load(Run *r, const char *path, Opener *open)
{
        moec_options opt;
        moec_error e = {0};
        options_of(r->a, &opt);
        if (open(path, &opt, &r->m, &e) != MOEC_OK)
                return failed(&e);
        int status = check_plan(r);
        if (!status)
                status = tokenize(r);
        if (status)
                return status;
        if (moec_load(r->m, &opt, &r->c, &e) != MOEC_OK)
                return failed(&e);
        clear_progress();
        return 0;
}

static int talk(Run *r)
{
        int status = check_room(r);
        if (status)
                return status;
        tell_start(r);
        if (!r->a->hide_prompt)
                status = put(r, r->prompt.p, r->prompt.n, true);
        if (!status)
                status = evaluate_prompt(r);
        if (!status)
                status = generate(r);
        if (!status) {
                tell_end(r);
                if (r->a->summary && !strcmp(r->a->summary, "json"))
                        tell_json(r);
                status = end_output(stdout);
        }
        return status ? status : interrupted() ? MOEC_INTERRUPTED : 0;
}

int run_model(const Args *a, const char *path, Opener *open)
{
        Run r = {.a = a};
        int status = settle(&r);
        catch_interrupt();
        if (!status)
                status = load(&r, path, open);
        if (!status)
                status = talk(&r);
        moec_unload(r.c);
        moec_close(r.m);
        moec_free(r.ids);
        free(r.prompt.p);
        return status;
}

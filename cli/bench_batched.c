/* bench --batched: sequences that decode together, with llama-batched-bench's meaning: each of B sequences
 * gets a prompt of PP random tokens, all in common steps; then TG steps append one token to each. */
#include "cli/bench.h"
#include <stdlib.h>
#include <string.h>

typedef struct Batched {
        const Args *a;
        moec_model *m;
        moec_context *c;
        moec_info info;
        moec_token *tok; /* [batch] */
        int batch;
        uint32_t random;
        double bandwidth;
} Batched;

typedef struct Row {
        int pp, tg, pl;
        double t_pp, t_tg;
        Profile profile; /* of the TG steps */
} Row;

/* ---- measuring ---- */

static moec_status forget(Batched *b, int n_seq, int len, moec_error *e)
{
        moec_status st = MOEC_OK;
        for (int s = 0; s < n_seq && !st; s++)
                st = moec_seq_trim(b->c, s, len, e);
        return st;
}

/* Logits of each prompt's last token. */
static moec_status prompts(Batched *b, int pp, int n_seq, moec_error *e)
{
        moec_status st = MOEC_OK;
        int n = 0;
        for (int i = 0; i < pp * n_seq && !st; i++) {
                b->tok[n++] =
                        (moec_token){random_token(&b->random, b->info.n_vocab), i / pp, (i + 1) % pp == 0};
                if (n == b->batch || i + 1 == pp * n_seq) {
                        st = step_unless_interrupted(b->c, b->tok, n, e);
                        n = 0;
                }
        }
        return st;
}

static moec_status generate(Batched *b, int tg, int n_seq, moec_error *e)
{
        moec_status st = MOEC_OK;
        for (int i = 0; i < tg && !st; i++) {
                for (int s = 0; s < n_seq; s++)
                        b->tok[s] = (moec_token){random_token(&b->random, b->info.n_vocab), s, true};
                st = step_unless_interrupted(b->c, b->tok, n_seq, e);
        }
        return st;
}

/* The steps' first run is a warm-up. */
static moec_status measure(Batched *b, Row *r, moec_error *e)
{
        moec_status st = forget(b, r->pl, 0, e);
        if (!st)
                st = prompts(b, r->pp < b->batch ? r->pp : b->batch, 1, e);
        if (!st)
                st = forget(b, 1, 0, e);
        if (!st && r->tg)
                st = generate(b, 1, r->pl, e);
        if (!st)
                st = forget(b, r->pl, 0, e);
        double start = seconds();
        if (!st)
                st = prompts(b, r->pp, r->pl, e);
        r->t_pp = seconds() - start;
        start = seconds();
        if (!st)
                st = generate(b, r->tg, r->pl, e);
        r->t_tg = seconds() - start;
        return st;
}

static moec_status profile(Batched *b, Row *r, moec_error *e)
{
        moec_status st = forget(b, r->pl, r->pp, e);
        r->profile = (Profile){.seconds = r->t_tg, .bandwidth = b->bandwidth};
        if (!st)
                st = moec_profile_start(b->c, e);
        if (!st)
                st = generate(b, r->tg, r->pl, e);
        return st ? st : moec_profile_stop(b->c, &r->profile.row, &r->profile.n, NULL, e);
}

/* ---- telling ---- */

#define COLUMNS 10
static const struct {
        const char *md, *json;
        int width, digits;
} column[COLUMNS] = {{"PP", "pp", 6, 0}, {"TG", "tg", 6, 0}, {"B", "pl", 4, 0}, {"N_KV", "n_kv", 7, 0},
        {"T_PP s", "t_pp", 9, 3}, {"S_PP t/s", "speed_pp", 9, 2}, {"T_TG s", "t_tg", 9, 3},
        {"S_TG t/s", "speed_tg", 9, 2}, {"T s", "t", 9, 3}, {"S t/s", "speed", 9, 2}};

static double per(double n, double s)
{
        return s > 0 ? n / s : 0;
}

static void values(const Row *r, double v[COLUMNS])
{
        double t = r->t_pp + r->t_tg, n_kv = (double)r->pl * (r->pp + r->tg);
        const double all[COLUMNS] = {r->pp, r->tg, r->pl, n_kv, r->t_pp, per((double)r->pl * r->pp, r->t_pp),
                r->t_tg, per((double)r->pl * r->tg, r->t_tg), t, per(n_kv, t)};
        memcpy(v, all, sizeof all);
}

static void tell_md(const Batched *b, const Row *r, int i, int n)
{
        double v[COLUMNS];
        (void)b, (void)n;
        values(r, v);
        for (int k = 0; k < COLUMNS && !i; k++)
                printf("| %*s %s", column[k].width, column[k].md, k + 1 < COLUMNS ? "" : "|\n");
        for (int k = 0; k < COLUMNS && !i; k++)
                printf("|%.*s:%s", column[k].width + 1, "-----------", k + 1 < COLUMNS ? "" : "|\n");
        for (int k = 0; k < COLUMNS; k++)
                printf("| %*.*f %s", column[k].width, column[k].digits, v[k], k + 1 < COLUMNS ? "" : "|\n");
}

static void tell_csv(const Batched *b, const Row *r, int i, int n)
{
        double v[COLUMNS];
        (void)b, (void)n;
        values(r, v);
        for (int k = 0; k < COLUMNS && !i; k++)
                printf("%s%s", column[k].json, k + 1 < COLUMNS ? "," : "\n");
        for (int k = 0; k < COLUMNS; k++)
                printf("%.*f%s", column[k].digits ? 6 : 0, v[k], k + 1 < COLUMNS ? "," : "\n");
}

static void tell_json(const Batched *b, const Row *r, int i, int n)
{
        double v[COLUMNS];
        values(r, v);
        for (int k = 0; k < COLUMNS; k++)
                printf("%s\"%s\": %.*f",
                        k   ? ", "
                        : i ? ",\n  {"
                            : "[\n  {",
                        column[k].json, column[k].digits ? 6 : 0, v[k]);
        if (b->a->profile) {
                printf(", \"profile\": ");
                profile_json(&r->profile, stdout);
        }
        printf(i + 1 < n ? "}" : "}\n]\n");
}

static int tell(const Batched *b, const Row *r, int i, int n)
{
        const char *as = b->a->bench_as;
        char title[80];
        (!strcmp(as, "md") ? tell_md : !strcmp(as, "csv") ? tell_csv : tell_json)(b, r, i, n);
        snprintf(title, sizeof title, "tg%d of %d sequences at depth %d", r->tg, r->pl, r->pp);
        if (b->a->profile)
                profile_tell(&r->profile, title, as);
        return end_output(stdout);
}

/* ---- */

static int load(Batched *b, const char *path, int n_ctx, int n_seq)
{
        moec_options opt;
        moec_error e = {0};
        options_of(b->a, &opt);
        b->batch = b->a->batch > 0 ? b->a->batch : 512;
        b->batch = b->batch > n_seq ? b->batch : n_seq;
        opt.n_batch = b->batch;
        opt.n_ctx = n_ctx;
        opt.max_seqs = n_seq;
        b->tok = calloc((size_t)b->batch, sizeof *b->tok);
        if (!b->tok)
                return complain(MOEC_NO_MEMORY, "out of memory for a batch of %d tokens", b->batch);
        if (moec_open(path, &opt, &b->m, &e) != MOEC_OK || moec_load(b->m, &opt, &b->c, &e) != MOEC_OK ||
                (b->a->profile && moec_read_bandwidth(b->c, &b->bandwidth, &e) != MOEC_OK))
                return failed(&e);
        clear_progress();
        moec_get_info(b->m, &b->info);
        moec_timing t;
        moec_get_timing(b->c, &t);
        fprintf(stderr, "target: %s\n", t.target);
        return 0;
}

static int most(const List *l)
{
        int m = 0;
        for (int i = 0; i < l->n; i++)
                m = l->v[i] > m ? l->v[i] : m;
        return m;
}

static int run(Batched *b, const List *pp, const List *tg, const List *pl)
{
        int n = pp->n * tg->n * pl->n, status = 0;
        for (int i = 0; i < n && !status; i++) {
                moec_error e = {0};
                Row r = {.pp = pp->v[i / pl->n / tg->n],
                        .tg = tg->v[i / pl->n % tg->n],
                        .pl = pl->v[i % pl->n]};
                moec_status st = measure(b, &r, &e);
                if (!st && b->a->profile)
                        st = profile(b, &r, &e);
                status = st ? failed(&e) : tell(b, &r, i, n);
        }
        return status;
}

static int check(const Args *a, const List *pp, const List *tg, const List *pl)
{
        long long need = (long long)most(pp) + most(tg);
        if (need < 1 || need > 1 << 24)
                return usage("sequences of %lld tokens: at least 1, at most %d", need, 1 << 24);
        for (int i = 0; i < pl->n; i++)
                if (pl->v[i] < 1 || pl->v[i] > 4096)
                        return usage("-npl %d: give 1 to 4096 sequences", pl->v[i]);
        for (int i = 0; i < pp->n; i++)
                if (pp->v[i] < 1)
                        return usage("-npp %d: a prompt has at least one token", pp->v[i]);
        return a->trace ? usage("a trace is of one test: leave --batched out") : 0;
}

int bench_batched(const Args *a)
{
        Batched b = {.a = a};
        List pp = {0}, tg = {0}, pl = {0};
        const char *path = model_path(a);
        int status = path ? read_list("-npp", a->npp, &pp) : MOEC_USAGE;
        if (!status)
                status = read_list("-ntg", a->ntg, &tg);
        if (!status)
                status = read_list("-npl", a->npl, &pl);
        if (!status)
                status = check(a, &pp, &tg, &pl);
        catch_interrupt();
        if (!status)
                status = load(&b, path, most(&pp) + most(&tg), most(&pl));
        if (!status)
                status = run(&b, &pp, &tg, &pl);
        moec_unload(b.c);
        moec_close(b.m);
        free(b.tok);
        free(pp.v);
        free(tg.v);
        free(pl.v);
        return status;
}

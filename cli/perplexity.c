/* perplexity: exp of the mean negative log likelihood of the second half of every window of c tokens. As
 * llama-perplexity defines it: the whole text is tokenised at once, with BOS where the model adds one; the
 * first token of each window gives way to BOS, again where the model adds one; logits[c/2 .. c-2] score
 * tokens[c/2+1 .. c-1]; what is left of the text after the last whole window is not scored. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "cli/common.h"

typedef struct Sum {
        double nll, nll2;
        int n;
} Sum;

typedef struct Ppl {
        double value, error;
} Ppl;

/* The error is one standard deviation of the mean, carried through exp. */
static Ppl ppl(const Sum *s)
{
        double mean = s->nll / s->n, var = s->nll2 / s->n - mean * mean, value = exp(mean);
        return (Ppl){value, s->n > 1 && var > 0 ? sqrt(var / (s->n - 1)) * value : 0};
}

static double nll_of(const float *logits, int n_vocab, int32_t id)
{
        double max = (double)logits[0], sum;
        for (int i = 1; i < n_vocab; i++)
                max = fmax(max, (double)logits[i]);
        sum = exp((double)logits[0] - max);
        for (int i = 1; i < n_vocab; i++)
                sum += exp((double)logits[i] - max);
        return log(sum) + max - (double)logits[id];
}

typedef struct Measure {
        const Args *a;
        moec_context *c;
        moec_token *tok; /* [step] */
        int step, n_vocab;
        int32_t bos;
        Sum sum;
} Measure;

static int window(Measure *w, const int32_t *ids)
{
        const int c = w->a->window;
        const float *logits;
        moec_error e = {0};
        if (moec_seq_trim(w->c, 0, 0, &e) != MOEC_OK)
                return failed(&e);
        for (int done = 0, n; done < c; done += n) {
                n = c - done < w->step ? c - done : w->step;
                for (int i = 0; i < n; i++) {
                        int at = done + i;
                        w->tok[i] = (moec_token){.id = at == 0 && w->bos >= 0 ? w->bos : ids[at],
                                .logits = at >= c / 2 && at < c - 1};
                }
                if (moec_step(w->c, w->tok, n, &logits, &e) != MOEC_OK)
                        return failed(&e);
                for (int i = 0; i < n; i++) {
                        if (!w->tok[i].logits)
                                continue;
                        double v = nll_of(logits, w->n_vocab, ids[done + i + 1]);
                        w->sum.nll += v;
                        w->sum.nll2 += v * v;
                        w->sum.n++;
                        logits += w->n_vocab;
                }
                if (interrupted())
                        return complain(MOEC_INTERRUPTED, "interrupted");
        }
        return 0;
}

static int measure(Measure *w, const int32_t *ids, int n)
{
        const int c = w->a->window, n_window = n / c;
        const bool json = w->a->format && !strcmp(w->a->format, "json");
        int status = 0;
        double start = seconds();
        if (n < 2 * c)
                return usage(
                        "%s has %d tokens, and two windows of %d take %d; give a longer text or a smaller -c",
                        w->a->file, n, c, 2 * c);
        w->step = w->a->batch > 0 ? w->a->batch : 512;
        w->tok = calloc((size_t)w->step, sizeof *w->tok);
        if (!w->tok)
                return complain(MOEC_NO_MEMORY, "out of memory for a batch of %d tokens", w->step);
        for (int i = 0; i < n_window && !status; i++) {
                status = window(w, ids + (size_t)i * (size_t)c);
                Ppl p = {0};
                if (!status)
                        p = ppl(&w->sum);
                if (!status && !json) {
                        printf("[%d]%.4f%s", i + 1, p.value, i + 1 < n_window ? ", " : "\n");
                        status = end_output(stdout);
                }
        }
        free(w->tok);
        if (status)
                return status;
        Ppl p = ppl(&w->sum);
        if (json)
                printf("{\"ppl\": %.6f, \"error\": %.6f, \"window\": %d, \"windows\": %d, \"scored\": %d, "
                       "\"tokens\": %d, "
                       "\"seconds\": %.3f}\n",
                        p.value, p.error, c, n_window, w->sum.n, n, seconds() - start);
        else
                printf("Final estimate: PPL = %.4f +/- %.5f\n", p.value, p.error);
        return end_output(stdout);
}

static int with_text(const Args *a, moec_model *m, const Text *t)
{
        moec_options opt;
        moec_error e = {0};
        moec_info info;
        int32_t *ids = NULL;
        int n;
        Measure w = {.a = a, .bos = moec_bos(m)};
        moec_get_info(m, &info);
        w.n_vocab = info.n_vocab;
        options_of(a, &opt);
        opt.n_ctx = a->window;
        int status = 0;
        if (moec_tokenize(m, t->p, t->n, true, false, &ids, &n, &e) != MOEC_OK ||
                moec_load(m, &opt, &w.c, &e) != MOEC_OK)
                status = failed(&e);
        clear_progress();
        if (!status)
                status = measure(&w, ids, n);
        moec_unload(w.c);
        moec_free(ids);
        return status;
}

int cmd_perplexity(const Args *a)
{
        moec_options opt;
        moec_error e = {0};
        moec_model *m = NULL;
        Text t = {0};
        const char *path = model_path(a);
        if (!path)
                return MOEC_USAGE;
        if (!a->file)
                return usage("over which text? give a file with -f");
        int status = read_text(a->file, &t);
        if (status)
                return status;
        options_of(a, &opt);
        catch_interrupt();
        status = moec_open(path, &opt, &m, &e) ? failed(&e) : with_text(a, m, &t);
        free(t.p);
        moec_close(m);
        return status;
}

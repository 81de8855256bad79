/* logits: raw float32, host order, [tokens, n_vocab]. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/common.h"

/* A file that gets its name when it is whole; - is standard output. */
typedef struct Out {
        const char *path;
        char *temp;
        FILE *f;
} Out;

static int out_open(Out *o, const char *path)
{
        size_t room = strlen(path) + 32;
        *o = (Out){.path = path, .f = stdout};
        if (!strcmp(path, "-"))
                return 0;
        o->temp = malloc(room);
        if (!o->temp)
                return complain(MOEC_NO_MEMORY, "out of memory writing %s", path);
        snprintf(o->temp, room, "%s.%d.tmp", path, (int)getpid());
        o->f = fopen(o->temp, "wbxe");
        return o->f ? 0 : complain(MOEC_IO, "%s: cannot write: %s", path, strerror(errno));
}

static int out_close(Out *o, int status)
{
        if (!o->temp) {
                if (!status)
                        status = end_output(stdout);
                return status;
        }
        if (o->f) {
                bool bad = fflush(o->f) != 0 || ferror(o->f);
                bad |= fclose(o->f) != 0;
                if (!status && (bad || rename(o->temp, o->path) != 0))
                        status = complain(MOEC_IO, "%s: cannot write: %s", o->path, strerror(errno));
                if (status)
                        unlink(o->temp);
        }
        free(o->temp);
        return status;
}

static int evaluate(const Args *a, moec_context *c, int n_vocab, const int32_t *ids, int n, Out *o)
{
        enum { STEP = 64 };
        moec_error e = {0};
        int most = a->batch > 0 && a->batch < STEP ? a->batch : STEP;
        if (n > moec_n_ctx(c))
                return usage(
                        "%d tokens, and the context holds %d; give a larger one with -c", n, moec_n_ctx(c));
        for (int done = 0, k; done < n; done += k) {
                moec_token tok[STEP];
                const float *logits;
                k = n - done < most ? n - done : most;
                for (int i = 0; i < k; i++)
                        tok[i] = (moec_token){.id = ids[done + i], .logits = true};
                if (moec_step(c, tok, k, &logits, &e) != MOEC_OK)
                        return failed(&e);
                if (fwrite(logits, sizeof *logits * (size_t)n_vocab, (size_t)k, o->f) != (size_t)k)
                        return complain(MOEC_IO, "%s: cannot write: %s", o->path, strerror(errno));
                if (!show_progress(NULL, "evaluating", (uint64_t)(done + k), (uint64_t)n))
                        return complain(MOEC_INTERRUPTED, "interrupted");
        }
        return 0;
}

static int load_and_write(const Args *a, const char *path, const int32_t *ids, int n)
{
        moec_options opt;
        moec_error e = {0};
        moec_model *m = NULL;
        moec_context *c = NULL;
        moec_info info;
        Out o;
        int status = 0;
        options_of(a, &opt);
        catch_interrupt();
        if (moec_open(path, &opt, &m, &e) != MOEC_OK || moec_load(m, &opt, &c, &e) != MOEC_OK)
                status = failed(&e);
        if (!status) {
                moec_get_info(m, &info);
                status = out_open(&o, a->out);
                if (!status)
                        status = evaluate(a, c, info.n_vocab, ids, n, &o);
                status = out_close(&o, status);
        }
        moec_unload(c);
        moec_close(m);
        return status;
}

int cmd_logits(const Args *a)
{
        const char *path = model_path(a), *bad;
        int32_t *ids;
        int n;
        if (!path)
                return MOEC_USAGE;
        if (!a->tokens || !a->out)
                return usage(!a->tokens ? "which tokens? give them with --tokens"
                                        : "where to? give a file with -o");
        if (!parse_ids(a->tokens, &ids, &n, &bad))
                return usage("--tokens %s: not a list of token ids, from \"%.20s\" on", a->tokens, bad);
        int status = n ? load_and_write(a, path, ids, n) : usage("--tokens: there are none");
        free(ids);
        return status;
}

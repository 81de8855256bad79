#include "runtime/api.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- models ---- */

bool exe_plan_offset(const char *path, u64 *offset)
{
        ExeTrailer t;
        struct stat st;
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0)
                return false;
        bool found = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= (off_t)sizeof t &&
                     pread(fd, &t, sizeof t, st.st_size - (off_t)sizeof t) == (ssize_t)sizeof t &&
                     memcmp(t.magic, EXE_MAGIC, sizeof t.magic) == 0;
        close(fd);
        if (found)
                *offset = t.plan;
        return found;
}

static void info_from_plan(moec_model *m)
{
        const Plan *p = m->plan;
        const PlanMeta *meta = p->META;
        m->info = (moec_info){.arch = plan_str(p, meta->arch),
                .name = plan_str(p, meta->name),
                .target = plan_str(p, meta->target),
                .n_vocab = (int)meta->n_vocab,
                .n_ctx_train = (int)meta->n_ctx_train,
                .n_layer = (int)meta->n_layer,
                .n_embd = (int)meta->n_embd,
                .n_expert = (int)meta->n_expert,
                .n_expert_used = (int)meta->n_expert_used,
                .has_weights = true,
                .has_tokenizer = m->tok != NULL,
                .is_plan = true,
                .n_params = meta->n_params,
                .weight_bytes = meta->weight_bytes,
                .bytes_per_token = meta->bytes_per_token,
                .params_per_token = meta->params_per_token};
}

moec_status model_from_plan(
        const char *path, u64 offset, const moec_options *opt, moec_model **out, moec_error *e)
{
        (void)opt; /* nothing in it concerns a plan before it is loaded */
        *out = NULL;
        moec_model *m = calloc(1, sizeof *m);
        if (!m || !(m->path = strdup(path))) {
                free(m);
                return fail(e, MOEC_NO_MEMORY, "out of memory opening %s", path);
        }
        moec_status st = plan_open(path, offset, &m->plan, e);
        if (st == MOEC_OK && plan_count(m->plan, PLAN_TOKEN))
                st = token_open(m->plan->TOKEN, plan_count(m->plan, PLAN_TOKEN), &m->tok, e);
        if (st != MOEC_OK) {
                moec_close(m);
                return st;
        }
        info_from_plan(m);
        *out = m;
        return MOEC_OK;
}

moec_status moec_open_plan(const char *path, const moec_options *opt, moec_model **out, moec_error *e)
{
        u64 offset = 0;
        exe_plan_offset(path, &offset);
        return model_from_plan(path, offset, opt, out, e);
}

void moec_close(moec_model *m)
{
        if (!m)
                return;
        token_close(m->tok);
        free(m->tok_blob);
        plan_close(m->plan);
        if (m->close_front)
                m->close_front(m->front);
        free(m->path);
        free(m);
}

void moec_free(void *p)
{
        free(p);
}

void moec_get_info(const moec_model *m, moec_info *info)
{
        *info = m->info;
}

/* ---- text ---- */

static moec_status no_tokenizer(const moec_model *m, moec_error *e)
{
        return fail(e, MOEC_UNSUPPORTED, "%s: %s", m->path,
                m->tok_why[0] ? m->tok_why : "the file has no tokenizer");
}

moec_status moec_tokenize(const moec_model *m, const char *text, size_t len, bool bos, bool special,
        int32_t **ids, int *n, moec_error *e)
{
        *ids = NULL;
        *n = 0;
        return m->tok ? token_encode(m->tok, text, len, bos, special, ids, n, e) : no_tokenizer(m, e);
}

moec_status moec_piece(
        const moec_model *m, int32_t id, bool special, const char **piece, size_t *len, moec_error *e)
{
        *piece = "";
        *len = 0;
        return m->tok ? token_piece(m->tok, id, special, piece, len, e) : no_tokenizer(m, e);
}

bool moec_is_end(const moec_model *m, int32_t id)
{
        return m->tok && token_is_end(m->tok, id);
}

int32_t moec_bos(const moec_model *m)
{
        return m->tok ? token_bos(m->tok) : -1;
}

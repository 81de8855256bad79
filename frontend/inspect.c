#include "frontend/inspect.h"
#include "frontend/inspect_part.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- values ---- */

const char *inspect_hyper(const Model *m, const GgufKey *k)
{
        size_t n = m->arch ? strlen(m->arch) : 0;
        return n && strncmp(k->name, m->arch, n) == 0 && k->name[n] == '.' ? k->name + n + 1 : NULL;
}

/* Whole numbers as such; else the fewest digits that read back as the same number. */
static void shortest(Buf *out, double v, bool single)
{
        char s[40];
        if (v > -1e15 && v < 1e15 && v == (double)(i64)v) {
                buf_fmt(out, "%" PRId64, (i64)v);
                return;
        }
        for (int digits = 1; digits <= 17; digits++) {
                snprintf(s, sizeof s, "%.*g", digits, v);
                double back = strtod(s, NULL);
                if (single ? (float)back == (float)v : back == v)
                        break;
        }
        buf_str(out, s);
}

void inspect_scalar(const GgufKey *k, Buf *out)
{
        float f;
        double d;
        u32 low = (u32)k->bits;
        switch (k->type) {
        case GGUF_bool:
                buf_str(out, k->bits ? "true" : "false");
                return;
        case GGUF_i8:
                buf_fmt(out, "%d", (i8)k->bits);
                return;
        case GGUF_i16:
                buf_fmt(out, "%d", (i16)k->bits);
                return;
        case GGUF_i32:
                buf_fmt(out, "%d", (i32)k->bits);
                return;
        case GGUF_i64:
                buf_fmt(out, "%" PRId64, (i64)k->bits);
                return;
        case GGUF_f32:
                memcpy(&f, &low, sizeof f);
                shortest(out, (double)f, true);
                return;
        case GGUF_f64:
                memcpy(&d, &k->bits, sizeof d);
                shortest(out, d, false);
                return;
        default:
                buf_fmt(out, "%" PRIu64, k->bits);
        }
}

/* ---- gathering ---- */

static Group *group(Arena *a, Group **list, u32 *n, u32 *cap, const char *name)
{
        for (u32 i = 0; i < *n; i++)
                if (strcmp((*list)[i].name, name) == 0)
                        return &(*list)[i];
        GROW(a, *list, *n, *cap);
        (*list)[*n] = (Group){.name = name, .types = ""};
        return &(*list)[(*n)++];
}

static bool has_word(const char *list, const char *word)
{
        size_t n = strlen(word);
        for (const char *p = list; (p = strstr(p, word)) != NULL; p += n)
                if ((p == list || p[-1] == ' ') && (p[n] == ',' || !p[n]))
                        return true;
        return false;
}

static void count(Group *g, const GgufTensor *t, u64 read)
{
        g->tensors++;
        g->params += t->n;
        g->bytes += t->bytes;
        g->read += read;
}

static int by_bytes(const void *pa, const void *pb)
{
        const Group *a = pa, *b = pb;
        if (a->bytes != b->bytes)
                return a->bytes < b->bytes ? 1 : -1;
        return strcmp(a->name, b->name);
}

static void gather_tensors(Facts *f, Arena *a)
{
        const Gguf *g = f->m->gguf;
        for (u32 i = 0; i < gguf_n_tensors(g); i++) {
                const GgufTensor *t = gguf_tensor_at(g, i);
                const char *type = gguf_tensor_type(t->id);
                Group *r = group(a, &f->role, &f->n_role, &f->cap_role, model_role(f->m, t->name));
                count(r, t, f->m->read[i]);
                if (!has_word(r->types, type))
                        r->types = arena_fmt(a, "%s%s%s", r->types, *r->types ? ", " : "", type);
                count(group(a, &f->type, &f->n_type, &f->cap_type, type), t, f->m->read[i]);
        }
        if (f->n_role)
                qsort(f->role, f->n_role, sizeof *f->role, by_bytes);
        if (f->n_type)
                qsort(f->type, f->n_type, sizeof *f->type, by_bytes);
}

/* The layer in "blk.N."; false: no layer's tensor. */
static bool layer_of(const char *name, u64 *layer)
{
        if (strncmp(name, "blk.", 4) != 0)
                return false;
        size_t n = strspn(name + 4, "0123456789");
        char digits[8];
        if (n == 0 || n >= sizeof digits || name[4 + n] != '.')
                return false;
        memcpy(digits, name + 4, n);
        digits[n] = 0;
        return parse_u64(digits, UINT32_MAX, layer);
}

#define MAX_LAYER 1024
static void gather_experts(Facts *f, Arena *a)
{
        u64 *bytes = NEWN(a, u64, MAX_LAYER), *params = NEWN(a, u64, MAX_LAYER), layer;
        for (u32 i = 0; i < gguf_n_tensors(f->m->gguf); i++) {
                const GgufTensor *t = gguf_tensor_at(f->m->gguf, i);
                if (strcmp(model_role(f->m, t->name), "experts") != 0 || t->n_dim != 3 ||
                        !layer_of(t->name, &layer) || layer >= MAX_LAYER)
                        continue;
                bytes[layer] += t->bytes / t->dim[0];
                params[layer] += t->n / t->dim[0];
        }
        for (u32 i = 0; i < MAX_LAYER; i++) {
                if (!params[i])
                        continue;
                f->expert_params = MAX(f->expert_params, params[i]);
                f->expert_max = MAX(f->expert_max, bytes[i]);
                f->expert_min = f->expert_min ? MIN(f->expert_min, bytes[i]) : bytes[i];
        }
}

/* ---- problems ---- */

static void problem(Facts *f, Arena *a, const char *text)
{
        GROW(a, f->problem, f->n_problem, f->cap_problem);
        f->problem[f->n_problem++] = text;
}

static void gather_types(Facts *f, Arena *a)
{
        for (u32 k = 0; k < f->n_type; k++) {
                const GgufTensor *first = NULL;
                for (u32 i = 0; i < gguf_n_tensors(f->m->gguf) && !first; i++) {
                        const GgufTensor *t = gguf_tensor_at(f->m->gguf, i);
                        if (!t->usable && strcmp(gguf_tensor_type(t->id), f->type[k].name) == 0)
                                first = t;
                }
                if (first)
                        problem(f, a,
                                arena_fmt(a,
                                        "%u tensor%s of type %s (number %u), which is not supported; the "
                                        "first is %s",
                                        f->type[k].tensors, f->type[k].tensors == 1 ? " is" : "s are",
                                        f->type[k].name, first->id, first->name));
        }
}

typedef struct Ask {
        const Model *m;
        Buf *blob;
        const char *key;
        u64 id;
        bool found;
        GgufStr s;
} Ask;

static void ask_token(Ask *q)
{
        q->found = model_token(q->m, q->blob);
}

static void ask_id(Ask *q)
{
        q->found = gguf_u64(q->m->gguf, q->key, 0, UINT32_MAX, &q->id);
}

static void ask_str(Ask *q)
{
        q->found = gguf_str(q->m->gguf, q->key, &q->s);
}

static bool soft(void (*ask)(Ask *), Ask *q, moec_error *e)
{
        Trap t;
        if (TRAP(&t) != 0) {
                *e = t.error;
                return false;
        }
        ask(q);
        trap_pop(&t);
        return true;
}

static i64 id_at(const Model *m, const char *key)
{
        moec_error e;
        Ask q = {.m = m, .key = key};
        return soft(ask_id, &q, &e) && q.found ? (i64)q.id : -1;
}

static const char *str_at(const Model *m, Arena *a, const char *key)
{
        moec_error e;
        Ask q = {.m = m, .key = key};
        return soft(ask_str, &q, &e) && q.found ? arena_strn(a, q.s.p, q.s.n) : NULL;
}

static u64 length_at(const Model *m, const char *key)
{
        const GgufKey *k = gguf_key(m->gguf, key);
        return k && k->type == GGUF_array ? k->n : 0;
}

static void gather_tokenizer(Facts *f, Arena *a)
{
        const Model *m = f->m;
        if (!m->info.has_tokenizer)
                return;
        f->token_model = str_at(m, a, "tokenizer.ggml.model");
        f->token_pre = str_at(m, a, "tokenizer.ggml.pre");
        f->n_token = length_at(m, "tokenizer.ggml.tokens");
        f->n_merge = length_at(m, "tokenizer.ggml.merges");
        f->bos = id_at(m, "tokenizer.ggml.bos_token_id");
        f->eos = id_at(m, "tokenizer.ggml.eos_token_id");
        Buf blob = {0};
        moec_error e;
        Ask q = {.m = m, .blob = &blob};
        bool ok = soft(ask_token, &q, &e);
        buf_free(&blob);
        if (!ok && e.status == MOEC_NO_MEMORY)
                err_rethrow(&e);
        if (!ok)
                problem(f, a, arena_fmt(a, "no text in or out: %s", e.msg));
}

static void gather(Facts *f, Arena *a)
{
        const Model *m = f->m;
        for (u32 i = 0; i < gguf_n_parts(m->gguf); i++)
                f->file_bytes += gguf_part(m->gguf, i)->map.size;
        f->compiles = m->graph != NULL;
        f->mem = model_memory(m, f->n_ctx, INSPECT_TOK);
        if (!f->compiles)
                problem(f, a, m->why.msg);
        gather_tensors(f, a);
        gather_experts(f, a);
        gather_types(f, a);
        gather_tokenizer(f, a);
}

static void inspect_in(const Model *m, bool json, u64 n_ctx, Buf *out, Arena *a)
{
        u64 own = m->info.n_ctx_train;
        Facts f = {.m = m, .bos = -1, .eos = -1, .n_ctx = n_ctx ? n_ctx : own ? MIN(own, 4096) : 4096};
        gather(&f, a);
        (json ? inspect_json : inspect_text)(&f, out);
}

void inspect(const Model *m, bool json, u64 n_ctx, Buf *out)
{
        Arena *a = arena_new();
        Trap t;
        if (TRAP(&t) == 0) {
                inspect_in(m, json, n_ctx, out, a);
                trap_pop(&t);
                arena_free(a);
                return;
        }
        arena_free(a);
        err_rethrow(&t.error);
}

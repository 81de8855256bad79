#include "frontend/inspect_part.h"
#include <inttypes.h>
#include <string.h>

#define MAX_TEXT 4096 /* longer strings are given by their length */

/* An object or array that is being written: the comma before every member but the first, its key, two spaces
 * a level. */
typedef struct Json {
        Buf *out;
        int depth;
        bool first;
} Json;

static void member(Json *j, const char *key)
{
        buf_str(j->out, j->first ? "\n" : ",\n");
        for (int i = 0; i < j->depth; i++)
                buf_str(j->out, "  ");
        if (key) {
                buf_json(j->out, key, strlen(key));
                buf_str(j->out, ": ");
        }
        j->first = false;
}

static void open_in(Json *j, const char *key, char bracket)
{
        if (j->depth)
                member(j, key);
        buf_char(j->out, bracket);
        j->depth++;
        j->first = true;
}

static void close_in(Json *j, char bracket)
{
        j->depth--;
        if (!j->first) {
                buf_char(j->out, '\n');
                for (int i = 0; i < j->depth; i++)
                        buf_str(j->out, "  ");
        }
        buf_char(j->out, bracket);
        j->first = false;
}

static void put_u64(Json *j, const char *key, u64 v)
{
        member(j, key);
        buf_fmt(j->out, "%" PRIu64, v);
}

static void put_bool(Json *j, const char *key, bool v)
{
        member(j, key);
        buf_str(j->out, v ? "true" : "false");
}

static void put_str(Json *j, const char *key, const char *v)
{
        member(j, key);
        if (v)
                buf_json(j->out, v, strlen(v));
        else
                buf_str(j->out, "null");
}

static void put_id(Json *j, const char *key, i64 id)
{
        member(j, key);
        if (id >= 0)
                buf_fmt(j->out, "%" PRId64, id);
        else
                buf_str(j->out, "null");
}

static void put_key(Json *j, const char *name, const GgufKey *k)
{
        member(j, name);
        if (k->type == GGUF_array)
                buf_fmt(j->out, "{\"array_of\": \"%s\", \"length\": %" PRIu64 "}", gguf_type_name(k->elem),
                        k->n);
        else if (k->type == GGUF_string && k->n > MAX_TEXT)
                buf_fmt(j->out, "{\"string_of\": %" PRIu64 "}", k->n);
        else if (k->type == GGUF_string)
                buf_json(j->out, (const char *)k->data, k->n);
        else {
                size_t at = j->out->len;
                inspect_scalar(k, j->out);
                if (strpbrk(j->out->p + at, "naif") && k->type != GGUF_bool) { /* JSON has no nan and inf */
                        j->out->len = at;
                        buf_str(j->out, "null");
                }
        }
}

static void put_keys(Json *j, const Model *m, bool hyper)
{
        open_in(j, hyper ? "hyperparameters" : "metadata", '{');
        for (u32 i = 0; i < gguf_n_keys(m->gguf); i++) {
                const GgufKey *k = gguf_key_at(m->gguf, i);
                const char *name = inspect_hyper(m, k);
                if ((name != NULL) == hyper)
                        put_key(j, name ? name : k->name, k);
        }
        close_in(j, '}');
}

static void put_words(Json *j, const char *key, const char *list)
{
        open_in(j, key, '[');
        while (*list) {
                size_t n = strcspn(list, ",");
                member(j, NULL);
                buf_json(j->out, list, n);
                list += n + strspn(list + n, ", ");
        }
        close_in(j, ']');
}

static void put_groups(Json *j, const Facts *f, const char *key, const Group *g, u32 n, bool types)
{
        open_in(j, key, '[');
        for (u32 i = 0; i < n; i++) {
                open_in(j, NULL, '{');
                put_str(j, "name", g[i].name);
                put_u64(j, "tensors", g[i].tensors);
                put_u64(j, "parameters", g[i].params);
                put_u64(j, "bytes", g[i].bytes);
                if (f->compiles)
                        put_u64(j, "bytes_per_token", g[i].read);
                if (types)
                        put_words(j, "types", g[i].types);
                close_in(j, '}');
        }
        close_in(j, ']');
}

static void put_experts(Json *j, const Facts *f)
{
        if (!f->expert_params) {
                put_str(j, "experts", NULL);
                return;
        }
        open_in(j, "experts", '{');
        put_u64(j, "in_layer", f->m->info.n_expert);
        put_u64(j, "used", f->m->info.n_expert_used);
        put_u64(j, "parameters", f->expert_params);
        put_u64(j, "bytes_min", f->expert_min);
        put_u64(j, "bytes_max", f->expert_max);
        close_in(j, '}');
}

static void put_memory(Json *j, const Facts *f)
{
        open_in(j, "memory", '{');
        put_u64(j, "n_ctx", f->n_ctx);
        put_u64(j, "weights", f->mem.weights);
        if (f->compiles) {
                put_u64(j, "kv", f->mem.kv);
                if (f->mem.kv_q8_0)
                        put_u64(j, "kv_q8_0", f->mem.kv_q8_0);
                put_u64(j, "scratch_estimate", f->mem.scratch);
                put_u64(j, "scratch_tokens", INSPECT_TOK);
                put_u64(j, "total", f->mem.total);
        }
        close_in(j, '}');
}

static void put_tokenizer(Json *j, const Facts *f)
{
        if (!f->m->info.has_tokenizer) {
                put_str(j, "tokenizer", NULL);
                return;
        }
        open_in(j, "tokenizer", '{');
        put_str(j, "model", f->token_model);
        put_str(j, "pre", f->token_pre);
        put_u64(j, "tokens", f->n_token);
        put_u64(j, "merges", f->n_merge);
        put_id(j, "bos", f->bos);
        put_id(j, "eos", f->eos);
        close_in(j, '}');
}

static void put_tensors(Json *j, const Model *m)
{
        open_in(j, "tensors", '[');
        for (u32 i = 0; i < gguf_n_tensors(m->gguf); i++) {
                const GgufTensor *t = gguf_tensor_at(m->gguf, i);
                member(j, NULL);
                buf_str(j->out, "{\"name\": ");
                buf_json(j->out, t->name, strlen(t->name));
                buf_fmt(j->out, ", \"type\": \"%s\", \"shape\": [", gguf_tensor_type(t->id));
                for (u32 d = 0; d < t->n_dim; d++)
                        buf_fmt(j->out, "%s%" PRIu64, d ? ", " : "", t->dim[d]);
                buf_fmt(j->out, "], \"bytes\": %" PRIu64 ", \"role\": ", t->bytes);
                const char *role = model_role(m, t->name);
                buf_json(j->out, role, strlen(role));
                buf_char(j->out, '}');
        }
        close_in(j, ']');
}

void inspect_json(const Facts *f, Buf *out)
{
        const Model *m = f->m;
        Json j = {.out = out, .first = true};
        open_in(&j, NULL, '{');
        put_str(&j, "file", m->path);
        put_u64(&j, "gguf_version", gguf_part(m->gguf, 0)->version);
        put_u64(&j, "parts", gguf_n_parts(m->gguf));
        put_u64(&j, "file_bytes", f->file_bytes);
        put_bool(&j, "shape_file", m->info.is_shape);
        put_str(&j, "name", m->name);
        put_str(&j, "architecture", m->arch);
        put_str(&j, "about", m->type ? m->type->about : NULL);
        put_bool(&j, "supported", f->compiles);
        open_in(&j, "problems", '[');
        for (u32 i = 0; i < f->n_problem; i++)
                put_str(&j, NULL, f->problem[i]);
        close_in(&j, ']');
        put_u64(&j, "parameters", m->info.n_params);
        put_u64(&j, "weight_bytes", m->info.weight_bytes);
        if (f->compiles) {
                put_u64(&j, "parameters_per_token", m->info.token_params);
                put_u64(&j, "bytes_per_token", m->info.token_bytes);
        }
        put_groups(&j, f, "roles", f->role, f->n_role, true);
        put_groups(&j, f, "types", f->type, f->n_type, false);
        put_experts(&j, f);
        put_memory(&j, f);
        put_tokenizer(&j, f);
        put_keys(&j, m, true);
        put_keys(&j, m, false);
        put_tensors(&j, m);
        close_in(&j, '}');
        buf_char(out, '\n');
}

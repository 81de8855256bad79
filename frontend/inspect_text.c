#include "frontend/inspect_part.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LABEL    14
#define MAX_SHOW 200 /* bytes of a string */
enum { NUM = 32 };

/* ---- numbers for people ---- */

/* 4,096 */
static const char *commas(u64 v, char out[NUM])
{
        char digits[24];
        int n = snprintf(digits, sizeof digits, "%" PRIu64, v), at = 0;
        for (int i = 0; i < n; i++) {
                if (i && (n - i) % 3 == 0)
                        out[at++] = ',';
                out[at++] = digits[i];
        }
        out[at] = 0;
        return out;
}

/* Three digits and a unit; below the first unit as it is. */
static const char *scaled(u64 v, double step, const char *const unit[], const char *none, char out[NUM])
{
        double x = (double)v;
        int u = -1;
        while (x >= 999.5 && unit[u + 1]) {
                x /= step;
                u++;
        }
        if (u < 0)
                snprintf(out, NUM, "%" PRIu64 "%s", v, none);
        else
                snprintf(out, NUM, "%.*f %s", x < 9.995 ? 2 : x < 99.95 ? 1 : 0, x, unit[u]);
        return out;
}

static const char *size_str(u64 bytes, char out[NUM])
{
        static const char *const unit[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", NULL};
        return scaled(bytes, 1024, unit, " B", out);
}

static const char *count_str(u64 n, char out[NUM])
{
        static const char *const unit[] = {"K", "M", "B", "T", "Q", NULL};
        return scaled(n, 1000, unit, "", out);
}

/* ---- text of the file ---- */

/* The code point at s; 0 length: no UTF-8. */
static size_t decode(const u8 *s, size_t n, u32 *c)
{
        for (size_t len = 1; len <= 4 && len <= n; len++)
                if (utf8_valid((const char *)s, len)) {
                        static const u8 mask[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
                        *c = s[0] & mask[len];
                        for (size_t i = 1; i < len; i++)
                                *c = *c << 6 | (s[i] & 0x3f);
                        return len;
                }
        return 0;
}

/* What could drive a terminal or turn the line around: controls, line separators, direction marks. */
static bool harmless(u32 c)
{
        return c >= 0x20 && !(c >= 0x7f && c < 0xa0) && c != 0x061c && c != 0xfeff &&
               !(c >= 0x200e && c <= 0x200f) && !(c >= 0x2028 && c <= 0x202e) &&
               !(c >= 0x2066 && c <= 0x2069);
}

static void clean(Buf *out, const char *s, size_t n)
{
        for (size_t i = 0, len; i < n; i += len) {
                u32 c = 0;
                if (i >= MAX_SHOW) {
                        buf_str(out, "...");
                        return;
                }
                len = decode((const u8 *)s + i, n - i, &c);
                if (len && harmless(c))
                        buf_add(out, s + i, len);
                else if (len)
                        buf_fmt(out, "\\u{%x}", c);
                else
                        buf_fmt(out, "\\x%02x", (u8)s[i]);
                len = MAX(len, 1);
        }
}

static void clean_str(Buf *out, const char *s)
{
        clean(out, s, strlen(s));
}

/* ---- the parts ---- */

static void label(Buf *out, const char *name)
{
        buf_fmt(out, "%-*s", LABEL, name);
}

static void put_head(const Facts *f, Buf *out)
{
        const Model *m = f->m;
        char a[NUM], b[NUM];
        label(out, "model");
        clean_str(out, *m->name ? m->name : "(no name)");
        buf_char(out, '\n');
        label(out, "file");
        clean_str(out, m->path);
        buf_fmt(out, ": GGUF version %u, %s", gguf_part(m->gguf, 0)->version, size_str(f->file_bytes, a));
        if (gguf_n_parts(m->gguf) > 1)
                buf_fmt(out, " in %u files", gguf_n_parts(m->gguf));
        buf_str(out, m->info.is_shape ? ", a shape file: no weights\n" : "\n");
        label(out, "architecture");
        buf_str(out, m->arch ? m->arch : "(not named)");
        if (m->type) {
                buf_str(out, ": ");
                clean_str(out, m->type->about);
        }
        buf_char(out, '\n');
        label(out, "parameters");
        buf_str(out, count_str(m->info.n_params, a));
        if (f->compiles)
                buf_fmt(out, ", of which a token uses %s", count_str(m->info.token_params, b));
        buf_char(out, '\n');
        label(out, "weights");
        buf_str(out, size_str(m->info.weight_bytes, a));
        if (m->info.n_params)
                buf_fmt(out, ", %.2f bits a parameter",
                        8 * (double)m->info.weight_bytes / (double)m->info.n_params);
        if (f->compiles)
                buf_fmt(out, ", of which a token reads %s", size_str(m->info.token_bytes, b));
        buf_char(out, '\n');
        label(out, "supported");
        buf_str(out, f->compiles ? "yes\n" : "no\n");
        for (u32 i = 0; i < f->n_problem; i++) {
                label(out, i ? "" : f->compiles ? "  but" : "  because");
                const char *p = f->problem[i];
                for (size_t n = strlen(p), part; n; p += part, n -= part) { /* reasons are not shortened */
                        part = MIN(n, MAX_SHOW);
                        while (part < n && part > 1 && ((u8)p[part] & 0xc0) == 0x80)
                                part--;
                        clean(out, p, part);
                }
                buf_char(out, '\n');
        }
}

static void put_hyper(const Facts *f, Buf *out)
{
        int wide = 0;
        const Gguf *g = f->m->gguf;
        for (u32 i = 0; i < gguf_n_keys(g); i++) {
                const char *name = inspect_hyper(f->m, gguf_key_at(g, i));
                wide = MAX(wide, name ? (int)MIN(strlen(name), 48) : 0);
        }
        if (wide)
                buf_str(out, "\nhyperparameters\n");
        for (u32 i = 0; i < gguf_n_keys(g); i++) {
                const GgufKey *k = gguf_key_at(g, i);
                const char *name = inspect_hyper(f->m, k);
                if (!name)
                        continue;
                buf_fmt(out, "  %-*.200s  ", wide, name);
                if (k->type == GGUF_string)
                        clean(out, (const char *)k->data, k->n);
                else if (k->type == GGUF_array)
                        buf_fmt(out, "%" PRIu64 " x %s", k->n, gguf_type_name(k->elem));
                else
                        inspect_scalar(k, out);
                buf_char(out, '\n');
        }
}

static void put_row(const Facts *f, Buf *out, int wide, const Group *g)
{
        char a[NUM], b[NUM], c[NUM];
        Buf name = {0};
        clean_str(&name, g->name);
        buf_fmt(out, "  %-*s  %7u  %10s  %10s", wide, name.p, g->tensors, count_str(g->params, a),
                size_str(g->bytes, b));
        if (f->compiles)
                buf_fmt(out, "  %13s", size_str(g->read, c));
        if (*g->types)
                buf_fmt(out, "  %s", g->types);
        buf_char(out, '\n');
        buf_free(&name);
}

static void put_groups(const Facts *f, Buf *out, const char *title, const Group *g, u32 n, bool types)
{
        int wide = (int)strlen(title);
        Group all = {.name = "all", .types = ""};
        for (u32 i = 0; i < f->n_role; i++)
                wide = MAX(wide, (int)MIN(strlen(f->role[i].name), 40));
        if (!n)
                return;
        buf_fmt(out, "\n%-*s  %7s  %10s  %10s", wide + 2, title, "tensors", "parameters", "bytes");
        if (f->compiles)
                buf_fmt(out, "  %13s", "a token reads");
        buf_str(out, types ? "  types\n" : "\n");
        for (u32 i = 0; i < n; i++) {
                put_row(f, out, wide, &g[i]);
                all.tensors += g[i].tensors;
                all.params += g[i].params;
                all.bytes += g[i].bytes;
                all.read += g[i].read;
        }
        if (n > 1)
                put_row(f, out, wide, &all);
}

static void put_experts(const Facts *f, Buf *out)
{
        char a[NUM], b[NUM];
        const ModelInfo *i = &f->m->info;
        if (!f->expert_params)
                return;
        buf_fmt(out, "\nexperts\n  %-*s%" PRIu64 ", of which a token uses %" PRIu64 "\n", LABEL, "in a layer",
                i->n_expert, i->n_expert_used);
        buf_fmt(out, "  %-*s%s parameters, %s", LABEL, "one", count_str(f->expert_params, a),
                size_str(f->expert_min, b));
        if (f->expert_max != f->expert_min)
                buf_fmt(out, " to %s", size_str(f->expert_max, a));
        buf_char(out, '\n');
}

static void put_memory(const Facts *f, Buf *out)
{
        char a[NUM];
        buf_fmt(out, "\nmemory at context %s\n", commas(f->n_ctx, a));
        buf_fmt(out, "  %-*s%10s\n", LABEL, "weights", size_str(f->mem.weights, a));
        if (!f->compiles)
                return;
        buf_fmt(out, "  %-*s%10s  f16, %s a position", LABEL, "KV cache", size_str(f->mem.kv, a),
                size_str(f->mem.kv / f->n_ctx, (char[NUM]){0}));
        if (f->mem.kv_q8_0)
                buf_fmt(out, "; q8_0: %s", size_str(f->mem.kv_q8_0, a));
        buf_char(out, '\n');
        buf_fmt(out, "  %-*s%10s  estimate, for %d tokens a step\n", LABEL, "scratch",
                size_str(f->mem.scratch, a), INSPECT_TOK);
        buf_fmt(out, "  %-*s%10s\n", LABEL, "total", size_str(f->mem.total, a));
}

static void put_id(Buf *out, const char *name, i64 id)
{
        if (id >= 0)
                buf_fmt(out, ", %s %" PRId64, name, id);
}

static void put_tokenizer(const Facts *f, Buf *out)
{
        char a[NUM];
        buf_str(out, "\ntokenizer\n  ");
        if (!f->m->info.has_tokenizer) {
                buf_str(out, "none: only token ids in and out\n");
                return;
        }
        clean_str(out, f->token_model ? f->token_model : "?");
        if (f->token_pre) {
                buf_str(out, ", pre-tokenizer ");
                clean_str(out, f->token_pre);
        }
        buf_fmt(out, ", %s tokens", commas(f->n_token, a));
        buf_fmt(out, ", %s merges", commas(f->n_merge, a));
        put_id(out, "BOS", f->bos);
        put_id(out, "EOS", f->eos);
        buf_char(out, '\n');
}

void inspect_text(const Facts *f, Buf *out)
{
        put_head(f, out);
        put_hyper(f, out);
        put_groups(f, out, "tensors by role", f->role, f->n_role, true);
        put_groups(f, out, "tensors by type", f->type, f->n_type, false);
        put_experts(f, out);
        put_memory(f, out);
        put_tokenizer(f, out);
}

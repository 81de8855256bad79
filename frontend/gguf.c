#include "frontend/gguf.h"
#include "frontend/gguf_part.h"
#include <float.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct Gguf {
        Arena *a;
        GgufPart **part;
        u32 n_part, cap_part, n_tensor;
        u64 meta_left;
        const GgufTensor **tensor;  /* of all parts, in file order */
        const GgufTensor **by_name; /* the same, sorted */
};

/* ---- opening ---- */

Gguf *gguf_new(Arena *a)
{
        Gguf *g = NEW(a, Gguf);
        g->a = a;
        g->meta_left = GGUF_MAX_META;
        return g;
}

void gguf_close(Gguf *g)
{
        for (u32 i = 0; i < g->n_part; i++)
                map_close(&g->part[i]->map);
        g->n_part = 0;
}

void gguf_add(Gguf *g, const char *path, Map map)
{
        GROW(g->a, g->part, g->n_part, g->cap_part);
        GgufPart *p = NEW(g->a, GgufPart);
        p->path = arena_str(g->a, path);
        p->map = map;
        g->part[g->n_part++] = p; /* first of all, so that gguf_close finds the map */
        part_read(g->a, p, g->n_part - 1, g->meta_left);
        g->meta_left -= p->meta_bytes;
}

static void open_part(Gguf *g, const char *path)
{
        Map map;
        moec_error e;
        if (map_open(path, &map, &e) != MOEC_OK)
                err_rethrow(&e);
        gguf_add(g, path, map);
}

/* How many parts the first one says there are; the others' names are made from the path, never from the file.
 */
static u32 split_count(const GgufPart *first)
{
        u64 n = 1, no = 0;
        part_u64(first, "split.count", 0, GGUF_MAX_PARTS, &n);
        if (n <= 1) /* 0: merged again */
                return 1;
        if (part_u64(first, "split.no", 0, n - 1, &no) && no > 0)
                err(MOEC_USAGE,
                        "%s is part %" PRIu64 " of %" PRIu64
                        "; give the path of the first part (-00001-of-%05u.gguf)",
                        first->path, no + 1, n, (u32)n);
        return (u32)n;
}

static void open_others(Gguf *g, u32 n)
{
        const char *path = g->part[0]->path;
        char end[32];
        int len = snprintf(end, sizeof end, "-00001-of-%05u.gguf", n);
        size_t stem = strlen(path);
        if (stem < (size_t)len || strcmp(path + stem - (size_t)len, end) != 0)
                err(MOEC_NOT_FOUND,
                        "%s is the first of %u parts, but its name does not end in %s, so the others cannot "
                        "be found",
                        path, n, end);
        stem -= (size_t)len;
        for (u32 i = 1; i < n; i++) {
                char *name = arena_fmt(g->a, "%.*s-%05u-of-%05u.gguf", (int)stem, path, i + 1, n);
                open_part(g, name);
        }
}

static void check_split(const Gguf *g)
{
        for (u32 i = 0; i < g->n_part; i++) {
                const GgufPart *p = g->part[i];
                u64 v;
                if (!part_u64(p, "split.no", i, i, &v) ||
                        !part_u64(p, "split.count", g->n_part, g->n_part, &v))
                        err(MOEC_DAMAGED,
                                "%s: byte 24: keys split.no and split.count are missing in part %u of %u",
                                p->path, i + 1, g->n_part);
                if (part_key(p, "split.tensors.count"))
                        part_u64(p, "split.tensors.count", g->n_tensor, g->n_tensor, &v);
                else if (i == 0)
                        err(MOEC_DAMAGED, "%s: byte 24: key split.tensors.count is missing", p->path);
        }
}

static int by_tensor_name(const void *a, const void *b)
{
        const GgufTensor *s = *(const GgufTensor *const *)a, *t = *(const GgufTensor *const *)b;
        int order = strcmp(s->name, t->name);
        if (order)
                return order;
        return s->part != t->part ? (s->part > t->part) - (s->part < t->part)
                                  : (s->at > t->at) - (s->at < t->at);
}

static void index_tensors(Gguf *g)
{
        g->n_tensor = 0;
        for (u32 i = 0; i < g->n_part; i++)
                g->n_tensor += g->part[i]->n_tensor;
        g->tensor = NEWN(g->a, const GgufTensor *, g->n_tensor);
        u32 n = 0;
        for (u32 i = 0; i < g->n_part; i++)
                for (u32 j = 0; j < g->part[i]->n_tensor; j++)
                        g->tensor[n++] = &g->part[i]->tensor[j];
        g->by_name = arena_copy(g->a, g->tensor, n * sizeof *g->tensor);
        if (n)
                qsort(g->by_name, n, sizeof *g->by_name, by_tensor_name);
        for (u32 i = 1; i < n; i++) {
                const GgufTensor *s = g->by_name[i - 1], *t = g->by_name[i];
                if (strcmp(s->name, t->name) == 0)
                        err(MOEC_DAMAGED,
                                "%s: byte %" PRIu64 ": tensor %s is defined twice; before at byte %" PRIu64
                                " of %s",
                                g->part[t->part]->path, t->at, t->name, s->at, g->part[s->part]->path);
        }
}

/* Either every part that has tensors has their data, or none has. */
static void check_shape(const Gguf *g)
{
        const GgufPart *with = NULL;
        for (u32 i = 0; i < g->n_part; i++) {
                const GgufPart *p = g->part[i];
                if (!p->n_tensor)
                        continue;
                if (with && with->is_shape != p->is_shape) {
                        const GgufPart *cut = p->is_shape ? p : with;
                        err(MOEC_DAMAGED,
                                "%s: byte %" PRIu64 ": the tensor data is missing; other parts have theirs",
                                cut->path, cut->data_start);
                }
                with = p;
        }
}

void gguf_finish(Gguf *g)
{
        index_tensors(g);
        if (g->n_part > 1)
                check_split(g);
        check_shape(g);
}

void gguf_read(Gguf *g, const char *path)
{
        open_part(g, path);
        u32 n = split_count(g->part[0]);
        if (n > 1)
                open_others(g, n);
        gguf_finish(g);
}

/* ---- the file ---- */

const char *gguf_path(const Gguf *g)
{
        return g->part[0]->path;
}

u32 gguf_n_parts(const Gguf *g)
{
        return g->n_part;
}

const GgufPart *gguf_part(const Gguf *g, u32 i)
{
        return g->part[i];
}

bool gguf_is_shape(const Gguf *g)
{
        for (u32 i = 0; i < g->n_part; i++)
                if (g->part[i]->is_shape)
                        return true;
        return false;
}

Hash gguf_hash(const Gguf *g)
{
        Hash h = hash_bytes(g->part[0]->map.p, g->part[0]->meta_bytes);
        for (u32 i = 1; i < g->n_part; i++)
                h = hash_mix(h, g->part[i]->map.p, g->part[i]->meta_bytes);
        return h;
}

/* ---- keys ---- */

u32 gguf_n_keys(const Gguf *g)
{
        return g->part[0]->n_key;
}

const GgufKey *gguf_key_at(const Gguf *g, u32 i)
{
        return &g->part[0]->key[i];
}

const GgufKey *gguf_key(const Gguf *g, const char *name)
{
        return part_key(g->part[0], name);
}

bool gguf_u64(const Gguf *g, const char *name, u64 min, u64 max, u64 *out)
{
        return part_u64(g->part[0], name, min, max, out);
}

static bool float_of(GgufType t, u64 bits, double *out)
{
        if (t == GGUF_f64) {
                memcpy(out, &bits, sizeof *out);
                return true;
        }
        if (t != GGUF_f32)
                return false;
        float f;
        memcpy(&f, &(u32){(u32)bits}, sizeof f);
        *out = f;
        return true;
}

static bool float_in(double v, double min, double max)
{
        return v >= MAX(min, -FLT_MAX) && v <= MIN(max, FLT_MAX); /* NaN is not */
}

bool gguf_f32(const Gguf *g, const char *name, double min, double max, float *out)
{
        const GgufPart *p = g->part[0];
        const GgufKey *k = part_key(p, name);
        if (!k)
                return false;
        double v;
        if (!float_of(k->type, k->bits, &v))
                part_bad_key(p, k, "is of type %s; expected a float", gguf_type_name(k->type));
        if (!float_in(v, min, max))
                part_bad_key(p, k, "is %g; expected %g to %g", v, min, max);
        *out = (float)v;
        return true;
}

bool gguf_bool(const Gguf *g, const char *name, bool *out)
{
        const GgufPart *p = g->part[0];
        const GgufKey *k = part_key(p, name);
        if (!k)
                return false;
        if (k->type != GGUF_bool)
                part_bad_key(p, k, "is of type %s; expected a bool", gguf_type_name(k->type));
        *out = k->bits != 0;
        return true;
}

bool gguf_str(const Gguf *g, const char *name, GgufStr *out)
{
        const GgufPart *p = g->part[0];
        const GgufKey *k = part_key(p, name);
        if (!k)
                return false;
        if (k->type != GGUF_string)
                part_bad_key(p, k, "is of type %s; expected a string", gguf_type_name(k->type));
        if (memchr(k->data, 0, k->n) || !utf8_valid((const char *)k->data, k->n))
                part_bad_key(p, k, "is not text: it has a NUL or is not UTF-8");
        *out = (GgufStr){(const char *)k->data, k->n};
        return true;
}

/* ---- arrays ---- */

static bool kind_matches(GgufKind kind, GgufType t)
{
        u64 v;
        double d;
        bool negative;
        switch (kind) {
        case GGUF_INTS:
                return part_int(t, 0, &v, &negative);
        case GGUF_FLOATS:
                return float_of(t, 0, &d);
        case GGUF_BOOLS:
                return t == GGUF_bool;
        case GGUF_STRINGS:
                return t == GGUF_string;
        }
        return false;
}

const GgufKey *gguf_arr(const Gguf *g, const char *name, GgufKind kind, u64 min_n, u64 max_n)
{
        static const char *const kinds[] = {"integers", "floats", "bools", "strings"};
        const GgufPart *p = g->part[0];
        const GgufKey *k = part_key(p, name);
        if (!k)
                return NULL;
        if (k->type != GGUF_array)
                part_bad_key(
                        p, k, "is of type %s; expected an array of %s", gguf_type_name(k->type), kinds[kind]);
        if (!kind_matches(kind, k->elem))
                part_bad_key(p, k, "is an array of %s; expected %s", gguf_type_name(k->elem), kinds[kind]);
        if (k->n < min_n || k->n > max_n)
                part_bad_key(p, k, "has %" PRIu64 " elements; expected %" PRIu64 " to %" PRIu64, k->n, min_n,
                        max_n);
        return k;
}

static u64 elem_bits(const GgufKey *arr, u64 i)
{
        u32 size = part_type_bytes(arr->elem);
        if (i >= arr->n || !size)
                die("element %" PRIu64 " of key %s", i, arr->name);
        return part_bits(arr->elem, arr->data + i * size);
}

u64 gguf_elem_u64(const Gguf *g, const GgufKey *arr, u64 i, u64 min, u64 max)
{
        u64 v;
        bool negative;
        if (!part_int(arr->elem, elem_bits(arr, i), &v, &negative))
                die("key %s has no integers", arr->name);
        if (negative || v < min || v > max)
                part_bad_key(g->part[0], arr,
                        "element %" PRIu64 " is %s%" PRIu64 "; expected %" PRIu64 " to %" PRIu64, i,
                        negative ? "-" : "", v, min, max);
        return v;
}

float gguf_elem_f32(const Gguf *g, const GgufKey *arr, u64 i, double min, double max)
{
        double v;
        if (!float_of(arr->elem, elem_bits(arr, i), &v))
                die("key %s has no floats", arr->name);
        if (!float_in(v, min, max))
                part_bad_key(g->part[0], arr, "element %" PRIu64 " is %g; expected %g to %g", i, v, min, max);
        return (float)v;
}

bool gguf_elem_bool(const GgufKey *arr, u64 i)
{
        return elem_bits(arr, i) != 0;
}

GgufStr gguf_elem_str(const GgufKey *arr, u64 i)
{
        if (i >= arr->n || !arr->off)
                die("string %" PRIu64 " of key %s", i, arr->name);
        u32 from = arr->off[i] + 8; /* behind its length, which was checked and is not read again */
        return (GgufStr){(const char *)arr->data + from, arr->off[i + 1] - from};
}

/* ---- tensors ---- */

u32 gguf_n_tensors(const Gguf *g)
{
        return g->n_tensor;
}

const GgufTensor *gguf_tensor_at(const Gguf *g, u32 i)
{
        return g->tensor[i];
}

static int name_and_tensor(const void *name, const void *tensor)
{
        return strcmp(name, (*(const GgufTensor *const *)tensor)->name);
}

const GgufTensor *gguf_tensor(const Gguf *g, const char *name)
{
        const GgufTensor *const *t =
                g->n_tensor ? bsearch(name, g->by_name, g->n_tensor, sizeof *g->by_name, name_and_tensor)
                            : NULL;
        return t ? *t : NULL;
}

Wtype gguf_wtype(const Gguf *g, const GgufTensor *t)
{
        if (t->usable)
                return t->type;
        Buf ours = {0};
        for (u32 i = 0; i < N_WTYPE; i++)
                buf_fmt(&ours, " %s", wtype_info[i].name);
        moec_error e;
        fail(&e, MOEC_UNSUPPORTED,
                "%s: byte %" PRIu64 ": tensor %s is of type %s (%u), which is not supported; supported are%s",
                g->part[t->part]->path, t->at, t->name, gguf_tensor_type(t->id), t->id, ours.p);
        buf_free(&ours);
        err_rethrow(&e);
}

const u8 *gguf_data(const Gguf *g, const GgufTensor *t)
{
        gguf_wtype(g, t);
        const GgufPart *p = g->part[t->part];
        return p->is_shape ? NULL : p->map.p + t->offset;
}

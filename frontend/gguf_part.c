/* One GGUF file: header, keys, tensor table, and whether the data they promise is there. The format:
 * github.com/ggml-org/ggml/blob/master/docs/gguf.md. */
#include "frontend/gguf_part.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The header (magic, version, two counts) and the smallest records: a key's name of 1 character, its type, a
 * u8; a tensor's name of 1 character, n_dims, 1 dimension, type, offset. */
enum { HEADER_BYTES = 4 + 4 + 8 + 8, KEY_BYTES = 8 + 1 + 4 + 1, TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8 };

static const struct {
        const char *name;
        u32 bytes;
} type_info[GGUF_N_TYPE] = {
#define T(name, bytes) [GGUF_##name] = {#name, bytes},
        GGUF_TYPES(T)
#undef T
};

/* Tensor types that ggml defines and this compiler does not run, to name them and to check their extent:
 * values and bytes of a block, 0 for what no file holds any more. */
typedef struct Other {
        const char *name;
        u32 id, per, bytes;
} Other;
static const Other other_info[] = {
        {"Q4_2", 4, 0, 0},
        {"Q4_3", 5, 0, 0},
        {"Q8_1", 9, 0, 0},
        {"Q8_K", 15, 256, 292},
        {"IQ2_XXS", 16, 256, 66},
        {"IQ2_XS", 17, 256, 74},
        {"IQ3_XXS", 18, 256, 98},
        {"IQ1_S", 19, 256, 50},
        {"IQ3_S", 21, 256, 110},
        {"IQ2_S", 22, 256, 82},
        {"I8", 24, 1, 1},
        {"I16", 25, 1, 2},
        {"I32", 26, 1, 4},
        {"I64", 27, 1, 8},
        {"F64", 28, 1, 8},
        {"IQ1_M", 29, 256, 56},
        {"Q4_0_4_4", 31, 0, 0},
        {"Q4_0_4_8", 32, 0, 0},
        {"Q4_0_8_8", 33, 0, 0},
        {"TQ1_0", 34, 256, 54},
        {"TQ2_0", 35, 256, 66},
        {"IQ4_NL_4_4", 36, 0, 0},
        {"IQ4_NL_4_8", 37, 0, 0},
        {"IQ4_NL_8_8", 38, 0, 0},
        {"NVFP4", 40, 64, 36},
        {"Q1_0", 41, 128, 18},
};

static const Other *other_type(u32 id)
{
        for (size_t i = 0; i < COUNT(other_info); i++)
                if (other_info[i].id == id)
                        return &other_info[i];
        return NULL;
}

const char *gguf_tensor_type(u32 id)
{
        Wtype t;
        if (wtype_by_id(id, &t))
                return wtype_info[t].name;
        const Other *o = other_type(id);
        return o ? o->name : "unknown";
}

u32 part_type_bytes(GgufType t)
{
        return type_info[t].bytes;
}

const char *gguf_type_name(GgufType t)
{
        return (u32)t < GGUF_N_TYPE ? type_info[t].name : "unknown";
}

/* ---- a position in the file ---- */

typedef struct Cursor {
        Arena *a;
        GgufPart *part;
        u64 pos, end;     /* end: of the file, or of what metadata may take */
        const char *what; /* being read: "key " or "tensor " */
        const char *name; /* its name, before that is known its number */
        char number[16];
} Cursor;

/* Formats fmt's arguments into text[512]. */
#define FORMAT_TEXT(text, fmt)                                                                               \
        char text[512];                                                                                      \
        va_list ap;                                                                                          \
        va_start(ap, fmt);                                                                                   \
        vsnprintf(text, sizeof text, fmt, ap);                                                               \
        va_end(ap)

static noreturn void refuse(const GgufPart *p, u64 at, const char *what, const char *name, const char *text)
{
        err(MOEC_DAMAGED, "%s: byte %" PRIu64 ": %s%.128s%s%s", p->path, at, what, name, *name ? " " : "",
                text);
}

static noreturn void bad(const Cursor *c, u64 at, const char *fmt, ...) PRINTF(3, 4);
static noreturn void bad(const Cursor *c, u64 at, const char *fmt, ...)
{
        FORMAT_TEXT(text, fmt);
        refuse(c->part, at, c->what, c->name, text);
}

noreturn void part_bad_key(const GgufPart *p, const GgufKey *k, const char *fmt, ...)
{
        FORMAT_TEXT(text, fmt);
        refuse(p, k->at, "key ", k->name, text);
}

static noreturn void bad_tensor(const GgufPart *p, const GgufTensor *t, const char *fmt, ...) PRINTF(3, 4);
static noreturn void bad_tensor(const GgufPart *p, const GgufTensor *t, const char *fmt, ...)
{
        FORMAT_TEXT(text, fmt);
        refuse(p, t->at, "tensor ", t->name, text);
}

static u64 left(const Cursor *c)
{
        return c->end - c->pos;
}

static noreturn void too_long(const Cursor *c, u64 at, u64 need, const char *field)
{
        bool limit = c->end < c->part->map.size;
        bad(c, at, "%s takes %" PRIu64 " bytes but only %" PRIu64 " are left %s", field, need, left(c),
                limit ? "of what metadata may take" : "in the file");
}

static const u8 *take(Cursor *c, u64 n, const char *field)
{
        if (n > left(c))
                too_long(c, c->pos, n, field);
        const u8 *p = c->part->map.p + c->pos;
        c->pos += n;
        return p;
}

static void set_name(Cursor *c, const char *what, u32 i)
{
        snprintf(c->number, sizeof c->number, "%u", i);
        c->what = what;
        c->name = c->number;
}

static u32 take_u32(Cursor *c, const char *field)
{
        u32 v;
        memcpy(&v, take(c, sizeof v, field), sizeof v);
        return v;
}

static u64 take_u64(Cursor *c, const char *field)
{
        u64 v;
        memcpy(&v, take(c, sizeof v, field), sizeof v);
        return v;
}

/* The bytes of a string of 1..max characters, all printable ASCII, copied. */
static const char *take_name(Cursor *c, u64 max, char least, const char *field)
{
        u64 at = c->pos, n = take_u64(c, field);
        if (n > left(c))
                too_long(c, at, n, field);
        if (n < 1 || n > max)
                bad(c, at, "%s is %" PRIu64 " bytes long; expected 1 to %" PRIu64, field, n, max);
        const char *s = (const char *)take(c, n, field);
        for (u64 i = 0; i < n; i++)
                if (s[i] < least || s[i] > '~')
                        bad(c, at + 8 + i, "%s has the byte 0x%02x, which is not printable ASCII", field,
                                (u8)s[i]);
        return arena_strn(c->a, s, n);
}

/* ---- header ---- */

static noreturn void not_gguf(const Cursor *c)
{
        const u8 *p = c->part->map.p;
        u64 n = c->part->map.size;
        const char *git = "version https://git-lfs";
        if (n >= strlen(git) && memcmp(p, git, strlen(git)) == 0)
                bad(c, 0, "this is a Git LFS pointer, not the model: fetch it with `git lfs pull`");
        if (n < 4)
                bad(c, 0, "magic takes 4 bytes but the file has %" PRIu64 "; not a GGUF file", n);
        bad(c, 0, "magic is %02x %02x %02x %02x, not 47 47 55 46 (\"GGUF\"); not a GGUF file", p[0], p[1],
                p[2], p[3]);
}

static void read_version(Cursor *c)
{
        GgufPart *p = c->part;
        u32 v = take_u32(c, "version");
        p->version = v;
        if (v == 2 || v == 3)
                return;
        if (v == 0)
                bad(c, 4, "version is 0");
        if ((v & 0xffff) == 0)
                err(MOEC_UNSUPPORTED,
                        "%s: byte 4: version is 0x%08x: a big-endian file; convert it to little-endian",
                        p->path, v);
        err(MOEC_UNSUPPORTED, "%s: byte 4: GGUF version %u is not supported; versions 2 and 3 are", p->path,
                v);
}

/* A count of records, each of at least `least` bytes: bounded before anything is allocated for them. */
static u32 read_count(Cursor *c, const char *field, u64 least, u32 max, u64 room)
{
        u64 at = c->pos, n = take_u64(c, field);
        if (n > room / least)
                bad(c, at, "%s is %" PRIu64 ", more than there is room for (at most %" PRIu64 ")", field, n,
                        room / least);
        if (n > max)
                bad(c, at, "%s is %" PRIu64 ", over the limit of %u", field, n, max);
        return (u32)n;
}

static void read_header(Cursor *c)
{
        GgufPart *p = c->part;
        if (p->map.size < 4 || memcmp(take(c, 4, "magic"), "GGUF", 4) != 0)
                not_gguf(c);
        read_version(c);
        if (c->end < HEADER_BYTES)
                too_long(c, c->pos, HEADER_BYTES - c->pos, "the header");
        u64 room = c->end - HEADER_BYTES;
        p->n_tensor = read_count(c, "tensor_count", TENSOR_BYTES, GGUF_MAX_TENSORS, room);
        p->n_key =
                read_count(c, "kv_count", KEY_BYTES, GGUF_MAX_KEYS, room - (u64)p->n_tensor * TENSOR_BYTES);
}

/* ---- keys ---- */

u64 part_bits(GgufType t, const u8 *p)
{
        u64 v = 0;
        memcpy(&v, p, type_info[t].bytes);
        return v;
}

static GgufType read_type(Cursor *c, const char *field)
{
        u64 at = c->pos;
        u32 t = take_u32(c, field);
        if (t >= GGUF_N_TYPE)
                bad(c, at, "has %s %u; 0 to %d are defined", field, t, GGUF_N_TYPE - 1);
        return (GgufType)t;
}

static u64 string_bytes(Cursor *c)
{
        u64 at = c->pos, n = take_u64(c, "string length");
        if (n > left(c))
                too_long(c, at, n, "string");
        if (n > GGUF_MAX_STRING)
                bad(c, at, "string length is %" PRIu64 ", over the limit of %u", n, GGUF_MAX_STRING);
        return n;
}

static void check_bool(const Cursor *c, u64 v, u64 at)
{
        if (v > 1)
                bad(c, at, "holds %" PRIu64 " as a bool; expected 0 or 1", v);
}

static void read_strings(Cursor *c, GgufKey *k)
{
        u32 *off = NEWN(c->a, u32, k->n + 1);
        u64 base = c->pos;
        for (u64 i = 0; i < k->n; i++) {
                off[i] = (u32)(c->pos - base);
                take(c, string_bytes(c), "string");
        }
        off[k->n] = (u32)(c->pos - base);
        k->off = off;
}

static void read_array(Cursor *c, GgufKey *k)
{
        u64 at = c->pos;
        k->elem = read_type(c, "array element type");
        if (k->elem == GGUF_array)
                bad(c, at, "is an array of arrays, which is not supported");
        u32 size = type_info[k->elem].bytes;
        u64 least = size ? size : 8;
        at = c->pos;
        k->n = take_u64(c, "array length");
        if (k->n > left(c) / least)
                bad(c, at, "array length is %" PRIu64 ", more than there is room for (at most %" PRIu64 ")",
                        k->n, left(c) / least);
        k->data = c->part->map.p + c->pos;
        if (k->elem == GGUF_string) {
                read_strings(c, k);
                return;
        }
        at = c->pos;
        take(c, k->n * size, "array");
        if (k->elem == GGUF_bool)
                for (u64 i = 0; i < k->n; i++)
                        check_bool(c, k->data[i], at + i);
}

static void read_key(Cursor *c, GgufKey *k, u32 i)
{
        set_name(c, "key ", i);
        k->name = take_name(c, GGUF_MAX_KEY, ' ', "name");
        c->name = k->name;
        k->type = read_type(c, "value type");
        k->at = c->pos;
        switch (k->type) {
        case GGUF_array:
                read_array(c, k);
                break;
        case GGUF_string:
                k->n = string_bytes(c);
                k->data = take(c, k->n, "string");
                break;
        default:
                k->bits = part_bits(k->type, take(c, type_info[k->type].bytes, "value"));
                if (k->type == GGUF_bool)
                        check_bool(c, k->bits, k->at);
        }
}

static int by_key_name(const void *a, const void *b, void *keys)
{
        u32 i = *(const u32 *)a, j = *(const u32 *)b;
        int order = strcmp(((const GgufKey *)keys)[i].name, ((const GgufKey *)keys)[j].name);
        return order ? order : (i > j) - (i < j);
}

/* Sorted, not hashed: names come from the file, and no choice of names makes sorting slow. */
static void sort_keys(Cursor *c)
{
        GgufPart *p = c->part;
        p->key_order = NEWN(c->a, u32, p->n_key);
        for (u32 i = 0; i < p->n_key; i++)
                p->key_order[i] = i;
        qsort_r(p->key_order, p->n_key, sizeof *p->key_order, by_key_name, p->key);
        for (u32 i = 1; i < p->n_key; i++) {
                const GgufKey *k = &p->key[p->key_order[i]], *before = &p->key[p->key_order[i - 1]];
                if (strcmp(k->name, before->name) == 0)
                        part_bad_key(p, k, "is defined twice; before at byte %" PRIu64, before->at);
        }
}

const GgufKey *part_key(const GgufPart *p, const char *name)
{
        u32 low = 0, high = p->n_key;
        while (low < high) {
                u32 mid = low + (high - low) / 2;
                const GgufKey *k = &p->key[p->key_order[mid]];
                int order = strcmp(name, k->name);
                if (order == 0)
                        return k;
                if (order < 0)
                        high = mid;
                else
                        low = mid + 1;
        }
        return NULL;
}

bool part_int(GgufType t, u64 bits, u64 *abs, bool *negative)
{
        u32 size = type_info[t].bytes;
        *abs = bits;
        *negative = false;
        switch (t) {
        case GGUF_u8:
        case GGUF_u16:
        case GGUF_u32:
        case GGUF_u64:
                return true;
        case GGUF_i8:
        case GGUF_i16:
        case GGUF_i32:
        case GGUF_i64:
                *negative = bits >> (size * 8 - 1);
                if (*negative)
                        *abs = (~bits + 1) & (UINT64_MAX >> (64 - size * 8));
                return true;
        default:
                return false;
        }
}

bool part_u64(const GgufPart *p, const char *name, u64 min, u64 max, u64 *out)
{
        const GgufKey *k = part_key(p, name);
        if (!k)
                return false;
        u64 v;
        bool negative;
        if (!part_int(k->type, k->bits, &v, &negative))
                part_bad_key(p, k, "is of type %s; expected an integer", gguf_type_name(k->type));
        if (negative || v < min || v > max)
                part_bad_key(p, k, "is %s%" PRIu64 "; expected %" PRIu64 " to %" PRIu64, negative ? "-" : "",
                        v, min, max);
        *out = v;
        return true;
}

/* ---- tensors ---- */

static void read_dims(Cursor *c, GgufTensor *t)
{
        u64 at = c->pos;
        t->n_dim = take_u32(c, "n_dims");
        if (t->n_dim < 1 || t->n_dim > GGUF_MAX_DIM)
                bad(c, at, "has n_dims %u; expected 1 to %d", t->n_dim, GGUF_MAX_DIM);
        t->n = 1;
        for (u32 i = 0; i < t->n_dim; i++) { /* in the file the contiguous one comes first */
                at = c->pos;
                u64 d = take_u64(c, "dimension");
                if (d < 1)
                        bad(c, at, "has dimension %u of 0", i);
                if (!mul_u64(t->n, d, &t->n) || t->n > INT64_MAX)
                        bad(c, at, "has more than 2^63 values at dimension %u of %" PRIu64, i, d);
                t->dim[t->n_dim - 1 - i] = d;
        }
}

static void read_tensor_type(Cursor *c, GgufTensor *t)
{
        u64 at = c->pos, row = t->dim[t->n_dim - 1];
        u32 per = 0, bytes = 0;
        t->id = take_u32(c, "type");
        t->usable = wtype_by_id(t->id, &t->type);
        const Other *o = other_type(t->id);
        if (t->usable) {
                per = wtype_info[t->type].per;
                bytes = wtype_info[t->type].bytes;
        } else if (o) {
                per = o->per;
                bytes = o->bytes;
        }
        if (!per)
                return;
        if (row % per)
                bad(c, at, "has rows of %" PRIu64 " values; type %s takes multiples of %u", row,
                        gguf_tensor_type(t->id), per);
        if (!mul_u64(t->n / per, bytes, &t->bytes) || t->bytes > INT64_MAX)
                bad(c, at, "of %" PRIu64 " values of type %s takes more than 2^63 bytes", t->n,
                        gguf_tensor_type(t->id));
}

static void read_tensor(Cursor *c, GgufTensor *t, u32 i, u32 part)
{
        t->at = c->pos;
        t->part = part;
        set_name(c, "tensor ", i);
        t->name = take_name(c, GGUF_MAX_NAME, '!', "name");
        c->name = t->name;
        read_dims(c, t);
        read_tensor_type(c, t);
        u64 at = c->pos;
        t->offset = take_u64(c, "offset");
        if (t->offset % c->part->align)
                bad(c, at, "offset %" PRIu64 " is not a multiple of the alignment, %" PRIu64, t->offset,
                        c->part->align);
        if (t->offset > INT64_MAX || t->bytes > INT64_MAX - t->offset)
                bad(c, at, "offset %" PRIu64 " plus %" PRIu64 " bytes is past any file", t->offset, t->bytes);
}

static void read_align(Cursor *c)
{
        GgufPart *p = c->part;
        const GgufKey *k = part_key(p, "general.alignment");
        p->align = 32;
        if (!k)
                return;
        if (k->type != GGUF_u32)
                part_bad_key(p, k, "is of type %s; expected u32", gguf_type_name(k->type));
        if (k->bits < 8 || k->bits > GGUF_MAX_ALIGN || (k->bits & (k->bits - 1)))
                part_bad_key(p, k, "is %" PRIu64 "; expected a power of two from 8 to %u", k->bits,
                        GGUF_MAX_ALIGN);
        p->align = k->bits;
}

/* ---- data ---- */

/* From offsets in the data section to offsets in the file. */
static void place_data(Cursor *c)
{
        GgufPart *p = c->part;
        u64 size = p->map.size;
        p->meta_bytes = c->pos;
        if (!align_u64(c->pos, p->align, &p->data_start))
                die("metadata limit and alignment do not fit");
        if (!p->n_tensor)
                return;
        if (p->data_start > size)
                bad(c, c->pos,
                        "the padding up to the tensor data at %" PRIu64
                        " is missing: the file ends at %" PRIu64,
                        p->data_start, size);
        p->is_shape = p->data_start == size;
        u64 room = size - p->data_start;
        for (u32 i = 0; i < p->n_tensor; i++) {
                GgufTensor *t = &p->tensor[i];
                u64 need = MAX(t->bytes, 1);
                if (!p->is_shape && (t->offset > room || need > room - t->offset))
                        bad_tensor(p, t,
                                "needs %" PRIu64 " bytes at offset %" PRIu64
                                ", but the file has only %" PRIu64
                                " bytes of tensor data: it is cut short or damaged",
                                need, t->offset, room);
                if (!add_u64(t->offset, p->data_start, &t->offset))
                        bad_tensor(p, t, "offset is past any file");
        }
}

static int by_offset(const void *a, const void *b, void *tensors)
{
        const GgufTensor *s = (const GgufTensor *)tensors + *(const u32 *)a;
        const GgufTensor *t = (const GgufTensor *)tensors + *(const u32 *)b;
        if (s->offset != t->offset)
                return s->offset < t->offset ? -1 : 1;
        return s == t ? 0 : s < t ? -1 : 1;
}

/* Two names for the same bytes (tied weights) are fine; any other overlap is not. */
static void check_overlap(Cursor *c)
{
        GgufPart *p = c->part;
        u32 *order = NEWN(c->a, u32, p->n_tensor);
        for (u32 i = 0; i < p->n_tensor; i++)
                order[i] = i;
        qsort_r(order, p->n_tensor, sizeof *order, by_offset, p->tensor);
        for (u32 i = 1; i < p->n_tensor; i++) {
                const GgufTensor *s = &p->tensor[order[i - 1]], *t = &p->tensor[order[i]];
                bool alias = s->offset == t->offset && s->bytes == t->bytes && s->id == t->id;
                if (!alias && t->offset - s->offset < MAX(s->bytes, 1))
                        bad_tensor(p, t,
                                "at offset %" PRIu64 " overlaps tensor %s of %" PRIu64 " bytes at %" PRIu64,
                                t->offset, s->name, s->bytes, s->offset);
        }
}

void part_read(Arena *a, GgufPart *p, u32 index, u64 max_meta)
{
        Cursor cur = {.a = a, .part = p, .end = MIN(p->map.size, max_meta), .what = "", .name = ""},
               *c = &cur;
        read_header(c);
        p->key = NEWN(a, GgufKey, p->n_key);
        for (u32 i = 0; i < p->n_key; i++)
                read_key(c, &p->key[i], i);
        sort_keys(c);
        read_align(c);
        p->tensor = NEWN(a, GgufTensor, p->n_tensor);
        for (u32 i = 0; i < p->n_tensor; i++)
                read_tensor(c, &p->tensor[i], i, index);
        c->what = c->name = "";
        place_data(c);
        check_overlap(c);
}

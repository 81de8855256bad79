#include "runtime/plan.h"
#include <stdlib.h>
#include <string.h>

static const u64 element_bytes[N_PLAN_SECTION] = {
#define X(name, T) sizeof(T),
        PLAN_SECTIONS(X)
#undef X
};

/* str: a hash table, open addressing, of offsets into STR; 0: free, as nothing but "" is there. */
static void str_insert(PlanWriter *w, u32 off)
{
        const char *s = w->section[PLAN_STR].p + off;
        u32 i = (u32)hash_str(s, strlen(s)) & (w->cap_str - 1);
        while (w->str[i])
                i = (i + 1) & (w->cap_str - 1);
        w->str[i] = off;
}

static void str_grow(PlanWriter *w)
{
        u32 *old = w->str, n = w->cap_str;
        w->cap_str = n ? n * 2 : 256;
        w->str = xmalloc(w->cap_str * sizeof *w->str);
        memset(w->str, 0, w->cap_str * sizeof *w->str);
        for (u32 i = 0; i < n; i++)
                if (old[i])
                        str_insert(w, old[i]);
        free(old);
}

u32 plan_add_str(PlanWriter *w, const char *s)
{
        Buf *b = &w->section[PLAN_STR];
        size_t n = strlen(s);
        if (b->len == 0)
                buf_char(b, 0);
        if (n == 0)
                return 0;
        if (w->n_str >= w->cap_str / 2)
                str_grow(w);
        for (u32 i = (u32)hash_str(s, n) & (w->cap_str - 1); w->str[i]; i = (i + 1) & (w->cap_str - 1))
                if (strcmp(b->p + w->str[i], s) == 0)
                        return w->str[i];
        u32 off = plan_add(w, PLAN_STR, s, n + 1);
        str_insert(w, off);
        w->n_str++;
        return off;
}

u32 plan_add(PlanWriter *w, PlanSection s, const void *element, u64 size)
{
        Buf *b = &w->section[s];
        u64 each = element_bytes[s];
        if (each > 1 && size != each)
                die("a plan's section %d holds elements of %llu bytes, not %llu", s, (unsigned long long)each,
                        (unsigned long long)size);
        u64 at = b->len / each;
        if (at > UINT32_MAX)
                die("a plan's section %d has more than 2^32 elements", s);
        buf_add(b, element, size);
        return (u32)at;
}

static void pad(Buf *b, u64 start, u64 align)
{
        static const char zero[PLAN_PAGE];
        buf_add(b, zero, (size_t)(-(b->len - start) & (align - 1)));
}

static void put_head(Buf *out, u64 start, const PlanHead *h)
{
        memcpy(out->p + start, h, sizeof *h);
}

void plan_finish(PlanWriter *w, Buf *out)
{
        PlanHead h = {.version = PLAN_VERSION, .head_bytes = sizeof h};
        memcpy(h.magic, PLAN_MAGIC, sizeof h.magic);
        if (w->section[PLAN_STR].len == 0)
                buf_char(&w->section[PLAN_STR], 0);
        u64 start = out->len;
        buf_add(out, &h, sizeof h);
        for (int s = 0; s < PLAN_WDATA; s++) {
                pad(out, start, PLAN_ALIGN);
                h.section[s] = (PlanSpan){out->len - start, w->section[s].len / element_bytes[s]};
                buf_add(out, w->section[s].p, w->section[s].len);
        }
        h.bytes = out->len - start;
        Hash sum = hash_bytes(out->p + start + sizeof h, h.bytes - sizeof h);
        h.checksum = hash_mix(sum, h.section, sizeof(PlanSpan) * PLAN_WDATA);
        put_head(out, start, &h);
}

void plan_embed(Buf *out, u64 bytes, Hash hash)
{
        PlanHead h;
        memcpy(&h, out->p, sizeof h);
        pad(out, 0, PLAN_PAGE);
        h.section[PLAN_WDATA] = (PlanSpan){out->len, bytes};
        h.bytes = out->len + bytes;
        h.wdata_checksum = hash;
        put_head(out, 0, &h);
}

void plan_writer_free(PlanWriter *w)
{
        for (int s = 0; s < N_PLAN_SECTION; s++)
                buf_free(&w->section[s]);
        free(w->str);
        *w = (PlanWriter){0};
}

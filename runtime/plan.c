#include "runtime/plan.h"
#include "runtime/pack.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* The file is these structs: their sizes are the format. */
_Static_assert(sizeof(PlanHead) == 56 + 16 * N_PLAN_SECTION, "PlanHead");
_Static_assert(sizeof(PlanMeta) == 120 && sizeof(PlanKernel) == 40 && sizeof(PlanImage) == 24, "no padding");
_Static_assert(sizeof(PlanPhase) == 40 && sizeof(PlanLaunch) == 112 && sizeof(PlanArg) == 16, "no padding");
_Static_assert(sizeof(PlanWeight) == 88 && sizeof(PlanState) == 24 && sizeof(PlanPart) == 40, "no padding");
_Static_assert(sizeof(PlanUtil) == 8, "no padding");

#define MAX_TOK    (1u << 20) /* of one step: what inputs are sized by */
#define MAX_VOCAB  (1u << 24)
#define MAX_BYTES  (1ull << 46) /* of the arena */
#define MAX_HEAD   (1u << 16)   /* heads, and values of one */
#define MAX_PHASE  64u
#define MAX_THREAD 1024u /* that any device has in a block */
#define MAX_ARG    64u

typedef struct Section {
        const char *name;
        u64 size;
} Section;
static const Section section_info[N_PLAN_SECTION] = {
#define X(name, T) {#name, sizeof(T)},
        PLAN_SECTIONS(X)
#undef X
};

/* What a field of 32 bits must be: a string, an index into section a, or within a .. b. */
typedef enum What { STRING, INDEX, RANGE } What;
typedef struct Rule {
        PlanSection section;
        const char *field;
        size_t at;
        What what;
        u32 a, b;
} Rule;

#define AT(section, T, field) PLAN_##section, #field, offsetof(T, field)
static const Rule rules[] = {
        {AT(META, PlanMeta, arch), STRING, 0, 0},
        {AT(META, PlanMeta, name), STRING, 0, 0},
        {AT(META, PlanMeta, target), STRING, 0, 0},
        {AT(META, PlanMeta, isa), STRING, 0, 0},
        {AT(META, PlanMeta, compiler), STRING, 0, 0},
        {AT(META, PlanMeta, act), RANGE, 0, MOEC_ACT_F32},
        {AT(META, PlanMeta, n_vocab), RANGE, 1, MAX_VOCAB},
        {AT(META, PlanMeta, n_ctx_train), RANGE, 0, INT32_MAX},
        {AT(META, PlanMeta, n_layer), RANGE, 0, INT32_MAX},
        {AT(META, PlanMeta, n_embd), RANGE, 0, INT32_MAX},
        {AT(META, PlanMeta, n_expert), RANGE, 0, INT32_MAX},
        {AT(META, PlanMeta, n_expert_used), RANGE, 0, INT32_MAX},
        {AT(META, PlanMeta, ctk), RANGE, 0, N_KV_TYPE - 1},
        {AT(META, PlanMeta, ctv), RANGE, 0, N_KV_TYPE - 1},
        {AT(KERNEL, PlanKernel, name), STRING, 0, 0},
        {AT(KERNEL, PlanKernel, key), STRING, 0, 0},
        {AT(KERNEL, PlanKernel, threads), RANGE, 1, MAX_THREAD},
        {AT(UTIL, PlanUtil, role), RANGE, 0, N_PLAN_ROLE - 1},
        {AT(UTIL, PlanUtil, kernel), INDEX, PLAN_KERNEL, 0},
        {AT(PHASE, PlanPhase, name), STRING, 0, 0},
        {AT(PHASE, PlanPhase, max_tok), RANGE, 1, MAX_TOK},
        {AT(PHASE, PlanPhase, max_out), RANGE, 1, MAX_TOK},
        {AT(PHASE, PlanPhase, max_seq_tok), RANGE, 1, MAX_TOK},
        {AT(LAUNCH, PlanLaunch, kernel), INDEX, PLAN_KERNEL, 0},
        {AT(LAUNCH, PlanLaunch, label), STRING, 0, 0},
        {AT(LAUNCH, PlanLaunch, n_arg), RANGE, 0, MAX_ARG},
        {AT(LAUNCH, PlanLaunch, dim[0]), RANGE, 0, N_PLAN_DIM - 1},
        {AT(LAUNCH, PlanLaunch, dim[1]), RANGE, 0, N_PLAN_DIM - 1},
        {AT(LAUNCH, PlanLaunch, dim[2]), RANGE, 0, N_PLAN_DIM - 1},
        {AT(LAUNCH, PlanLaunch, mul[0]), RANGE, 1, UINT32_MAX},
        {AT(LAUNCH, PlanLaunch, mul[1]), RANGE, 1, UINT32_MAX},
        {AT(LAUNCH, PlanLaunch, mul[2]), RANGE, 1, UINT32_MAX},
        {AT(LAUNCH, PlanLaunch, div[0]), RANGE, 1, UINT32_MAX},
        {AT(LAUNCH, PlanLaunch, div[1]), RANGE, 1, UINT32_MAX},
        {AT(LAUNCH, PlanLaunch, div[2]), RANGE, 1, UINT32_MAX},
        {AT(LAUNCH, PlanLaunch, trigger), RANGE, 0, N_PLAN_TRIGGER - 1},
        {AT(ARG, PlanArg, kind), RANGE, 0, N_PLAN_ARG - 1},
        {AT(WEIGHT, PlanWeight, name), STRING, 0, 0},
        {AT(WEIGHT, PlanWeight, type), RANGE, 0, N_WTYPE - 1},
        {AT(WEIGHT, PlanWeight, layout), RANGE, 0, N_PLAN_LAYOUT - 1},
        {AT(WEIGHT, PlanWeight, rank), RANGE, 1, 4},
        {AT(STATE, PlanState, name), STRING, 0, 0},
        {AT(STATE, PlanState, heads), RANGE, 1, MAX_HEAD},
        {AT(STATE, PlanState, dk), RANGE, 1, MAX_HEAD},
        {AT(STATE, PlanState, dv), RANGE, 0, MAX_HEAD},
        {AT(STATE, PlanState, ktype), RANGE, 0, N_KV_TYPE - 1},
        {AT(STATE, PlanState, vtype), RANGE, 0, N_KV_TYPE - 1},
        {AT(PART, PlanPart, path), STRING, 0, 0},
};
#undef AT

/* A plan under examination. */
typedef struct Exam {
        Plan *p;
        const char *name; /* of the file */
        moec_error *e;
} Exam;

static moec_status bad(const Exam *x, PlanSection s, u64 i, const char *field, const char *fmt, ...)
        PRINTF(5, 6);
static moec_status bad(const Exam *x, PlanSection s, u64 i, const char *field, const char *fmt, ...)
{
        char why[256];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(why, sizeof why, fmt, ap);
        va_end(ap);
        return fail(x->e, MOEC_DAMAGED, "%s: damaged plan: %s[%llu].%s: %s; compile it again", x->name,
                section_info[s].name, (unsigned long long)i, field, why);
}

static moec_status bad_head(const Exam *x, const char *field, const char *why)
{
        return fail(
                x->e, MOEC_DAMAGED, "%s: damaged plan: head.%s: %s; compile it again", x->name, field, why);
}

static u64 count(const Exam *x, PlanSection s)
{
        return plan_count(x->p, s);
}

/* Behind the head, up to WDATA; the padding in front of WDATA is in no checksum. */
static u64 body_end(const PlanHead *h)
{
        return h->section[PLAN_SOURCE].offset + h->section[PLAN_SOURCE].count;
}

/* Sections lie where the writer puts them, one behind the other, so that a wrong count shows. */
static moec_status exam_sections(const Exam *x)
{
        const PlanHead *h = x->p->head;
        u64 end = sizeof *h;
        for (int s = 0; s < N_PLAN_SECTION; s++) {
                PlanSpan span = h->section[s];
                char field[32];
                snprintf(field, sizeof field, "section[%s]", section_info[s].name);
                if (s == PLAN_WDATA && span.count == 0) {
                        if (span.offset)
                                return bad_head(x, field, "has a place but no bytes");
                        continue;
                }
                u64 start, bytes;
                if (!align_u64(end, s == PLAN_WDATA ? PLAN_PAGE : PLAN_ALIGN, &start) || span.offset != start)
                        return bad_head(x, field, "does not start where the one before it ends");
                if (!mul_u64(span.count, section_info[s].size, &bytes) || !add_u64(start, bytes, &end) ||
                        end > h->bytes)
                        return bad_head(x, field, "ends behind the end of the plan");
                if (span.count > UINT32_MAX && section_info[s].size > 1)
                        return bad_head(x, field, "has more than 2^32 elements");
        }
        if (end != h->bytes)
                return bad_head(x, "bytes", "is not the end of the last section");
        return MOEC_OK;
}

static moec_status exam_head(const Exam *x, u64 bytes, bool exact)
{
        const PlanHead *h = x->p->head;
        if (bytes < sizeof *h || memcmp(h->magic, PLAN_MAGIC, sizeof h->magic) != 0)
                return fail(
                        x->e, MOEC_DAMAGED, "%s: not a plan: it does not begin with " PLAN_MAGIC, x->name);
        if (h->version != PLAN_VERSION)
                return fail(x->e, MOEC_UNSUPPORTED,
                        "%s: a plan of version %u, but this program reads version %u; compile it again",
                        x->name, h->version, PLAN_VERSION);
        if (h->head_bytes != sizeof *h)
                return bad_head(x, "head_bytes", "is another head's size");
        if (h->bytes > bytes)
                return fail(x->e, MOEC_DAMAGED,
                        "%s: damaged plan: head.bytes: %llu, but only %llu are there; %s", x->name,
                        (unsigned long long)h->bytes, (unsigned long long)bytes,
                        "the file was cut off, copy it again");
        if (exact && h->bytes != bytes)
                return bad_head(x, "bytes", "the file goes on behind the plan");
        moec_status st = exam_sections(x);
        if (st != MOEC_OK)
                return st;
        Hash sum = hash_bytes(x->p->p + sizeof *h, body_end(h) - sizeof *h);
        if (!hash_same(hash_mix(sum, h->section, sizeof(PlanSpan) * PLAN_WDATA), h->checksum))
                return bad_head(x, "checksum", "the bytes are not those that were written");
        return MOEC_OK;
}

static moec_status exam_rule(const Exam *x, const Rule *r)
{
        const u8 *at = x->p->p + x->p->head->section[r->section].offset + r->at;
        u64 n_str = count(x, PLAN_STR);
        for (u64 i = 0; i < count(x, r->section); i++, at += section_info[r->section].size) {
                u32 v;
                memcpy(&v, at, sizeof v);
                if (r->what == STRING && v >= n_str)
                        return bad(x, r->section, i, r->field, "string at %u, but STR has %llu bytes", v,
                                (unsigned long long)n_str);
                if (r->what == INDEX && v >= count(x, r->a))
                        return bad(x, r->section, i, r->field, "%u, but %s has %llu", v,
                                section_info[r->a].name, (unsigned long long)count(x, r->a));
                if (r->what == RANGE && (v < r->a || v > r->b))
                        return bad(x, r->section, i, r->field, "%u, must be %u to %u", v, r->a, r->b);
        }
        return MOEC_OK;
}

static bool span_ok(u64 start, u64 n, u64 end)
{
        return start <= end && n <= end - start;
}

u64 plan_images(const Plan *p, const PlanImage **image)
{
        *image = (const PlanImage *)(const void *)(p->CODE + sizeof(u64));
        return plan_count(p, PLAN_CODE) ? *(const u64 *)(const void *)p->CODE : 0;
}

u32 plan_util(const Plan *p, PlanRole role)
{
        for (u64 i = 0; i < plan_count(p, PLAN_UTIL); i++)
                if (p->UTIL[i].role == role)
                        return p->UTIL[i].kernel;
        return UINT32_MAX;
}

static moec_status exam_images(const Exam *x)
{
        const Plan *p = x->p;
        u64 bytes = count(x, PLAN_CODE);
        if (bytes && bytes < sizeof(u64))
                return bad(x, PLAN_CODE, 0, "count", "the section is too small for it");
        const PlanImage *im;
        u64 n = plan_images(p, &im);
        if (n && n > (bytes - sizeof(u64)) / sizeof *im)
                return bad(x, PLAN_CODE, 0, "count", "%llu images do not fit", (unsigned long long)n);
        for (u64 i = 0; i < n; i++) {
                if (im[i].arch >= count(x, PLAN_STR))
                        return bad(x, PLAN_CODE, i, "arch", "no such string");
                if (im[i].kind > PLAN_PTX)
                        return bad(x, PLAN_CODE, i, "kind", "%u is none", im[i].kind);
                if (im[i].offset < sizeof(u64) + n * sizeof *im || !span_ok(im[i].offset, im[i].bytes, bytes))
                        return bad(x, PLAN_CODE, i, "offset", "the image is not inside the section");
        }
        for (u64 i = 0; i < count(x, PLAN_KERNEL); i++) {
                if (p->KERNEL[i].image >= n)
                        return bad(x, PLAN_KERNEL, i, "image", "%u, but there are %llu", p->KERNEL[i].image,
                                (unsigned long long)n);
                if (!span_ok(p->KERNEL[i].source, p->KERNEL[i].source_bytes, count(x, PLAN_SOURCE)))
                        return bad(x, PLAN_KERNEL, i, "source", "not inside SOURCE");
        }
        return MOEC_OK;
}

u64 plan_blocks(const PlanLaunch *l, const u32 size[N_PLAN_DIM])
{
        u64 n = 1;
        for (int i = 0; i < 3; i++) {
                u64 items = (u64)l->mul[i] * size[l->dim[i]],
                    of = items / l->div[i] + (items % l->div[i] != 0);
                if (of > UINT32_MAX || (n *= of) > UINT32_MAX)
                        return UINT64_MAX;
        }
        return n;
}

static moec_status exam_phases(const Exam *x)
{
        const Plan *p = x->p;
        const PlanMeta *m = p->META;
        u64 n = count(x, PLAN_PHASE);
        if (n < 1 || n > MAX_PHASE)
                return fail(x->e, MOEC_DAMAGED, "%s: damaged plan: PHASE: %llu of them; compile it again",
                        x->name, (unsigned long long)n);
        if (m->arena_bytes > MAX_BYTES)
                return bad(x, PLAN_META, 0, "arena_bytes", "%llu is too much",
                        (unsigned long long)m->arena_bytes);
        for (u64 i = 0; i < n; i++) {
                const PlanPhase *f = &p->PHASE[i];
                if (!span_ok(f->launch, f->n_launch, count(x, PLAN_LAUNCH)))
                        return bad(x, PLAN_PHASE, i, "n_launch", "not inside LAUNCH");
                if (f->arena_bytes > m->arena_bytes)
                        return bad(x, PLAN_PHASE, i, "arena_bytes", "more than META's");
                if (f->logits % 4 || !span_ok(f->logits, 4ull * f->max_out * m->n_vocab, f->arena_bytes))
                        return bad(x, PLAN_PHASE, i, "logits", "not inside the arena, or not aligned");
                u32 size[N_PLAN_DIM] = {1, f->max_tok, f->max_out, 1, 1};
                for (u64 l = f->launch; l < (u64)f->launch + f->n_launch; l++)
                        if (plan_blocks(&p->LAUNCH[l], size) == UINT64_MAX)
                                return bad(x, PLAN_LAUNCH, l, "mul", "a grid of more than 2^32 - 1 blocks");
        }
        return MOEC_OK;
}

static moec_status exam_args(const Exam *x)
{
        const Plan *p = x->p;
        for (u64 i = 0; i < count(x, PLAN_LAUNCH); i++)
                if (!span_ok(p->LAUNCH[i].arg, p->LAUNCH[i].n_arg, count(x, PLAN_ARG)))
                        return bad(x, PLAN_LAUNCH, i, "arg", "not inside ARG");
        const u64 bound[N_PLAN_ARG] = {[PLAN_BUF] = UINT64_MAX,
                [PLAN_INPUT] = N_PLAN_INPUT,
                [PLAN_W] = count(x, PLAN_WEIGHT),
                [PLAN_K] = count(x, PLAN_STATE),
                [PLAN_V] = count(x, PLAN_STATE),
                [PLAN_NULL] = UINT64_MAX};
        for (u64 i = 0; i < count(x, PLAN_ARG); i++) {
                const PlanArg *a = &p->ARG[i];
                if (a->index >= bound[a->kind])
                        return bad(x, PLAN_ARG, i, "index", "%u, but there are %llu", a->index,
                                (unsigned long long)bound[a->kind]);
                if (a->kind == PLAN_BUF && a->value >= p->META->arena_bytes)
                        return bad(x, PLAN_ARG, i, "value", "%llu is not inside the arena",
                                (unsigned long long)a->value);
                if (a->kind == PLAN_V && p->STATE[a->index].dv == 0)
                        return bad(x, PLAN_ARG, i, "index", "state %u has no values", a->index);
        }
        return MOEC_OK;
}

/* rank 2: [out, in]; rank 3: [experts, out, in]. */
u64 plan_weight_bytes(u32 type, u32 layout, u32 rank, const u64 dim[4])
{
        const WtypeInfo *t = &wtype_info[type];
        u64 rows = 1, cols = dim[rank - 1], bytes;
        if (cols == 0 || cols % t->per)
                return 0;
        for (u32 i = 0; i + 1 < rank; i++)
                if (!mul_u64(rows, dim[i], &rows))
                        return 0;
        if (layout == PLAN_rows)
                return mul_u64(cols / t->per, t->bytes, &bytes) && mul_u64(bytes, rows, &bytes) ? bytes : 0;
        if (rank < 2 || rank > 3 || rows == 0)
                return 0;
        if (layout == PLAN_split) {
                bytes = pack_split_bytes((Wtype)type, cols);
                return mul_u64(bytes, rows, &bytes) ? bytes : 0;
        }
        bytes = pack_panel_bytes((Wtype)type, dim[rank - 2], cols);
        return rank == 2 || mul_u64(bytes, dim[0], &bytes) ? bytes : 0;
}

static moec_status exam_weight(const Exam *x, u64 i)
{
        const PlanWeight *w = &x->p->WEIGHT[i];
        for (u32 d = 0; d < 4; d++)
                if (w->dim[d] < 1 || (d >= w->rank && w->dim[d] != 1))
                        return bad(x, PLAN_WEIGHT, i, "dim", "dimension %u is %llu", d,
                                (unsigned long long)w->dim[d]);
        u64 src = plan_weight_bytes(w->type, PLAN_rows, w->rank, w->dim);
        u64 dst = plan_weight_bytes(w->type, w->layout, w->rank, w->dim);
        if (src == 0 || w->src_bytes != src)
                return bad(x, PLAN_WEIGHT, i, "src_bytes", "%llu, but type and dimensions make %llu",
                        (unsigned long long)w->src_bytes, (unsigned long long)src);
        if (dst == 0 || w->dst_bytes != dst)
                return bad(x, PLAN_WEIGHT, i, "dst_bytes", "%llu, but layout, type and dimensions make %llu",
                        (unsigned long long)w->dst_bytes, (unsigned long long)dst);
        if (w->embedded != UINT64_MAX) {
                if (w->embedded % PLAN_ALIGN || !span_ok(w->embedded, dst, count(x, PLAN_WDATA)))
                        return bad(x, PLAN_WEIGHT, i, "embedded", "not inside WDATA, or not aligned");
                return MOEC_OK;
        }
        if (w->part >= count(x, PLAN_PART))
                return bad(x, PLAN_WEIGHT, i, "part", "%u, but PART has %llu", w->part,
                        (unsigned long long)count(x, PLAN_PART));
        if (!span_ok(w->src, src, x->p->PART[w->part].bytes))
                return bad(x, PLAN_WEIGHT, i, "src", "not inside its part");
        return MOEC_OK;
}

static moec_status exam_rest(const Exam *x)
{
        for (u64 i = 0; i < count(x, PLAN_PART); i++)
                if (x->p->PART[i].header_bytes > x->p->PART[i].bytes)
                        return bad(x, PLAN_PART, i, "header_bytes", "more than the file has");
        for (u64 i = 0; i < count(x, PLAN_WEIGHT); i++) {
                moec_status st = exam_weight(x, i);
                if (st != MOEC_OK)
                        return st;
        }
        return MOEC_OK;
}

static moec_status exam(const Exam *x, u64 bytes, bool exact)
{
        moec_status st = exam_head(x, bytes, exact);
        if (st != MOEC_OK)
                return st;
        Plan *p = x->p;
        p->bytes = p->head->bytes;
#define X(name, T) p->name = (const T *)(const void *)(p->p + p->head->section[PLAN_##name].offset);
        PLAN_SECTIONS(X)
#undef X
        u64 n_str = count(x, PLAN_STR);
        if (n_str == 0 || p->STR[n_str - 1] != 0)
                return fail(x->e, MOEC_DAMAGED, "%s: damaged plan: STR: its last string has no end", x->name);
        if (count(x, PLAN_META) != 1)
                return fail(x->e, MOEC_DAMAGED, "%s: damaged plan: META: there must be one", x->name);
        for (size_t i = 0; i < COUNT(rules) && st == MOEC_OK; i++)
                st = exam_rule(x, &rules[i]);
        static moec_status (*const steps[])(const Exam *) = {exam_images, exam_phases, exam_args, exam_rest};
        for (size_t i = 0; i < COUNT(steps) && st == MOEC_OK; i++)
                st = steps[i](x);
        return st;
}

static moec_status open_at(const u8 *p, u64 bytes, bool exact, const char *name, Plan **out, moec_error *e)
{
        *out = NULL;
        if ((uintptr_t)p % PLAN_ALIGN)
                return fail(e, MOEC_USAGE, "%s: the plan is not aligned to %d bytes", name, PLAN_ALIGN);
        Plan *plan = calloc(1, sizeof *plan);
        if (!plan)
                return fail(e, MOEC_NO_MEMORY, "out of memory opening %s", name);
        plan->map.fd = -1;
        plan->p = p;
        plan->head = (const PlanHead *)(const void *)p;
        Exam x = {plan, name, e};
        moec_status st = exam(&x, bytes, exact);
        if (st == MOEC_OK)
                *out = plan;
        else
                free(plan);
        return st;
}

moec_status plan_view(const void *p, u64 bytes, Plan **out, moec_error *e)
{
        return open_at(p, bytes, true, "plan in memory", out, e);
}

moec_status plan_take(Map *m, u64 offset, u64 bytes, const char *name, Plan **out, moec_error *e)
{
        *out = NULL;
        if (!span_ok(offset, bytes, m->size) || bytes == 0)
                return fail(e, MOEC_DAMAGED, "%s: no plan at byte %llu: the file has %llu", name,
                        (unsigned long long)offset, (unsigned long long)m->size);
        moec_status st = open_at(m->p + offset, bytes, offset == 0 && bytes == m->size, name, out, e);
        if (st == MOEC_OK) {
                (*out)->map = *m;
                *m = (Map){.fd = -1};
        }
        return st;
}

moec_status plan_open(const char *path, u64 offset, Plan **out, moec_error *e)
{
        *out = NULL;
        Map m;
        moec_status st = map_open(path, &m, e);
        if (st != MOEC_OK)
                return st;
        st = plan_take(&m, offset, offset <= m.size ? m.size - offset : 0, path, out, e);
        map_close(&m);
        return st;
}

moec_status plan_copy(const void *p, u64 bytes, Plan **out, moec_error *e)
{
        *out = NULL;
        void *q = bytes ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                        : MAP_FAILED;
        if (q == MAP_FAILED)
                return fail(
                        e, MOEC_NO_MEMORY, "no memory for a plan of %llu bytes", (unsigned long long)bytes);
        memcpy(q, p, bytes);
        Map m = {.p = q, .size = bytes, .fd = -1};
        moec_status st = plan_take(&m, 0, bytes, "plan in memory", out, e);
        map_close(&m);
        return st;
}

Hash plan_wdata_hash(Hash h, const void *p, u64 n)
{
        const u64 piece = 1 << 20;
        for (const u8 *b = p; n; b += MIN(n, piece), n -= MIN(n, piece))
                h = hash_mix(h, b, MIN(n, piece));
        return h;
}

void plan_close(Plan *p)
{
        if (!p)
                return;
        map_close(&p->map);
        free(p);
}

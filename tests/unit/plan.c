/* Plans: what the writer wrote is read; everything else is refused, and nothing in a plan can lead the reader
 * astray. */
#include "tests/unit/plan_help.h"

static Buf good; /* a small plan: its code is a stub */

static int setup(void **state)
{
        if (tiny_setup(state) != 0)
                return -1;
        tiny_so.len = 40;
        good = tiny_plan();
        return 0;
}

static int teardown(void **state)
{
        buf_free(&good);
        return tiny_teardown(state);
}

static void refresh(Buf *b)
{
        PlanHead h;
        memcpy(&h, b->p, sizeof h);
        PlanSpan last = h.section[PLAN_SOURCE];
        if (last.offset >= sizeof h && last.offset <= b->len && last.count <= b->len - last.offset) {
                Hash sum = hash_bytes(b->p + sizeof h, last.offset + last.count - sizeof h);
                h.checksum = hash_mix(sum, h.section, sizeof(PlanSpan) * PLAN_WDATA);
        }
        memcpy(b->p, &h, sizeof h);
}

static Buf copy(void)
{
        Buf b = {0};
        buf_add(&b, good.p, good.len);
        return b;
}

/* Everything that running a plan reads of it. */
static u64 walk(const Plan *p)
{
        u64 sum = 0;
        const PlanMeta *m = p->META;
        const u32 strings[] = {m->arch, m->name, m->target, m->isa, m->compiler};
        for (size_t i = 0; i < COUNT(strings); i++)
                sum += strlen(plan_str(p, strings[i]));
        const PlanImage *im;
        u64 n_image = plan_images(p, &im);
        for (u64 i = 0; i < n_image; i++) {
                Hash h = hash_bytes(p->CODE + im[i].offset, im[i].bytes);
                sum += strlen(plan_str(p, im[i].arch)) + h.lo;
        }
        for (u64 i = 0; i < plan_count(p, PLAN_KERNEL); i++) {
                const PlanKernel *k = &p->KERNEL[i];
                Hash h = hash_bytes(p->SOURCE + k->source, k->source_bytes);
                sum += strlen(plan_str(p, k->name)) + strlen(plan_str(p, k->key)) + im[k->image].bytes + h.lo;
        }
        for (u32 r = 0; r < N_PLAN_ROLE; r++) {
                u32 k = plan_util(p, (PlanRole)r);
                if (k != UINT32_MAX)
                        sum += p->KERNEL[k].name;
        }
        for (u64 i = 0; i < plan_count(p, PLAN_PHASE); i++) {
                const PlanPhase *f = &p->PHASE[i];
                sum += strlen(plan_str(p, f->name));
                assert_true(f->logits + 4ull * f->max_out * m->n_vocab <= m->arena_bytes);
                for (u32 l = f->launch; l < f->launch + f->n_launch; l++) {
                        const PlanLaunch *x = &p->LAUNCH[l];
                        const u32 size[N_PLAN_DIM] = {1, f->max_tok, f->max_out, 1, 1};
                        assert_true(plan_blocks(x, size) <= UINT32_MAX);
                        sum += strlen(plan_str(p, x->label)) + p->KERNEL[x->kernel].name;
                        for (u32 a = x->arg; a < x->arg + x->n_arg; a++)
                                sum += p->ARG[a].kind;
                }
        }
        for (u64 i = 0; i < plan_count(p, PLAN_ARG); i++) {
                const PlanArg *a = &p->ARG[i];
                assert_true(a->kind < N_PLAN_ARG);
                if (a->kind == PLAN_BUF)
                        assert_true(a->value < m->arena_bytes);
                if (a->kind == PLAN_INPUT)
                        assert_true(a->index < N_PLAN_INPUT);
                if (a->kind == PLAN_W)
                        sum += p->WEIGHT[a->index].src;
                if (a->kind == PLAN_K || a->kind == PLAN_V)
                        sum += p->STATE[a->index].dk;
        }
        for (u64 i = 0; i < plan_count(p, PLAN_WEIGHT); i++) {
                const PlanWeight *w = &p->WEIGHT[i];
                sum += strlen(plan_str(p, w->name));
                if (w->embedded == UINT64_MAX)
                        assert_true(w->src + w->src_bytes <= p->PART[w->part].bytes);
                else
                        sum += hash_bytes(p->WDATA + w->embedded, w->dst_bytes).lo;
        }
        for (u64 i = 0; i < plan_count(p, PLAN_STATE); i++)
                sum += strlen(plan_str(p, p->STATE[i].name)) + dtype_info[p->STATE[i].ktype].bytes;
        for (u64 i = 0; i < plan_count(p, PLAN_PART); i++)
                sum += strlen(plan_str(p, p->PART[i].path));
        return sum + hash_bytes(p->TOKEN, plan_count(p, PLAN_TOKEN)).lo;
}

static void reads_what_was_written(void **state)
{
        (void)state;
        Plan *p;
        moec_error e = {0};
        if (plan_copy(good.p, good.len, &p, &e) != MOEC_OK)
                fail_msg("%s", e.msg);
        assert_string_equal(plan_str(p, p->META->name), "A tiny model");
        assert_int_equal(plan_count(p, PLAN_PHASE), 2);
        assert_int_equal(plan_count(p, PLAN_LAUNCH), 6);
        assert_string_equal(plan_str(p, p->LAUNCH[4].label), "append");
        assert_int_equal(p->LAUNCH[1].label, p->LAUNCH[4].label); /* equal strings are one */
        assert_int_equal(p->WEIGHT[1].dst_bytes, 24 * H * 4);     /* rows up to a multiple of 8 */
        const PlanImage *im;
        assert_int_equal(plan_images(p, &im), 1);
        assert_memory_equal(p->CODE + im->offset, tiny_so.p, 40);
        assert_memory_equal(p->SOURCE + p->KERNEL[1].source, "append", 6);
        assert_int_equal(plan_util(p, PLAN_random), 2);
        assert_int_equal(plan_util(p, PLAN_repack), UINT32_MAX);
        walk(p);
        plan_close(p);
}

static void many_strings(void **state)
{
        (void)state;
        PlanWriter w = {0};
        u32 first[3000];
        char s[32];
        assert_int_equal(plan_add_str(&w, ""), 0);
        for (int again = 0; again < 2; again++)
                for (u32 i = 0; i < COUNT(first); i++) {
                        snprintf(s, sizeof s, "string %u", i);
                        u32 off = plan_add_str(&w, s);
                        if (again)
                                assert_int_equal(off, first[i]);
                        first[i] = off;
                        assert_string_equal(w.section[PLAN_STR].p + off, s);
                }
        plan_writer_free(&w);
}

/* Opens b, whatever its place in memory. want: MOEC_OK: either way, but if it opens it can be walked. */
static moec_status try(const Buf *b, moec_error *e)
{
        Plan *p;
        moec_status st = plan_copy(b->p, b->len, &p, e);
        if (st == MOEC_OK)
                walk(p);
        plan_close(p);
        return st;
}

static void cut_off(void **state)
{
        (void)state;
        for (size_t n = 0; n < good.len; n += n < 400 ? 1 : 37) {
                Buf b = {.p = good.p, .len = n};
                moec_status st = try(&b, NULL);
                assert_true(n ? st == MOEC_DAMAGED : st == MOEC_NO_MEMORY);
        }
        Buf b = copy();
        buf_str(&b, "more");
        assert_int_equal(try(&b, NULL), MOEC_DAMAGED);
        buf_free(&b);
}

/* One bit anywhere but in wdata_checksum is noticed. */
static void every_bit(void **state)
{
        (void)state;
        Buf b = copy();
        Plan *p;
        void *at = NULL;
        assert_int_equal(posix_memalign(&at, 64, b.len), 0);
        memcpy(at, b.p, b.len);
        for (size_t i = 0; i < b.len; i++) {
                bool padded = i >= offsetof(PlanHead, wdata_checksum) && i < offsetof(PlanHead, section);
                for (int bit = 0; bit < 8; bit++) {
                        ((u8 *)at)[i] ^= (u8)(1 << bit);
                        moec_status st = plan_view(at, b.len, &p, NULL);
                        plan_close(p);
                        if (padded)
                                assert_int_equal(st, MOEC_OK);
                        else
                                assert_true(
                                        st == MOEC_DAMAGED || (st == MOEC_UNSUPPORTED && i >= 8 && i < 12));
                        ((u8 *)at)[i] ^= (u8)(1 << bit);
                }
        }
        assert_int_equal(plan_view((u8 *)at + 8, b.len - 8, &p, NULL), MOEC_USAGE);
        assert_null(p);
        free(at);
        buf_free(&b);
}

/* Fields set to what they must not be, under a right checksum; the message names section and field. */
typedef struct Bad {
        PlanSection section;
        u32 element;
        size_t at, size;
        u64 value;
        const char *says;
} Bad;
#define B(section, T, element, field, value, says)                                                           \
        {                                                                                                    \
                PLAN_##section, element, offsetof(T, field), sizeof((T){0}.field), value, says               \
        }
#define S(section, T, field) B(section, T, 0, field, 1u << 20, #section "[0]." #field)
static const Bad bads[] = {
        S(META, PlanMeta, arch),
        S(META, PlanMeta, name),
        S(META, PlanMeta, target),
        S(META, PlanMeta, isa),
        S(META, PlanMeta, compiler),
        B(META, PlanMeta, 0, act, 2, "META[0].act"),
        B(META, PlanMeta, 0, n_vocab, 0, "META[0].n_vocab"),
        B(META, PlanMeta, 0, n_vocab, UINT32_MAX, "META[0].n_vocab"),
        B(META, PlanMeta, 0, n_vocab, 1u << 24, "PHASE[0].logits"),
        B(META, PlanMeta, 0, n_layer, UINT32_MAX, "META[0].n_layer"),
        B(META, PlanMeta, 0, n_ctx_train, UINT32_MAX, "META[0].n_ctx_train"),
        B(META, PlanMeta, 0, n_embd, UINT32_MAX, "META[0].n_embd"),
        B(META, PlanMeta, 0, n_expert, UINT32_MAX, "META[0].n_expert"),
        B(META, PlanMeta, 0, n_expert_used, UINT32_MAX, "META[0].n_expert_used"),
        B(META, PlanMeta, 0, ctk, D_i32, "META[0].ctk"),
        B(META, PlanMeta, 0, ctv, N_DTYPE, "META[0].ctv"),
        B(META, PlanMeta, 0, arena_bytes, UINT64_MAX, "META[0].arena_bytes"),
        B(META, PlanMeta, 0, arena_bytes, 1024, "PHASE[0].arena_bytes"),
        S(KERNEL, PlanKernel, name),
        S(KERNEL, PlanKernel, key),
        B(KERNEL, PlanKernel, 2, image, 1, "KERNEL[2].image"),
        B(KERNEL, PlanKernel, 1, source, 1u << 30, "KERNEL[1].source"),
        B(KERNEL, PlanKernel, 1, source_bytes, UINT64_MAX, "KERNEL[1].source"),
        B(KERNEL, PlanKernel, 1, threads, 0, "KERNEL[1].threads"),
        B(KERNEL, PlanKernel, 1, threads, 1025, "KERNEL[1].threads"),
        B(UTIL, PlanUtil, 0, role, N_PLAN_ROLE, "UTIL[0].role"),
        B(UTIL, PlanUtil, 0, kernel, 3, "UTIL[0].kernel"),
        S(PHASE, PlanPhase, name),
        B(PHASE, PlanPhase, 1, max_tok, 0, "PHASE[1].max_tok"),
        B(PHASE, PlanPhase, 1, max_tok, 1u << 30, "PHASE[1].max_tok"),
        B(PHASE, PlanPhase, 1, max_out, 0, "PHASE[1].max_out"),
        B(PHASE, PlanPhase, 1, max_out, 1u << 19, "PHASE[1].logits"),
        B(PHASE, PlanPhase, 1, max_seq_tok, 0, "PHASE[1].max_seq_tok"),
        B(PHASE, PlanPhase, 1, launch, 4, "PHASE[1].n_launch"),
        B(PHASE, PlanPhase, 1, n_launch, UINT32_MAX, "PHASE[1].n_launch"),
        B(PHASE, PlanPhase, 1, arena_bytes, 4097, "PHASE[1].arena_bytes"),
        B(PHASE, PlanPhase, 1, arena_bytes, 1100, "PHASE[1].logits"),
        B(PHASE, PlanPhase, 1, logits, 4096, "PHASE[1].logits"),
        B(PHASE, PlanPhase, 1, logits, UINT64_MAX - 3, "PHASE[1].logits"),
        B(PHASE, PlanPhase, 1, logits, 1026, "PHASE[1].logits"),
        B(LAUNCH, PlanLaunch, 5, kernel, 3, "LAUNCH[5].kernel"),
        S(LAUNCH, PlanLaunch, label),
        B(LAUNCH, PlanLaunch, 5, arg, 25, "LAUNCH[5].arg"),
        B(LAUNCH, PlanLaunch, 5, arg, UINT32_MAX, "LAUNCH[5].arg"),
        B(LAUNCH, PlanLaunch, 5, n_arg, 9, "LAUNCH[5].arg"),
        B(LAUNCH, PlanLaunch, 0, n_arg, 65, "LAUNCH[0].n_arg"),
        B(LAUNCH, PlanLaunch, 5, dim[0], N_PLAN_DIM, "LAUNCH[5].dim[0]"),
        B(LAUNCH, PlanLaunch, 5, dim[1], UINT32_MAX, "LAUNCH[5].dim[1]"),
        B(LAUNCH, PlanLaunch, 5, dim[2], N_PLAN_DIM, "LAUNCH[5].dim[2]"),
        B(LAUNCH, PlanLaunch, 5, mul[0], 0, "LAUNCH[5].mul[0]"),
        B(LAUNCH, PlanLaunch, 5, mul[1], 0, "LAUNCH[5].mul[1]"),
        B(LAUNCH, PlanLaunch, 5, mul[2], 0, "LAUNCH[5].mul[2]"),
        B(LAUNCH, PlanLaunch, 5, mul[0], UINT32_MAX, "LAUNCH[5].mul"),
        B(LAUNCH, PlanLaunch, 5, mul[2], 1u << 31, "LAUNCH[5].mul"),
        B(LAUNCH, PlanLaunch, 5, div[0], 0, "LAUNCH[5].div[0]"),
        B(LAUNCH, PlanLaunch, 5, trigger, N_PLAN_TRIGGER, "LAUNCH[5].trigger"),
        B(LAUNCH, PlanLaunch, 5, div[1], 0, "LAUNCH[5].div[1]"),
        B(LAUNCH, PlanLaunch, 5, div[2], 0, "LAUNCH[5].div[2]"),
        B(ARG, PlanArg, 0, kind, N_PLAN_ARG, "ARG[0].kind"),
        B(ARG, PlanArg, 0, index, 2, "ARG[0].index"),            /* a weight */
        B(ARG, PlanArg, 1, index, N_PLAN_INPUT, "ARG[1].index"), /* an input */
        B(ARG, PlanArg, 2, value, 4096, "ARG[2].value"),         /* a buffer */
        B(ARG, PlanArg, 6, index, 1, "ARG[6].index"),            /* keys */
        B(ARG, PlanArg, 7, index, UINT32_MAX, "ARG[7].index"),   /* values */
        S(WEIGHT, PlanWeight, name),
        B(WEIGHT, PlanWeight, 1, type, N_WTYPE, "WEIGHT[1].type"),
        B(WEIGHT, PlanWeight, 1, type, W_F16, "WEIGHT[1].src_bytes"),
        B(WEIGHT, PlanWeight, 1, type, W_Q8_0, "WEIGHT[1].src_bytes"), /* 8 values are no block */
        B(WEIGHT, PlanWeight, 1, layout, N_PLAN_LAYOUT, "WEIGHT[1].layout"),
        B(WEIGHT, PlanWeight, 1, layout, PLAN_rows, "WEIGHT[1].dst_bytes"),
        B(WEIGHT, PlanWeight, 1, rank, 0, "WEIGHT[1].rank"),
        B(WEIGHT, PlanWeight, 1, rank, 5, "WEIGHT[1].rank"),
        B(WEIGHT, PlanWeight, 1, rank, 1, "WEIGHT[1].dim"),
        B(WEIGHT, PlanWeight, 1, rank, 4, "WEIGHT[1].dst_bytes"), /* panels are of matrices */
        B(WEIGHT, PlanWeight, 1, dim[0], 0, "WEIGHT[1].dim"),
        B(WEIGHT, PlanWeight, 1, dim[0], 1ull << 62, "WEIGHT[1].src_bytes"),
        B(WEIGHT, PlanWeight, 1, dim[1], UINT64_MAX, "WEIGHT[1].src_bytes"),
        B(WEIGHT, PlanWeight, 1, dim[3], 2, "WEIGHT[1].dim"),
        B(WEIGHT, PlanWeight, 1, part, 1, "WEIGHT[1].part"),
        B(WEIGHT, PlanWeight, 1, src, FILE_BYTES - WEIGHT + 1, "WEIGHT[1].src"),
        B(WEIGHT, PlanWeight, 1, src, UINT64_MAX, "WEIGHT[1].src"),
        B(WEIGHT, PlanWeight, 1, src_bytes, WEIGHT - 1, "WEIGHT[1].src_bytes"),
        B(WEIGHT, PlanWeight, 1, dst_bytes, WEIGHT, "WEIGHT[1].dst_bytes"),
        B(WEIGHT, PlanWeight, 1, embedded, 0, "WEIGHT[1].embedded"), /* there is no WDATA */
        S(STATE, PlanState, name),
        B(STATE, PlanState, 0, heads, 0, "STATE[0].heads"),
        B(STATE, PlanState, 0, heads, 1u << 20, "STATE[0].heads"),
        B(STATE, PlanState, 0, dk, 0, "STATE[0].dk"),
        B(STATE, PlanState, 0, dv, UINT32_MAX, "STATE[0].dv"),
        B(STATE, PlanState, 0, dv, 0, "ARG[7].index"), /* whose values are used */
        B(STATE, PlanState, 0, ktype, D_q8, "STATE[0].ktype"),
        B(STATE, PlanState, 0, vtype, N_DTYPE, "STATE[0].vtype"),
        S(PART, PlanPart, path),
        B(PART, PlanPart, 0, header_bytes, FILE_BYTES + 1, "PART[0].header_bytes"),
        B(PART, PlanPart, 0, bytes, FILE_BYTES - 1, "WEIGHT[1].src"),
};

static void every_field(void **state)
{
        (void)state;
        static const u64 size[N_PLAN_SECTION] = {
#define X(name, T) sizeof(T),
                PLAN_SECTIONS(X)
#undef X
        };
        for (size_t i = 0; i < COUNT(bads); i++) {
                const Bad *x = &bads[i];
                Buf b = copy();
                PlanHead h;
                memcpy(&h, b.p, sizeof h);
                memcpy(b.p + h.section[x->section].offset + x->element * size[x->section] + x->at, &x->value,
                        x->size);
                refresh(&b);
                moec_error e = {0};
                moec_status st = try(&b, &e);
                if (st != MOEC_DAMAGED || !strstr(e.msg, x->says))
                        fail_msg("%s: status %d, \"%s\"", x->says, st, e.msg);
                buf_free(&b);
        }
}

/* The images' table, and strings without an end. */
static void code_and_strings(void **state)
{
        (void)state;
        PlanHead h;
        memcpy(&h, good.p, sizeof h);
        const struct {
                PlanSection s;
                u64 at, value;
                u32 size;
                const char *says;
        } cases[] = {
                {PLAN_CODE, 0, UINT64_MAX, 8, "CODE[0].count"},
                {PLAN_CODE, 0, 4, 8, "CODE[0].count"},
                {PLAN_CODE, 0, 0, 8, "KERNEL[0].image"},
                {PLAN_CODE, 8, 1u << 30, 4, "CODE[0].arch"},
                {PLAN_CODE, 12, 3, 4, "CODE[0].kind"},
                {PLAN_CODE, 16, 31, 8, "CODE[0].offset"},
                {PLAN_CODE, 16, UINT64_MAX, 8, "CODE[0].offset"},
                {PLAN_CODE, 24, 41, 8, "CODE[0].offset"},
                {PLAN_STR, h.section[PLAN_STR].count - 1, 'x', 1, "STR"},
        };
        for (size_t i = 0; i < COUNT(cases); i++) {
                Buf b = copy();
                memcpy(b.p + h.section[cases[i].s].offset + cases[i].at, &cases[i].value, cases[i].size);
                refresh(&b);
                moec_error e = {0};
                assert_int_equal(try(&b, &e), MOEC_DAMAGED);
                if (!strstr(e.msg, cases[i].says))
                        fail_msg("\"%s\" does not say %s", e.msg, cases[i].says);
                buf_free(&b);
        }
}

/* The section table itself, under a right checksum. */
static void every_span(void **state)
{
        (void)state;
        static const u64 values[] = {0, 1, 64, UINT64_MAX, UINT64_MAX - 63, 1ull << 32, 1ull << 60, 1u << 12};
        for (int s = 0; s < N_PLAN_SECTION; s++)
                for (int member = 0; member < 2; member++)
                        for (size_t v = 0; v < COUNT(values); v++) {
                                Buf b = copy();
                                PlanHead h;
                                memcpy(&h, b.p, sizeof h);
                                u64 *field = member ? &h.section[s].count : &h.section[s].offset;
                                bool same = *field == values[v];
                                *field = values[v];
                                memcpy(b.p, &h, sizeof h);
                                refresh(&b);
                                moec_error e = {0};
                                moec_status st = try(&b, &e);
                                assert_int_equal(st, same ? MOEC_OK : MOEC_DAMAGED);
                                buf_free(&b);
                        }
        for (int d = -1; d <= 1; d += 2)
                for (int s = 0; s < N_PLAN_SECTION; s++) {
                        Buf b = copy();
                        PlanHead h;
                        memcpy(&h, b.p, sizeof h);
                        h.section[s].count += (u64)(i64)d;
                        memcpy(b.p, &h, sizeof h);
                        refresh(&b);
                        try(&b, NULL); /* some of these hide in padding: then they must be harmless */
                        buf_free(&b);
                }
}

static void random_damage(void **state)
{
        (void)state;
        static const u64 nasty[] = {0, 1, 2, 3, 7, 8, 63, 64, 255, 4095, 4096, INT32_MAX, 1u << 31,
                UINT32_MAX, UINT64_MAX, 1ull << 63};
        u64 r = 12345;
        u32 opened = 0;
        void *at = NULL;
        assert_int_equal(posix_memalign(&at, 64, good.len), 0);
        for (int round = 0; round < 60000; round++) {
                Buf b = {.p = at, .len = good.len};
                memcpy(at, good.p, good.len);
                for (u32 n = 1 + round % 3; n; n--) {
                        r = r * 6364136223846793005u + 1442695040888963407u;
                        size_t i = (r >> 33) % (good.len - 8);
                        i = r >> 62 ? i & ~(size_t)3 : i;
                        u64 v = r >> 20 & 1 ? nasty[r >> 40 & 15] : (u64)(u8)b.p[i] + (r >> 50 & 3) - 1;
                        memcpy(b.p + i, &v, 1u << (r >> 60 & 3));
                }
                refresh(&b);
                Plan *p;
                moec_error e;
                moec_status st = plan_view(at, good.len, &p, &e);
                assert_true(st == MOEC_OK || st == MOEC_DAMAGED || st == MOEC_UNSUPPORTED);
                if (st == MOEC_OK) {
                        opened++;
                        walk(p);
                }
                plan_close(p);
        }
        free(at);
        assert_true(opened > 1000); /* else the deep checks were never reached */
}

/* ---- files ---- */

static void executable(void **state)
{
        (void)state;
        char path[128];
        snprintf(path, sizeof path, "%s/exe", tiny_dir);
        Buf b = {0};
        u64 offset = 0;
        static const char zero[PLAN_PAGE] = "not a program";
        buf_add(&b, zero, sizeof zero);
        assert_int_equal(file_write(path, b.p, b.len, 0755, NULL), MOEC_OK);
        assert_false(exe_plan_offset(path, &offset));
        assert_false(exe_plan_offset("/nowhere/at/all", &offset));
        assert_false(exe_plan_offset("/tmp", &offset));
        buf_add(&b, good.p, good.len);
        ExeTrailer t = {PLAN_PAGE, {0}};
        memcpy(t.magic, EXE_MAGIC, 8);
        buf_add(&b, &t, sizeof t);
        assert_int_equal(file_write(path, b.p, b.len, 0755, NULL), MOEC_OK);
        assert_true(exe_plan_offset(path, &offset));
        assert_int_equal(offset, PLAN_PAGE);
        moec_model *m;
        assert_int_equal(model_from_plan(path, offset, NULL, &m, NULL), MOEC_OK);
        moec_info info;
        moec_get_info(m, &info);
        assert_true(info.is_plan);
        assert_string_equal(info.arch, "tiny");
        assert_string_equal(info.target, "cpu");
        assert_int_equal(info.n_vocab, VOCAB);
        assert_false(info.has_tokenizer);
        i32 *ids;
        int n;
        assert_int_equal(moec_tokenize(m, "a", 1, true, true, &ids, &n, NULL), MOEC_UNSUPPORTED);
        assert_int_equal(moec_bos(m), -1);
        assert_false(moec_is_end(m, 0));
        moec_close(m);
        static const u64 wrong[] = {0, 1, 64, PLAN_PAGE + 64, 1u << 20, UINT64_MAX};
        for (size_t i = 0; i < COUNT(wrong); i++) {
                moec_status st = model_from_plan(path, wrong[i], NULL, &m, NULL);
                assert_true(st == MOEC_DAMAGED || st == MOEC_USAGE);
                assert_null(m);
        }
        buf_free(&b);
}

static void no_file(void **state)
{
        (void)state;
        char path[128];
        Plan *p;
        moec_error e;
        snprintf(path, sizeof path, "%s/none", tiny_dir);
        assert_int_equal(plan_open(path, 0, &p, &e), MOEC_NOT_FOUND);
        assert_int_equal(file_write(path, "", 0, 0644, NULL), MOEC_OK);
        assert_int_equal(plan_open(path, 0, &p, &e), MOEC_DAMAGED);
        assert_int_equal(file_write(path, good.p, good.len, 0644, NULL), MOEC_OK);
        assert_int_equal(plan_open(path, 0, &p, &e), MOEC_OK);
        assert_int_equal(
                file_write(path, "gone", 4, 0644, NULL), MOEC_OK); /* another file: the mapping stays */
        walk(p);
        plan_close(p);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(reads_what_was_written),
                cmocka_unit_test(many_strings),
                cmocka_unit_test(cut_off),
                cmocka_unit_test(every_bit),
                cmocka_unit_test(every_field),
                cmocka_unit_test(code_and_strings),
                cmocka_unit_test(every_span),
                cmocka_unit_test(random_damage),
                cmocka_unit_test(executable),
                cmocka_unit_test(no_file),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}

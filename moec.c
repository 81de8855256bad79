/* moec.h's compiler half: opening files, and every stage from a GGUF to a plan, in order, in stages_plan. */
#include "moec_front.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "codegen/m4.h"
#include "frontend/lua.h"
#include "runtime/driver.h"
#include "runtime/isa.h"

/* ---- options: what is not given is the environment's, which is read here alone ---- */

const char *front_cache_dir(Arena *a, const moec_options *opt)
{
        const char *dir = opt->cache_dir, *base;
        if (dir || (dir = getenv("MOEC_CACHE_DIR")) != NULL)
                return arena_str(a, dir);
        if ((base = getenv("XDG_CACHE_HOME")) != NULL && *base == '/')
                return arena_fmt(a, "%s/moec", base);
        if ((base = getenv("HOME")) != NULL && *base == '/')
                return arena_fmt(a, "%s/.cache/moec", base);
        return "off";
}

Dtype front_cache_type(const char *word, const char *flag)
{
        for (Dtype t = 0; word && t < N_KV_TYPE; t++)
                if (!strcmp(word, dtype_info[t].name))
                        return t;
        if (word)
                err(MOEC_USAGE, "%s %s: the KV cache's types are f16, f32 and q8_0", flag, word);
        return D_f16;
}

NvrtcPaths front_nvrtc_paths(void)
{
        return (NvrtcPaths){
                getenv("MOEC_NVRTC"), getenv("CONDA_PREFIX"), getenv("CUDA_HOME"), getenv("CUDA_PATH")};
}

/* ---- targets ---- */

static moec_status device_arch(Arena *a, const char **arch, moec_error *e)
{
        Driver *d;
        Device dev;
        moec_status st = driver_open(NULL, &d, e);
        if (st == MOEC_OK)
                st = driver_device(d, 0, &dev, e);
        driver_close(d);
        if (st == MOEC_OK && dev.major < CUDA_NEEDS)
                st = fail(e, MOEC_NO_DEVICE,
                        "the CUDA device, %s, has compute capability %u.%u, but the kernels need %d.0 or "
                        "newer; "
                        "use --target cpu",
                        dev.name, dev.major, dev.minor, CUDA_NEEDS);
        if (st == MOEC_OK)
                *arch = arena_fmt(a, "sm_%u%u%s", dev.major, dev.minor, dev.major >= 9 ? "a" : "");
        return st;
}

/* cuda where there is a device and a way to compile for it, or a plan that is compiled already. */
static void choose(Stages *s, bool compiled)
{
        const char **arch = NEWN(s->arena, const char *, 1);
        NvrtcPaths paths = front_nvrtc_paths();
        moec_error e;
        Nvrtc *n;
        s->target = TARGET_cpu;
        if (device_arch(s->arena, arch, &e) != MOEC_OK)
                s->why = arena_fmt(
                        s->arena, "auto: %.*s", (int)MIN(strcspn(e.msg, ":;"), PLAN_WHY - 8), e.msg);
        else if (!compiled && nvrtc_open(s->arena, &paths, &n, &e) != MOEC_OK)
                s->why = "auto: no NVRTC for the device";
        else {
                s->target = TARGET_cuda;
                s->arch = arch;
                s->n_arch = 1;
                s->device_arch = true;
                s->why = "auto: a CUDA device is there";
        }
}

static void target_of(Stages *s, bool compiled)
{
        const char *t = s->opt->target ? s->opt->target : "auto";
        moec_error e;
        s->why = "";
        s->target = TARGET_cpu;
        if (!strcmp(t, "cpu"))
                return;
        if (!strcmp(t, "auto")) {
                choose(s, compiled);
                return;
        }
        if (!strcmp(t, "eval"))
                err(MOEC_USAGE, "target eval: the interpreter compiles nothing; use --target cpu here");
        if (strncmp(t, "cuda", 4) != 0 || (t[4] && t[4] != ':'))
                err(MOEC_USAGE,
                        "target %s: there are auto, cpu, cuda, cuda:ARCH (such as cuda:sm_90a) and eval", t);
        s->target = TARGET_cuda;
        if (t[4]) {
                s->arch = nvrtc_archs(s->arena, t + 5, &s->n_arch);
                return;
        }
        s->arch = NEWN(s->arena, const char *, 1);
        s->n_arch = 1;
        s->device_arch = true;
        if (device_arch(s->arena, s->arch, &e) != MOEC_OK)
                err(e.status,
                        "%.800s. To compile for another machine's device, name it: --target cuda:sm_90a",
                        e.msg);
}

static const char *archs_of(const Stages *s)
{
        const char *list = "";
        for (u32 i = 0; i < s->n_arch; i++)
                list = arena_fmt(s->arena, "%s%s%s", list, i ? "," : "", s->arch[i]);
        return list;
}

/* ---- stages ---- */

static const char *march_of(const moec_options *opt, const char *def)
{
        static const char *const known[] = {"native", "x86-64-v3", "x86-64"};
        const char *march = opt->march ? opt->march : def;
        for (u32 i = 0; i < COUNT(known); i++)
                if (!strcmp(march, known[i]))
                        return known[i];
        err(MOEC_USAGE, "march %s: there are native, x86-64-v3 and x86-64", march);
}

static Embed lua_file(Stages *s, const char *name)
{
        Embed f;
        if (!embed_text(s->arena, s->opt->templates, name, &f))
                die("%s is not built in", name);
        return f;
}

static const Tab *lua_table(Stages *s, const char *name)
{
        Embed f = lua_file(s, name);
        return lua_config(s->arena, f.name, f.text, f.len);
}

static const char *const target_name[N_TARGET] = {
#define T(name) #name,
        TARGETS(T)
#undef T
};

/* compiled: for a plan that is there already. */
static void open_for(
        Stages *s, Arena *a, const Front *f, const moec_options *opt, const char *def_march, bool compiled)
{
        *s = (Stages){
                .arena = a, .front = f, .opt = opt, .march = march_of(opt, def_march), .cache = s->cache};
        if (f->model.why.status)
                err_rethrow(&f->model.why);
        target_of(s, compiled);
        const char *target = target_name[s->target];
        s->pipeline = pipeline_read(a, lua_table(s, "pipeline.lua"), target);
        s->in.tune = tab_tab(lua_table(s, "tune.lua"), target);
        if (s->pipeline->n_phase > MAX_PHASE)
                err(MOEC_ERROR, "pipeline.lua: %u phases for %s, at most %d", s->pipeline->n_phase, target,
                        MAX_PHASE);
        u64 batch = opt->n_batch > 0 ? (u64)opt->n_batch : DEFAULT_BATCH,
            vocab = MAX(f->model.info.n_vocab, 1);
        for (u32 i = 0; i < s->pipeline->n_phase; i++) {
                const Phase *p = &s->pipeline->phase[i];
                Stage *st = &s->stage[s->n++];
                st->phase = p;
                st->max_tok = p->max_tok ? p->max_tok : (u32)batch;
                /* logits are wide: rows for 64 MiB of them, but some */
                st->max_out = p->max_out ? p->max_out : (u32)MIN(batch, MAX(16, (64u << 20) / (4 * vocab)));
                st->max_out = MIN(st->max_out, st->max_tok);
        }
}

void stages_open(Stages *s, Arena *a, const Front *f, const moec_options *opt, const char *def_march)
{
        open_for(s, a, f, opt, def_march, false);
}

void stage_run(Stages *s, Stage *st, AfterPass *after, void *user)
{
        const moec_options *o = s->opt;
        PassOpt po = {.act = o->act == MOEC_ACT_F32 ? ACT_f32 : ACT_q8, .no_reuse = o->debug};
        st->g = model_graph(&s->front->model, s->arena, front_cache_type(o->ctk, "-ctk"),
                front_cache_type(o->ctv, "-ctv"));
        st->g->name = st->phase->name;
        st->g->max[DIM_n_tok] = st->max_tok;
        st->g->max[DIM_n_out] = st->max_out;
        st->g->max_seq_tok = st->phase->max_seq_tok;
        check(st->g);
        if (!after || after(user, "", st->g))
                run_passes(st->g, st->phase->passes, &po, after, user);
}

static void in_parts(Stages *s)
{
        const Gguf *g = s->front->model.gguf;
        EmitIn *in = &s->in;
        PlanPart *part = NEWN(s->arena, PlanPart, gguf_n_parts(g));
        EmitTensor *tensor = NEWN(s->arena, EmitTensor, gguf_n_tensors(g));
        in->n_part = gguf_n_parts(g);
        in->part_path = NEWN(s->arena, const char *, in->n_part);
        for (u32 i = 0; i < in->n_part; i++) {
                const GgufPart *p = gguf_part(g, i);
                char real[PATH_MAX];
                part[i] = (PlanPart){.bytes = p->map.size,
                        .header_bytes = p->meta_bytes,
                        .hash = hash_bytes(p->map.p, p->meta_bytes)};
                in->part_path[i] = arena_str(s->arena, realpath(p->path, real) ? real : p->path);
        }
        in->n_tensor = gguf_n_tensors(g);
        for (u32 i = 0; i < in->n_tensor; i++) {
                const GgufTensor *t = gguf_tensor_at(g, i);
                tensor[i] = (EmitTensor){t->name, t->part, t->offset, t->bytes};
                part[t->part].bytes = MAX(
                        part[t->part].bytes, t->offset + t->bytes); /* a shape file ends before its data */
        }
        in->part = part;
        in->tensor = tensor;
}

static void in_meta(Stages *s)
{
        const Model *m = &s->front->model;
        const ModelInfo *i = &m->info;
        char *native = NEWN(s->arena, char, ISA_MAX);
        const char *isa = s->target == TARGET_cuda ? archs_of(s) : s->march;
        if (s->target == TARGET_cpu && !strcmp(s->march, "native")) {
                isa_native(native);
                isa = native;
        }
        s->in.kind = s->target;
        s->in.arch = m->arch;
        s->in.name = m->name;
        s->in.target = s->pipeline->target;
        s->in.isa = isa;
        s->in.compiler = "moec " MOEC_VERSION;
        s->in.embed = s->embed;
        s->in.meta = (PlanMeta){.act = s->opt->act,
                .n_ctx_train = (u32)i->n_ctx_train,
                .n_layer = (u32)i->n_layer,
                .n_embd = (u32)i->n_embd,
                .n_expert = (u32)i->n_expert,
                .n_expert_used = (u32)i->n_expert_used,
                .ctk = (u32)front_cache_type(s->opt->ctk, "-ctk"),
                .ctv = (u32)front_cache_type(s->opt->ctv, "-ctv"),
                .n_params = i->n_params,
                .weight_bytes = i->weight_bytes,
                .bytes_per_token = i->token_bytes,
                .params_per_token = i->token_params,
                .model = gguf_hash(m->gguf)};
}

void stages_select(Stages *s)
{
        EmitPhase *phase = NEWN(s->arena, EmitPhase, s->n);
        for (u32 i = 0; i < s->n; i++) {
                stage_run(s, &s->stage[i], NULL, NULL);
                phase[i] = (EmitPhase){s->stage[i].g, s->stage[i].max_tok, s->stage[i].max_out};
        }
        s->in.phase = phase;
        s->in.n_phase = s->n;
        in_parts(s);
        in_meta(s);
        s->emit = emit_new(s->arena, &s->in);
}

static BuildOpt build_opt(const Stages *s)
{
        const moec_options *o = s->opt;
        return (BuildOpt){o->templates, o->keep, s->march,
                o->threads > 0 ? o->threads : (int)pool_processors(), s->cache, o->progress, o->user};
}

void stages_sources(Stages *s, Key *const key[], u32 n, const char **source)
{
        BuildOpt o = build_opt(s);
        if (s->target == TARGET_cuda)
                nvrtc_sources(s->arena, key, n, s->arch[0], &o, source);
        else
                cc_sources(s->arena, key, n, &o, source);
}

static Nvrtc *open_nvrtc(Stages *s)
{
        NvrtcPaths paths = front_nvrtc_paths();
        moec_error e;
        Nvrtc *n;
        if (nvrtc_open(s->arena, &paths, &n, &e) != MOEC_OK)
                err_rethrow(&e);
        if (s->device_arch && nvrtc_knows(n, s->arch[0], &e) != MOEC_OK)
                s->arch[0] = nvrtc_newest(n, s->arena);
        return n;
}

/* Templates to code. Returns the number of images. */
static u32 build(Stages *s, Key *const key[], u32 n, Image **image, const char **source)
{
        BuildOpt o = build_opt(s);
        u32 n_image = s->target == TARGET_cuda ? n * s->n_arch : 1;
        *image = NEWN(s->arena, Image, n_image);
        if (s->target == TARGET_cuda)
                nvrtc_build(s->arena, key, n, open_nvrtc(s), s->arch, s->n_arch, &o, *image, source);
        else
                cc_build(s->arena, key, n, &o, *image, source);
        s->code_bytes = 0;
        for (u32 i = 0; i < n_image; i++)
                s->code_bytes += (*image)[i].bytes;
        return n_image;
}

/* A tokenizer that is not supported is left out: only text needs it, and moec_open has kept why. */
static void in_token(Stages *s)
{
        Buf *b = NEW(s->arena, Buf);
        Trap t;
        if (TRAP(&t) == 0) {
                if (model_token(&s->front->model, b)) {
                        s->in.token = arena_copy(s->arena, b->p, b->len);
                        s->in.n_token = b->len;
                }
                trap_pop(&t);
        }
        buf_free(b);
}

/* The compiler, front to back. */
void stages_plan(Stages *s, Buf *out)
{
        Key *const *key;
        Image *image;
        stages_select(s); /* graph, passes, Keys */
        u32 n = emit_keys(s->emit, &key);
        const char **source = NEWN(s->arena, const char *, n);
        u32 n_image = build(s, key, n, &image, source); /* templates to C or CUDA C to machine code */
        in_token(s);
        s->in.isa = s->target == TARGET_cuda ? archs_of(s) : s->in.isa;
        emit_plan(s->emit, image, n_image, s->n_arch, source, out); /* the plan */
}

/* ---- the cached plan ---- */

/* Everything that a plan depends on, for people and, hashed, as its key. */
static const char *plan_text(Stages *s)
{
        const moec_options *o = s->opt;
        char model[HASH_HEX + 1], templates[HASH_HEX + 1], lua[HASH_HEX + 1], isa[ISA_MAX] = "";
        static const char *const file[] = {"pipeline.lua", "tune.lua"};
        Hash h = hash_bytes(s->front->model.type->file.text, s->front->model.type->file.len);
        for (u32 i = 0; i < COUNT(file); i++) {
                Embed f = lua_file(s, file[i]);
                h = hash_mix(h, f.text, f.len);
        }
        if (s->target == TARGET_cpu && !strcmp(s->march, "native"))
                isa_native(isa);
        return arena_fmt(s->arena,
                "moec: %s, plan %d\nmodel: %s %s\ntarget: %s %s %s\nact: %s\nkv: %s %s\nbatch: %d\ndebug: "
                "%d\ntemplates: %s\nlua: %s\n",
                MOEC_VERSION, PLAN_VERSION, s->front->model.arch,
                hash_hex(gguf_hash(s->front->model.gguf), model), s->pipeline->target,
                s->target == TARGET_cuda ? archs_of(s) : s->march, isa, o->act == MOEC_ACT_F32 ? "f32" : "q8",
                o->ctk ? o->ctk : "f16", o->ctv ? o->ctv : "f16", o->n_batch > 0 ? o->n_batch : DEFAULT_BATCH,
                o->debug, hash_hex(m4_templates_hash(s->arena, o->templates), templates), hash_hex(h, lua));
}

static void open_cache(Stages *s)
{
        moec_error e = {0};
        if (!s->cache && cache_open(front_cache_dir(s->arena, s->opt), &s->cache, &e) != MOEC_OK)
                err_rethrow(&e);
}

static bool get_plan(Stages *s, Hash key, Plan **plan)
{
        CacheHit hit;
        if (s->opt->keep || !cache_get(s->cache, key, "plan", &hit))
                return false;
        moec_status st = plan_take(&hit.map, hit.at, hit.bytes, "cached plan", plan, NULL);
        map_close(&hit.map);
        return st == MOEC_OK;
}

static Hash plan_key(Stages *s, const char **text)
{
        *text = plan_text(s);
        return hash_bytes(*text, strlen(*text));
}

static void make(Stages *s, Hash key, const char *text, Plan **plan)
{
        moec_error e = {0};
        Buf b = {0};
        stages_plan(s, &b);
        cache_put(s->cache, key, "plan", text, b.p, b.len, NULL);
        moec_status st = plan_copy(b.p, b.len, plan, &e);
        buf_free(&b);
        if (st)
                err_rethrow(&e);
}

/* Where `auto` has the choice, a plan that is compiled already decides as a compiler would. */
static void make_or_get(Stages *s, const Front *f, const moec_options *opt, const char *def_march,
        Plan **plan, bool *from_cache)
{
        const char *text;
        for (int compiled = 1; compiled >= 0; compiled--) {
                open_for(s, s->arena, f, opt, def_march, compiled);
                open_cache(s);
                Hash key = plan_key(s, &text);
                *from_cache = get_plan(s, key, plan);
                if (*from_cache)
                        return;
                if (!compiled || s->target == TARGET_cpu || !*s->why) {
                        make(s, key, text, plan);
                        return;
                }
        }
}

moec_status front_plan(const moec_model *m, const moec_options *opt, const char *def_march, Plan **plan,
        bool *from_cache, char why[PLAN_WHY], moec_error *e)
{
        Arena *a = arena_new();
        Stages *s = NEW(a, Stages);
        moec_status st = MOEC_OK;
        Trap t;
        s->arena = a;
        if (TRAP(&t) == 0) {
                make_or_get(s, m->front, opt, def_march, plan, from_cache);
                snprintf(why, PLAN_WHY, "%s", s->why);
                trap_pop(&t);
        } else {
                if (e)
                        *e = t.error;
                st = t.error.status;
        }
        cache_close(s->cache);
        arena_free(a);
        return st;
}

static moec_status make_plan(const moec_model *m, const moec_options *opt, Plan **plan, bool *from_cache,
        char why[PLAN_WHY], moec_error *e)
{
        return front_plan(m, opt, "native", plan, from_cache, why, e);
}

/* ---- opening ---- */

static void front_close(void *p)
{
        Front *f = p;
        model_close(&f->model);
        arena_free(f->arena);
}

static void fill_info(moec_model *m, const Model *f)
{
        const ModelInfo *i = &f->info;
        m->info = (moec_info){.arch = f->arch,
                .name = f->name,
                .n_vocab = (int)i->n_vocab,
                .n_ctx_train = (int)i->n_ctx_train,
                .n_layer = (int)i->n_layer,
                .n_embd = (int)i->n_embd,
                .n_expert = (int)i->n_expert,
                .n_expert_used = (int)i->n_expert_used,
                .has_weights = !i->is_shape,
                .has_tokenizer = m->tok != NULL,
                .n_params = i->n_params,
                .weight_bytes = i->weight_bytes,
                .bytes_per_token = i->token_bytes,
                .params_per_token = i->token_params};
}

/* A file whose tokenizer is not supported opens all the same: only text needs it. */
static void open_token(moec_model *m, Front *f)
{
        Buf b = {0};
        moec_error e = {0};
        Trap t;
        if (TRAP(&t) == 0) {
                bool has = model_token(&f->model, &b);
                trap_pop(&t);
                if (has && token_open(b.p, b.len, &m->tok, &e) == MOEC_OK)
                        m->tok_blob = b.p;
                else
                        buf_free(&b);
        } else {
                e = t.error;
        }
        snprintf(m->tok_why, sizeof m->tok_why, "%.255s", e.status ? e.msg : "");
}

static moec_status open_gguf(const char *path, const moec_options *opt, moec_model **out, moec_error *e)
{
        Arena *a = arena_new();
        Front *f = NEW(a, Front);
        Trap t;
        f->arena = a;
        if (TRAP(&t) == 0) {
                model_open(&f->model, a, path, opt ? opt->templates : NULL);
                trap_pop(&t);
        } else {
                if (e)
                        *e = t.error;
                front_close(f);
                return t.error.status;
        }
        moec_model *m = calloc(1, sizeof *m);
        if (!m || !(m->path = strdup(path))) {
                free(m);
                front_close(f);
                return fail(e, MOEC_NO_MEMORY, "out of memory opening %s", path);
        }
        m->front = f;
        m->close_front = front_close;
        m->make_plan = make_plan;
        m->load_eval = front_load_eval;
        open_token(m, f);
        fill_info(m, &f->model);
        *out = m;
        return MOEC_OK;
}

moec_status moec_open(const char *path, const moec_options *opt, moec_model **out, moec_error *e)
{
        u64 offset;
        Map map;
        *out = NULL;
        if (exe_plan_offset(path, &offset))
                return model_from_plan(path, offset, opt, out, e);
        moec_status st = map_open(path, &map, e);
        if (st)
                return st;
        bool plan = map.size >= 8 && !memcmp(map.p, PLAN_MAGIC, 8);
        map_close(&map);
        return plan ? model_from_plan(path, 0, opt, out, e) : open_gguf(path, opt, out, e);
}

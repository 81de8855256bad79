#include "codegen/nvrtc.h"
#include "codegen/cubin.h"
#include <ctype.h>
#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/isa.h"
#include "runtime/plan.h"

/* ---- the library ---- */

typedef struct Program Program;
#define NVRTC_API(F)                                                                                         \
        F(nvrtcVersion, (int *, int *))                                                                      \
        F(nvrtcGetNumSupportedArchs, (int *))                                                                \
        F(nvrtcGetSupportedArchs, (int *))                                                                   \
        F(nvrtcCreateProgram,                                                                                \
                (Program **, const char *, const char *, int, const char *const *, const char *const *))     \
        F(nvrtcCompileProgram, (Program *, int, const char *const *))                                        \
        F(nvrtcGetProgramLogSize, (Program *, size_t *))                                                     \
        F(nvrtcGetProgramLog, (Program *, char *))                                                           \
        F(nvrtcGetCUBINSize, (Program *, size_t *))                                                          \
        F(nvrtcGetCUBIN, (Program *, char *))                                                                \
        F(nvrtcGetPTXSize, (Program *, size_t *))                                                            \
        F(nvrtcGetPTX, (Program *, char *))                                                                  \
        F(nvrtcDestroyProgram, (Program **))

#define MAX_KNOWN   64
#define OLDEST      12 /* the first major version with what the templates and options use */
#define OLDEST_ARCH (10 * CUDA_NEEDS)

struct Nvrtc {
#define F(name, args) int(*name) args;
        NVRTC_API(F)
#undef F
        char version[32];
        int known[MAX_KNOWN]; /* compute capabilities, 90 for 9.0, rising */
        u32 n_known;
};

static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12"};

static void *in_folder(const char *folder, const char *below)
{
        for (u32 i = 0; folder && *folder == '/' && i < COUNT(names); i++) {
                char path[4096];
                snprintf(path, sizeof path, "%s/%s%s", folder, below, names[i]);
                void *h = dlopen(path, RTLD_NOW | RTLD_LOCAL);
                if (h)
                        return h;
        }
        return NULL;
}

static void *by_name(int flags)
{
        void *h = NULL;
        for (u32 i = 0; !h && i < COUNT(names); i++)
                h = dlopen(names[i], RTLD_NOW | RTLD_LOCAL | flags);
        return h;
}

/* The usual places of the toolkit, the newest first. */
static void *installed(void)
{
        glob_t g;
        void *h = NULL;
        if (glob("/usr/local/cuda*", 0, NULL, &g) != 0)
                return NULL;
        for (size_t i = g.gl_pathc; !h && i > 0; i--)
                h = in_folder(g.gl_pathv[i - 1], "lib64/");
        globfree(&g);
        return h;
}

static void *find_library(const NvrtcPaths *p)
{
        void *h;
        if (p->file)
                return dlopen(p->file, RTLD_NOW | RTLD_LOCAL);
        if ((h = by_name(RTLD_NOLOAD)) || (h = in_folder(p->conda, "lib/")) || (h = by_name(0)) ||
                (h = in_folder(p->home, "lib64/")) || (h = in_folder(p->path, "lib64/")))
                return h;
        return installed();
}

static moec_status not_found(const NvrtcPaths *p, moec_error *e)
{
        if (p->file)
                return fail(e, MOEC_TOOLCHAIN, "cannot load NVRTC from $MOEC_NVRTC: %.600s", dlerror());
        return fail(e, MOEC_TOOLCHAIN,
                "NVRTC (libnvrtc.so.13 or .12), the compiler of CUDA kernels, is not installed: it is not "
                "loaded, nor in "
                "$CONDA_PREFIX/lib, the loader's folders, $CUDA_HOME/lib64, $CUDA_PATH/lib64 or "
                "/usr/local/cuda*/lib64. Install the CUDA "
                "toolkit or the package nvidia-cuda-nvrtc, or compile elsewhere: a plan needs none to run");
}

static moec_status get_symbols(Nvrtc *n, void *h, moec_error *e)
{
        void *f;
#define F(name, args)                                                                                        \
        if (!(f = dlsym(h, #name)))                                                                          \
                return fail(e, MOEC_TOOLCHAIN,                                                               \
                        "NVRTC is too old: it has no " #name "; install CUDA 12 or newer");                  \
        memcpy(&n->name, &f, sizeof f);
        NVRTC_API(F)
#undef F
        return MOEC_OK;
}

static int rising(const void *a, const void *b)
{
        const int *x = a, *y = b;
        return *x < *y ? -1 : *x > *y;
}

static moec_status ask(Nvrtc *n, moec_error *e)
{
        int major = 0, minor = 0, count = 0;
        if (n->nvrtcVersion(&major, &minor) != 0 || n->nvrtcGetNumSupportedArchs(&count) != 0 || count < 1 ||
                count > MAX_KNOWN || n->nvrtcGetSupportedArchs(n->known) != 0)
                return fail(e, MOEC_TOOLCHAIN,
                        "NVRTC does not say its version and architectures: install it again");
        n->n_known = (u32)count;
        qsort(n->known, n->n_known, sizeof *n->known, rising);
        snprintf(n->version, sizeof n->version, "%d.%d", major, minor);
        if (major < OLDEST)
                return fail(e, MOEC_TOOLCHAIN, "NVRTC %s is too old: install CUDA %d or newer", n->version,
                        OLDEST);
        return MOEC_OK;
}

moec_status nvrtc_open(Arena *a, const NvrtcPaths *paths, Nvrtc **out, moec_error *e)
{
        void *h = find_library(paths);
        *out = NULL;
        if (!h)
                return not_found(paths, e);
        Nvrtc *n = NEW(a, Nvrtc);
        moec_status st = get_symbols(n, h, e);
        if (st == MOEC_OK)
                st = ask(n, e);
        if (st == MOEC_OK)
                *out = n;
        return st;
}

const char *nvrtc_version(const Nvrtc *n)
{
        return n->version;
}

/* ---- architectures ---- */

/* "sm_90a": 90; 0: no such word. */
static u32 arch_number(const char *s, bool *ptx)
{
        *ptx = !strncmp(s, "compute_", 8);
        if (!*ptx && strncmp(s, "sm_", 3) != 0)
                return 0;
        s += *ptx ? 8 : 3;
        char *end;
        unsigned long v = isdigit((unsigned char)*s) ? strtoul(s, &end, 10) : 0;
        if (v < 10 || v > 999 || (*end && (end[1] || (*end != 'a' && *end != 'f'))))
                return 0;
        return (u32)v;
}

const char **nvrtc_archs(Arena *a, const char *list, u32 *n)
{
        const char **arch = NEWN(a, const char *, MAX_ARCH);
        bool ptx;
        *n = 0;
        for (const char *s = list;; s++) {
                size_t len = strcspn(s, ",");
                if (*n == MAX_ARCH)
                        err(MOEC_USAGE, "target cuda:%s: more than %d architectures", list, MAX_ARCH);
                arch[*n] = arena_strn(a, s, len);
                u32 v = arch_number(arch[(*n)++], &ptx);
                if (!v)
                        err(MOEC_USAGE,
                                "target cuda:%s: \"%.*s\" is no architecture; they look like sm_90a, sm_89 "
                                "or compute_90",
                                list, (int)len, s);
                if (v < OLDEST_ARCH)
                        err(MOEC_NO_DEVICE,
                                "target cuda:%s: the kernels need sm_%d or newer; use --target cpu where the "
                                "device is older",
                                list, OLDEST_ARCH);
                s += len;
                if (!*s)
                        return arch;
        }
}

moec_status nvrtc_knows(const Nvrtc *n, const char *arch, moec_error *e)
{
        bool ptx;
        u32 want = arch_number(arch, &ptx);
        char all[512] = "";
        size_t len = 0;
        for (u32 i = 0; i < n->n_known; i++) {
                if (n->known[i] == (int)want)
                        return MOEC_OK;
                len += (size_t)snprintf(
                        all + len, sizeof all - len, " %s%d", ptx ? "compute_" : "sm_", n->known[i]);
        }
        return fail(e, MOEC_TOOLCHAIN, "NVRTC %s does not know %s; it knows%s%s", n->version, arch, all,
                (int)want > n->known[n->n_known - 1] ? ". Install a newer CUDA" : "");
}

const char *nvrtc_newest(const Nvrtc *n, Arena *a)
{
        return arena_fmt(a, "compute_%d", n->known[n->n_known - 1]);
}

/* ---- one kernel ---- */

/* Division and roots are exact; a template says where a product and a sum must not be fused. */
#define OPTIONS  "--std=c++17", "-lineinfo", "-default-device"
#define PORTABLE "--define-macro=PORTABLE" /* for PTX, last */

typedef struct Compile {
        Arena *arena;
        const Nvrtc *nvrtc;
        const char *const *arch;
        u32 n_arch;
        Buf *code;         /* [unit] */
        const char **flag; /* [n_arch] */
        Hash *tool;        /* [n_arch] */
} Compile;

static moec_status failed(const Nvrtc *n, Program *p, const Unit *u, const char *arch, moec_error *e)
{
        size_t len = 0;
        char *log = n->nvrtcGetProgramLogSize(p, &len) == 0 && len ? calloc(1, len + 1) : NULL;
        if (log && n->nvrtcGetProgramLog(p, log) != 0)
                *log = 0;
        moec_status st = fail(e, MOEC_TOOLCHAIN, "NVRTC %s failed on kernel %s for %s: %.600s", n->version,
                u->key->name, arch, log ? log : "");
        free(log);
        return st;
}

static moec_status get_code(const Nvrtc *n, Program *p, bool ptx, Buf *code, const Unit *u, moec_error *e)
{
        size_t len = 0;
        int rc = ptx ? n->nvrtcGetPTXSize(p, &len) : n->nvrtcGetCUBINSize(p, &len);
        char *out = rc == 0 && len ? malloc(len) : NULL;
        if (out && (ptx ? n->nvrtcGetPTX(p, out) : n->nvrtcGetCUBIN(p, out)) == 0)
                buf_add(code, out, len);
        free(out);
        return code->len ? MOEC_OK
                         : fail(e, MOEC_TOOLCHAIN, "NVRTC %s made no code of kernel %s", n->version,
                                   u->key->name);
}

static moec_status compile(const Compile *c, const Unit *u, u32 arch, Buf *code, moec_error *e)
{
        const Nvrtc *n = c->nvrtc;
        const char *option[] = {OPTIONS, c->flag[arch], PORTABLE};
        bool ptx;
        Program *p = NULL;
        arch_number(c->arch[arch], &ptx);
        if (n->nvrtcCreateProgram(&p, u->source.p, u->file, 0, NULL, NULL) != 0)
                return fail(e, MOEC_TOOLCHAIN, "NVRTC %s: cannot begin kernel %s", n->version, u->key->name);
        moec_status st;
        if (n->nvrtcCompileProgram(p, (int)COUNT(option) - !ptx, option) != 0)
                st = failed(n, p, u, c->arch[arch], e);
        else
                st = get_code(n, p, ptx, code, u, e);
        n->nvrtcDestroyProgram(&p);
        return st;
}

static moec_status object(Jobs *j, u32 i, moec_error *e)
{
        const Compile *c = j->self;
        const Unit *u = &j->unit[i];
        u32 arch = i % c->n_arch;
        Hash key = hash_mix(c->tool[arch], u->source.p, u->source.len);
        CacheHit hit;
        if (cache_get(j->opt->cache, key, "cubin", &hit)) {
                buf_add(&c->code[i], hit.data, hit.bytes);
                map_close(&hit.map);
                return MOEC_OK;
        }
        moec_status st = compile(c, u, arch, &c->code[i], e);
        if (st == MOEC_OK && j->opt->cache) {
                Buf text = {0};
                buf_fmt(&text, "kernel: %s\narch: %s\ncompiler: NVRTC %s\n", u->key->text, c->arch[arch],
                        c->nvrtc->version);
                cache_put(j->opt->cache, key, "cubin", text.p, c->code[i].p, c->code[i].len, NULL);
                buf_free(&text);
        }
        return st;
}

/* ---- all of them ---- */

/* Folders of templates, the most special first. */
static const char *const *search_path(const char *arch)
{
        static const char *const generic[] = {"cuda/generic", "cuda", NULL}, *const sm_90[] = {"cuda/sm_90",
                                                                                     "cuda/generic", "cuda",
                                                                                     NULL};
        bool ptx;
        return arch_number(arch, &ptx) >= 90 && !ptx ? sm_90 : generic;
}

static void tools(Compile *c)
{
        static const char *const option[] = {OPTIONS, PORTABLE};
        Hash h = hash_bytes(c->nvrtc->version, strlen(c->nvrtc->version));
        for (u32 i = 0; i < COUNT(option); i++)
                h = hash_mix(h, option[i], strlen(option[i]) + 1);
        for (u32 j = 0; j < c->n_arch; j++) {
                c->flag[j] = arena_fmt(c->arena, "--gpu-architecture=%s", c->arch[j]);
                c->tool[j] = hash_mix(h, c->arch[j], strlen(c->arch[j]));
        }
}

/* Templates see to it; a plan that a device of its own architecture refuses would be of no use. */
static void check_shared(const Compile *c, const Jobs *j)
{
        for (u32 i = 0; i < j->n; i++) {
                const char *arch = c->arch[i % c->n_arch], *name = j->unit[i].key->name;
                bool ptx;
                u64 shared, most = cubin_shared_most(arch_number(arch, &ptx));
                if (!ptx && cubin_shared(c->code[i].p, c->code[i].len, name, &shared) && shared > most)
                        die("kernel %s for %s wants %llu bytes of shared memory, but a block has %llu at "
                            "most: %s",
                                name, arch, (unsigned long long)shared, (unsigned long long)most,
                                j->unit[i].key->text);
        }
}

static void free_code(Compile *c, u32 n)
{
        for (u32 i = 0; i < n; i++)
                buf_free(&c->code[i]);
}

static Jobs *jobs_new(Compile *c, Key *const key[], u32 n, const BuildOpt *opt)
{
        Arena *a = c->arena;
        Jobs *j = NEW(a, Jobs);
        *j = (Jobs){.opt = opt,
                .suffix = ".cu.m4",
                .unit = NEWN(a, Unit, n * c->n_arch),
                .n = n * c->n_arch,
                .self = c};
        for (u32 i = 0; i < j->n; i++) {
                const char *arch = c->arch[i % c->n_arch];
                j->unit[i] = (Unit){.key = key[i / c->n_arch],
                        .search = search_path(arch),
                        .file = arena_fmt(a, "%s.%s.cu", key[i / c->n_arch]->name, arch)};
        }
        return j;
}

void nvrtc_build(Arena *a, Key *const key[], u32 n, const Nvrtc *nvrtc, const char *const arch[], u32 n_arch,
        const BuildOpt *opt, Image *image, const char **source)
{
        Compile *c = NEW(a, Compile);
        *c = (Compile){a, nvrtc, arch, n_arch, NEWN(a, Buf, n * n_arch), NEWN(a, const char *, n_arch),
                NEWN(a, Hash, n_arch)};
        moec_error e = {0};
        for (u32 j = 0; j < n_arch; j++)
                if (nvrtc_knows(nvrtc, arch[j], &e) != MOEC_OK)
                        err_rethrow(&e);
        tools(c);
        Jobs *j = jobs_new(c, key, n, opt);
        const char **all = NEWN(a, const char *, j->n);
        j->build = object;
        Trap t;
        if (TRAP(&t) == 0) {
                jobs_run(a, j, all);
                check_shared(c, j);
                trap_pop(&t);
        } else {
                free_code(c, j->n);
                err_rethrow(&t.error);
        }
        for (u32 i = 0; i < j->n; i++) {
                bool ptx;
                arch_number(arch[i % n_arch], &ptx);
                image[i] = (Image){arch[i % n_arch], ptx ? PLAN_PTX : PLAN_CUBIN,
                        arena_copy(a, c->code[i].p, c->code[i].len), c->code[i].len};
                if (i % n_arch == 0)
                        source[i / n_arch] = all[i];
        }
        free_code(c, j->n);
}

void nvrtc_sources(
        Arena *a, Key *const key[], u32 n, const char *arch, const BuildOpt *opt, const char **source)
{
        Compile *c = NEW(a, Compile);
        *c = (Compile){.arena = a, .arch = &arch, .n_arch = 1};
        jobs_run(a, jobs_new(c, key, n, opt), source);
}

#include "tests/lib/oncuda.h"
#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "codegen/child.h"
#include "codegen/jobs.h"
#include <cmocka.h>

enum { PAGE = 4096, ALIGN = 64, MARK = 0xa5, STACKS = 8192u * 128 * 1024 + (16u << 20) };

/* ---- memory ---- */

Mem mem_new(u64 bytes, Access access)
{
        u64 used = (bytes + ALIGN - 1) / ALIGN * ALIGN, inner = (used + PAGE - 1) / PAGE * PAGE + PAGE;
        Mem m = {.bytes = bytes, .mapped = inner + 2 * PAGE, .access = access};
        m.page = mmap(NULL, m.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_true(m.page != MAP_FAILED);
        assert_int_equal(mprotect(m.page + PAGE, inner, PROT_READ | PROT_WRITE), 0);
        memset(m.page + PAGE, MARK, inner);
        m.p = m.page + PAGE + inner - used;
        memset(m.p, 0xff, bytes);
        return m;
}

void mem_free(Mem *m)
{
        if (m->page)
                munmap(m->page, m->mapped);
        memset(m, 0, sizeof *m);
}

static void protect(const Mem *m, int prot)
{
        if (m->page && mprotect(m->page + PAGE, m->mapped - 2 * PAGE, prot) != 0)
                abort();
}

/* Nothing around the bytes was written to. */
static bool whole(const Mem *m)
{
        const u8 *end = m->page + m->mapped - PAGE;
        for (const u8 *p = m->page + PAGE; p < m->p; p++)
                if (*p != MARK)
                        return false;
        for (const u8 *p = m->p + m->bytes; p < end; p++)
                if (*p != MARK)
                        return false;
        return true;
}

/* ---- running ---- */

static Mem *const *args, dim_mem;
static const Sel *sel;
static sigjmp_buf touched;
static const void *touched_at;
static u8 *stacks;

/* Before the wait only weights may be read, and what the selection says. */
static void gate(bool open)
{
        for (u32 i = 0; i < sel->n_arg; i++)
                if (args[i] && args[i]->access != MEM_WEIGHT)
                        protect(args[i], !open ? sel->arg[i].early ? PROT_READ : PROT_NONE
                                         : args[i]->access == MEM_OUT ? PROT_READ | PROT_WRITE
                                                                      : PROT_READ);
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
        (void)sig;
        (void)context;
        touched_at = info->si_addr;
        siglongjmp(touched, 1);
}

static const char *where(void)
{
        static char text[128];
        snprintf(text, sizeof text, "touches %p, no argument's", touched_at);
        for (u32 i = 0; i < sel->n_arg; i++)
                if (args[i] && (const u8 *)touched_at >= args[i]->page &&
                        (const u8 *)touched_at < args[i]->page + args[i]->mapped)
                        snprintf(text, sizeof text,
                                "touches argument %u at byte %lld of %llu: out of it, before pdl_wait, or "
                                "read-only",
                                i, (long long)((const u8 *)touched_at - args[i]->p),
                                (unsigned long long)args[i]->bytes);
        return text;
}

const char *oncuda_run(Fibred *fn, const Sel *s, Mem *const arg[], const KernelDim *dim, bool backward)
{
        static u8 alt[65536];
        struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK}, old_segv,
                         old_bus;
        stack_t stack = {.ss_sp = alt, .ss_size = sizeof alt};
        u32 grid[3], size[N_PLAN_DIM];
        void *p[MAX_ARG];
        const char *volatile wrong = NULL;
        if (!stacks) {
                stacks = mmap(NULL, STACKS, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
                dim_mem = mem_new(sizeof *dim, MEM_IN);
        }
        assert_true(stacks != MAP_FAILED);
        protect(&dim_mem, PROT_READ | PROT_WRITE);
        memcpy(dim_mem.p, dim, sizeof *dim);
        size[PLAN_one] = 1, size[PLAN_n_tok] = dim->n_tok, size[PLAN_n_out] = dim->n_out,
        size[PLAN_n_seq] = dim->n_seq, size[PLAN_n_ctx] = dim->n_ctx;
        for (u32 i = 0; i < 3; i++) /* one more, as where a step is smaller than its phase */
                grid[i] = (u32)(((u64)s->mul[i] * size[s->dim[i]] + s->div[i] - 1) / s->div[i]) +
                          (s->dim[i] != PLAN_one);
        for (u32 i = 0; i < s->n_arg; i++) {
                p[i] = arg[i] ? arg[i]->p : NULL;
                if (arg[i])
                        protect(arg[i], arg[i]->access == MEM_OUT ? PROT_READ | PROT_WRITE : PROT_READ);
        }
        args = arg, sel = s;
        sigaltstack(&stack, NULL);
        sigaction(SIGSEGV, &act, &old_segv);
        sigaction(SIGBUS, &act, &old_bus);
        if (sigsetjmp(touched, 1) == 0)
                wrong = fn(p, dim_mem.p, grid, backward, stacks, gate);
        else
                wrong = where();
        sigaction(SIGSEGV, &old_segv, NULL);
        sigaction(SIGBUS, &old_bus, NULL);
        for (u32 i = 0; i < s->n_arg; i++)
                if (arg[i] && arg[i]->page) {
                        protect(arg[i], PROT_READ | PROT_WRITE);
                        if (!whole(arg[i]) && !wrong)
                                wrong = "writes beside an argument";
                }
        return wrong;
}

/* ---- compiling ---- */

struct OnCuda {
        char work[32], overrides[32];
        void *so;
};

static void run_tool(const char *const argv[], const char *cwd, const char *what)
{
        Buf out = {0}, errors = {0};
        int code = 0;
        moec_error e = {0};
        if (child_run(argv, cwd, NULL, 0, &out, &errors, &code, &e) != MOEC_OK || code != 0)
                fail_msg("%s: status %d: %s%.3000s", what, code, e.msg, errors.p ? errors.p : "");
        buf_free(&out);
        buf_free(&errors);
}

static moec_status compile(Jobs *j, u32 i, moec_error *e)
{
        char o[256];
        snprintf(o, sizeof o, "%s.o", j->unit[i].key->name);
        const char *argv[] = {"c++", "-std=c++17", "-O1", "-march=native", "-ffp-contract=off",
                "-fno-strict-aliasing", "-fPIC", "-fvisibility=hidden", "-w", "-c", j->unit[i].file, "-o", o,
                NULL};
        Buf out = {0}, errors = {0};
        int code = 0;
        moec_status st = child_run(argv, j->work, NULL, 0, &out, &errors, &code, e);
        if (st == MOEC_OK && code != 0)
                st = (fail)(e, MOEC_TOOLCHAIN, "c++ failed (status %d) on kernel %s: %.700s", code,
                        j->unit[i].key->name, errors.p ? errors.p : "");
        buf_free(&out);
        buf_free(&errors);
        return st;
}

static moec_status link_all(Jobs *j, moec_error *e)
{
        OnCuda *o = j->self;
        const char *argv[] = {"sh", "-c", "c++ -shared -o kernels.so *.o", NULL};
        run_tool(argv, j->work, "linking");
        o->so = dlopen(strcat(strcpy((char[64]){0}, j->work), "/kernels.so"), RTLD_NOW | RTLD_LOCAL);
        return o->so ? MOEC_OK : (fail)(e, MOEC_TOOLCHAIN, "%s", dlerror());
}

static FILE *put_file(const OnCuda *o, const char *name)
{
        char path[128];
        snprintf(path, sizeof path, "%s/templates/cuda/%s", o->overrides, name);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        return f;
}

/* The folder whose device.m4 stands in place of the built-in one. */
static void put_device(OnCuda *o, const char *scale)
{
        char path[128], cwd[4096];
        static const char *const part[] = {"/templates", "/templates/cuda", "/templates/cuda/generic"};
        strcpy(o->overrides, "/tmp/moec-t.XXXXXX");
        assert_non_null(mkdtemp(o->overrides));
        for (u32 i = 0; i < COUNT(part); i++) {
                snprintf(path, sizeof path, "%s%s", o->overrides, part[i]);
                assert_int_equal(mkdir(path, 0700), 0);
        }
        assert_non_null(getcwd(cwd, sizeof cwd));
        FILE *f = scale ? put_file(o, "generic/scale.cu.m4") : NULL;
        if (f) {
                fputs(scale, f);
                fclose(f);
        }
        f = put_file(o, "device.m4");
        fprintf(f,
                "#define KERNEL MOE_NAME\n#define KERNEL_RUN MOE_NAME«»_run\n#define KERNEL_SWITCH "
                "MOE_NAME«»_switch\n"
                "#define SHARED_SECTION \"MOE_NAME«»_shared\"\n#define SHARED_FIRST "
                "__start_«»MOE_NAME«»_shared\n"
                "#define SHARED_END __stop_«»MOE_NAME«»_shared\n"
                "enum { CLUSTER = m4_ifdef(«MOE_CLUSTER», «MOE_CLUSTER», 1) };\n#define CLUSTERED\n"
                "enum { TRIGGER_none, TRIGGER_waited, TRIGGER_first, TRIGGER = "
                "TRIGGER_«»m4_ifdef(«MOE_TRIGGER», «MOE_TRIGGER», none) "
                "};\n#include "
                "\"%s/tests/lib/cuda_host.hpp\"\n",
                cwd);
        fclose(f);
}

OnCuda *oncuda_with(Arena *a, Key *const key[], u32 n, Fibred **fn, const char *scale)
{
        static const char *const search[] = {"cuda/generic", "cuda", NULL};
        if (system("c++ --version >/dev/null 2>&1") != 0)
                return NULL;
        OnCuda *o = NEW(a, OnCuda);
        const char **source = NEWN(a, const char *, n);
        put_device(o, scale);
        strcpy(o->work, "/tmp/moec-k.XXXXXX");
        assert_non_null(mkdtemp(o->work));
        BuildOpt opt = {
                .templates = o->overrides, .keep = o->work, .threads = (int)sysconf(_SC_NPROCESSORS_ONLN)};
        Jobs j = {.opt = &opt,
                .suffix = ".cu.m4",
                .unit = NEWN(a, Unit, n),
                .n = n,
                .build = compile,
                .finish = link_all,
                .self = o};
        for (u32 i = 0; i < n; i++)
                j.unit[i] =
                        (Unit){.key = key[i], .search = search, .file = arena_fmt(a, "%s.cpp", key[i]->name)};
        Trap t;
        if (TRAP(&t) == 0)
                jobs_run(a, &j, source), trap_pop(&t);
        else
                fail_msg("%s", t.error.msg);
        for (u32 i = 0; i < n; i++) {
                void *sym = dlsym(o->so, arena_fmt(a, "%s_run", key[i]->name));
                memcpy(&fn[i], &sym, sizeof sym);
                assert_non_null(sym);
        }
        return o;
}

OnCuda *oncuda_new(Arena *a, Key *const key[], u32 n, Fibred **fn)
{
        return oncuda_with(a, key, n, fn, NULL);
}

void oncuda_free(OnCuda *o)
{
        char command[128];
        if (!o)
                return;
        dlclose(o->so);
        snprintf(command, sizeof command, "rm -rf %s %s", o->work, o->overrides);
        assert_int_equal(system(command), 0);
}

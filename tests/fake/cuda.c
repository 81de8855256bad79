/* A CUDA driver whose device is the host's memory, and whose kernels do nothing. */
#include "tests/fake/fake.h"
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
EXPORT FakeCuda fake = {.version = 13000, .n_device = 1, .major = 9, .memory = 1ull << 33, .launch_ms = 1};

static bool capturing;
static int in_graph; /* launches of the graph that is being captured */
static bool captured_draw;
static void *drawing; /* the first argument of the kernel that draws */
static double clock_ms;

/* What events and graphs are. */
typedef struct Made {
        double ms; /* an event's time */
        int launches;
        bool draws;
} Made;
static Made *made(void *p)
{
        return p;
}

static int called(const char *name)
{
        if (++fake.calls >= fake.lost && fake.lost)
                return fake.rc;
        if (fake.fails && !strcmp(name, fake.fails) && fake.after-- <= 0)
                return fake.rc;
        return CU_OK;
}
#define CALLED                                                                                               \
        do {                                                                                                 \
                int rc_ = called(__func__);                                                                  \
                if (rc_ != CU_OK)                                                                            \
                        return rc_;                                                                          \
        } while (0)

static int make(void *out)
{
        void **p = out;
        *p = calloc(1, sizeof(Made));
        fake.live++;
        return CU_OK;
}
static int drop(void *p)
{
        free(p);
        fake.live--;
        return CU_OK;
}

/* ---- what streams have to do ---- */

typedef struct Task {
        CuStream *stream;
        void *to;
        const void *from;
        size_t bytes;
        const char *kernel; /* NULL: a copy */
        CuLaunch how;
        void *arg[8];
} Task;
static Task task[4096];
static int n_task;

static void do_task(Task *t)
{
        if (!t->kernel)
                memcpy(t->to, t->from, t->bytes);
        else if (fake.kernel)
                fake.kernel(t->kernel, &t->how, t->arg);
}
static void wait_for(CuStream *s)
{
        int left = 0;
        for (int i = 0; i < n_task; i++)
                if (task[i].stream == s)
                        do_task(&task[i]);
                else
                        task[left++] = task[i];
        n_task = left;
}
static void ask(Task t)
{
        if (n_task == COUNT(task))
                abort();
        task[n_task++] = t;
        if (!fake.lazy)
                wait_for(t.stream);
}

#define SAME(name, args)                                                                                     \
        static int name args                                                                                 \
        {                                                                                                    \
                CALLED;
/* What gives something back does so even where it fails, as a device that is lost keeps nothing. */
#define DROP(name, args, what)                                                                               \
        static int name args                                                                                 \
        {                                                                                                    \
                int rc_ = called(__func__);                                                                  \
                drop(what);                                                                                  \
                return rc_;                                                                                  \
        }
SAME(cuInit, (u32 flags))
return flags ? 1 : fake.init;
}
SAME(cuGetErrorName, (int rc, const char **s))
*s = rc == 719 ? "CUDA_ERROR_LAUNCH_FAILED" : "CUDA_ERROR_OF_THE_FAKE";
return CU_OK;
}
SAME(cuGetErrorString, (int rc, const char **s))
*s = rc == 719 ? "unspecified launch failure" : "a fake's words";
return CU_OK;
}
SAME(cuDeviceGetCount, (int *n))
*n = fake.n_device;
return CU_OK;
}
SAME(cuDeviceGet, (int *d, int i))
*d = i;
return CU_OK;
}
SAME(cuDeviceGetName, (char *s, int n, int d))
(void)d;
strncpy(s, "Fake H100", (size_t)n);
return CU_OK;
}
SAME(cuDeviceGetAttribute, (int *v, int a, int d))
(void)d;
*v = a == CU_ATTR_CC_MAJOR ? fake.major : a == CU_ATTR_CC_MINOR ? fake.minor : 132;
return CU_OK;
}
SAME(cuDevicePrimaryCtxRetain, (CuContext * *c, int d))
(void)d;
*c = (CuContext *)(void *)&fake;
fake.live++;
return CU_OK;
}
SAME(cuDevicePrimaryCtxRelease, (int d))
(void)d;
fake.live--;
return CU_OK;
}
SAME(cuCtxSetCurrent, (CuContext * c))
return c ? CU_OK : 1;
}
SAME(cuMemGetInfo, (size_t * left, size_t *all))
*all = fake.memory;
*left = fake.memory - fake.used;
return CU_OK;
}
SAME(cuMemAlloc, (CuPtr * p, size_t n))
if (n > fake.memory - fake.used)
        return CU_NO_MEMORY;
*p = (CuPtr)(uintptr_t)malloc(n);
fake.live++;
return CU_OK;
}
DROP(cuMemFree, (CuPtr p), (void *)(uintptr_t)p)
SAME(cuMemHostAlloc, (void **p, size_t n, u32 flags))
(void)flags;
*p = malloc(n);
fake.live++;
return CU_OK;
}
DROP(cuMemFreeHost, (void *p), p)
SAME(cuMemcpyHtoDAsync, (CuPtr p, const void *q, size_t n, CuStream *s))
ask((Task){.stream = s, .to = (void *)(uintptr_t)p, .from = q, .bytes = n});
return CU_OK;
}
SAME(cuMemcpyDtoHAsync, (void *p, CuPtr q, size_t n, CuStream *s))
(void)s;
fake.fetches++;
memcpy(p, (const void *)(uintptr_t)q, n);
return CU_OK;
}
SAME(cuMemsetD8Async, (CuPtr p, u8 v, size_t n, CuStream *s))
(void)s;
memset((void *)(uintptr_t)p, v, n);
return CU_OK;
}
SAME(cuStreamCreate, (CuStream * *s, u32 flags))
(void)flags;
return make(s);
}
DROP(cuStreamDestroy, (CuStream * s), s)
SAME(cuStreamSynchronize, (CuStream * s))
wait_for(s);
return CU_OK;
}
SAME(cuStreamBeginCapture, (CuStream * s, int mode))
(void)s;
(void)mode;
capturing = true;
in_graph = 0;
captured_draw = false;
return CU_OK;
}
SAME(cuStreamEndCapture, (CuStream * s, CuGraph **g))
(void)s;
capturing = false;
make(g);
*made(*g) = (Made){.launches = in_graph, .draws = captured_draw};
return CU_OK;
}
SAME(cuGraphInstantiate, (CuGraphExec * *x, CuGraph *g, u64 flags))
(void)flags;
make(x);
*made(*x) = *made(g);
return CU_OK;
}
SAME(cuGraphLaunch, (CuGraphExec * x, CuStream *s))
(void)s;
clock_ms += made(x)->launches * fake.launch_ms;
fake.graphs++;
if (fake.on_graph)
        fake.on_graph(made(x)->draws ? drawing : NULL);
return CU_OK;
}
DROP(cuGraphExecDestroy, (CuGraphExec * x), x)
DROP(cuGraphDestroy, (CuGraph * g), g)
SAME(cuModuleLoadData, (CuModule * *m, const void *image))
if (memcmp(image, "code", 4) != 0)
        return CU_INVALID_IMAGE;
return make(m);
}
DROP(cuModuleUnload, (CuModule * m), m)
SAME(cuModuleGetFunction, (CuFunction * *f, CuModule *m, const char *name))
(void)m;
*f = (CuFunction *)(uintptr_t)name;
return CU_OK;
}
SAME(cuModuleGetGlobal, (CuPtr * at, size_t *bytes, CuModule *m, const char *name))
(void)at;
(void)bytes;
(void)m;
(void)name;
return CU_NOT_FOUND;
}
SAME(cuFuncSetAttribute, (CuFunction * f, int attribute, int value))
(void)f;
(void)attribute;
(void)value;
return CU_OK;
}
SAME(cuLaunchKernelEx, (const CuLaunch *l, CuFunction *f, void **params, void **extra))
(void)extra;
if (!params || !l->grid[0] || !l->grid[1] || !l->grid[2] || !l->block[0])
        return 1;
if (capturing && !strncmp((const char *)f, "k_draw_", 7)) {
        captured_draw = true;
        drawing = *(void **)params[0];
}
*(capturing ? &fake.captured : &fake.launches) += 1;
if (capturing)
        in_graph++;
else
        clock_ms += fake.launch_ms;
if (l->n_attribute && l->attribute->id == CU_LAUNCH_PROGRAMMATIC && l->attribute->value[0] == 1)
        fake.programmatic++;
if (!capturing && fake.kernel) {
        Task t = {.stream = l->stream, .kernel = (const char *)f, .how = *l};
        memcpy(t.arg, params[0], sizeof t.arg);
        ask(t);
}
return CU_OK;
}
SAME(cuEventCreate, (CuEvent * *e, u32 flags))
(void)flags;
return make(e);
}
DROP(cuEventDestroy, (CuEvent * e), e)
SAME(cuEventRecord, (CuEvent * e, CuStream *s))
(void)s;
made(e)->ms = clock_ms;
return CU_OK;
}
SAME(cuEventElapsedTime, (float *ms, CuEvent *a, CuEvent *b))
*ms = (float)(made(b)->ms - made(a)->ms);
return CU_OK;
}

EXPORT int cuDriverGetVersion(int *v);
EXPORT int cuGetProcAddress_v2(const char *name, void **out, int version, u64 flags, int *found);

int cuDriverGetVersion(int *v)
{
        *v = fake.version;
        return CU_OK;
}

int cuGetProcAddress_v2(const char *name, void **out, int version, u64 flags, int *found)
{
        static const struct {
                const char *name;
                void (*f)(void);
        } all[] = {
#define D(name, args) {#name, (void (*)(void))(int(*) args)name},
                DRIVER_API(D)
#undef D
        };
        (void)flags;
        (void)found;
        *out = NULL;
        for (size_t i = 0; version <= fake.version && i < COUNT(all); i++)
                if (!strcmp(all[i].name, name) && (!fake.missing || strcmp(name, fake.missing) != 0))
                        memcpy(out, &all[i].f, sizeof *out);
        return *out ? CU_OK : 500;
}

__attribute__((constructor)) static void from_environment(void)
{
        static char words[256];
        const struct {
                const char *name;
                int *v;
        } all[] = {{"version", &fake.version}, {"devices", &fake.n_device}, {"major", &fake.major},
                {"minor", &fake.minor}, {"after", &fake.after}, {"rc", &fake.rc}, {"lost", &fake.lost}};
        const char *env = getenv("FAKE_CUDA");
        strncpy(words, env ? env : "", sizeof words - 1);
        for (char *w = strtok(words, " "); w; w = strtok(NULL, " ")) {
                char *v = strchr(w, '=');
                if (!v)
                        abort();
                *v++ = 0;
                for (size_t i = 0; i < COUNT(all); i++)
                        if (!strcmp(w, all[i].name))
                                *all[i].v = atoi(v);
                if (!strcmp(w, "fails"))
                        fake.fails = v;
                if (!strcmp(w, "missing"))
                        fake.missing = v;
        }
}

/* An NVRTC that takes whatever it is given: its machine code is the word "code", or fake_elf's. */
#include "tests/fake/fake.h"
#include "tests/fake/elf.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
EXPORT FakeNvrtc fake = {.major = 13, .n_arch = 3, .arch = {75, 80, 90}};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

typedef struct Program {
        const char *source, *name;
} Program;

#define API(name, args)                                                                                      \
        EXPORT int name args;                                                                                \
        int name args
API(nvrtcVersion, (int *major, int *minor))
{
        *major = fake.major;
        *minor = fake.minor;
        return 0;
}
API(nvrtcGetNumSupportedArchs, (int *n))
{
        *n = fake.n_arch;
        return 0;
}
API(nvrtcGetSupportedArchs, (int *arch))
{
        memcpy(arch, fake.arch, (size_t)fake.n_arch * sizeof *arch);
        return 0;
}
API(nvrtcCreateProgram, (Program * *p, const char *source, const char *name, int n, const char *const *a,
                                const char *const *b))
{
        (void)a;
        (void)b;
        *p = malloc(sizeof **p);
        (*p)->source = source;
        (*p)->name = name;
        return n;
}
API(nvrtcCompileProgram, (Program * p, int n, const char *const *option))
{
        pthread_mutex_lock(&lock);
        fake.compiled++;
        fake.options[0] = 0;
        for (int i = 0; i < n; i++) {
                strncat(fake.options, option[i], sizeof fake.options - strlen(fake.options) - 2);
                strcat(fake.options, " ");
        }
        pthread_mutex_unlock(&lock);
        return fake.fails && strstr(p->source, fake.fails) ? 6 : 0;
}
API(nvrtcGetProgramLogSize, (Program * p, size_t *n))
{
        (void)p;
        *n = sizeof "line 7: no such thing";
        return 0;
}
API(nvrtcGetProgramLog, (Program * p, char *log))
{
        (void)p;
        strcpy(log, "line 7: no such thing");
        return 0;
}
static int size_of_code(Program *p, size_t *n)
{
        (void)p;
        *n = fake.shared ? FAKE_ELF : 4;
        return 0;
}
static int code(Program *p, char *out)
{
        _Alignas(8) u8 elf[FAKE_ELF];
        char kernel[128];
        snprintf(kernel, sizeof kernel, "%.*s", (int)strcspn(p->name, "."), p->name);
        fake_elf(elf, kernel, 0, fake.shared);
        memcpy(out, fake.shared ? (const char *)elf : "code", fake.shared ? FAKE_ELF : 4);
        return 0;
}
API(nvrtcGetCUBINSize, (Program * p, size_t *n))
{
        return size_of_code(p, n);
}
API(nvrtcGetCUBIN, (Program * p, char *out))
{
        return code(p, out);
}
API(nvrtcGetPTXSize, (Program * p, size_t *n))
{
        return size_of_code(p, n);
}
API(nvrtcGetPTX, (Program * p, char *out))
{
        return code(p, out);
}
API(nvrtcDestroyProgram, (Program * *p))
{
        free(*p);
        *p = NULL;
        return 0;
}

__attribute__((constructor)) static void from_environment(void)
{
        const char *env = getenv("FAKE_NVRTC");
        if (env && !strncmp(env, "major=", 6))
                fake.major = atoi(env + 6);
        if (env && !strncmp(env, "fails=", 6))
                fake.fails = env + 6;
}

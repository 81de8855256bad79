#include "runtime/isa.h"
#include <stdio.h>
#include <string.h>
#if defined __x86_64__
#include <cpuid.h>
#endif

/* F(name, CPUID leaf, subleaf, register, bit, level, registers): level: the first of x86-64-v2, v3, v4 that
 * has it, 9: none; registers: what the system must save: 0 nothing, 1 AVX's, 2 AVX-512's. Levels as the
 * x86-64 psABI defines them, bits as the processors' manuals do. All that a compiler uses unasked when it
 * compiles for the machine it runs on. */
#define FEATURES(F)                                                                                          \
        F("sse3", 1, 0, C, 0, 2, 0)                                                                          \
        F("ssse3", 1, 0, C, 9, 2, 0)                                                                         \
        F("sse4.1", 1, 0, C, 19, 2, 0)                                                                       \
        F("sse4.2", 1, 0, C, 20, 2, 0)                                                                       \
        F("popcnt", 1, 0, C, 23, 2, 0)                                                                       \
        F("cx16", 1, 0, C, 13, 2, 0)                                                                         \
        F("sahf", 0x80000001, 0, C, 0, 2, 0)                                                                 \
        F("avx", 1, 0, C, 28, 3, 1)                                                                          \
        F("avx2", 7, 0, B, 5, 3, 1)                                                                          \
        F("bmi", 7, 0, B, 3, 3, 0)                                                                           \
        F("bmi2", 7, 0, B, 8, 3, 0)                                                                          \
        F("f16c", 1, 0, C, 29, 3, 1)                                                                         \
        F("fma", 1, 0, C, 12, 3, 1)                                                                          \
        F("lzcnt", 0x80000001, 0, C, 5, 3, 0)                                                                \
        F("movbe", 1, 0, C, 22, 3, 0)                                                                        \
        F("avx512f", 7, 0, B, 16, 4, 2)                                                                      \
        F("avx512bw", 7, 0, B, 30, 4, 2)                                                                     \
        F("avx512cd", 7, 0, B, 28, 4, 2)                                                                     \
        F("avx512dq", 7, 0, B, 17, 4, 2)                                                                     \
        F("avx512vl", 7, 0, B, 31, 4, 2)                                                                     \
        F("avx512vnni", 7, 0, C, 11, 9, 2)                                                                   \
        F("avx512bf16", 7, 1, A, 5, 9, 2)                                                                    \
        F("avx512fp16", 7, 0, D, 23, 9, 2)                                                                   \
        F("avx512ifma", 7, 0, B, 21, 9, 2)                                                                   \
        F("avx512vbmi", 7, 0, C, 1, 9, 2)                                                                    \
        F("avx512vbmi2", 7, 0, C, 6, 9, 2)                                                                   \
        F("avx512bitalg", 7, 0, C, 12, 9, 2)                                                                 \
        F("avx512vpopcntdq", 7, 0, C, 14, 9, 2)                                                              \
        F("avxvnni", 7, 1, A, 4, 9, 1)                                                                       \
        F("avxvnniint8", 7, 1, D, 4, 9, 1)                                                                   \
        F("avxifma", 7, 1, A, 23, 9, 1)                                                                      \
        F("gfni", 7, 0, C, 8, 9, 0)                                                                          \
        F("vaes", 7, 0, C, 9, 9, 1)                                                                          \
        F("vpclmulqdq", 7, 0, C, 10, 9, 1)                                                                   \
        F("adx", 7, 0, B, 19, 9, 0)                                                                          \
        F("fma4", 0x80000001, 0, C, 16, 9, 1)                                                                \
        F("xop", 0x80000001, 0, C, 11, 9, 1)                                                                 \
        F("tbm", 0x80000001, 0, C, 21, 9, 0)

typedef enum Reg { A, B, C, D } Reg;
typedef struct Feature {
        const char *name;
        u32 leaf, sub;
        Reg reg;
        u32 bit, level, saved;
} Feature;
static const Feature features[] = {
#define F(...) {__VA_ARGS__},
        FEATURES(F)
#undef F
};

#if defined __x86_64__
static bool saved(u32 what)
{
        u32 a, b, c, d;
        if (what == 0)
                return true;
        if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) /* the system does not say what it saves */
                return false;
        __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
        u32 mask = what == 1 ? 0x06 : 0xe6;
        return (a & mask) == mask;
}

static bool have(const Feature *f)
{
        u32 r[4];
        return __get_cpuid_count(f->leaf, f->sub, &r[A], &r[B], &r[C], &r[D]) && r[f->reg] >> f->bit & 1 &&
               saved(f->saved);
}

#define BASE "x86-64"
#else
static bool have(const Feature *f)
{
        (void)f;
        return false;
}
#define BASE "generic"
#endif

static bool feature(const char *name, size_t n)
{
        for (size_t i = 0; i < COUNT(features); i++)
                if (strlen(features[i].name) == n && memcmp(features[i].name, name, n) == 0)
                        return have(&features[i]);
        return false;
}

bool isa_feature(const char *name)
{
        return feature(name, strlen(name));
}

void isa_native(char out[ISA_MAX])
{
        size_t n = (size_t)snprintf(out, ISA_MAX, "native:");
        const char *comma = "";
        for (size_t i = 0; i < COUNT(features) && n < ISA_MAX; i++)
                if (have(&features[i])) {
                        n += (size_t)snprintf(out + n, ISA_MAX - n, "%s%s", comma, features[i].name);
                        comma = ",";
                }
}

/* Names, separated by commas, collected in a message of limited size. */
typedef struct Missing {
        char s[512];
        size_t n;
} Missing;

static void miss(Missing *m, const char *name, size_t n)
{
        int did =
                snprintf(m->s + m->n, sizeof m->s - m->n, "%s%.*s", m->n ? ", " : "", (int)MIN(n, 64), name);
        m->n = MIN(m->n + (size_t)MAX(did, 0), sizeof m->s - 1);
}

static bool level_of(const char *isa, u32 *level)
{
        if (strcmp(isa, BASE) == 0)
                *level = 1;
        else if (strncmp(isa, "x86-64-v", 8) == 0 && isa[8] >= '2' && isa[8] <= '4' && isa[9] == 0 &&
                 BASE[0] == 'x')
                *level = (u32)(isa[8] - '0');
        else
                return false;
        return true;
}

moec_status isa_have(const char *isa, moec_error *e)
{
        static const char native[] = "native:";
        Missing m = {.n = 0};
        u32 level;
        if (level_of(isa, &level)) {
                for (size_t i = 0; i < COUNT(features); i++)
                        if (features[i].level <= level && !have(&features[i]))
                                miss(&m, features[i].name, strlen(features[i].name));
        } else if (strncmp(isa, native, sizeof native - 1) == 0) {
                for (const char *s = isa + sizeof native - 1; *s;) {
                        size_t n = strcspn(s, ",");
                        if (n && !feature(s, n))
                                miss(&m, s, n);
                        s += n + (s[n] == ',');
                }
        } else
                return fail(e, MOEC_NO_DEVICE,
                        "compiled for the instruction set %.100s, which this processor has not", isa);
        if (m.n)
                return fail(e, MOEC_NO_DEVICE,
                        "compiled for another processor: this one lacks %s; compile for this machine "
                        "(--march native) or for "
                        "all of its kind (--march x86-64-v3, x86-64)",
                        m.s);
        return MOEC_OK;
}

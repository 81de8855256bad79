/* Every kernel of the demo model, and of a wide one, compiles for every architecture, all in one plan:
 * neither NVRTC nor the look at what shared memory they want finds fault. */
#include "moec_front.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/plan.h"
#include "tests/lib/synth.h"
#include "tests/lib/tempdir.h"

static char target[128];
static u32 n_arch;

/* Those of the words that NVRTC knows, which is none where there is no NVRTC. */
static void choose(const char *words)
{
        Arena *a = arena_new();
        NvrtcPaths paths = front_nvrtc_paths();
        Nvrtc *nvrtc;
        moec_error e;
        u32 n;
        const char **arch = nvrtc_archs(a, words, &n);
        n_arch = 0;
        *target = 0;
        if (nvrtc_open(a, &paths, &nvrtc, &e) == MOEC_OK)
                for (u32 i = 0; i < n; i++)
                        if (nvrtc_knows(nvrtc, arch[i], &e) == MOEC_OK)
                                sprintf(target + strlen(target), "%s%s", n_arch++ ? "," : "cuda:", arch[i]);
        arena_free(a);
        if (!n_arch) {
                print_message("no NVRTC\n");
                skip();
        }
}

/* Each kernel's images, which are for the architectures in their order. */
static void look_at(const char *path, int n_kernels)
{
        Plan *p;
        moec_error e = {0};
        const PlanImage *im;
        if (plan_open(path, 0, &p, &e))
                fail_msg("%s", e.msg);
        assert_string_equal(plan_str(p, p->META->isa), target + strlen("cuda:"));
        assert_int_equal(plan_images(p, &im), n_arch * (u32)n_kernels);
        for (u32 i = 0; i < n_arch * (u32)n_kernels; i++) {
                bool ptx = !strncmp(plan_str(p, im[i].arch), "compute_", 8);
                assert_int_equal(im[i].kind, ptx ? PLAN_PTX : PLAN_CUBIN);
                assert_memory_equal(p->CODE + im[i].offset, ptx ? "//" : "\177ELF", ptx ? 2 : 4);
        }
        plan_close(p);
}

static void compiles(const char *model, const char *dir, moec_act act)
{
        moec_options opt = {.target = target, .act = act, .cache_dir = "off"};
        moec_compile_report r;
        moec_error e = {0};
        moec_model *m;
        char out[128];
        snprintf(out, sizeof out, "%s/model.plan", dir);
        if (moec_open(model, &opt, &m, &e) || moec_compile(m, &opt, out, "plan", false, &r, &e))
                fail_msg("%s", e.msg);
        moec_close(m);
        print_message("%s: %d kernels, %.0f KiB, %.1f s\n", target, r.n_kernels, (double)r.code_bytes / 1024,
                r.seconds);
        look_at(out, r.n_kernels);
}

static void demo(moec_act act)
{
        char dir[64];
        choose("sm_80,sm_86,sm_89,sm_100,sm_120,compute_90");
        temp_new(dir);
        compiles("examples/fables.gguf", dir, act);
        temp_remove(dir);
}

/* Rows so long that a block has room for a few alone, on devices with little of it and with more. */
static void wide(moec_act act)
{
        char dir[64], model[128];
        Synth s = synth_small(W_Q4_K);
        s.width = 7168, s.heads = 16, s.kv_heads = 8, s.dk = s.dv = s.rdim = 128;
        s.experts = 2, s.used = 1, s.ff = 512;
        choose("sm_80,sm_89");
        temp_new(dir);
        snprintf(model, sizeof model, "%s/wide.gguf", dir);
        synth_write(&s, model);
        compiles(model, dir, act);
        temp_remove(dir);
}

static void demo_q8(void **state)
{
        (void)state;
        demo(MOEC_ACT_Q8);
}
static void demo_f32(void **state)
{
        (void)state;
        demo(MOEC_ACT_F32);
}
static void wide_q8(void **state)
{
        (void)state;
        wide(MOEC_ACT_Q8);
}
static void wide_f32(void **state)
{
        (void)state;
        wide(MOEC_ACT_F32);
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(demo_q8), cmocka_unit_test(demo_f32),
                cmocka_unit_test(wide_q8), cmocka_unit_test(wide_f32)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}

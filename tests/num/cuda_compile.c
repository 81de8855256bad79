/* Every kernel of the demo model compiles for the H100's architecture, where NVRTC is. */
#include "moec_front.h"
#include "runtime/plan.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/lib/tempdir.h"

#define MODEL "examples/fables.gguf"

static bool has_nvrtc(void)
{
        Arena *a = arena_new();
        NvrtcPaths paths = front_nvrtc_paths();
        Nvrtc *n;
        moec_error e;
        bool has = nvrtc_open(a, &paths, &n, &e) == MOEC_OK && nvrtc_knows(n, "sm_90a", &e) == MOEC_OK;
        arena_free(a);
        return has;
}

/* A profiler shows the templates' lines: each kernel's code names its template. */
static void has_lines(const char *path)
{
        Plan *p;
        const PlanImage *im;
        u64 n;
        assert_int_equal(plan_open(path, 0, &p, NULL), MOEC_OK);
        n = plan_images(p, &im);
        for (u64 i = 0; i < plan_count(p, PLAN_KERNEL); i++) {
                const char *key = plan_str(p, p->KERNEL[i].key);
                char file[64];
                int len = snprintf(file, sizeof file, "%.*s.cu.m4", (int)strcspn(key, " "), key);
                const PlanImage *code = &im[p->KERNEL[i].image];
                assert_true(p->KERNEL[i].image < n);
                if (!memmem(p->CODE + code->offset, code->bytes, file, (size_t)len))
                        fail_msg("%s is not in the code of %s", file, key);
        }
        plan_close(p);
}

static void compiles(moec_act act)
{
        if (!has_nvrtc()) {
                print_message("no NVRTC\n");
                skip();
        }
        moec_options opt = {.target = "cuda:sm_90a", .act = act};
        moec_compile_report r;
        moec_error e = {0};
        moec_model *m;
        char dir[64], out[128];
        temp_new(dir);
        snprintf(out, sizeof out, "%s/model.plan", dir);
        assert_int_equal(moec_open(MODEL, &opt, &m, &e), MOEC_OK);
        moec_status st = moec_compile(m, &opt, out, "plan", false, &r, &e);
        moec_close(m);
        if (st)
                fail_msg("%s", e.msg);
        has_lines(out);
        temp_remove(dir);
        print_message("%d kernels, %.0f KiB, %.1f s\n", r.n_kernels, (double)r.code_bytes / 1024, r.seconds);
        assert_true(r.code_bytes > 1000 * (u64)r.n_kernels);
}

static void q8(void **state)
{
        (void)state;
        compiles(MOEC_ACT_Q8);
}

static void f32(void **state)
{
        (void)state;
        compiles(MOEC_ACT_F32);
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(q8), cmocka_unit_test(f32)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Every kernel of the demo model compiles for the H100's architecture, where NVRTC is. */
#include "codegen/nvrtc.h"
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
        NvrtcPaths paths = {
                getenv("MOEC_NVRTC"), getenv("CONDA_PREFIX"), getenv("CUDA_HOME"), getenv("CUDA_PATH")};
        Nvrtc *n;
        moec_error e;
        bool has = nvrtc_open(a, &paths, &n, &e) == MOEC_OK && nvrtc_knows(n, "sm_90a", &e) == MOEC_OK;
        arena_free(a);
        return has;
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
        temp_remove(dir);
        if (st)
                fail_msg("%s", e.msg);
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

/* NVRTC's absence, age and failures, and what is asked of it; the library is a fake. */
#include "codegen/nvrtc.h"
#include "runtime/plan.h"
#include "tests/unit/fake_help.h"
#include <stdlib.h>

#define MODEL "examples/fables.gguf"

static FakeNvrtc *lib, fresh;

static int begin(void **state)
{
        (void)state;
        lib = fake_load("nvrtc");
        fresh = *lib;
        setenv("MOEC_NVRTC", fake_path("nvrtc"), 1);
        return 0;
}

static int again(void **state)
{
        *state = arena_new();
        *lib = fresh;
        return 0;
}

static int end(void **state)
{
        arena_free(*state);
        return 0;
}

static Nvrtc *open_fake(Arena *a, const char *file, moec_status want, const char *words)
{
        NvrtcPaths paths = {.file = file};
        moec_error e = {0};
        Nvrtc *n;
        assert_int_equal(nvrtc_open(a, &paths, &n, &e), want);
        if (!strstr(e.msg, words))
                fail_msg("no \"%s\" in: %s", words, e.msg);
        return n;
}

static void missing_or_old(void **state)
{
        assert_null(open_fake(*state, "/nowhere/libnvrtc.so.13", MOEC_TOOLCHAIN, "$MOEC_NVRTC"));
        assert_null(open_fake(*state, fake_path("cuda"), MOEC_TOOLCHAIN, "it has no nvrtcVersion"));
        lib->major = 11;
        lib->minor = 8;
        assert_null(open_fake(*state, fake_path("nvrtc"), MOEC_TOOLCHAIN, "NVRTC 11.8 is too old"));
        lib->n_arch = 0;
        assert_null(open_fake(*state, fake_path("nvrtc"), MOEC_TOOLCHAIN, "install it again"));
}

static void architectures(void **state)
{
        Nvrtc *n = open_fake(*state, fake_path("nvrtc"), MOEC_OK, "");
        moec_error e;
        u32 count;
        assert_string_equal(nvrtc_version(n), "13.0");
        const char **arch = nvrtc_archs(*state, "sm_80,sm_90a,compute_90", &count);
        assert_int_equal(count, 3);
        for (u32 i = 0; i < count; i++)
                assert_int_equal(nvrtc_knows(n, arch[i], &e), MOEC_OK);
        assert_string_equal(arch[1], "sm_90a");
        assert_int_equal(nvrtc_knows(n, "sm_120a", &e), MOEC_TOOLCHAIN);
        assert_non_null(
                strstr(e.msg, "does not know sm_120a; it knows sm_75 sm_80 sm_90. Install a newer CUDA"));
        assert_int_equal(nvrtc_knows(n, "compute_70", &e), MOEC_TOOLCHAIN);
        assert_non_null(strstr(e.msg, "it knows compute_75 compute_80 compute_90"));
        assert_null(strstr(e.msg, "newer"));
        assert_string_equal(nvrtc_newest(n, *state), "compute_90");
}

static void no_architectures(void **state)
{
        static const char *const bad[] = {"", "sm_", "sm_90x", "sm_90aa", "sm_9000", "90", "sm_90a,",
                "sm_80,,sm_90", "sm_-90", "gfx942", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17"};
        for (size_t i = 0; i < COUNT(bad); i++) {
                Trap t;
                u32 n;
                if (TRAP(&t) == 0) {
                        nvrtc_archs(*state, bad[i], &n);
                        fail_msg("%s is a list of architectures", bad[i]);
                }
                assert_int_equal(t.error.status, MOEC_USAGE);
        }
}

static void too_old_for_the_kernels(void **state)
{
        static const char *const old[] = {"sm_75", "sm_90a,compute_70"};
        for (size_t i = 0; i < COUNT(old); i++) {
                Trap t;
                u32 n;
                if (TRAP(&t) == 0) {
                        nvrtc_archs(*state, old[i], &n);
                        fail_msg("%s is new enough", old[i]);
                }
                assert_int_equal(t.error.status, MOEC_NO_DEVICE);
                assert_non_null(strstr(t.error.msg, "sm_80 or newer"));
        }
}

/* When decode's launches let the next one start, and what they read before their own wait: of each label the
 * first. */
static void plan_says_what_is_early(const char *path)
{
        static const struct {
                const char *label;
                PlanTrigger trigger;
                u32 early;
        } all[] = {{"embed", PLAN_TRIGGER_none, 0}, {"blk.0.matmul", PLAN_TRIGGER_first, 0},
                {"blk.0.attend", PLAN_TRIGGER_first, 1u << 2 | 1u << 3 | 1u << 4 | 1u << 5},
                {"blk.0.experts_up", PLAN_TRIGGER_waited, 0},
                {"blk.0.experts_down", PLAN_TRIGGER_waited, 1u << 2}};
        Plan *p;
        moec_error e;
        assert_int_equal(plan_open(path, 0, &p, &e), MOEC_OK);
        for (size_t i = 0; i < COUNT(all); i++) {
                const PlanLaunch *l = p->LAUNCH;
                while (strcmp(plan_str(p, l->label), all[i].label) != 0)
                        assert_true(++l < p->LAUNCH + p->PHASE[0].n_launch);
                assert_int_equal(l->trigger, all[i].trigger);
                assert_int_equal(l->early, all[i].early);
        }
        plan_close(p);
}

static moec_status compile(const char *target, moec_compile_report *r, moec_error *e)
{
        moec_options opt = {.target = target, .cache_dir = "off"};
        moec_model *m;
        char out[] = "/tmp/moec-test-XXXXXX";
        close(mkstemp(out));
        unlink(out);
        assert_int_equal(moec_open(MODEL, &opt, &m, e), MOEC_OK);
        moec_status st = moec_compile(m, &opt, out, "plan", false, r, e);
        assert_int_equal(access(out, F_OK) == 0, st == MOEC_OK);
        if (st == MOEC_OK) {
                moec_model *p;
                assert_int_equal(moec_open(out, &opt, &p, e), MOEC_OK);
                moec_close(p);
                plan_says_what_is_early(out);
        }
        unlink(out);
        moec_close(m);
        return st;
}

static void whole_models(void **state)
{
        (void)state;
        moec_compile_report one, two;
        moec_error e;
        assert_int_equal(compile("cuda:sm_90a", &one, &e), MOEC_OK);
        assert_int_equal(lib->compiled, one.n_kernels);
        assert_int_equal(one.code_bytes, 4 * one.n_kernels);
        assert_non_null(strstr(lib->options, "--gpu-architecture=sm_90a "));
        assert_null(strstr(lib->options, "fast"));
        assert_int_equal(compile("cuda:sm_80,compute_90", &two, &e), MOEC_OK);
        assert_int_equal(two.n_kernels, one.n_kernels);
        assert_int_equal(two.code_bytes, 8 * one.n_kernels);
        assert_int_equal(lib->compiled, 3 * one.n_kernels);
}

/* Our bug, said before a device says it. */
static void too_much_shared_memory(void **state)
{
        (void)state;
        moec_compile_report r;
        moec_error e;
        lib->shared = 100 << 10;
        assert_int_equal(compile("cuda:sm_80,sm_90a,compute_80", &r, &e), MOEC_OK);
        lib->n_arch = 4;
        lib->arch[3] = 120;
        assert_int_equal(compile("cuda:sm_80,sm_120", &r, &e), MOEC_ERROR);
        assert_non_null(strstr(e.msg, "internal error"));
        assert_non_null(strstr(
                e.msg, "for sm_120 wants 102400 bytes of shared memory, but a block has 101376 at most"));
}

static void failures(void **state)
{
        (void)state;
        moec_compile_report r;
        moec_error e;
        lib->fails = "k_route";
        assert_int_equal(compile("cuda:sm_90a", &r, &e), MOEC_TOOLCHAIN);
        assert_non_null(strstr(e.msg, "NVRTC 13.0 failed on kernel k_route"));
        assert_non_null(strstr(e.msg, "for sm_90a: line 7: no such thing"));
        char *kept = strstr(e.msg, "kept in "), command[1200];
        assert_non_null(kept);
        snprintf(command, sizeof command, "rm -r %s", kept + strlen("kept in "));
        assert_int_equal(system(command), 0);
        assert_int_equal(compile("cuda:sm_110a", &r, &e), MOEC_TOOLCHAIN);
        assert_int_equal(compile("cuda:", &r, &e), MOEC_USAGE);
        assert_int_equal(compile("cudax", &r, &e), MOEC_USAGE);
        setenv("MOEC_NVRTC", "/nowhere", 1);
        assert_int_equal(compile("cuda:sm_90a", &r, &e), MOEC_TOOLCHAIN);
        setenv("MOEC_NVRTC", fake_path("nvrtc"), 1);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, again, end)
        const struct CMUnitTest tests[] = {
                TEST(missing_or_old),
                TEST(architectures),
                TEST(no_architectures),
                TEST(too_old_for_the_kernels),
                TEST(whole_models),
                TEST(too_much_shared_memory),
                TEST(failures),
        };
        return cmocka_run_group_tests(tests, begin, NULL);
}

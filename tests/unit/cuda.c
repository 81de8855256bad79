/* The CUDA target on a device that is a fake: what is sent, launched and freed, and every way to fail. */
#include "tests/unit/fake_help.h"
#include "runtime/exec.h"
#include "tests/lib/tempdir.h"
#include <math.h>
#include <stdlib.h>

#define MODEL "examples/fables.gguf"

static FakeCuda *cuda, fresh;

static moec_model *model;
static char cache[64]; /* its own: fake code is in it */

static int begin(void **state)
{
        (void)state;
        cuda = fake_load("cuda");

        fresh = *cuda;
        setenv("MOEC_NVRTC", fake_path("nvrtc"), 1);
        temp_new(cache);
        return moec_open(MODEL, NULL, &model, NULL);
}

static int end(void **state)
{
        (void)state;
        moec_close(model);
        temp_remove(cache);
        return 0;
}

static int again(void **state)
{
        (void)state;
        *cuda = fresh;
        return 0;
}

/* Nothing may be left behind. */
static int clean(void **state)
{
        (void)state;
        assert_int_equal(cuda->live, 0);
        return 0;
}

static moec_options options(void)
{
        return (moec_options){.target = "cuda", .cache_dir = cache, .n_ctx = 64, .n_batch = 8, .threads = 2};
}

static moec_status load(const moec_options *opt, moec_context **c, const char *words)
{
        moec_error e = {0};
        moec_status st = moec_load(model, opt, c, &e);
        if (!strstr(e.msg, words))
                fail_msg("no \"%s\" in: %s", words, e.msg);
        return st;
}

static moec_status step(moec_context *c, int n, moec_error *e)
{
        moec_token t[8];
        for (int i = 0; i < n; i++)
                t[i] = (moec_token){.id = i, .logits = i + 1 == n};
        const float *logits;
        return moec_step(c, t, n, &logits, e);
}

static void steps_are_graphs(void **state)
{
        (void)state;
        moec_options opt = options();
        moec_context *c;
        moec_timing t;
        assert_int_equal(load(&opt, &c, ""), MOEC_OK);
        moec_get_timing(c, &t);
        assert_string_equal(t.target, "cuda sm_90, Fake H100");
        int loaded = cuda->launches;
        assert_true(loaded > 0); /* weights are repacked */
        for (int i = 0; i < 3; i++)
                assert_int_equal(step(c, 1, NULL), MOEC_OK);
        int decode = cuda->captured;
        assert_true(decode > 20);
        assert_int_equal(cuda->graphs, 3); /* captured once */
        assert_int_equal(cuda->programmatic, decode - 1);
        assert_int_equal(step(c, 5, NULL), MOEC_OK);
        assert_true(cuda->captured > decode);
        assert_int_equal(cuda->graphs, 4);
        assert_int_equal(cuda->launches, loaded);
        moec_unload(c);
}

static void no_early_starts_before_hopper(void **state)
{
        (void)state;
        moec_options opt = options();
        moec_context *c;
        cuda->major = 8;
        assert_int_equal(load(&opt, &c, ""), MOEC_OK);
        assert_int_equal(step(c, 1, NULL), MOEC_OK);
        assert_int_equal(cuda->programmatic, 0);
        moec_unload(c);
}

/* On this device each launch takes a millisecond, in a graph or not. */
static void profiles_add_up(void **state)
{
        (void)state;
        moec_options opt = options();
        moec_context *c;
        const moec_profile_row *row;
        int n, calls = 0;
        assert_int_equal(load(&opt, &c, ""), MOEC_OK);
        cuda->launches = 0;
        for (int i = 0; i < 2; i++) {
                assert_int_equal(moec_profile_start(c, NULL), MOEC_OK);
                for (int k = 0; k < 3; k++)
                        assert_int_equal(step(c, 1, NULL), MOEC_OK);
                assert_int_equal(moec_profile_stop(c, &row, &n, NULL, NULL), MOEC_OK);
                calls = 0;
                for (int k = 0; k < n; k++) {
                        calls += (int)row[k].calls;
                        assert_true(fabs(row[k].seconds - 1e-3 * (double)row[k].calls) < 1e-9);
                }
                assert_int_equal(calls % 3, 0);
        }
        /* each profile: a graph for every launch, a few times, with the caches cleared; nothing by itself */
        int graphs = cuda->graphs - 2 * 5, each = MAX(calls / 3, 1);
        assert_true(graphs > 2 * each && graphs % (2 * each) == 0);
        assert_int_equal(cuda->launches, graphs);
        moec_unload(c);
}

static void long_steps_go_one_by_one(void **state)
{
        (void)state;
        moec_options opt = options();
        moec_context *c;
        const moec_profile_row *row;
        int n, calls = 0;
        assert_int_equal(load(&opt, &c, ""), MOEC_OK);
        cuda->launches = 0;
        cuda->launch_ms = 1000;
        assert_int_equal(moec_profile_start(c, NULL), MOEC_OK);
        assert_int_equal(step(c, 1, NULL), MOEC_OK);
        assert_int_equal(step(c, 1, NULL), MOEC_OK);
        assert_int_equal(moec_profile_stop(c, &row, &n, NULL, NULL), MOEC_OK);
        for (int k = 0; k < n; k++)
                calls += (int)row[k].calls;
        assert_int_equal(calls, cuda->launches);
        assert_int_equal(cuda->graphs, 2);
        moec_unload(c);
}

static void profiles_fail(void **state)
{
        static const char *const name[] = {"cuLaunchKernelEx", "cuStreamBeginCapture", "cuGraphInstantiate",
                "cuGraphLaunch", "cuEventRecord", "cuEventElapsedTime", "cuMemAlloc"};
        (void)state;
        moec_options opt = options();
        moec_context *c;
        for (size_t i = 0; i < COUNT(name); i++)
                for (int after = 0; after < 40; after += 20) {
                        moec_error e;
                        const moec_profile_row *row;
                        int n;
                        *cuda = fresh;
                        assert_int_equal(load(&opt, &c, ""), MOEC_OK);
                        assert_int_equal(moec_profile_start(c, NULL), MOEC_OK);
                        cuda->fails = name[i];
                        cuda->after = strcmp(name[i], "cuMemAlloc") ? after : 0;
                        cuda->rc = 719;
                        assert_int_equal(step(c, 1, &e), MOEC_RUNTIME);
                        cuda->fails = NULL;
                        assert_int_equal(step(c, 1, &e), MOEC_OK);
                        assert_int_equal(moec_profile_stop(c, &row, &n, NULL, NULL), MOEC_OK);
                        assert_true(n > 0);
                        moec_unload(c);
                        if (cuda->live)
                                fail_msg("%s: %d things are left", name[i], cuda->live);
                }
}

static void bandwidth_is_read(void **state)
{
        (void)state;
        moec_options opt = options();
        moec_context *c;
        double rate;
        moec_error e;
        assert_int_equal(load(&opt, &c, ""), MOEC_OK);
        cuda->memory = 100ull << 20; /* 2 GB are too much */
        assert_int_equal(moec_read_bandwidth(c, &rate, NULL), MOEC_OK);
        assert_int_equal((u64)rate, (64ull << 20) * 1000);
        cuda->fails = "cuMemAlloc"; /* no room, not even for the smallest */
        cuda->rc = CU_NO_MEMORY;
        cuda->after = 1;
        assert_int_equal(moec_read_bandwidth(c, &rate, &e), MOEC_NO_MEMORY);
        moec_unload(c);
}

static void memory_is_checked_first(void **state)
{
        (void)state;
        moec_options opt = options();
        moec_context *c;
        cuda->memory = 90ull << 20;
        opt.n_ctx = 1 << 20;
        assert_int_equal(
                load(&opt, &c, "the device (Fake H100) allows 90.00 MiB; the longest context that fits is"),
                MOEC_NO_MEMORY);
        cuda->memory = 1 << 20;
        assert_int_equal(load(&opt, &c, "no context is short enough"), MOEC_NO_MEMORY);
}

static void another_program_takes_the_memory(void **state)
{
        (void)state;
        moec_options opt = options();
        moec_context *c;
        moec_error e;
        int failed = 0;
        moec_status st = MOEC_NO_MEMORY;
        for (int i = 0; st != MOEC_OK; i++) { /* until there are no more */
                *cuda = fresh;
                cuda->fails = "cuMemAlloc";
                cuda->after = i;
                cuda->rc = CU_NO_MEMORY;
                st = moec_load(model, &opt, &c, &e);
                if (st == MOEC_OK)
                        moec_unload(c);
                else if (st != MOEC_NO_MEMORY || !strstr(e.msg, "out of device memory"))
                        fail_msg("%s", e.msg);
                else
                        failed++;
                assert_int_equal(cuda->live, 0);
        }
        assert_true(failed >= 7);
}

/* Every function of the driver that loading calls, failing at its first and at a later call. */
static void loading_fails(void **state)
{
        static const char *const name[] = {"cuDeviceGetName", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent",
                "cuStreamCreate", "cuEventCreate", "cuModuleLoadData", "cuModuleGetFunction", "cuMemGetInfo",
                "cuMemsetD8Async", "cuMemHostAlloc", "cuMemcpyHtoDAsync", "cuLaunchKernelEx",
                "cuStreamSynchronize"};
        (void)state;
        moec_options opt = options();
        moec_context *c;
        for (size_t i = 0; i < COUNT(name); i++) {
                *cuda = fresh;
                cuda->fails = name[i];
                cuda->rc = 719;
                /* a failure in finding the device, too, is the device's */
                assert_int_equal(load(&opt, &c, "the CUDA device failed"), MOEC_RUNTIME);
                if (cuda->live)
                        fail_msg("%s: %d things are left", name[i], cuda->live);
        }
}

static void steps_fail(void **state)
{
        static const struct {
                const char *name, *words;
        } all[] = {{"cuLaunchKernelEx", "launch embed"}, {"cuStreamBeginCapture", "graph"},
                {"cuStreamEndCapture", "graph"}, {"cuGraphInstantiate", "graph"}, {"cuGraphLaunch", "graph"},
                {"cuMemcpyDtoHAsync", "logits"}, {"cuStreamSynchronize", "step"},
                {"cuCtxSetCurrent", "device"}};
        (void)state;
        moec_options opt = options();
        moec_context *c;
        moec_error e;
        for (size_t i = 0; i < COUNT(all); i++) {
                *cuda = fresh;
                assert_int_equal(load(&opt, &c, ""), MOEC_OK);
                cuda->fails = all[i].name;
                cuda->rc = 719;
                assert_int_equal(step(c, 1, &e), MOEC_RUNTIME);
                if (!strstr(e.msg, all[i].words) || !strstr(e.msg, "unspecified launch failure"))
                        fail_msg("%s: %s", all[i].name, e.msg);
                assert_int_equal(moec_seq_len(c, 0), 0);
                cuda->fails = NULL;
                assert_int_equal(step(c, 1, &e), MOEC_OK);
                moec_unload(c);
                assert_int_equal(cuda->live, 0);
        }
}

/* What a step finds used up is memory, not a broken device. */
static void steps_lack_memory(void **state)
{
        static const char *const name[] = {"cuGraphInstantiate", "cuGraphLaunch", "cuLaunchKernelEx"};
        (void)state;
        moec_options opt = options();
        moec_context *c;
        moec_error e;
        for (size_t i = 0; i < COUNT(name); i++) {
                *cuda = fresh;
                assert_int_equal(load(&opt, &c, ""), MOEC_OK);
                cuda->fails = name[i];
                cuda->rc = CU_NO_MEMORY;
                assert_int_equal(step(c, 1, &e), MOEC_NO_MEMORY);
                assert_non_null(strstr(e.msg, "out of device memory: "));
                assert_non_null(strstr(e.msg, "nvidia-smi"));
                assert_int_equal(moec_seq_len(c, 0), 0);
                moec_unload(c);
        }
}

/* From any call on the device is gone: a message, an end, and nothing but the device's own things is left. */
static void a_device_is_lost(void **state)
{
        (void)state;
        moec_options opt = options();
        moec_context *c;
        int n = 0, told = 0;
        for (moec_status st = MOEC_RUNTIME; st != MOEC_OK; n += n < 20 ? 1 : 13) {
                moec_error e = {0};
                *cuda = fresh;
                cuda->lost = n + 1;
                cuda->rc = 719;
                st = moec_load(model, &opt, &c, &e);
                for (int i = 1; st == MOEC_OK && i <= 2; i++)
                        st = step(c, i, &e);
                if (c)
                        moec_unload(c);
                told += st != MOEC_OK;
                if (st != MOEC_OK && !(st == MOEC_RUNTIME && strstr(e.msg, "start again")) &&
                        !(st == MOEC_NO_DEVICE && strstr(e.msg, "nvidia-smi")))
                        fail_msg("call %d: status %d: %s", n + 1, st, e.msg);
        }
        assert_true(told > 25);
        *cuda = fresh;
}

/* Code that the driver is too old for. */
static void code_is_refused(void **state)
{
        static const int rc[] = {CU_INVALID_IMAGE, CU_NO_BINARY, CU_PTX_TOO_NEW};
        (void)state;
        moec_options opt = options();
        moec_context *c;
        for (size_t i = 0; i < COUNT(rc); i++) {
                *cuda = fresh;
                cuda->fails = "cuModuleLoadData";
                cuda->rc = rc[i];
                assert_int_equal(load(&opt, &c, "install a newer driver"), MOEC_NO_DEVICE);
                assert_int_equal(cuda->live, 0);
        }
}

static void a_device_too_old(void **state)
{
        (void)state;
        moec_options opt = options();
        moec_context *c;
        moec_timing t;
        cuda->major = 7;
        cuda->minor = 5;
        assert_int_equal(load(&opt, &c, "Fake H100, has compute capability 7.5, but the kernels need 8.0"),
                MOEC_NO_DEVICE);
        opt.target = NULL;
        assert_int_equal(load(&opt, &c, ""), MOEC_OK);
        moec_get_timing(c, &t);
        assert_true(!strncmp(t.target, "cpu", 3));
        moec_unload(c);
}

static void another_device(void **state)
{
        (void)state;
        char out[] = "/tmp/moec-test-XXXXXX";
        close(mkstemp(out));
        moec_options opt = options();
        moec_model *plan;
        moec_context *c;
        moec_error e;
        opt.target = "cuda:sm_80,sm_90a";
        assert_int_equal(moec_compile(model, &opt, out, "plan", false, NULL, &e), MOEC_OK);
        assert_int_equal(moec_open(out, &opt, &plan, &e), MOEC_OK);
        opt.target = NULL;
        static const struct {
                int major, minor;
                moec_status st;
        } all[] = {{9, 0, MOEC_OK}, {8, 0, MOEC_OK}, {8, 9, MOEC_OK}, {7, 5, MOEC_NO_DEVICE},
                {10, 0, MOEC_NO_DEVICE}};
        for (size_t i = 0; i < COUNT(all); i++) {
                cuda->major = all[i].major;
                cuda->minor = all[i].minor;
                assert_int_equal(moec_load(plan, &opt, &c, &e), all[i].st);
                if (all[i].st)
                        assert_non_null(strstr(
                                e.msg, "the plan is for sm_80,sm_90a, but the device, Fake H100, is sm_"));
                else
                        moec_unload(c);
        }
        moec_close(plan);
        unlink(out);
}

static void auto_says_why(void **state)
{
        (void)state;
        moec_options opt = options();
        moec_context *c;
        moec_timing t;
        opt.target = NULL;
        assert_int_equal(load(&opt, &c, ""), MOEC_OK);
        moec_get_timing(c, &t);
        assert_string_equal(t.target, "cuda sm_90, Fake H100 (auto: a CUDA device is there)");
        moec_unload(c);
        cuda->n_device = 0;
        assert_int_equal(load(&opt, &c, ""), MOEC_OK);
        moec_get_timing(c, &t);
        assert_true(
                !strncmp(t.target, "cpu", 3) && strstr(t.target, "(auto: the CUDA driver sees no device)"));
        moec_unload(c);
        *cuda = fresh;
        cuda->version = 11080;
        assert_int_equal(load(&opt, &c, ""), MOEC_OK);
        moec_get_timing(c, &t);
        assert_non_null(strstr(t.target, " (auto: the CUDA driver is too old)"));
        moec_unload(c);
        *cuda = fresh;
        cuda->n_device = 0;
        opt.target = "cuda";
        assert_int_equal(load(&opt, &c, "sees no device"), MOEC_NO_DEVICE);
        *cuda = fresh;
        opt.target = NULL;
        setenv("MOEC_NVRTC", "/nowhere", 1);
        assert_int_equal(load(&opt, &c, ""), MOEC_OK); /* compiled already */
        moec_get_timing(c, &t);
        assert_true(!strncmp(t.target, "cuda", 4));
        moec_unload(c);
        opt.n_batch = 9;
        assert_int_equal(load(&opt, &c, ""), MOEC_OK);
        moec_get_timing(c, &t);
        assert_true(!strncmp(t.target, "cpu", 3) && strstr(t.target, "(auto: no NVRTC for the device)"));
        moec_unload(c);
        setenv("MOEC_NVRTC", fake_path("nvrtc"), 1);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, again, clean)
        const struct CMUnitTest tests[] = {
                TEST(steps_are_graphs),
                TEST(no_early_starts_before_hopper),
                TEST(profiles_add_up),
                TEST(long_steps_go_one_by_one),
                TEST(profiles_fail),
                TEST(bandwidth_is_read),
                TEST(memory_is_checked_first),
                TEST(another_program_takes_the_memory),
                TEST(loading_fails),
                TEST(steps_fail),
                TEST(steps_lack_memory),
                TEST(a_device_is_lost),
                TEST(code_is_refused),
                TEST(a_device_too_old),
                TEST(another_device),
                TEST(auto_says_why),
        };
        return cmocka_run_group_tests(tests, begin, end);
}

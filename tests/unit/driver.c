/* What the driver's absence, age and moods come to: statuses and words, never a crash. */
#include "tests/unit/fake_help.h"

static FakeCuda *cuda, fresh;

static int begin(void **state)
{
        (void)state;
        cuda = fake_load("cuda");
        fresh = *cuda;
        return 0;
}

static int again(void **state)
{
        (void)state;
        *cuda = fresh;
        return 0;
}

static void refuses(const char *library, moec_status want, const char *words)
{
        Driver *d;
        moec_error e = {0};
        assert_int_equal(driver_open(library, &d, &e), want);
        assert_null(d);
        if (!strstr(e.msg, words))
                fail_msg("no \"%s\" in: %s", words, e.msg);
}

static void none(void **state)
{
        (void)state;
        refuses("/nowhere/libcuda.so.1", MOEC_NO_DEVICE, "no CUDA driver");
        refuses("/nowhere/libcuda.so.1", MOEC_NO_DEVICE, "; install NVIDIA's, or use --target cpu");
        refuses(fake_path("nvrtc"), MOEC_NO_DEVICE, "no CUDA driver");
}

static void too_old(void **state)
{
        (void)state;
        cuda->version = 11080;
        refuses(NULL, MOEC_NO_DEVICE, "it is for CUDA 11.8, but 12.0 or newer is needed");
        cuda->version = 12020;
        cuda->missing = "cuLaunchKernelEx";
        refuses(NULL, MOEC_NO_DEVICE, "CUDA 12.2 and has no cuLaunchKernelEx");
}

static void no_device(void **state)
{
        (void)state;
        cuda->n_device = 0;
        refuses(NULL, MOEC_NO_DEVICE, "sees no device");
        cuda->init = CU_NO_DEVICE;
        refuses(NULL, MOEC_NO_DEVICE, "sees no device");
        cuda->init = 803;
        refuses(NULL, MOEC_NO_DEVICE, "does not start: a fake's words (803)");
}

static void a_device(void **state)
{
        (void)state;
        Driver *d;
        Device dev;
        moec_error e;
        cuda->minor = 3;
        assert_int_equal(driver_open(NULL, &d, NULL), MOEC_OK);
        assert_int_equal(d->version, 13000);
        assert_int_equal(driver_device(d, 0, &dev, NULL), MOEC_OK);
        assert_string_equal(dev.name, "Fake H100");
        assert_int_equal(dev.major, 9);
        assert_int_equal(dev.minor, 3);
        assert_int_equal(dev.processors, 132);
        assert_int_equal(driver_check(d, CU_OK, "x", &e), MOEC_OK);
        assert_int_equal(driver_check(d, CU_NO_MEMORY, "weights", &e), MOEC_NO_MEMORY);
        assert_non_null(strstr(e.msg, "weights"));
        assert_int_equal(driver_check(d, 719, "launch 7", &e), MOEC_RUNTIME);
        assert_non_null(
                strstr(e.msg, "launch 7: unspecified launch failure (CUDA_ERROR_LAUNCH_FAILED, 719)"));
        cuda->fails = "cuDeviceGetAttribute";
        cuda->rc = 101;
        assert_int_equal(driver_device(d, 0, &dev, &e), MOEC_RUNTIME);
        driver_close(d);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(none, again),
                cmocka_unit_test_setup(too_old, again),
                cmocka_unit_test_setup(no_device, again),
                cmocka_unit_test_setup(a_device, again),
        };
        return cmocka_run_group_tests(tests, begin, NULL);
}

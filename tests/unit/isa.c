/* Instruction sets: what this machine says of itself it has, and what it lacks is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "runtime/isa.h"
#include <cmocka.h> /* last: its fail is a macro */

static void own(void **state)
{
        (void)state;
        char isa[ISA_MAX];
        moec_error e = {0};
        isa_native(isa);
        assert_int_equal(strncmp(isa, "native:", 7), 0);
        if (isa_have(isa, &e) != MOEC_OK)
                fail_msg("%s", e.msg);
        assert_int_equal(isa_have("native:", NULL), MOEC_OK);
}

static void missing(void **state)
{
        (void)state;
        moec_error e = {0};
        assert_int_equal(isa_have("native:flux,warp9", &e), MOEC_NO_DEVICE);
        assert_non_null(strstr(e.msg, "flux, warp9"));
        assert_non_null(strstr(e.msg, "--march"));
        static const char *const unknown[] = {"", "x86-64-v5", "x86-64-v33", "sm_90a", "native", "x86"};
        for (size_t i = 0; i < COUNT(unknown); i++)
                assert_int_equal(isa_have(unknown[i], NULL), MOEC_NO_DEVICE);
        char many[4096] = "native:";
        for (int i = 0; i < 400; i++)
                strcat(many, "absent,");
        assert_int_equal(isa_have(many, &e), MOEC_NO_DEVICE);
}

/* The kernel's view of the same bits, as far as it names them alike. */
static void as_the_system_says(void **state)
{
        (void)state;
        char line[8192] = "", flag[64];
        FILE *f = fopen("/proc/cpuinfo", "r");
        while (f && fgets(line, sizeof line, f) && strncmp(line, "flags", 5) != 0)
                ;
        if (f)
                fclose(f);
        if (strncmp(line, "flags", 5) != 0) {
                puts("no flags in /proc/cpuinfo");
                skip();
        }
        line[strcspn(line, "\n")] = ' ';
        static const char *const same[][2] = {{"avx2", "avx2"}, {"fma", "fma"}, {"f16c", "f16c"},
                {"bmi", "bmi1"}, {"bmi2", "bmi2"}, {"lzcnt", "abm"}, {"movbe", "movbe"}, {"popcnt", "popcnt"},
                {"sse4.2", "sse4_2"}, {"avx512f", "avx512f"}, {"avx512vl", "avx512vl"},
                {"avx512vnni", "avx512_vnni"}, {"avxvnni", "avx_vnni"}, {"avx512bf16", "avx512_bf16"},
                {"gfni", "gfni"}, {"vaes", "vaes"}, {"sahf", "lahf_lm"}, {"cx16", "cx16"}};
        for (size_t i = 0; i < COUNT(same); i++) {
                snprintf(flag, sizeof flag, " %s ", same[i][1]);
                if (isa_feature(same[i][0]) != (strstr(line, flag) != NULL))
                        fail_msg("%s differs from the system's %s", same[i][0], same[i][1]);
        }
        bool v3 = isa_feature("avx2") && isa_feature("fma") && isa_feature("f16c") && isa_feature("bmi2") &&
                  isa_feature("movbe");
        assert_int_equal(isa_have("x86-64-v3", NULL) == MOEC_OK, v3);
        assert_int_equal(isa_have("x86-64", NULL), MOEC_OK);
        assert_false(isa_feature("avx2,fma"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(own),
                cmocka_unit_test(missing),
                cmocka_unit_test(as_the_system_says),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Child processes: both pipes at once, status, folder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "codegen/child.h"
#include "tests/lib/tempdir.h"
#include <cmocka.h> /* last: its fail is a macro */

static char dir[64];

static moec_status child(const char *script, const char *in, size_t n_in, Buf *out, Buf *errors, int *code)
{
        const char *argv[] = {"sh", "-c", script, NULL};
        moec_error e;
        return child_run(argv, dir, in, n_in, out, errors, code, &e);
}

static void test_child(void **state)
{
        enum { BIG = 3 << 20 };
        (void)state;
        char *big = calloc(1, BIG);
        Buf out = {0}, errors = {0};
        int code = -1;
        memset(big, 'x', BIG);
        assert_int_equal(
                child("cat; cat /dev/zero | head -c 200000 >&2; exit 7", big, BIG, &out, &errors, &code),
                MOEC_OK);
        assert_int_equal(code, 7);
        assert_int_equal(out.len, BIG);
        assert_memory_equal(out.p, big, BIG);
        assert_int_equal(errors.len, 200000);
        buf_free(&out);
        buf_free(&errors);
        assert_int_equal(child("exec <&-; pwd; kill -KILL $$", big, BIG, &out, &errors, &code),
                MOEC_OK); /* reads nothing */
        assert_int_equal(code, 128 + 9);
        assert_int_equal(out.len, strlen(dir) + 1);
        assert_memory_equal(out.p, dir, strlen(dir));
        buf_free(&out);
        buf_free(&errors);
        free(big);
}

static void test_no_program(void **state)
{
        const char *argv[] = {"/nonexistent/program", NULL};
        Buf out = {0}, errors = {0};
        moec_error e;
        int code;
        (void)state;
        assert_int_equal(child_run(argv, NULL, NULL, 0, &out, &errors, &code, &e), MOEC_TOOLCHAIN);
        assert_non_null(strstr(e.msg, "cannot run /nonexistent/program: No such file"));
        buf_free(&out);
        buf_free(&errors);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_child),
                cmocka_unit_test(test_no_program),
        };
        temp_new(dir);
        int rc = cmocka_run_group_tests(tests, NULL, NULL);
        temp_remove(dir);
        return rc;
}

/* UTF-8: which bytes are characters, and output that never splits one. */
#include "tests/unit/token_help.h"
#include "runtime/utf8.h"

static void characters(void **state)
{
        (void)state;
        static const struct {
                const char *p;
                size_t n;
                int want;
        } c[] = {{"", 0, 0}, {"a", 1, 1}, {"\0", 1, 1}, {"\x7f", 1, 1}, {"\x80", 1, -1}, {"\xbf", 1, -1},
                {"\xc0\x80", 2, -1}, {"\xc1\xbf", 2, -1}, {"\xc2\x80", 2, 2}, {"\xdf\xbf", 2, 2},
                {"\xc2", 1, 0}, {"\xc2z", 2, -1}, {"\xe0\x9f\xbf", 3, -1}, {"\xe0\xa0\x80", 3, 3},
                {"\xe0\xa0", 2, 0}, {"\xe0", 1, 0}, {"\xe1\x80z", 3, -2}, {"\xed\x9f\xbf", 3, 3},
                {"\xed\xa0\x80", 3, -1}, {"\xee\x80\x80", 3, 3}, {"\xef\xbf\xbf", 3, 3},
                {"\xf0\x8f\xbf\xbf", 4, -1}, {"\xf0\x90\x80\x80", 4, 4}, {"\xf0\x90\x80", 3, 0},
                {"\xf0\x90\x80z", 4, -3}, {"\xf4\x8f\xbf\xbf", 4, 4}, {"\xf4\x90\x80\x80", 4, -1},
                {"\xf5\x80\x80\x80", 4, -1}, {"\xff", 1, -1}};
        for (size_t i = 0; i < COUNT(c); i++)
                if (utf8_next(c[i].p, c[i].n) != c[i].want)
                        fail_msg("case %zu gives %d", i, utf8_next(c[i].p, c[i].n));
}

static void runs(void **state)
{
        (void)state;
        rng_state = 8;
        char text[600];
        for (u32 round = 0; round < 2000; round++) {
                size_t n = random_unicode(text, rng() % 500);
                assert_int_equal(utf8_run(text, n), n);
                assert_true(utf8_valid(text, n));
                if (!n)
                        continue;
                text[rng() % n] = (char)rng();
                size_t run = utf8_run(text, n);
                assert_true(utf8_valid(text, run));
                assert_int_equal(run == n, utf8_valid(text, n));
                for (size_t more = 1; more <= 4 && run + more <= n; more++)
                        assert_false(utf8_valid(text + run, more));
        }
}

/* All of a text, pushed in random parts. */
static size_t push_all(const char *text, size_t n, char *out)
{
        moec_utf8 u = {0};
        size_t o = 0, at = 0;
        while (at < n) {
                size_t k = rng() % 6;
                k = MIN(k, n - at);
                char part[64];
                memset(part, 'Z', sizeof part);
                size_t got = moec_utf8_push(&u, text + at, k, false, part);
                assert_true(got <= 3 * (k + 4) && utf8_valid(part, got));
                for (size_t i = 3 * (k + 4); i < sizeof part; i++)
                        assert_int_equal(part[i], 'Z');
                memcpy(out + o, part, got);
                o += got;
                at += k;
        }
        return o + moec_utf8_push(&u, NULL, 0, true, out + o);
}

static void streams(void **state)
{
        (void)state;
        rng_state = 9;
        char text[600], out[2400], want[2400];
        for (u32 round = 0; round < 3000; round++) {
                size_t n = random_unicode(text, rng() % 300);
                size_t got = push_all(text, n, out);
                assert_int_equal(got, n);
                assert_memory_equal(out, text, n);
                for (size_t i = 0; i < n; i++)
                        if (rng() % 8 == 0)
                                text[i] = (char)(0x80 | rng());
                /* Each broken character, and one that never ends, is one U+FFFD. */
                size_t w = 0;
                for (size_t i = 0; i < n;) {
                        int k = utf8_next(text + i, n - i);
                        size_t used = k > 0 ? (size_t)k : k < 0 ? (size_t)-k : n - i;
                        memcpy(want + w, k > 0 ? text + i : "\xef\xbf\xbd", k > 0 ? used : 3);
                        w += k > 0 ? used : 3;
                        i += used;
                }
                got = push_all(text, n, out);
                assert_int_equal(got, w);
                assert_memory_equal(out, want, w);
        }
}

static void nothing_is_held_back(void **state)
{
        (void)state;
        moec_utf8 u = {0};
        char out[32];
        assert_int_equal(moec_utf8_push(&u, "a\xf0\x9f", 3, false, out), 1);
        assert_int_equal(moec_utf8_push(&u, "\xa6", 1, false, out), 0);
        assert_int_equal(moec_utf8_push(&u, "\x8a!", 2, false, out), 5);
        assert_memory_equal(out, "\xf0\x9f\xa6\x8a!", 5);
        assert_int_equal(moec_utf8_push(&u, "\xf0\x9f\xa6", 3, false, out), 0);
        assert_int_equal(moec_utf8_push(&u, "x", 1, false, out), 4);
        assert_memory_equal(out, "\xef\xbf\xbdx", 4);
        assert_int_equal(moec_utf8_push(&u, "\xe4\xb8", 2, true, out), 3);
        assert_memory_equal(out, "\xef\xbf\xbd", 3);
        assert_int_equal(moec_utf8_push(&u, "", 0, true, out), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(characters),
                cmocka_unit_test(runs),
                cmocka_unit_test(streams),
                cmocka_unit_test(nothing_is_held_back),
        };
        return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}

/* Lua files: the data they return, what the sandbox keeps from them, the bounds, and messages that name file
 * and line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "frontend/lua.h"
#include <cmocka.h>

static Arena *arena;

static int setup(void **state)
{
        (void)state;
        arena = arena_new();
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        arena_free(arena);
        return 0;
}

static const Tab *config(const char *text)
{
        Trap t;
        if (TRAP(&t) != 0)
                fail_msg("%s", t.error.msg);
        const Tab *tab = lua_config(arena, "t.lua", text, strlen(text));
        trap_pop(&t);
        return tab;
}

/* The text is refused with this status, and the message has `says`. */
static void refused_n(const char *text, size_t n, moec_status st, const char *says)
{
        Trap t;
        if (TRAP(&t) == 0) {
                lua_config(arena, "t.lua", text, n);
                trap_pop(&t);
                fail_msg("accepted: %.200s", text);
        }
        if (t.error.status != st || !strstr(t.error.msg, says))
                fail_msg("%.200s\n gave %d: %s\n not %d: %s", text, t.error.status, t.error.msg, st, says);
}

static void refused(const char *text, const char *says)
{
        refused_n(text, strlen(text), MOEC_ERROR, says);
}

/* ---- data ---- */

static void test_values(void **state)
{
        (void)state;
        const Tab *t = config("local n = 2\n"
                              "return {a = 1, b = n * 1.5, c = 'text', d = true, e = {x = {7, 8, 'y'}}, [1] "
                              "= 'one', [2] = 2}");
        i64 i = 0;
        double f = 0;
        bool b = false;
        assert_true(tab_int(t, "a", 0, 10, &i));
        assert_int_equal(i, 1);
        assert_true(tab_flt(t, "b", 0, 10, &f) && fabs(f - 3) < 1e-9);
        assert_true(tab_flt(t, "a", 0, 10, &f) && fabs(f - 1) < 1e-9);
        assert_true(tab_bool(t, "d", &b) && b);
        assert_string_equal(tab_str(t, "c"), "text");
        assert_int_equal(t->n, 2);
        assert_string_equal(tab_str_at(t, 0), "one");
        assert_int_equal(tab_int_at(t, 1, 2, 2), 2);
        const Tab *x = tab_tab(tab_tab(t, "e"), "x");
        assert_int_equal(x->n, 3);
        assert_int_equal(tab_int_at(x, 0, 0, 10), 7);
        assert_true(fabs(tab_flt_at(x, 1, 0, 10) - 8) < 1e-9);
        assert_string_equal(x->path, "t.lua: e.x");
        assert_null(tab_str(t, "nothing"));
        assert_null(tab_tab(t, "nothing"));
        assert_false(tab_int(t, "nothing", 0, 1, &i));
        assert_true(tab_has(t, "e"));
        assert_false(tab_has(t, "f"));
        for (u32 k = 1; k < t->n_key; k++)
                assert_true(strcmp(t->key[k - 1], t->key[k]) < 0);
}

typedef void Ask(const Tab *t);

static void ask_int(const Tab *t)
{
        i64 i;
        tab_int(t, "a", 5, 9, &i);
}

static void ask_flt(const Tab *t)
{
        double f;
        tab_flt(t, "a", 5, 9, &f);
}

static void ask_bool(const Tab *t)
{
        bool b;
        tab_bool(t, "a", &b);
}

static void ask_str(const Tab *t)
{
        tab_str(t, "a");
}

static void ask_tab(const Tab *t)
{
        tab_tab(t, "a");
}

static void ask_item(const Tab *t)
{
        tab_tab_at(tab_tab(t, "l"), 1);
}

static void ask_known(const Tab *t)
{
        tab_known(t, "ab l bc");
}

static void wrong_kind(Ask *ask, const char *text, const char *says)
{
        const Tab *tab = config(text);
        Trap t;
        if (TRAP(&t) == 0) {
                ask(tab);
                trap_pop(&t);
                fail_msg("accepted: %s", text);
        }
        assert_int_equal(t.error.status, MOEC_ERROR);
        if (!strstr(t.error.msg, says))
                fail_msg("%s gave: %s", text, t.error.msg);
}

static void test_wrong_kinds(void **state)
{
        (void)state;
        static const struct {
                Ask *ask;
                const char *text, *says;
        } row[] = {
                {ask_int, "return {a = 'x'}", "t.lua: a is a string; it must be an integer"},
                {ask_int, "return {a = 2.5}", "t.lua: a is a number; it must be an integer"},
                {ask_int, "return {a = 4}", "t.lua: a is 4; it must be 5 to 9"},
                {ask_int, "return {a = 10}", "t.lua: a is 10; it must be 5 to 9"},
                {ask_flt, "return {a = true}", "t.lua: a is a boolean; it must be a number"},
                {ask_flt, "return {a = 0/0}", "it must be 5 to 9"},
                {ask_flt, "return {a = 9.5}", "t.lua: a is 9.5; it must be 5 to 9"},
                {ask_bool, "return {a = 1}", "t.lua: a is an integer; it must be a boolean"},
                {ask_str, "return {a = {}}", "t.lua: a is a table; it must be a string"},
                {ask_tab, "return {a = 'x'}", "t.lua: a is a string; it must be a table"},
                {ask_item, "return {l = {{}, 3}}", "t.lua: l: [2] is an integer; it must be a table"},
                {ask_known, "return {l = 1, a = 1}", "t.lua: a is not known here; these are: ab l bc"},
        };
        for (size_t i = 0; i < COUNT(row); i++)
                wrong_kind(row[i].ask, row[i].text, row[i].says);
        tab_known(config("return {ab = 1, l = 2, bc = 3}"), "ab l bc");
}

static void test_not_data(void **state)
{
        (void)state;
        refused("return {f = function() end}", "t.lua: f: a function; only strings");
        refused("return {e = {{1}, {g = math.sin}}}", "t.lua: e[2].g: a function");
        refused("return {[1.5] = 1}", "t.lua: a key that is neither");
        refused("return {[3] = 1}", "t.lua: a key that is neither");
        refused("return {[true] = 1}", "t.lua: a key that is neither");
        refused("return {a = 'x\\0y'}", "t.lua: a: a string with a NUL byte");
        refused("return {['a\\0'] = 1}", "t.lua: a key with a NUL byte");
        refused("local t = {} t.t = t return t", "tables nested more than 16 deep");
        refused("return 3", "must end with `return {...}`; it returned number");
        refused("", "must end with `return {...}`; it returned nil");
}

/* ---- the sandbox ---- */

static void test_no_way_out(void **state)
{
        (void)state;
        static const char *const gone[] = {"io", "os", "package", "debug", "coroutine", "utf8", "require",
                "load", "loadfile", "dofile", "loadstring", "print", "pcall", "xpcall", "collectgarbage",
                "setmetatable", "getmetatable", "rawset", "rawget", "rawequal", "rawlen", "next", "pairs",
                "warn", "_G", "string.dump", "string.find", "string.match", "string.gmatch", "string.gsub",
                "string.pack", "table.move", "math.random", "math.randomseed", "('x').dump", "('x').gsub"};
        char text[200];
        for (size_t i = 0; i < COUNT(gone); i++) {
                snprintf(text, sizeof text, "return {gone = %s == nil}", gone[i]);
                bool b = false;
                assert_true(tab_bool(config(text), "gone", &b));
                if (!b)
                        fail_msg("%s is reachable", gone[i]);
        }
        refused("return io.open('/etc/passwd')", "t.lua:1: attempt to index a nil value (global 'io')");
        refused("return require 'os'", "t.lua:1: attempt to call a nil value (global 'require')");
        refused("return load('return 1')()", "attempt to call a nil value (global 'load')");
}

static void test_no_bytecode(void **state)
{
        (void)state;
        static const char code[] = "\x1bLua\x54\0\x19\x93\r\n\x1a\n";
        refused_n(code, sizeof code - 1, MOEC_ERROR, "attempt to load a binary chunk");
}

static void test_no_leak_between_files(void **state)
{
        (void)state;
        config("string.len = nil; x = 1; return {}");
        bool b = false;
        assert_true(tab_bool(config("return {fresh = x == nil and string.len ~= nil}"), "fresh", &b) && b);
}

static void test_library(void **state)
{
        (void)state;
        const Tab *t =
                config("local l = {}\n"
                       "for i, v in ipairs{3, 1, 2} do l[i] = v end\n"
                       "table.sort(l)\n"
                       "return {a = table.concat(l, ','), b = ('ab'):rep(3, '-'), c = ('%d'):format(7), "
                       "d = #('x'):rep(0), e = math.max(1, 5), f = select('#', 1, 2), g = tostring(1.5), "
                       "h = ('abc'):upper():sub(2), i = #('ab'):rep(100, ', ')}");
        i64 n;
        assert_string_equal(tab_str(t, "a"), "1,2,3");
        assert_string_equal(tab_str(t, "b"), "ab-ab-ab");
        assert_string_equal(tab_str(t, "c"), "7");
        assert_true(tab_int(t, "d", 0, 0, &n));
        assert_true(tab_int(t, "e", 5, 5, &n));
        assert_true(tab_int(t, "f", 2, 2, &n));
        assert_string_equal(tab_str(t, "h"), "BC");
        assert_true(tab_int(t, "i", 398, 398, &n));
}

/* ---- bounds ---- */

static void test_steps(void **state)
{
        (void)state;
        refused("while true do end", "t.lua:1: more than 20000000 instructions");
        refused("local function f() return f() end\nreturn f()", "t.lua:1: more than 20000000 instructions");
        refused("for i = 1, math.maxinteger do end return {}", "more than 20000000 instructions");
        refused("::a:: goto a", "more than 20000000 instructions");
        refused("local l = {3, 2, 1} table.sort(l, function(a, b) while true do end end) return l",
                "more than 20000000 instructions");
}

static void test_memory(void **state)
{
        (void)state;
        refused("local s = 'x' while true do s = s .. s end", "t.lua: holds more than 64 MiB of memory");
        refused("local t = {} for i = 1, 1e9 do t[i] = {} end", "t.lua: holds more than 64 MiB of memory");
        refused("local function f() return 1 + f() end return f()",
                "t.lua: holds more than 64 MiB of memory");
        refused("return ('x'):rep(1 << 62)", "t.lua:1: string.rep: more than");
        refused("return string.rep('', 1 << 62)", "t.lua:1: string.rep: more than");
        refused("return ('x'):rep(3, ('y'):rep(1e6))", "t.lua:1: string.rep: more than");
        refused("local t = {} return {table.unpack(t, 1, 1e8)}", "too many results to unpack");
}

static void test_long_text(void **state)
{
        (void)state;
        Buf b = {0};
        buf_str(&b, "return {}");
        while (b.len <= LUA_MAX_TEXT)
                buf_str(&b, "                                                                ");
        refused_n(b.p, b.len, MOEC_ERROR, "a Lua file may have");
        buf_free(&b);
        b = (Buf){0};
        for (int i = 0; i < 100000; i++)
                buf_char(&b, '{');
        refused_n(b.p, b.len, MOEC_ERROR, "t.lua:1: ");
        buf_free(&b);
}

/* ---- messages ---- */

static void test_places(void **state)
{
        (void)state;
        refused("local x = 1\nlocal y = = 2", "t.lua:2: unexpected symbol near '='");
        refused("local x = nil\n\nx.y = 3", "t.lua:3: attempt to index a nil value (local 'x')");
        refused("error('no good')", "t.lua:1: no good");
        refused("error({})", "table: ");
        refused("error()", "nil");
        refused("local function f()\n error('deep')\nend\n\nlocal n = 1 + f()",
                "t.lua:2: deep (called from line 5)");
        refused("assert(1 == 2, 'wrong')", "wrong");
}

/* The state is closed whatever happens: a sanitizer sees what is lost. */
static void test_many_failures(void **state)
{
        (void)state;
        for (int i = 0; i < 100; i++) {
                refused("error('x')", "x");
                refused("return {a = {b = {print}, f = ipairs}}", "t.lua: a.f: a function");
        }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        const struct CMUnitTest tests[] = {T(test_values), T(test_wrong_kinds), T(test_not_data),
                T(test_no_way_out), T(test_no_bytecode), T(test_no_leak_between_files), T(test_library),
                T(test_steps), T(test_memory), T(test_long_text), T(test_places), T(test_many_failures)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Code generation: Keys, m4, cc, and what becomes of their faults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "codegen/cc.h"
#include "codegen/emit.h"
#include "tests/lib/randgraph.h"
#include "tests/lib/synth.h"
#include "tests/lib/tempdir.h"
#include <cmocka.h> /* last: its fail is a macro */

static char dir[64], *path_was; /* a folder a test; what PATH was */

static int setup(void **state)
{
        (void)state;
        temp_new(dir);
        path_was = strdup(getenv("PATH"));
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        setenv("PATH", path_was, 1);
        free(path_was);
        temp_remove(dir);
        return 0;
}

static void write_text(const char *name, const char *text, int mode)
{
        char path[256];
        moec_error e;
        snprintf(path, sizeof path, "%s/%s", dir, name);
        if (file_write(path, text, strlen(text), 0644, &e))
                fail_msg("%s", e.msg);
        assert_int_equal(chmod(path, (mode_t)mode), 0);
}

static char *read_text(Arena *a, const char *path)
{
        Buf b = {0};
        char *s = file_read(path, &b, 1 << 26, NULL) ? NULL : arena_strn(a, b.p ? b.p : "", b.len);
        buf_free(&b);
        return s;
}

/* ---- Keys ---- */

/* An addition of rows of n values. */
static Key *add_key(Arena *a, i64 n)
{
        Key *k = key_new(a, "add");
        key_word(k, "ARG_out0", "0");
        key_word(k, "ARG_A", "1");
        key_word(k, "ARG_B", "2");
        key_word(k, "STRIDE_B", "N");
        key_int(k, "N", n);
        key_done(k);
        return k;
}

static void test_key(void **state)
{
        (void)state;
        Arena *a = arena_new();
        Key *k = key_new(a, "matmul");
        key_int(k, "K", -2048);
        key_flt(k, "eps", 1e-6);
        key_word(k, "act", "q8");
        key_fmt(k, "96", "N%u", 11u);
        key_done(k);
        assert_string_equal(k->text, "matmul K=-2048 eps=0x1.0c6f7a0b5ed8dp-20 act=q8 N11=96");
        assert_string_equal(
                k->name, "k_matmul_38df64ec1f6c"); /* names outlive versions: in caches, in records */
        Key *same = add_key(a, 40), *other = add_key(a, 41);
        assert_string_equal(add_key(a, 40)->text, same->text);
        assert_string_equal(add_key(a, 40)->name, same->name);
        assert_string_not_equal(other->text, same->text);
        assert_string_not_equal(other->name, same->name);
        arena_free(a);
}

static Graph *parsed(Arena *a, const char *text)
{
        Trap t;
        if (TRAP(&t))
                fail_msg("%s", t.error.msg);
        Graph *g = parse(a, text, strlen(text), "test");
        check(g);
        trap_pop(&t);
        g->max[DIM_n_tok] = g->max[DIM_n_out] = 4;
        return g;
}

/* Same constants, other operands: one Key. Another eps, width or operand: another. */
static void test_equal_nodes(void **state)
{
        static const char text[] = "graph g {\n"
                                   "$t =F32[8,32]\n$a =F32[32]\n$b =F32[32]\n$c =F32[16]\n"
                                   "%0 =f32[n_tok,32] embed w $t, ids @ids\n"
                                   "%1 =f32[n_tok,32] rmsnorm x %0, w $a, eps 0x1p-10\n"
                                   "%2 =f32[n_tok,32] rmsnorm x %1, w $b, layer 3, eps 0x1p-10\n"
                                   "%3 =f32[n_tok,32] rmsnorm x %2, w $b, eps 0x1p-11\n"
                                   "%4 =f32[n_tok,32] rmsnorm x %3, w $c, group 16, eps 0x1p-10\n"
                                   "%5 =f32[n_tok,32] add a %4, b %1\n"
                                   "%6 =f32[n_tok,32] add a %5, b $a\n"
                                   "%7 =f32[n_tok,32] add a %6, b %0\n"
                                   "%8 =f32[n_out,32] rows x %7, out @out\n"
                                   "return %8\n}\n";
        static const u32 kernel[] = {0, 1, 1, 2, 3, 4, 5, 4, 6}; /* of each node */
        (void)state;
        Arena *a = arena_new();
        Graph *g = parsed(a, text);
        EmitPhase phase = {g, 4, 4};
        EmitIn in = {.phase = &phase, .n_phase = 1};
        Emit *m = emit_new(a, &in);
        Key *const *key;
        assert_int_equal(emit_keys(m, &key), 7);
        assert_int_equal(g->n_node, COUNT(kernel));
        for (u32 i = 0; i < g->n_node; i++)
                assert_string_equal(emit_sel(m, 0, i)->key->text, key[kernel[i]]->text);
        arena_free(a);
}

/* Selects that node for steps of max_tok tokens; what was wrong. */
static moec_error selecting(Arena *a, Graph *g, u32 node, u64 max_tok)
{
        Sel s;
        Trap t;
        g->max[DIM_n_tok] = max_tok;
        if (TRAP(&t))
                return t.error;
        assert_true(select_node(a, g, node, TARGET_cpu, NULL, true, &s));
        trap_pop(&t);
        return (moec_error){0};
}

/* An attend that appends is for steps of one token. */
static void test_append(void **state)
{
        (void)state;
        u32 tried = 0;
        for (u64 seed = 0; seed < 20; seed++) {
                Arena *a = arena_new();
                Graph *g = rand_graph(a, seed, true);
                for (u32 i = 0; i < g->n_node; i++) {
                        if (g->node[i].op != OP_attend || !in_get(&g->node[i], S_k))
                                continue;
                        assert_int_equal(selecting(a, g, i, 1).status, MOEC_OK);
                        moec_error e = selecting(a, g, i, 2);
                        assert_int_equal(e.status, MOEC_ERROR);
                        assert_non_null(strstr(e.msg, "fuse_kv"));
                        tried++;
                }
                arena_free(a);
        }
        assert_true(tried > 3);
}

/* ---- compiling one kernel ---- */

typedef struct Built {
        moec_error e;
        u64 so_bytes;
        Hash so;
        const char *source[2];
} Built;

static Built build_keys(Arena *a, Key *const key[], u32 n, const BuildOpt *opt, bool compile)
{
        Built b = {0};
        Image *so = NEW(a, Image);
        Trap t;
        if (TRAP(&t) == 0) {
                if (compile)
                        cc_build(a, key, n, opt, so, b.source);
                else
                        cc_sources(a, key, n, opt, b.source);
                trap_pop(&t);
        } else {
                b.e = t.error;
        }
        b.so_bytes = so->bytes;
        b.so = hash_bytes(so->p ? so->p : "", so->bytes);
        return b;
}

static Built build_add(Arena *a, const BuildOpt *opt, bool compile)
{
        Key *key[] = {add_key(a, 32), add_key(a, 48)};
        return build_keys(a, key, COUNT(key), opt, compile);
}

static BuildOpt plain(void)
{
        return (BuildOpt){.march = "x86-64", .threads = 2};
}

/* "/tmp/moec.x" of a message that ends "... kept in /tmp/moec.x" */
static const char *kept_in(const moec_error *e)
{
        const char *at = strstr(e->msg, "kept in ");
        if (!at)
                fail_msg("no folder in: %s", e->msg);
        return at + strlen("kept in ");
}

static void assert_told(const moec_error *e, moec_status st, const char *words)
{
        if (e->status != st || !strstr(e->msg, words))
                fail_msg("status %d, not %d with \"%s\": %s", (int)e->status, (int)st, words, e->msg);
}

/* A template of `add` that is wrong, and what is said of it. */
static void bad_template(const char *template, const char *told, bool compile)
{
        char folder[128];
        Arena *a = arena_new();
        BuildOpt opt = plain();
        snprintf(folder, sizeof folder, "mkdir -p %s/templates/c/generic", dir);
        assert_int_equal(system(folder), 0);
        write_text("templates/c/generic/add.c.m4", template, 0644);
        opt.templates = dir;
        Built b = build_add(a, &opt, compile);
        assert_told(&b.e, MOEC_TOOLCHAIN, told);
        if (compile) {
                struct stat st;
                assert_int_equal(stat(kept_in(&b.e), &st), 0);
                assert_non_null(strstr(kept_in(&b.e), "/tmp/moec."));
                temp_remove(kept_in(&b.e));
        }
        arena_free(a);
}

#define TOP    "// add, changed.\nm4_include(«prelude.m4»)\n"
#define BEGIN  "moe_kernel\n{\n"
#define BOTTOM "        (void)arg, (void)dim, (void)first, (void)last;\n}\n"

static void test_m4_faults(void **state)
{
        (void)state;
        for (int compile = 0; compile < 2; compile++) {
                bad_template(TOP "moe_if(1, 2)\n" BEGIN BOTTOM,
                        "templates/c/generic/add.c.m4:3: moe_if wants 4 arguments, got 2", compile);
                bad_template(TOP BEGIN "moe_for(«I», 0, 3)\n" BOTTOM,
                        "add.c.m4:5: moe_for wants 4 arguments, got 3", compile);
                bad_template(TOP BEGIN "int n = moe_fact(«NONE», 1);\n" BOTTOM,
                        "add.c.m4:5: no fact MOE_NONE1", compile);
                bad_template(TOP BEGIN "float *x = moe_arg(«z»);\n" BOTTOM, "add.c.m4:5: no fact MOE_ARG_z",
                        compile);
                bad_template(TOP BEGIN "\n\nint n = MOE_M;\n" BOTTOM, "add.c.m4:7: `MOE_M` was left over",
                        compile);
                bad_template(TOP "moe_if(a, a, «\n\n\nmoe_fro(1)», «»)\n" BEGIN BOTTOM,
                        "`moe_fro` was left over", compile);
                bad_template(
                        TOP BEGIN "m4_defin(x)\n" BOTTOM, "add.c.m4:5: `m4_defin` was left over", compile);
                bad_template(TOP "m4_include(«gone.m4»)\n" BEGIN BOTTOM, "add.c.m4:3: cannot open `gone.m4'",
                        compile);
                bad_template(TOP BEGIN "«\n" BOTTOM, "add.c.m4", compile);
        }
}

/* What is left of the macro language in a line comment is no fault; nor are words that only look alike. */
static void test_no_leak(void **state)
{
        (void)state;
        char folder[128];
        Arena *a = arena_new();
        BuildOpt opt = plain();
        snprintf(folder, sizeof folder, "mkdir -p %s/templates/c/generic", dir);
        assert_int_equal(system(folder), 0);
        write_text("templates/c/generic/add.c.m4",
                TOP "// moe_fro and MOE_M\nint xmoe_, am4_, MOE;\n" BEGIN BOTTOM, 0644);
        opt.templates = dir;
        Built b = build_add(a, &opt, false);
        assert_int_equal(b.e.status, MOEC_OK);
        assert_non_null(strstr(b.source[0], "// moe_fro and MOE_M\nint xmoe_"));
        arena_free(a);
}

static void test_c_faults(void **state)
{
        (void)state;
        bad_template(TOP BEGIN "        int x = ;\n" BOTTOM, "templates/c/generic/add.c.m4:5:", true);
        bad_template(TOP "moe_if(a, a, «// one\n// two\n», «»)\n" BEGIN "        return 7 +;\n" BOTTOM,
                "templates/c/generic/add.c.m4:8:", true);
        bad_template(TOP "int undefined_function_of_add(int), MOE_NAME«»_x = 2 / /;\n" BEGIN BOTTOM,
                "templates/c/generic/add.c.m4:3:", true);
}

/* ---- the tools ---- */

static void tool(const char *name, const char *script)
{
        Arena *a = arena_new();
        write_text(name, arena_fmt(a, "#!/bin/sh\n%s\n", script), 0755);
        arena_free(a);
}

/* A cc in front of the real one that notes each call's folder and arguments in dir/log. */
static void spy(const char *but)
{
        Arena *a = arena_new();
        tool("cc",
                arena_fmt(a, "echo \"$PWD $*\" >>%s/log\n%s\nPATH='%s' exec cc \"$@\"", dir, but, path_was));
        setenv("PATH", arena_fmt(a, "%s:%s", dir, path_was), 1);
        arena_free(a);
}

static u32 count_in(const char *text, const char *word)
{
        u32 n = 0;
        for (; text && (text = strstr(text, word)) != NULL; text++)
                n++;
        return n;
}

/* How often the spy was called with that word since the last time. */
static u32 calls(const char *word)
{
        Arena *a = arena_new();
        char path[96];
        snprintf(path, sizeof path, "%s/log", dir);
        u32 n = count_in(read_text(a, path), word);
        unlink(path);
        arena_free(a);
        return n;
}

static void test_no_tool(void **state)
{
        static const char *const has[] = {"cc", "m4"}, *const lacks[] = {"m4", "cc"};
        (void)state;
        for (int i = 0; i < 2; i++) {
                Arena *a = arena_new();
                BuildOpt opt = plain();
                tool(has[i], arena_fmt(a, "PATH='%s' exec %s \"$@\"", path_was, has[i]));
                setenv("PATH", dir, 1);
                Built b = build_add(a, &opt, true);
                setenv("PATH", path_was, 1);
                assert_told(&b.e, MOEC_TOOLCHAIN,
                        arena_fmt(a,
                                "cannot run %s: No such file or directory. It is needed to compile a model",
                                lacks[i]));
                assert_int_equal(access(kept_in(&b.e), F_OK), 0);
                temp_remove(kept_in(&b.e));
                assert_int_equal(unlink(arena_fmt(a, "%s/%s", dir, has[i])), 0);
                arena_free(a);
        }
}

static void test_failing_cc(void **state)
{
        static const char *const script[][2] = {
                {"case $1 in --version) ;; *) echo the words of cc >&2; exit 3;; esac",
                        "cc failed (status 3) on kernel k_add_"},
                {"case $1 in --version) ;; *) echo the words of cc >&2; kill -SEGV $$;; esac",
                        "cc failed (status 139) on kernel k_add_"},
                {"case $1 in -shared) echo the words of cc >&2; exit 4;; esac",
                        "cc failed (status 4) to link the kernels"},
                {"case $1 in --version) echo the words of cc >&2; exit 5;; esac",
                        "cc --version failed (status 5)"},
        };
        (void)state;
        for (size_t i = 0; i < COUNT(script); i++) {
                Arena *a = arena_new();
                BuildOpt opt = plain();
                spy(script[i][0]);
                Built b = build_add(a, &opt, true);
                assert_told(&b.e, MOEC_TOOLCHAIN, script[i][1]);
                assert_told(&b.e, MOEC_TOOLCHAIN, "the words of cc");
                DIR *kept = opendir(kept_in(&b.e));
                assert_non_null(kept);
                closedir(kept);
                temp_remove(kept_in(&b.e));
                arena_free(a);
        }
}

/* The folder of the last call of the spy. */
static char *work_folder(Arena *a)
{
        char path[96];
        snprintf(path, sizeof path, "%s/log", dir);
        char *text = read_text(a, path), *last = NULL;
        for (char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
                if (!strncmp(line, "/tmp/moec.", 10))
                        last = line;
        return last ? arena_strn(a, last, strcspn(last, " ")) : NULL;
}

static bool stop_when_running(void *user, const char *what, uint64_t done, uint64_t total)
{
        Arena *a = arena_new();
        bool go = work_folder(a) == NULL;
        (void)what, (void)done;
        assert_int_equal(total, 2);
        ++*(int *)user;
        arena_free(a);
        return go;
}

static void test_interrupted(void **state)
{
        (void)state;
        Arena *a = arena_new();
        int asked = 0;
        BuildOpt opt = plain();
        opt.progress = stop_when_running;
        opt.user = &asked;
        opt.threads = 1;
        spy("case $1 in --version) ;; *) sleep 0.2;; esac");
        Built b = build_add(a, &opt, true);
        assert_told(&b.e, MOEC_INTERRUPTED, "interrupted while compiling");
        assert_true(asked > 0);
        assert_non_null(work_folder(a));
        assert_int_equal(access(work_folder(a), F_OK), -1);
        assert_int_equal(calls("-shared"), 0);
        arena_free(a);
}

static void test_nothing_left(void **state)
{
        (void)state;
        Arena *a = arena_new();
        BuildOpt opt = plain();
        spy("");
        Built b = build_add(a, &opt, true);
        assert_int_equal(b.e.status, MOEC_OK);
        assert_true(b.so_bytes > 0);
        assert_int_equal(access(work_folder(a), F_OK), -1);
        arena_free(a);
}

static void damage(const char *folder)
{
        DIR *d = opendir(folder);
        assert_non_null(d);
        for (struct dirent *f; (f = readdir(d)) != NULL;) {
                char path[512];
                snprintf(path, sizeof path, "%s/%s", folder, f->d_name);
                if (strstr(f->d_name, ".o"))
                        assert_int_equal(truncate(path, 100), 0);
        }
        closedir(d);
}

static void test_cache(void **state)
{
        (void)state;
        Arena *a = arena_new();
        moec_error e;
        BuildOpt opt = plain();
        const char *folder = arena_fmt(a, "%s/cache", dir);
        assert_int_equal(cache_open(folder, &opt.cache, &e), MOEC_OK);
        spy("");
        Built first = build_add(a, &opt, true);
        assert_int_equal(first.e.status, MOEC_OK);
        assert_int_equal(calls(" -c "), 2);
        Built again = build_add(a, &opt, true);
        assert_int_equal(calls(" -c "), 0);
        assert_true(hash_same(first.so, again.so));
        opt.march = "x86-64-v3"; /* another instruction set */
        build_add(a, &opt, true);
        assert_int_equal(calls(" -c "), 2);
        spy("case $1 in --version) echo another compiler;; esac");
        build_add(a, &opt, true);
        assert_int_equal(calls(" -c "), 2);
        damage(folder);
        build_add(a, &opt, true);
        assert_int_equal(calls(" -c "), 2);
        opt.cache = (cache_close(opt.cache), NULL);
        build_add(a, &opt, true);
        assert_int_equal(calls(" -c "), 2);
        arena_free(a);
}

/* The same sources whatever the threads; the folders of an instruction set only where it was asked for. */
static void test_sources(void **state)
{
        (void)state;
        Arena *a = arena_new();
        BuildOpt one = plain(), many = plain(), v3 = plain();
        one.threads = 1;
        many.threads = 5;
        v3.march = "x86-64-v3";
        Built x = build_add(a, &one, false), y = build_add(a, &many, false), z = build_add(a, &v3, false);
        for (int i = 0; i < 2; i++) {
                assert_string_equal(x.source[i], y.source[i]);
                assert_null(strstr(x.source[i], "__builtin_ia32"));
                assert_non_null(strstr(z.source[i], "__builtin_ia32"));
                assert_non_null(strstr(x.source[i], "#line "));
        }
        assert_int_equal(x.so_bytes, 0);
        arena_free(a);
}

/* ---- strings of the file ---- */

static void assert_clean(const char *folder)
{
        static const char *const word[] = {"evil", "EVIL", "«", "»", "\\\n", "*/"};
        u32 n = 0;
        DIR *d = opendir(folder);
        assert_non_null(d);
        for (struct dirent *f; (f = readdir(d)) != NULL;) {
                Arena *a = arena_new();
                char *text;
                if (strlen(f->d_name) > 2 && !strcmp(f->d_name + strlen(f->d_name) - 2, ".c")) {
                        assert_non_null(text = read_text(a, arena_fmt(a, "%s/%s", folder, f->d_name)));
                        for (size_t i = 0; i < COUNT(word); i++)
                                if (strstr(text, word[i]))
                                        fail_msg("%s has %s", f->d_name, word[i]);
                        n++;
                }
                arena_free(a);
        }
        closedir(d);
        assert_true(n > 10);
}

static void test_hostile_strings(void **state)
{
        static const char evil[] =
                "\"»)m4_syscmd(«touch EVIL»)*/ #error evil\\\n#include <evil> moe_evil MOE_EVIL ' ` $( // «";
        (void)state;
        Arena *a = arena_new();
        Synth s = synth_small(W_Q8_0);
        moec_model *m;
        moec_error e = {0};
        moec_compile_report r;
        const char *gguf = arena_fmt(a, "%s/m.gguf", dir), *keep = arena_fmt(a, "%s/keep", dir);
        s.name = evil;
        synth_write(&s, gguf);
        moec_options opt = {.cache_dir = "off", .keep = keep, .march = "x86-64", .threads = 2};
        if (moec_open(gguf, &opt, &m, &e) ||
                moec_compile(m, &opt, arena_fmt(a, "%s/plan", dir), "plan", false, &r, &e))
                fail_msg("%s", e.msg);
        assert_true(r.n_kernels > 10 && r.n_kernels < 60);
        assert_clean(keep);
        assert_int_equal(access("EVIL", F_OK), -1);
        assert_int_equal(access(arena_fmt(a, "%s/EVIL", keep), F_OK), -1);
        moec_close(m);
        arena_free(a);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        const struct CMUnitTest tests[] = {T(test_key), T(test_equal_nodes), T(test_append),
                T(test_m4_faults), T(test_no_leak), T(test_c_faults), T(test_no_tool), T(test_failing_cc),
                T(test_interrupted), T(test_nothing_left), T(test_cache), T(test_sources),
                T(test_hostile_strings)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}

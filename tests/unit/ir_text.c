/* The text form: goldens print as they are written, bad text is refused with the message it states, hostile
 * text is survived. */
#include "ir/graph.h"
#include "tests/lib/randgraph.h"
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

#define GOLDEN "tests/ir"
#define BAD    "tests/ir/bad"

static void load(const char *dir, const char *file, Buf *text)
{
        char path[512];
        moec_error e;
        snprintf(path, sizeof path, "%s/%s", dir, file);
        text->len = 0;
        if (file_read(path, text, 1 << 20, &e) != MOEC_OK)
                fail_msg("%s", e.msg);
}

static int is_text(const struct dirent *d)
{
        size_t n = strlen(d->d_name);
        return n > 3 && strcmp(d->d_name + n - 3, ".ir") == 0;
}

/* Calls test with every text of a folder, in order of names; fails where there are fewer than `least`. */
static void each_text(const char *dir, int least, void (*test)(const char *name, const Buf *text))
{
        struct dirent **list;
        int n = scandir(dir, &list, is_text, alphasort);
        Buf text = {0};
        assert_true(n >= least);
        for (int i = 0; i < n; i++) {
                load(dir, list[i]->d_name, &text);
                test(list[i]->d_name, &text);
                free(list[i]);
        }
        free(list);
        buf_free(&text);
}

/* Text, printed again; on error the status, and out is the message. */
static moec_status reprint(const char *text, size_t len, Buf *out)
{
        Arena *a = arena_new();
        Trap t;
        out->len = 0;
        t.error.status = MOEC_OK;
        if (TRAP(&t) == 0) {
                print(parse(a, text, len, "FILE"), out);
                trap_pop(&t);
        } else
                buf_str(out, t.error.msg);
        arena_free(a);
        return t.error.status;
}

/* Comments are not printed: a golden has them at its head only. */
static const char *behind_comments(const char *s)
{
        while (*s == '#')
                s = strchr(s, '\n') + 1;
        return s;
}

/* ---- goldens ---- */

static u32 op_seen[N_OP];

static void prints_the_same(const char *name, const Buf *text)
{
        Buf out = {0};
        Arena *a = arena_new();
        if (reprint(text->p, text->len, &out) != MOEC_OK)
                fail_msg("%s: %s", name, out.p);
        if (strcmp(out.p, behind_comments(text->p)) != 0)
                fail_msg("%s prints as\n%s", name, out.p);
        const Graph *g = parse(a, text->p, text->len, name);
        for (u32 i = 0; i < g->n_node; i++)
                op_seen[g->node[i].op]++;
        arena_free(a);
        buf_free(&out);
}

static void goldens_print_the_same(void **state)
{
        (void)state;
        each_text(GOLDEN, 6, prints_the_same);
        for (int i = 0; i < N_OP; i++)
                if (!op_seen[i])
                        fail_msg("no golden has the operation %s", op_info((Op)i)->name);
}

static void is_refused(const char *name, const Buf *text)
{
        Buf out = {0};
        static const char mark[] = "# error: ";
        if (strncmp(text->p, mark, strlen(mark)) != 0)
                fail_msg("%s does not begin with its error", name);
        const char *want = text->p + strlen(mark);
        int len = (int)strcspn(want, "\n");
        moec_status st = reprint(text->p, text->len, &out);
        if (st != MOEC_DAMAGED && st != MOEC_UNSUPPORTED)
                fail_msg("%s: status %d: %s", name, st, out.p);
        const char *msg = out.p + strlen("FILE:");
        msg += strspn(msg, " ");
        if (strncmp(out.p, "FILE:", 5) != 0 || (int)strlen(msg) != len ||
                strncmp(msg, want, (size_t)len) != 0)
                fail_msg("%s: %s\n   instead of %.*s", name, out.p, len, want);
        buf_free(&out);
}

static void bad_text_is_refused(void **state)
{
        (void)state;
        each_text(BAD, 100, is_refused);
}

/* ---- the reference ---- */

/* Whether a text has a word, whole, somewhere. */
static bool has_word(const char *text, const char *word)
{
        size_t n = strlen(word);
        for (const char *s = text; (s = strstr(s, word)); s += n) {
                bool starts = s == text || !strchr(NAME_CHARS, s[-1]);
                if (starts && !strchr(NAME_CHARS, s[n]))
                        return true;
        }
        return false;
}

/* ir/ir.txt names everything that ops.h and types.h have. */
static void the_reference_is_complete(void **state)
{
        (void)state;
        Buf text = {0};
        load("ir", "ir.txt", &text);
        for (int i = 0; i < N_OP; i++)
                if (!has_word(text.p, op_info((Op)i)->name))
                        fail_msg("ir.txt lacks the operation %s", op_info((Op)i)->name);
        for (int i = 0; i < N_ATTR; i++) {
                if (!has_word(text.p, attr_info[i].name))
                        fail_msg("ir.txt lacks the attribute %s", attr_info[i].name);
                for (u32 k = 0; attr_info[i].word && attr_info[i].word[k]; k++)
                        if (!has_word(text.p, attr_info[i].word[k]))
                                fail_msg("ir.txt lacks %s of %s", attr_info[i].word[k], attr_info[i].name);
        }
        for (int i = 0; i < N_DTYPE; i++)
                assert_true(has_word(text.p, dtype_info[i].name));
        for (int i = 0; i < N_WTYPE; i++)
                assert_true(has_word(text.p, wtype_info[i].name));
        for (int i = 1; i < N_DIM; i++)
                assert_true(has_word(text.p, dim_name[i]));
        for (int i = 0; i < N_LAYOUT; i++)
                assert_true(has_word(text.p, layout_name[i]));
        buf_free(&text);
}

/* Its examples, which are indented by 4, print as they stand. */
static void the_references_examples_print_the_same(void **state)
{
        (void)state;
        Buf text = {0}, one = {0}, out = {0};
        u32 examples = 0;
        load("ir", "ir.txt", &text);
        for (const char *s = text.p; (s = strstr(s, "\n    graph "));) {
                if (s[strlen("\n    graph ")] == ' ') { /* the grammar */
                        s++;
                        continue;
                }
                one.len = 0;
                do {
                        size_t line = strcspn(s + 1, "\n");
                        assert_true(line > 4 && s[1 + line]);
                        buf_add(&one, s + 5, line - 3);
                        s += 1 + line;
                } while (s[5] != '}');
                buf_str(&one, "}\n");
                if (reprint(one.p, one.len, &out) != MOEC_OK)
                        fail_msg("%s in\n%s", out.p, one.p);
                assert_string_equal(out.p, one.p);
                examples++;
        }
        assert_int_equal(examples, 2);
        buf_free(&text);
        buf_free(&one);
        buf_free(&out);
}

/* ---- what may be written otherwise ---- */

static void becomes(const char *text, const char *want)
{
        Buf out = {0};
        reprint(text, strlen(text), &out);
        assert_string_equal(out.p, want);
        buf_free(&out);
}

static void free_form_becomes_canonical(void **state)
{
        (void)state;
        becomes("\n# a comment\r\n graph   g{ # here\n\n"
                "$w=F32[ 4 , 8 ]rows tensor\"w\"\r\n"
                "\tmax n_seq 2,n_tok 0010\n"
                "%first=f32[n_tok,8]embed ids@ids,w$w # operands in any order\n"
                "%2nd = f32 [n_tok, 8] scale by -1.5, x %first, layer 00\n"
                "return %2nd\n}\n\n# the end",
                "graph g {\n"
                "        max n_tok 10, n_seq 2\n"
                "        $w =F32[4,8]\n"
                "        %0 =f32[n_tok,8] embed w $w, ids @ids\n"
                "        %1 =f32[n_tok,8] scale x %0, layer 0, by -0x1.8p+0\n"
                "        return %1\n"
                "}\n");
}

static void values_are_numbered_in_order(void **state)
{
        (void)state;
        Arena *a = arena_new();
        Buf out = {0};
        Graph *g = graph_new(a, "g");
        Ref w = graph_weight(g, "w", W_F32, 2, (u64[]){4, 8}, NULL);
        u32 n = node_new(g, OP_embed);
        node_in(g, n, S_w, w);
        node_in(g, n, S_ids, REF(R_INPUT, IN_ids));
        Ref x = node_done(g, n);
        n = node_new(g, OP_scale);
        node_in(g, n, S_x, x);
        graph_return(g, node_done(g, n));
        u32 dead = node_insert(g, 1, OP_scale); /* a value made last, defined before */
        node_in(g, dead, S_x, x);
        Ref unused = node_done(g, dead);
        n = node_insert(g, 2, OP_add);
        node_in(g, n, S_a, x);
        node_in(g, n, S_b, x);
        ref_replace(g, x, node_done(g, n));
        g->node[2].in[0].ref = g->node[2].in[1].ref = x;
        g->node[1].in[0].ref = x;
        (void)unused;
        node_kill(g, 1);
        print(g, &out);
        assert_string_equal(out.p, "graph g {\n"
                                   "        $w =F32[4,8]\n"
                                   "        %0 =f32[n_tok,8] embed w $w, ids @ids\n"
                                   "        %1 =f32[n_tok,8] add a %0, b %0\n"
                                   "        %2 =f32[n_tok,8] scale x %1\n"
                                   "        return %2\n"
                                   "}\n");
        buf_free(&out);
        arena_free(a);
}

static void floats_are_exact(void **state)
{
        (void)state;
        static const double edge[] = {0x1p-1074, 0x1.fffffffffffffp+1023, -0x1p-1022, 1.0 / 3, 1e-45, -1e300};
        Rand r = {7};
        Buf text = {0};
        for (u32 i = 0; i < 2000; i++) {
                Arena *a = arena_new();
                u64 bits = rand_u64(&r);
                double v;
                memcpy(&v, &bits, sizeof v);
                if (i < COUNT(edge))
                        v = edge[i];
                if (v - v == 0) {
                        text.len = 0;
                        buf_fmt(&text,
                                "graph g {\n$w =F32[4,8]\n%%0 =f32[n_tok,8] embed w $w, ids @ids\n"
                                "%%1 =f32[n_tok,8] scale x %%0, by %.17g\n}\n",
                                v);
                        const Graph *g = parse(a, text.p, text.len, "FILE");
                        assert_true(attr_f(&g->node[1], A_by) == v);
                        text.len = 0;
                        print(g, &text);
                        g = parse(a, text.p, text.len, "FILE");
                        assert_true(attr_f(&g->node[1], A_by) == v);
                }
                arena_free(a);
        }
        buf_free(&text);
}

static void random_graphs_come_back(void **state)
{
        (void)state;
        Buf one = {0}, two = {0};
        for (u64 seed = 0; seed < 300; seed++) {
                Arena *a = arena_new();
                const Graph *g = rand_graph(a, seed, seed % 2);
                check(g);
                one.len = 0;
                print(g, &one);
                if (reprint(one.p, one.len, &two) != MOEC_OK || strcmp(one.p, two.p) != 0)
                        fail_msg("seed %llu: %s", (unsigned long long)seed, two.p);
                arena_free(a);
        }
        buf_free(&one);
        buf_free(&two);
}

/* ---- hostile text ---- */

/* One of: a byte changed, a piece removed, a piece copied elsewhere, a word of the language put in, two lines
 * swapped. */
static void mutate(Rand *r, const char *text, u32 len, Buf *to)
{
        static const char *const words[] = {"%0", "$", "@", "&", ",", "=", "[", "]", "\"", "\\x", "#", "\n",
                "0", "-1", "9999999999", "18446744073709551615", "n_tok", "kv", "act q8", "heads", " norm %1",
                "graph", "{", "}", "return", "f32", "2147483647"};
        u32 at = rand_below(r, len), n = 1 + rand_below(r, rand_one_in(r, 2) ? 4 : 64),
            from = rand_below(r, len);
        to->len = 0;
        buf_add(to, text, at);
        n = MIN(n, len - MAX(at, from));
        switch (rand_below(r, 4)) {
        case 0:
                buf_char(to, (char)rand_u64(r));
                buf_add(to, text + at + 1, len - at - 1);
                break;
        case 1:
                buf_add(to, text + at + n, len - at - n);
                break;
        case 2:
                buf_add(to, text + from, n);
                buf_add(to, text + at, len - at);
                break;
        default:
                buf_str(to, words[rand_below(r, COUNT(words))]);
                buf_add(to, text + at + n, len - at - n);
        }
}

/* Every mutant is refused with its place named, or accepted; what is accepted prints and reads back. */
static void survives(const char *name, const Buf *text)
{
        Rand r = {hash_str(name, strlen(name))};
        Buf one = {0}, two = {0}, out = {0}, again = {0};
        for (int i = 0; i < 1500; i++) {
                mutate(&r, text->p, (u32)text->len, &one);
                for (u32 k = rand_below(&r, 3); k && one.len; k--) {
                        mutate(&r, one.p, (u32)one.len, &two);
                        one.len = 0;
                        buf_add(&one, two.p, two.len);
                }
                moec_status st = reprint(one.p, one.len, &out);
                bool told = (st == MOEC_DAMAGED || st == MOEC_UNSUPPORTED) && strncmp(out.p, "FILE:", 5) == 0;
                if (!told && (st != MOEC_OK || reprint(out.p, out.len, &again) != MOEC_OK ||
                                     strcmp(out.p, again.p) != 0))
                        fail_msg("%s, mutant %d: status %d, %s, of\n%s", name, i, st, out.p, one.p);
        }
        buf_free(&one);
        buf_free(&two);
        buf_free(&out);
        buf_free(&again);
}

static void mutants_are_survived(void **state)
{
        (void)state;
        each_text(GOLDEN, 6, survives);
}

/* Work that grew with the square of the text would take hours here. */
static void large_text_is_no_trouble(void **state)
{
        (void)state;
        enum { N = 60000 };
        Buf text = {0}, out = {0};
        buf_str(&text, "graph g {\nmax n_tok 1\narena 99999999\n$w =F32[4,8]\n");
        for (int i = 0; i < N; i++)
                buf_fmt(&text, "$w.%d =F32[4,8]\nstate &s.%d =kv[1,8,8] f16 f16\n", i, i);
        buf_str(&text, "%0 =f32[n_tok,8] @0 embed w $w, ids @ids\n");
        for (int i = 1; i < N; i++)
                buf_fmt(&text, "%%%d =f32[n_tok,8] @%d scale x %%%d, by %d\n", i, i * 32, i - 1, i);
        buf_str(&text, "return %0");
        for (int i = 1; i < N; i++)
                buf_fmt(&text, ", %%%d", i);
        buf_str(&text, "\n}\n");
        double start = now_s();
        if (reprint(text.p, text.len, &out) != MOEC_OK)
                fail_msg("%s", out.p);
        assert_true(now_s() - start < 60);
        buf_free(&text);
        buf_free(&out);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(goldens_print_the_same),
                cmocka_unit_test(bad_text_is_refused),
                cmocka_unit_test(the_reference_is_complete),
                cmocka_unit_test(the_references_examples_print_the_same),
                cmocka_unit_test(free_form_becomes_canonical),
                cmocka_unit_test(values_are_numbered_in_order),
                cmocka_unit_test(floats_are_exact),
                cmocka_unit_test(random_graphs_come_back),
                cmocka_unit_test(mutants_are_survived),
                cmocka_unit_test(large_text_is_no_trouble),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

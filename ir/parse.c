/* Reads the text form, which ir/ir.txt describes. The text may be hostile: every mistake is an error with
 * file and line, and work and memory are proportional to the text. One pass, no tokens kept: each function
 * reads one construct at p->at. */
#include "ir/graph.h"
#include <ctype.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TEXT ((size_t)256 << 20)

typedef struct Parser {
        const char *at, *end;
        const char *file;
        u32 line;
        Graph *g;
        Index vals; /* their names in the text */
} Parser;

typedef struct Span {
        const char *s;
        size_t len;
} Span;

static noreturn void bad(const Parser *p, const char *fmt, ...) PRINTF(2, 3);
static noreturn void bad(const Parser *p, const char *fmt, ...)
{
        char msg[640];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(msg, sizeof msg, fmt, ap);
        va_end(ap);
        err(MOEC_DAMAGED, "%s:%u: %s", p->file, p->line, msg);
}

static bool is_name(char c)
{
        return c && strchr(NAME_CHARS, c);
}

/* What stands at p->at, for a message; short and printable. */
static const char *found(const Parser *p, char out[32])
{
        size_t n = 0;
        if (p->at == p->end)
                return "the end";
        if (*p->at == '\n')
                return "the end of the line";
        out[n++] = '\'';
        for (const char *s = p->at; s < p->end && n < 24 && (s == p->at || is_name(*s)); s++)
                out[n++] = isprint((u8)*s) ? *s : '?';
        out[n++] = '\'';
        out[n] = 0;
        return out;
}

static noreturn void expected(const Parser *p, const char *what)
{
        char got[32];
        bad(p, "expected %s, found %s", what, found(p, got));
}

/* ---- words ---- */

static void blank(Parser *p)
{
        while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\r'))
                p->at++;
        if (p->at < p->end && *p->at == '#')
                while (p->at < p->end && *p->at != '\n')
                        p->at++;
}

static bool next_is(Parser *p, char c)
{
        blank(p);
        return p->at < p->end && *p->at == c;
}

static bool accept(Parser *p, char c)
{
        bool here = next_is(p, c);
        p->at += here;
        return here;
}

static void need(Parser *p, char c, const char *what)
{
        if (!accept(p, c))
                expected(p, what);
}

/* To the next line that holds anything; false at the end of the text. */
static bool next_line(Parser *p)
{
        while (accept(p, '\n'))
                p->line++;
        return p->at < p->end;
}

static void end_line(Parser *p)
{
        if (!next_is(p, '\n') && p->at < p->end)
                expected(p, "the end of the line");
}

static Span word(Parser *p, const char *what)
{
        blank(p);
        Span w = {p->at, 0};
        while (p->at < p->end && is_name(*p->at))
                p->at++;
        w.len = (size_t)(p->at - w.s);
        if (!w.len)
                expected(p, what);
        return w;
}

static bool is(Span w, const char *s)
{
        return strlen(s) == w.len && memcmp(w.s, s, w.len) == 0;
}

/* What `what` says was expected, but the word just read is none. */
static noreturn void no_such(Parser *p, Span w, const char *what)
{
        p->at = w.s;
        expected(p, what);
}

static u64 to_u64(Parser *p, Span w, const char *what)
{
        u64 v = 0;
        for (size_t i = 0; i < w.len; i++)
                if (w.s[i] < '0' || w.s[i] > '9' || !mul_u64(v, 10, &v) ||
                        !add_u64(v, (u64)(w.s[i] - '0'), &v))
                        no_such(p, w, what);
        return v;
}

static i64 to_i64(Parser *p, Span w, const char *what)
{
        bool minus = w.len > 1 && w.s[0] == '-';
        u64 v = to_u64(p, (Span){w.s + minus, w.len - minus}, what);
        if (v > INT64_MAX)
                no_such(p, w, what);
        return minus ? -(i64)v : (i64)v;
}

static double to_flt(Parser *p, Span w, const char *what)
{
        char s[80], *end;
        const char *point = localeconv()->decimal_point, *dot = memchr(w.s, '.', w.len);
        int before = dot ? (int)(dot - w.s) : (int)w.len;
        if (w.len > 64)
                no_such(p, w, what);
        snprintf(s, sizeof s, "%.*s%s%.*s", before, w.s, dot ? point : "",
                (int)w.len - before - (dot != NULL), dot ? dot + 1 : "");
        double v = strtod(s, &end);
        if (*end)
                no_such(p, w, what);
        return v;
}

static u64 number(Parser *p, const char *what)
{
        return to_u64(p, word(p, what), what);
}

static int hex(char c)
{
        const char *digits = "0123456789abcdef", *d = c ? strchr(digits, c) : NULL;
        return d ? (int)(d - digits) : -1;
}

static const char *string(Parser *p, const char *what)
{
        need(p, '"', what);
        const char *close = p->at;
        while (close < p->end && *close != '"' && *close != '\n')
                close += *close == '\\' && close + 1 < p->end ? 2 : 1;
        if (close >= p->end || *close != '"')
                bad(p, "a string is not closed on its line");
        char *s = arena_alloc(p->g->arena, (size_t)(close - p->at) + 1), *to = s;
        for (; p->at < close; p->at++) {
                char c = *p->at;
                if (c == '\\' && (p->at[1] == '"' || p->at[1] == '\\'))
                        c = *++p->at;
                else if (c == '\\') {
                        bool x = close - p->at > 3 && p->at[1] == 'x' && hex(p->at[2]) >= 0 &&
                                 hex(p->at[3]) >= 0;
                        c = x ? (char)(hex(p->at[2]) * 16 + hex(p->at[3])) : 0;
                        p->at += 3;
                }
                if (!c)
                        bad(p, "a string with a NUL or an escape other than \\\", \\\\ and \\xHH");
                *to++ = c;
        }
        p->at++;
        return s;
}

static const char *name(Parser *p, const char *what)
{
        if (next_is(p, '"'))
                return string(p, what);
        Span w = word(p, what);
        return arena_strn(p->g->arena, w.s, w.len);
}

static Dtype dtype(Parser *p)
{
        Span w = word(p, "a type");
        for (int t = 0; t < N_DTYPE; t++)
                if (is(w, dtype_info[t].name))
                        return (Dtype)t;
        no_such(p, w, "a type (f32, q8, route, ...)");
}

/* ---- what stands before the nodes ---- */

static void bounds(Parser *p)
{
        do {
                Span w = word(p, "a dimension's name");
                int d = table_find(dim_name, N_DIM, w.s, w.len);
                if (d <= DIM_const)
                        no_such(p, w, "a dimension's name (n_tok, n_out, ...)");
                if (p->g->max[d])
                        bad(p, "%s is bounded twice", dim_name[d]);
                p->g->max[d] = number(p, "a number");
                if (!p->g->max[d] || p->g->max[d] >= (u64)MAX_SIZE)
                        bad(p, "%s can be bounded by 1 to %lld", dim_name[d], (long long)MAX_SIZE - 1);
        } while (accept(p, ','));
}

static u32 dims(Parser *p, u64 dim[MAX_RANK])
{
        u32 rank = 0;
        need(p, '[', "'['");
        do {
                if (rank == MAX_RANK)
                        bad(p, "more than %d dimensions", MAX_RANK);
                dim[rank++] = number(p, "a number");
        } while (accept(p, ','));
        need(p, ']', "',' or ']'");
        return rank;
}

/* The graph's own errors know no line. */
static noreturn void placed(const Parser *p, const Trap *t)
{
        err(t->error.status, "%s:%u: %s", p->file, p->line, t->error.msg);
}

static Ref new_weight(const Parser *p, const char *s, Wtype wtype, u32 rank, const u64 *dim)
{
        Trap t;
        Ref r;
        if (graph_find_weight(p->g, s, strlen(s), &r))
                bad(p, "weight %s: defined twice", s);
        if (TRAP(&t) != 0)
                placed(p, &t);
        r = graph_weight(p->g, s, wtype, rank, dim, NULL);
        trap_pop(&t);
        return r;
}

static void weight(Parser *p)
{
        const char *s = name(p, "a weight's name");
        u64 dim[MAX_RANK];
        Wtype wtype;
        need(p, '=', "'='");
        Span w = word(p, "a weight type");
        if (!wtype_by_name(w.s, w.len, &wtype))
                no_such(p, w, "a weight type (F32, Q4_K, ...)");
        u32 rank = dims(p, dim), i = ref_idx(new_weight(p, s, wtype, rank, dim));
        bool tensor = false;
        while (!next_is(p, '\n') && p->at < p->end) {
                w = word(p, "a layout, 'tensor' or the end of the line");
                int layout = table_find(layout_name, N_LAYOUT, w.s, w.len);
                if (layout >= 0 && !tensor)
                        p->g->weight[i].layout = (Layout)layout;
                else if (is(w, "tensor") && !tensor)
                        p->g->weight[i].tensor = string(p, "the tensor's name in quotes");
                else
                        no_such(p, w, "a layout, 'tensor' or the end of the line");
                tensor |= layout < 0;
        }
}

static void state(Parser *p)
{
        u64 dim[MAX_RANK];
        need(p, '&', "'&' and a state's name");
        const char *s = name(p, "a state's name");
        need(p, '=', "'='");
        Span w = word(p, "kv");
        if (!is(w, "kv"))
                no_such(p, w, "kv");
        if (dims(p, dim) != 3)
                bad(p, "state %s: expected kv[heads,dk,dv]", s);
        for (int i = 0; i < 3; i++)
                if (dim[i] >= (u64)MAX_SIZE)
                        bad(p, "state %s: %llu is too many", s, (unsigned long long)dim[i]);
        Dtype ktype = dtype(p), vtype = dtype(p);
        Trap t;
        if (TRAP(&t) != 0)
                placed(p, &t);
        graph_state(p->g, s, (i64)dim[0], (i64)dim[1], (i64)dim[2], ktype, vtype);
        trap_pop(&t);
}

/* ---- nodes ---- */

/* A result as written, to be compared with what infer says. */
typedef struct Result {
        Span name;
        Vtype type;
        u64 offset;
} Result;

static Vtype type(Parser *p)
{
        Vtype t = {.dt = dtype(p)};
        need(p, '[', "'['");
        do {
                if (t.rank == MAX_RANK)
                        bad(p, "more than %d dimensions", MAX_RANK);
                Span w = word(p, "a dimension");
                int d = table_find(dim_name, N_DIM, w.s, w.len);
                Dim *to = &t.dim[t.rank++];
                if (d > DIM_const)
                        to->sym = (DimSym)d;
                else
                        to->n = to_i64(p, w, "a dimension");
        } while (accept(p, ','));
        need(p, ']', "',' or ']'");
        return t;
}

static u32 results(Parser *p, Result r[MAX_RESULT])
{
        u32 n = 0, known;
        do {
                need(p, '%', "'%' and a value's name");
                if (n == MAX_RESULT)
                        bad(p, "more than %d results", MAX_RESULT);
                r[n].name = word(p, "a value's name");
                if (index_find(&p->vals, r[n].name.s, r[n].name.len, &known))
                        bad(p, "%%%.*s is defined twice", (int)MIN(r[n].name.len, 64), r[n].name.s);
                need(p, '=', "'='");
                r[n].type = type(p);
                r[n].offset = accept(p, '@') ? number(p, "an offset") : NO_OFFSET;
                if (next_is(p, '@'))
                        expected(p, "an operation");
                n++;
        } while (accept(p, ','));
        return n;
}

/* kind: the sign before it, already read. */
static Ref ref(Parser *p, char kind)
{
        u32 i;
        Ref r = REF_NONE;
        if (kind == '%') {
                Span w = word(p, "a value's name");
                if (!index_find(&p->vals, w.s, w.len, &i))
                        bad(p, "%%%.*s is not defined before its use", (int)MIN(w.len, 64), w.s);
                return REF(R_VAL, i);
        }
        if (kind == '@') {
                Span w = word(p, "an input's name");
                int in = table_find(input_name, N_INPUT, w.s, w.len);
                if (in < 0)
                        no_such(p, w, "an input's name (ids, pos, seq, out)");
                return REF(R_INPUT, in);
        }
        const char *s = name(p, kind == '$' ? "a weight's name" : "a state's name");
        if (kind == '$' ? !graph_find_weight(p->g, s, strlen(s), &r)
                        : !graph_find_state(p->g, s, strlen(s), &r))
                bad(p, "%c%.64s is not defined before its use", kind, s);
        return r;
}

static bool sigil(Parser *p, char *kind)
{
        for (const char *s = "%$@&"; *s; s++)
                if (accept(p, *s)) {
                        *kind = *s;
                        return true;
                }
        return false;
}

static void attribute(Parser *p, u32 n, Span w, bool given[N_ATTR])
{
        const AttrInfo *info = attr_info;
        while (info < attr_info + N_ATTR && !is(w, info->name))
                info++;
        Attr a = (Attr)(info - attr_info);
        if (a == N_ATTR)
                no_such(p, w, "an operand or attribute");
        if (given[a])
                bad(p, "%s is given twice", info->name);
        given[a] = true;
        if (info->kind == ATTR_FLT)
                node_flt(p->g, n, a, to_flt(p, word(p, "a number"), "a number"));
        else if (info->kind == ATTR_INT)
                node_int(p->g, n, a, to_i64(p, word(p, "a whole number"), "a whole number"));
        else {
                u32 words = 0;
                while (info->word[words])
                        words++;
                Span v = word(p, "a word");
                int i = table_find(info->word, words, v.s, v.len);
                if (i < 0)
                        bad(p, "%.*s is no %s", (int)MIN(v.len, 64), v.s, info->name);
                node_int(p->g, n, a, i);
        }
}

static void arguments(Parser *p, u32 n)
{
        bool given[N_ATTR] = {false};
        if (next_is(p, '\n') || p->at == p->end)
                return;
        do {
                char kind;
                Span w = word(p, "an operand or attribute");
                if (!sigil(p, &kind)) {
                        attribute(p, n, w, given);
                        continue;
                }
                int s = table_find(slot_name, N_SLOT, w.s, w.len);
                if (s < 0)
                        no_such(p, w, "an operand's name");
                if (p->g->node[n].nin == MAX_IN)
                        bad(p, "more than %d operands", MAX_IN);
                node_in(p->g, n, (Slot)s, ref(p, kind));
        } while (accept(p, ','));
}

static Op operation(Parser *p)
{
        static const char *const op_name[] = {
#define O(op, slots, attrs, results) #op,
                OPS(O)
#undef O
        };
        Span w = word(p, "an operation");
        int op = table_find(op_name, N_OP, w.s, w.len);
        if (op < 0)
                no_such(p, w, "an operation");
        return (Op)op;
}

static void node(Parser *p)
{
        Result r[MAX_RESULT];
        u32 nr = results(p, r), n = node_new(p->g, operation(p));
        p->g->node[n].line = p->line;
        arguments(p, n);
        u32 out = ref_idx(node_done(p->g, n)), nout = p->g->node[n].nout;
        if (nr != nout)
                bad(p, "results: %s gives %u, but named are %u", op_info(p->g->node[n].op)->name, nout, nr);
        for (u32 i = 0; i < nr; i++) {
                Val *v = &p->g->val[out + i];
                if (!vtype_same(&v->type, &r[i].type)) {
                        char is_[VTYPE_STR], said[VTYPE_STR];
                        bad(p, "%%%.*s is written as %s, but is %s", (int)MIN(r[i].name.len, 64), r[i].name.s,
                                vtype_str(&r[i].type, said), vtype_str(&v->type, is_));
                }
                if (index_find(&p->vals, r[i].name.s, r[i].name.len, &(u32){0}))
                        bad(p, "%%%.*s is defined twice", (int)MIN(r[i].name.len, 64), r[i].name.s);
                v->offset = r[i].offset;
                index_add(p->g->arena, &p->vals, r[i].name.s, r[i].name.len, out + i);
        }
}

static void returns(Parser *p)
{
        if (p->g->n_ret)
                bad(p, "a second return");
        do {
                char kind;
                if ((!next_is(p, '%') && !next_is(p, '&')) || !sigil(p, &kind))
                        expected(p, "a value or state");
                graph_return(p->g, ref(p, kind));
        } while (accept(p, ','));
}

static void line(Parser *p)
{
        if (next_is(p, '%'))
                node(p);
        else if (accept(p, '$'))
                weight(p);
        else {
                Span w = word(p, "a weight, state, node, return or '}'");
                if (is(w, "state"))
                        state(p);
                else if (is(w, "max"))
                        bounds(p);
                else if (is(w, "arena"))
                        p->g->arena_bytes = number(p, "a number of bytes");
                else if (is(w, "return"))
                        returns(p);
                else
                        no_such(p, w, "a weight, state, node, return or '}'");
        }
        end_line(p);
}

Graph *parse(Arena *a, const char *text, size_t len, const char *file)
{
        Parser p = {
                .at = text, .end = text + len, .file = arena_str(a, file), .line = 1, .g = graph_new(a, "")};
        if (len > MAX_TEXT)
                err(MOEC_REFUSED, "%s: a graph of more than %zu MiB of text", file, MAX_TEXT >> 20);
        next_line(&p);
        Span w = word(&p, "'graph'");
        if (!is(w, "graph"))
                no_such(&p, w, "'graph'");
        p.g->file = p.file;
        p.g->name = name(&p, "the graph's name");
        need(&p, '{', "'{'");
        end_line(&p);
        while (next_line(&p) && !next_is(&p, '}'))
                line(&p);
        need(&p, '}', "'}'");
        if (next_line(&p))
                expected(&p, "the end");
        valid(p.g);
        return p.g;
}

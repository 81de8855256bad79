/* Pre-tokenizers: a table of patterns, and PCRE2. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/token_blob.h"

/* Unicode's White_Space. PCRE2's own \s has U+180E too, which it lost in Unicode 6.3. */
#define SPACE                                                                                                \
        "\\t-\\r\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{"   \
        "3000}"
#define S       "[" SPACE "]"
#define NOT_S   "[^" SPACE "]"
#define NOT_SLN "[^" SPACE "\\p{L}\\p{N}]"
#define SUFFIX  "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define BLANKS  S "*[\\r\\n]+|" S "+(?!" NOT_S ")|" S "+"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?" NOT_SLN "+|" S "+(?!" NOT_S ")|" S "+"
/* GPT-4's pattern; families differ in how many digits stay together. */
#define GPT4(digits) SUFFIX "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?" NOT_SLN "+[\\r\\n]*|" BLANKS
/* GPT-4o's: words are cut where lower case turns to upper. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define GPT4O(suffix, digits)                                                                                \
        "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" suffix "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER        \
        "*" suffix "|" digits "| ?" NOT_SLN "+[\\r\\n/]*|" BLANKS

/* The cased letters that DeepSeek's first tokenizer spells out one by one. */
#define CASED                                                                                                \
        "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}\\x{"  \
        "295}-\\x{2af}"                                                                                      \
        "\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{"    \
        "38e}-\\x{3a1}"                                                                                      \
        "\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}\\x{13a0}-"  \
        "\\x{13f5}"                                                                                          \
        "\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}"    \
        "\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}"    \
        "\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{" \
        "1fbc}\\x{1fbe}"                                                                                     \
        "\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}"    \
        "\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{" \
        "211d}\\x{2124}"                                                                                     \
        "\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{" \
        "2149}\\x{214e}"                                                                                     \
        "\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{"  \
        "a640}-\\x{a66d}"                                                                                    \
        "\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}"    \
        "\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}"  \
        "\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}"               \
        "\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"

#define MAX_PATTERN 6
struct Pre {
        const char *names; /* what tokenizer.ggml.pre says, space-separated */
        bool words, bos;
        const char *pattern[MAX_PATTERN]; /* each cuts what the one before left into matches and what is
                                             between */
};

/* Names as in llama.cpp, src/llama-vocab.cpp; patterns as in the models' own tokenizer.json. */
static const Pre pres[] = {
        {"qwen2 deepseek-r1-qwen megrez stablelm2 hunyuan grok-2 solar-open", false, false, {GPT4("\\p{N}")}},
        {"qwen35", false, false,
                {SUFFIX "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" SPACE
                        "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" BLANKS}},
        {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2", true, true,
                {GPT4("\\p{N}{1,3}")}},
        {"dbrx smaug-bpe glm4 chatglm-bpe", false, false, {GPT4("\\p{N}{1,3}")}},
        {"gpt-4o llama4 kanana2 minimax-m2", false, false, {GPT4O(SUFFIX "?", "\\p{N}{1,3}")}},
        {"tekken", true, true, {GPT4O("", "\\p{N}")}},
        {"gpt-2 phi-2 gigachat a.x-4.0 mellum exaone4", false, false, {GPT2}},
        {"olmo mpt jais trillion granite-docling", false, false, {GPT2}},
        {"refact starcoder command-r smollm codeshell exaone minerva-7b", false, false, {"\\p{N}", GPT2}},
        {"bailingmoe bailingmoe2 llada-moe", false, false,
                {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?" NOT_SLN "++[\\r\\n]*|" S
                 "*[\\r\\n]|" S "+(?!" NOT_S ")|" S "+"}},
        /* The look-behind changes no match: it spares trying every blank of a long run as the beginning. */
        {"deepseek-llm", false, false,
                {"[\\r\\n]", S "?[" CASED "]+",
                        S "?[!-/"
                          ":-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+",
                        "(?<!" S ")" S "+\\z", "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+",
                        "\\p{N}+"}},
        {"deepseek-v3 hunyuan-dense joyai-llm", false, false,
                {"\\p{N}{1,3}", "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+",
                        "[!-/:-@\\[-`{-~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
                        "?[\\p{P}\\p{S}]+[\\r\\n]*|" BLANKS}},
};

const Pre *pre_find(const char *name, size_t n)
{
        for (size_t i = 0; i < COUNT(pres); i++)
                for (const char *p = pres[i].names; *p;) {
                        size_t len = strcspn(p, " ");
                        if (len == n && !memcmp(p, name, n))
                                return &pres[i];
                        p += len + (p[len] == ' ');
                }
        return NULL;
}

void pre_list(char *out, size_t room)
{
        size_t o = 0;
        for (size_t i = 0; i < COUNT(pres); i++) {
                size_t len = strcspn(pres[i].names, " ");
                if (o + len + 2 >= room)
                        break;
                if (o)
                        out[o++] = ' ';
                memcpy(out + o, pres[i].names, len);
                o += len;
        }
        out[o] = 0;
}

bool pre_words(const Pre *p)
{
        return p->words;
}

bool pre_bos(const Pre *p)
{
        return p->bos;
}

/* ---- patterns ---- */

#define MATCH_LIMIT 1000000 /* PCRE2's count of attempts in one match */
#define HEAP_LIMIT  16384   /* KiB, where there is no JIT */
#define JIT_STACK   (1 << 20)

struct Split {
        int n;
        pcre2_code *code[MAX_PATTERN];
};

struct SplitScratch {
        pcre2_match_data *data;
        pcre2_match_context *context;
        pcre2_jit_stack *stack;
};

moec_status split_new(const Pre *p, Split **out, moec_error *e)
{
        Split *s = calloc(1, sizeof *s);
        if (!s)
                return fail(e, MOEC_NO_MEMORY, "out of memory opening the tokenizer");
        for (; s->n < MAX_PATTERN && p->pattern[s->n]; s->n++) {
                int code = 0;
                PCRE2_SIZE at = 0;
                pcre2_code *c = pcre2_compile((PCRE2_SPTR)p->pattern[s->n], PCRE2_ZERO_TERMINATED,
                        PCRE2_UTF | PCRE2_UCP | PCRE2_NO_AUTO_CAPTURE, &code, &at, NULL);
                if (!c) {
                        moec_status st = fail(e, MOEC_ERROR,
                                "PCRE2 refuses pattern %d of the pre-tokenizer (error %d at %zu)", s->n, code,
                                (size_t)at);
                        split_free(s);
                        return st;
                }
                s->code[s->n] = c;
                (void)pcre2_jit_compile(c, PCRE2_JIT_COMPLETE); /* where it cannot, PCRE2 interprets */
        }
        *out = s;
        return MOEC_OK;
}

void split_free(Split *s)
{
        if (!s)
                return;
        for (int i = 0; i < s->n; i++)
                pcre2_code_free(s->code[i]);
        free(s);
}

SplitScratch *split_scratch(const Split *s)
{
        SplitScratch *x = calloc(1, sizeof *x);
        if (!x)
                return NULL;
        x->data = pcre2_match_data_create_from_pattern(s->code[0], NULL);
        x->context = pcre2_match_context_create(NULL);
        x->stack = pcre2_jit_stack_create(32768, JIT_STACK, NULL); /* NULL without JIT: then none is needed */
        if (!x->data || !x->context) {
                split_scratch_free(x);
                return NULL;
        }
        pcre2_set_match_limit(x->context, MATCH_LIMIT);
        pcre2_set_heap_limit(x->context, HEAP_LIMIT);
        if (x->stack)
                pcre2_jit_stack_assign(x->context, NULL, x->stack);
        return x;
}

void split_scratch_free(SplitScratch *x)
{
        if (!x)
                return;
        pcre2_match_data_free(x->data);
        pcre2_match_context_free(x->context);
        pcre2_jit_stack_free(x->stack);
        free(x);
}

/* The first match of pattern `level` in p[at .. n). False: none, or a limit was hit; what is left then stays
 * whole. */
static bool next_match(const Split *s, SplitScratch *x, int level, const char *p, size_t n, size_t at,
        size_t *from, size_t *to)
{
        int r = pcre2_match(s->code[level], (PCRE2_SPTR)p, n, at, PCRE2_NO_UTF_CHECK, x->data, x->context);
        if (r < 0)
                return false;
        const PCRE2_SIZE *v = pcre2_get_ovector_pointer(x->data);
        *from = v[0];
        *to = v[1];
        return v[1] > v[0];
}

/* As HuggingFace's Sequence of isolated Splits: both matches and gaps go on to the next pattern, which sees
 * no neighbours. */
static bool cut(
        const Split *s, SplitScratch *x, int level, const char *p, size_t n, PieceFn *piece, void *user)
{
        if (level == s->n)
                return piece(user, p, n);
        size_t at = 0, from, to;
        while (at < n && next_match(s, x, level, p, n, at, &from, &to)) {
                if (from > at && !cut(s, x, level + 1, p + at, from - at, piece, user))
                        return false;
                if (!cut(s, x, level + 1, p + from, to - from, piece, user))
                        return false;
                at = to;
        }
        return at == n || cut(s, x, level + 1, p + at, n - at, piece, user);
}

bool split_text(const Split *s, SplitScratch *x, const char *p, size_t n, PieceFn *piece, void *user)
{
        return cut(s, x, 0, p, n, piece, user);
}

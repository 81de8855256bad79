/* What the subcommands share. One table of commands and one of options make the parser, the help and the
 * completion. */
#ifndef MOEC_COMMON_H
#define MOEC_COMMON_H
#include <float.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "moec.h"

/* X(name, operands, how many at most, summary) */
#define COMMANDS(X)                                                                                          \
        X(inspect, "FILE", 1, "show what a file holds, what it needs, and what of it is unsupported")        \
        X(run, "-m FILE -p TEXT", 1, "generate text with a model, a plan or a compiled executable")          \
        X(compile, "FILE -o OUT", 1, "make an executable or a plan of a model")                              \
        X(dump, "FILE", 1, "show the graph after any pass, kernel Keys or generated sources")                \
        X(opt, "FILE.ir --pass NAME[,NAME...]", 1, "run passes over a graph in text form")                   \
        X(verify, "FILE", 1, "compare a target with the interpreter, launch by launch")                      \
        X(logits, "-m FILE --tokens ID,ID... -o OUT", 1,                                                     \
                "write the logits of every position as raw float32")                                         \
        X(tokenize, "-m FILE", 1, "turn standard input into token ids, or back")                             \
        X(perplexity, "-m FILE -f TEXTFILE", 1, "measure perplexity over a text, as llama-perplexity does")  \
        X(bench, "-m FILE", 1, "measure prompt and decode speed, as llama-bench does")                       \
        X(cache, "list|explain|prune|clear [ARG]", 2, "look into the compile cache, or empty it")

typedef enum CmdId {
#define X(name, operands, n, help) CMD_##name,
        COMMANDS(X)
#undef X
                N_CMD
} CmdId;

#define IN(name)   (1u << CMD_##name)
#define IN_ALL     ((1u << N_CMD) - 1)
#define IN_MODEL   (IN_ALL & ~(IN(opt) | IN(cache)))                   /* opens a model */
#define IN_LOAD    (IN(run) | IN(logits) | IN(perplexity) | IN(bench)) /* and loads it */
#define IN_COMPILE (IN_LOAD | IN(compile) | IN(dump) | IN(verify))     /* and compiles it */

/* Kinds of value, and the type each has in Args. seed: -1 or a number of 64 bits; ids: checked when used. */
typedef bool Flag;
typedef int Num;
typedef double Real;
typedef const char *Str;

/* X(kind, member, default, least, short, long, value, commands, help). The same spelling may mean something
 * else elsewhere: an option is looked up among those of its command. */
#define OPTIONS(X)                                                                                           \
        X(Str, model, NULL, 0, "-m", "--model", "FILE", IN_MODEL,                                            \
                "GGUF file (a split one: its first part), plan or compiled executable")                      \
        X(Str, prompt, NULL, 0, "-p", "--prompt", "TEXT", IN(run), "the prompt; - reads standard input")     \
        X(Str, file, NULL, 0, "-f", "--file", "FILE", IN(run) | IN(perplexity) | IN(verify),                 \
                "take the text from a file; - is standard input")                                            \
        X(Num, n_predict, 128, -1, "-n", "--predict", "N", IN(run),                                          \
                "tokens to generate (default 128); -1: until the context is full; 0: evaluate the prompt")   \
        X(Str, n_prompt, "512", 0, "-p", "--n-prompt", "N,...", IN(bench), "prompt lengths (default 512)")   \
        X(Str, n_gen, "128", 0, "-n", "--n-gen", "N,...", IN(bench),                                         \
                "tokens to generate, greedily (default 128)")                                                \
        X(Str, n_depth, "0", 0, "-d", "--n-depth", "N,...", IN(bench), "tokens before the test (default 0)") \
        X(Num, reps, 5, 1, "-r", "--repetitions", "N", IN(bench), "repetitions of each test (default 5)")    \
        X(Flag, batched, false, 0, NULL, "--batched", NULL, IN(bench),                                       \
                "measure sequences that decode together, as llama-batched-bench does, by the lists:")        \
        X(Str, npp, "128", 0, "-npp", "--npp", "N,...", IN(bench), "prompt lengths (default 128)")           \
        X(Str, ntg, "128", 0, "-ntg", "--ntg", "N,...", IN(bench), "tokens to generate (default 128)")       \
        X(Str, npl, "1,2,4,8,16,32", 0, "-npl", "--npl", "N,...", IN(bench),                                 \
                "sequences (default 1,2,4,8,16,32)")                                                         \
        X(Num, ctx, 0, 0, "-c", "--ctx-size", "N", IN(inspect) | IN(run) | IN(logits) | IN(verify),          \
                "context size (default: the model's, at most 4096)")                                         \
        X(Num, window, 512, 4, "-c", "--ctx-size", "N", IN(perplexity), "window size (default 512)")         \
        X(Num, batch, 0, 0, "-b", "--batch-size", "N", IN_COMPILE & ~IN(verify),                             \
                "tokens a step at most (default 512)")                                                       \
        X(Num, threads, 0, 0, "-t", "--threads", "N", IN_COMPILE,                                            \
                "threads (default: all processors allowed)")                                                 \
        X(Str, seed, "-1", 0, "-s", "--seed", "N", IN(run), "random seed (default -1: a random one)")        \
        X(Real, temp, 0.8, 0, NULL, "--temp", "T", IN(run),                                                  \
                "temperature (default 0.8); 0: the likeliest token")                                         \
        X(Num, top_k, 40, 0, NULL, "--top-k", "N", IN(run),                                                  \
                "keep the N likeliest tokens (default 40); 0: all")                                          \
        X(Real, top_p, 0.95, 0, NULL, "--top-p", "P", IN(run),                                               \
                "keep tokens that sum to P (default 0.95); 1: all")                                          \
        X(Real, min_p, 0.05, 0, NULL, "--min-p", "P", IN(run),                                               \
                "drop tokens less likely than P times the likeliest (default 0.05); 0: none")                \
        X(Real, repeat_penalty, 1.0, 0, NULL, "--repeat-penalty", "X", IN(run),                              \
                "divide repeated tokens' logits by X (default 1: off)")                                      \
        X(Num, repeat_last, 64, -1, NULL, "--repeat-last-n", "N", IN(run),                                   \
                "tokens that count as repeated (default 64); -1: the whole context")                         \
        X(Flag, ignore_eos, false, 0, NULL, "--ignore-eos", NULL, IN(run), "go on after an end token")       \
        X(Flag, hide_prompt, false, 0, NULL, "--no-display-prompt", NULL, IN(run),                           \
                "do not repeat the prompt")                                                                  \
        X(Str, tokens, NULL, 0, NULL, "--tokens", "ID,...", IN(logits) | IN(verify), "token ids")            \
        X(Flag, no_bos, false, 0, NULL, "--no-bos", NULL, IN(tokenize), "add no BOS")                        \
        X(Flag, decode, false, 0, NULL, "--decode", NULL, IN(tokenize), "from a JSON array of ids to text")  \
        X(Str, target, NULL, 0, NULL, "--target", "NAME", IN_COMPILE,                                        \
                "auto (default), cpu, cuda, cuda:sm_90a[,...], or eval, the interpreter")                    \
        X(Str, march, NULL, 0, NULL, "--march", "native|x86-64-v3|x86-64", IN_COMPILE,                       \
                "instruction set (default: x86-64-v3 to compile, else native)")                              \
        X(Str, act, NULL, 0, NULL, "--act", "q8|f32", IN_COMPILE,                                            \
                "activations in quantised products (default q8)")                                            \
        X(Str, ctk, NULL, 0, "-ctk", "--cache-type-k", "f16|f32|q8_0", IN_COMPILE,                           \
                "keys in the KV cache (default f16)")                                                        \
        X(Str, ctv, NULL, 0, "-ctv", "--cache-type-v", "f16|f32|q8_0", IN_COMPILE,                           \
                "values in the KV cache (default f16)")                                                      \
        X(Str, emit, "exe", 0, NULL, "--emit", "exe|plan", IN(compile), "what to make (default exe)")        \
        X(Flag, embed, false, 0, NULL, "--embed", NULL, IN(compile), "put the weights in, too")              \
        X(Str, weights, NULL, 0, NULL, "--weights", "FILE", IN_LOAD,                                         \
                "for a plan: the GGUF with its weights (default: where it was)")                             \
        X(Flag, random, false, 0, NULL, "--random-weights", NULL, IN(run) | IN(bench) | IN(logits),          \
                "for a shape file: fill the weights with random blocks")                                     \
        X(Str, after, NULL, 0, NULL, "--after", "PASS", IN(dump),                                            \
                "the graph after this pass (default: after all); \"\": as it was built")                     \
        X(Str, phase, "decode", 0, NULL, "--phase", "NAME", IN(dump),                                        \
                "decode (default), prefill; CUDA has four, few, batch and short, too")                       \
        X(Num, layer, -1, -1, NULL, "--layer", "N", IN(dump), "only this layer")                             \
        X(Str, pass, NULL, 0, NULL, "--pass", "NAME,...", IN(opt), "passes to run, in order")                \
        X(Flag, profile, false, 0, NULL, "--profile", NULL, IN(bench), "show what each kernel took")         \
        X(Str, trace, NULL, 0, NULL, "--trace", "FILE", IN(bench),                                           \
                "write a trace for chrome://tracing or Perfetto")                                            \
        X(Str, templates, NULL, 0, NULL, "--templates", "DIR", IN_MODEL,                                     \
                "a folder whose templates/, arch/, pipeline.lua, tune.lua go before those built in")         \
        X(Str, keep, NULL, 0, NULL, "--keep", "DIR", IN_COMPILE, "keep the generated sources here")          \
        X(Str, cache_dir, NULL, 0, NULL, "--cache-dir", "DIR", IN_COMPILE | IN(cache),                       \
                "the compile cache (default $MOEC_CACHE_DIR, $XDG_CACHE_HOME/moec, ~/.cache/moec); off: "    \
                "none")                                                                                      \
        X(Str, format, NULL, 0, "-o", "--output", "text|json",                                               \
                IN(inspect) | IN(verify) | IN(perplexity) | IN(cache),                                       \
                "how to print the result (default text)")                                                    \
        X(Str, summary, NULL, 0, "-o", "--output", "text|json", IN(run),                                     \
                "json: a line of JSON after the text")                                                       \
        X(Str, dump_as, "ir", 0, "-o", "--output", "ir|dot|svg|keys|kernels", IN(dump),                      \
                "what to print (default ir)")                                                                \
        X(Str, bench_as, "md", 0, "-o", "--output", "md|json|csv", IN(bench),                                \
                "how to print the result (default md)")                                                      \
        X(Str, out, NULL, 0, "-o", "--output", "FILE", IN(compile) | IN(logits),                             \
                "where to write; logits: - is standard output")                                              \
        X(Flag, help, false, 0, "-h", "--help", NULL, IN_ALL, "show this")

typedef struct Args {
        CmdId cmd;
        const char *operand[2];
        int n_operand;
        bool exe; /* a compiled executable, which has the one command and its model in it */
#define X(kind, member, def, least, shrt, lng, value, in, text) kind member;
        OPTIONS(X)
#undef X
} Args;

/* Parses what follows the command's name. True: go on; false: *status is the exit code, and everything is
 * said. */
bool args_parse(Args *a, CmdId cmd, int argc, char **argv, int *status);
void args_help(const Args *a, FILE *f);
void main_help(FILE *f);
void completion_bash(FILE *f);
extern const char *prog;        /* for messages; set it first */
int cmd_find(const char *name); /* -1: none */
void options_of(const Args *a, moec_options *opt);
const char *model_path(const Args *a); /* -m, or the operand; NULL: neither, and it is said */

/* ---- messages: each returns the exit code ---- */
int usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int complain(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* MOEC_INTERRUPTED where the user has interrupted, whatever failed because of it. */
int failed(const moec_error *e);

/* ---- Ctrl-C and progress ---- */
void catch_interrupt(void); /* from now on the first sets a flag, the second kills */
void report_limits(void);   /* a file that grows over the limit fails to be written, and kills nobody */
bool interrupted(void);
bool show_progress(void *user, const char *what, uint64_t done, uint64_t total); /* a moec_progress */
void clear_progress(void);
double seconds(void); /* monotonic */

/* ---- text ---- */
typedef struct Text {
        char *p; /* malloc'ed, NUL-terminated */
        size_t n;
} Text;
int read_text(const char *path, Text *t); /* "-": standard input. 0, or the exit code after a message */
/* "1,2,3" or "[1, 2, 3]", which may be empty. *ids is malloc'ed. False: *bad is where it ceases to be one. */
bool parse_ids(const char *s, int32_t **ids, int *n, const char **bad);
void json_string(FILE *f, const char *s, size_t n);
int print_text(char *text); /* prints and frees; 0 or MOEC_IO */
int end_output(FILE *f);    /* flushes: 0 or MOEC_IO, with a message */

/* ---- commands: the exit code ---- */
#define X(name, operands, n, help) int cmd_##name(const Args *a);
COMMANDS(X)
#undef X
typedef moec_status Opener(const char *path, const moec_options *opt, moec_model **model, moec_error *e);
int run_model(
        const Args *a, const char *path, Opener *open); /* run, where path may also be the program's own */

#endif

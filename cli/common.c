#include "cli/common.h"
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char *prog = "moec";
static const Args *current; /* for hints */

typedef enum Kind { K_Flag, K_Num, K_Real, K_Str } Kind;

typedef struct Option {
        Kind kind;
        size_t at; /* in Args */
        int least; /* of a Num */
        const char *shrt, *lng, *value;
        unsigned in;
        const char *help;
} Option;

static const Option options[] = {
#define X(kind, member, def, least, shrt, lng, value, in, text)                                              \
        {K_##kind, offsetof(Args, member), least, shrt, lng, value, in, text},
        OPTIONS(X)
#undef X
};
#define N_OPTION (sizeof options / sizeof *options)

static const struct {
        const char *name, *operands;
        int n_operand;
        const char *help;
} commands[] = {
#define X(name, operands, n, help) {#name, operands, n, help},
        COMMANDS(X)
#undef X
};

int cmd_find(const char *name)
{
        for (int i = 0; i < N_CMD; i++)
                if (!strcmp(name, commands[i].name))
                        return i;
        return -1;
}

/* ---- parsing ---- */

/* Whether word is one of list, "a|b|c". */
static bool one_of(const char *list, const char *word)
{
        size_t n = strlen(word);
        for (const char *p = list; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
                if (n && strcspn(p, "|") == n && !strncmp(p, word, n))
                        return true;
        return false;
}

static bool set_num(const Option *o, const char *s, int *out)
{
        char *end;
        errno = 0;
        long v = strtol(s, &end, 10);
        if (end == s || *end || errno || v < o->least || v > INT_MAX)
                return false;
        *out = (int)v;
        return true;
}

static bool set_real(const char *s, double *out)
{
        char *end;
        double v = strtod(s, &end);
        if (end == s || *end || !(fabs(v) <= (double)FLT_MAX))
                return false;
        *out = v;
        return true;
}

static bool set_option(Args *a, const Option *o, const char *name, const char *s, int *status)
{
        void *at = (char *)a + o->at;
        *status = 0;
        switch (o->kind) {
        case K_Flag:
                *(bool *)at = true;
                break;
        case K_Num:
                if (!set_num(o, s, at))
                        *status = usage("%s %s: give a whole number, at least %d", name, s, o->least);
                break;
        case K_Real:
                if (!set_real(s, at))
                        *status = usage("%s %s: give a number", name, s);
                break;
        case K_Str:
                if (strchr(o->value, '|') && !one_of(o->value, s))
                        *status = usage("%s %s: give one of %s", name, s, o->value);
                *(const char **)at = s;
                break;
        }
        return *status == 0;
}

/* The option that arg spells, with *value behind the = of --name=value. */
static const Option *find(CmdId cmd, const char *arg, const char **value)
{
        size_t n = strncmp(arg, "--", 2) ? strlen(arg) : strcspn(arg, "=");
        *value = arg[n] ? arg + n + 1 : NULL;
        for (size_t i = 0; i < N_OPTION; i++) {
                const Option *o = &options[i];
                if (o->in & 1u << cmd && ((o->shrt && !strcmp(o->shrt, arg)) ||
                                                 (strlen(o->lng) == n && !strncmp(o->lng, arg, n))))
                        return o;
        }
        return NULL;
}

static bool take_operand(Args *a, const char *s, int *status)
{
        int most = a->exe ? 0 : commands[a->cmd].n_operand;
        if (a->n_operand == most) {
                *status = usage("%s: one argument too many", s);
                return false;
        }
        a->operand[a->n_operand++] = s;
        return true;
}

bool args_parse(Args *a, CmdId cmd, int argc, char **argv, int *status)
{
        bool exe = a->exe, dashes = true;
        current = a;
        *a = (Args){.cmd = cmd,
                .exe = exe,
#define X(kind, member, def, least, shrt, lng, value, in, text) .member = def,
                OPTIONS(X)
#undef X
        };
        for (int i = 0; i < argc; i++) {
                const char *arg = argv[i], *value;
                if (!dashes || arg[0] != '-' || !arg[1]) {
                        if (!take_operand(a, arg, status))
                                return false;
                        continue;
                }
                if (!strcmp(arg, "--")) {
                        dashes = false;
                        continue;
                }
                const Option *o = find(cmd, arg, &value);
                if (!o || (value && o->kind == K_Flag)) {
                        *status = usage(o ? "%s: this option takes no value" : "unknown option %s", arg);
                        return false;
                }
                if (o->kind != K_Flag && !value && i + 1 < argc)
                        value = argv[++i];
                if (o->kind != K_Flag && !value) {
                        *status = usage("%s needs a value: %s", arg, o->value);
                        return false;
                }
                if (!set_option(a, o, arg, value, status))
                        return false;
        }
        *status = 0;
        if (a->help) {
                args_help(a, stdout);
                *status = end_output(stdout);
        } else if (a->templates && access(a->templates, R_OK | X_OK) != 0)
                *status = complain(MOEC_NOT_FOUND, "--templates %s: %s", a->templates, strerror(errno));
        return !a->help && !*status;
}

void options_of(const Args *a, moec_options *opt)
{
        *opt = (moec_options){.target = a->target,
                .march = a->march,
                .cache_dir = a->cache_dir,
                .templates = a->templates,
                .weights = a->weights,
                .keep = a->keep,
                .ctk = a->ctk,
                .ctv = a->ctv,
                .act = a->act && !strcmp(a->act, "f32") ? MOEC_ACT_F32 : MOEC_ACT_Q8,
                .random_weights = a->random,
                .threads = a->threads,
                .n_ctx = a->ctx,
                .n_batch = a->batch,
                .progress = show_progress};
}

const char *model_path(const Args *a)
{
        if (a->model && a->n_operand)
                usage("a file by -m and another by itself, %s", a->operand[0]);
        else if (!a->model && !a->n_operand)
                usage("which file? give one with -m");
        else
                return a->model ? a->model : a->operand[0];
        return NULL;
}

/* ---- help ---- */

static void option_line(FILE *f, const Option *o)
{
        char left[96];
        snprintf(left, sizeof left, "%s%s%s%s%s", o->shrt ? o->shrt : "", o->shrt ? ", " : "    ", o->lng,
                o->value ? " " : "", o->value ? o->value : "");
        if (strlen(left) > 30)
                fprintf(f, "  %s\n  %-30s  %s\n", left, "", o->help);
        else
                fprintf(f, "  %-30s  %s\n", left, o->help);
}

void args_help(const Args *a, FILE *f)
{
        if (a->exe)
                fprintf(f,
                        "usage: %s -p TEXT [OPTION...]\nGenerate text with the model that this program "
                        "is.\n\n",
                        prog);
        else
                fprintf(f, "usage: %s %s %s [OPTION...]\n%c%s.\n\n", prog, commands[a->cmd].name,
                        commands[a->cmd].operands, commands[a->cmd].help[0] - 'a' + 'A',
                        commands[a->cmd].help + 1);
        for (size_t i = 0; i < N_OPTION; i++)
                if (options[i].in & 1u << a->cmd)
                        option_line(f, &options[i]);
}

void main_help(FILE *f)
{
        fprintf(f,
                "usage: %s COMMAND [OPTION...]\n"
                "Compiles mixture-of-experts language models in GGUF files, and runs them.\n\n",
                prog);
        for (int i = 0; i < N_CMD; i++)
                fprintf(f, "  %-12s %s\n", commands[i].name, commands[i].help);
        fprintf(f,
                "\n  --help, -h          show this; %s COMMAND --help shows a command's options\n"
                "  --version           show the version\n"
                "  --completion-bash   print completion for bash: source <(%s --completion-bash)\n"
                "\nExit status: 0 done, 2 bad usage, 3 no such file, 4 damaged file, 5 wrong file or "
                "verification failed,\n"
                "6 unsupported, 7 reading or writing failed, 8 failed while running, 9 no such device, 10 "
                "memory,\n"
                "11 cc or m4, 12 refused, 130 interrupted, 1 anything else.\n",
                prog, prog);
}

/* After an option with a value, or of a few words, that; else after a dash the options; else files (bash's
 * default). */
static void complete_command(FILE *f, int cmd)
{
        fprintf(f, "        %s:*)\n                case $prev in\n", commands[cmd].name);
        for (size_t i = 0; i < N_OPTION; i++) {
                const Option *o = &options[i];
                if (!(o->in & 1u << cmd) || !o->value)
                        continue;
                fprintf(f, "                %s%s%s) words='", o->shrt ? o->shrt : "", o->shrt ? " | " : "",
                        o->lng);
                for (const char *p = strchr(o->value, '|') ? o->value : ""; *p; p++)
                        putc(*p == '|' ? ' ' : *p, f);
                fprintf(f, "' ;;\n");
        }
        fprintf(f, "                *) [ \"${cur#-}\" = \"$cur\" ] || words='");
        for (size_t i = 0; i < N_OPTION; i++)
                if (options[i].in & 1u << cmd)
                        fprintf(f, "%s%s%s ", options[i].shrt ? options[i].shrt : "",
                                options[i].shrt ? " " : "", options[i].lng);
        fprintf(f, "' ;;\n                esac ;;\n");
}

void completion_bash(FILE *f)
{
        fprintf(f, "_moec() {\n"
                   "        local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} words=\n"
                   "        case ${COMP_WORDS[1]}:$COMP_CWORD in\n"
                   "        *:1) words='");
        for (int i = 0; i < N_CMD; i++)
                fprintf(f, "%s ", commands[i].name);
        fprintf(f, "--help --version --completion-bash' ;;\n");
        fprintf(f, "        cache:2) words='list explain prune clear' ;;\n");
        for (int i = 0; i < N_CMD; i++)
                complete_command(f, i);
        fprintf(f, "        esac\n"
                   "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
                   "}\ncomplete -o default -F _moec moec\n");
}

/* ---- messages ---- */

static bool bar_shown;

void clear_progress(void)
{
        if (bar_shown)
                fprintf(stderr, "\r\033[K");
        bar_shown = false;
}

static void say(const char *fmt, va_list ap)
{
        clear_progress();
        fprintf(stderr, "%s: ", prog);
        vfprintf(stderr, fmt, ap);
        putc('\n', stderr);
}

static void hint(void)
{
        bool own = current && !current->exe;
        fprintf(stderr, "Try '%s %s%s--help'.\n", prog, own ? commands[current->cmd].name : "",
                own ? " " : "");
}

int usage(const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        say(fmt, ap);
        va_end(ap);
        hint();
        return MOEC_USAGE;
}

int complain(int status, const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        say(fmt, ap);
        va_end(ap);
        return status;
}

int failed(const moec_error *e)
{
        if (interrupted())
                return complain(MOEC_INTERRUPTED, "interrupted");
        complain(e->status, "%s", e->msg);
        if (e->status == MOEC_USAGE)
                hint();
        return e->status;
}

/* ---- Ctrl-C and progress ---- */

static volatile sig_atomic_t got_interrupt;

static void on_interrupt(int sig)
{
        (void)sig;
        got_interrupt = 1;
}

void catch_interrupt(void)
{
        struct sigaction sa = {.sa_handler = on_interrupt, .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
        sigaction(SIGINT, &sa, NULL);
}

void report_limits(void)
{
        signal(SIGXFSZ, SIG_IGN);
}

bool interrupted(void)
{
        return got_interrupt != 0;
}

double seconds(void)
{
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* A bar, on a terminal, for what has lasted a second. */
bool show_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
        static const char *last;
        static double start, shown;
        double now = seconds();
        (void)user;
        if (!strcmp(what, "generating")) /* the text shows that */
                return !interrupted();
        if (!last || strcmp(last, what) != 0) {
                last = what;
                start = now;
        }
        if (now - start > 1 && now - shown > 0.1 && total && isatty(STDERR_FILENO)) {
                int width = (int)(30 * done / total);
                fprintf(stderr, "\r%s [%.*s%*s] %3d %%", what, width, "##############################",
                        30 - width, "", (int)(100 * done / total));
                fflush(stderr);
                bar_shown = true;
                shown = now;
        }
        if (done >= total)
                clear_progress();
        return !interrupted();
}

/* ---- text ---- */

int read_text(const char *path, Text *t)
{
        bool in = !strcmp(path, "-");
        FILE *f = in ? stdin : fopen(path, "rbe");
        size_t cap = 0, got = 1;
        *t = (Text){0};
        if (!f)
                return complain(errno == ENOENT || errno == ENOTDIR ? MOEC_NOT_FOUND : MOEC_IO, "%s: %s",
                        path, strerror(errno));
        while (got) {
                if (cap - t->n < 2) {
                        cap = cap ? 2 * cap : 65536;
                        char *p = realloc(t->p, cap);
                        if (!p)
                                break;
                        t->p = p;
                }
                got = fread(t->p + t->n, 1, cap - t->n - 1, f);
                t->n += got;
        }
        int status = got         ? complain(MOEC_NO_MEMORY, "%s: out of memory after %zu bytes", path, t->n)
                     : ferror(f) ? complain(MOEC_IO, "%s: cannot read: %s", path, strerror(errno))
                                 : 0;
        if (t->p)
                t->p[t->n] = 0;
        if (!in)
                fclose(f);
        if (status)
                free(t->p);
        return status;
}

bool parse_ids(const char *s, int32_t **ids, int *n, const char **bad)
{
        static const char space[] = " \t\r\n";
        *ids = malloc((strlen(s) / 2 + 1) * sizeof **ids);
        *n = 0;
        s += strspn(s, space);
        bool array = *s == '[';
        s += array;
        s += strspn(s, space);
        bool more = *ids && !(array && *s == ']');
        while (more) {
                char *end;
                errno = 0;
                long v = strtol(s, &end, 10);
                if (end == s || errno || v < 0 || v > INT32_MAX)
                        break;
                (*ids)[(*n)++] = (int32_t)v;
                s = end + strspn(end, space);
                more = *s == ',';
                s += more;
        }
        *bad = s;
        if (*ids && !more && (!array || *s++ == ']') && !s[strspn(s, space)])
                return true;
        free(*ids);
        *ids = NULL;
        return false;
}

void json_string(FILE *f, const char *s, size_t n)
{
        putc('"', f);
        for (size_t i = 0; i < n; i++) {
                unsigned char c = (unsigned char)s[i];
                if (c == '"' || c == '\\')
                        fprintf(f, "\\%c", c);
                else if (c < 0x20)
                        fprintf(f, "\\u%04x", c);
                else
                        putc(c, f);
        }
        putc('"', f);
}

int end_output(FILE *f)
{
        errno = 0;
        if (fflush(f) == 0 && !ferror(f))
                return 0;
        return complain(MOEC_IO, "cannot write: %s", strerror(errno ? errno : EIO));
}

int print_text(char *text)
{
        fputs(text, stdout);
        moec_free(text);
        return end_output(stdout);
}

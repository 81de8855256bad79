#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "cli/common.h"

static bool same_file(const char *a, const char *b)
{
        struct stat s, t;
        return stat(a, &s) == 0 && stat(b, &t) == 0 && s.st_dev == t.st_dev && s.st_ino == t.st_ino;
}

static void report(const moec_model *m, const char *out, const moec_compile_report *r)
{
        struct stat s = {0};
        moec_info info;
        moec_get_info(m, &info);
        stat(out, &s);
        printf("%s: %s, %d layers, %d experts: %d kernels, %d launches a token, %.1f KiB of code, %.1f s\n",
                out, info.arch, info.n_layer, info.n_expert, r->n_kernels, r->n_launches,
                (double)r->code_bytes / 1024, r->seconds);
        printf("%s: %.1f MiB\n", out, (double)s.st_size / (1 << 20));
}

int cmd_compile(const Args *a)
{
        moec_options opt;
        moec_error e = {0};
        moec_model *m = NULL;
        moec_compile_report r = {0};
        const char *path = model_path(a);
        if (!path)
                return MOEC_USAGE;
        if (!a->out)
                return usage("where to? give a file with -o");
        if (same_file(path, a->out))
                return complain(MOEC_REFUSED,
                        "%s is the model itself: not overwritten; give another name with -o", a->out);
        options_of(a, &opt);
        catch_interrupt();
        moec_status st = moec_open(path, &opt, &m, &e);
        if (st == MOEC_OK)
                st = moec_compile(m, &opt, a->out, a->emit, a->embed, &r, &e);
        clear_progress();
        int status = st ? failed(&e) : 0;
        if (!status) {
                report(m, a->out, &r);
                status = end_output(stdout);
        }
        moec_close(m);
        return status;
}

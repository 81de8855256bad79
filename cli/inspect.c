#include "cli/common.h"

int cmd_inspect(const Args *a)
{
        moec_options opt;
        moec_error e = {0};
        moec_model *m = NULL;
        char *text = NULL;
        const char *path = model_path(a);
        if (!path)
                return MOEC_USAGE;
        options_of(a, &opt);
        moec_status st = moec_open(path, &opt, &m, &e);
        if (st == MOEC_OK)
                st = moec_inspect(m, a->format ? a->format : "text", a->ctx, &text, &e);
        int status = st ? failed(&e) : print_text(text);
        moec_close(m);
        return status;
}

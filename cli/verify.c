#include <stdlib.h>
#include <string.h>
#include "cli/common.h"

/* The tokens to verify with; none: the library's own. */
static int tokens(const Args *a, const moec_model *m, int32_t **ids, int *n)
{
        moec_error e = {0};
        const char *bad;
        Text t;
        if (a->tokens && a->file)
                return usage("tokens by --tokens and by -f");
        if (a->tokens && !parse_ids(a->tokens, ids, n, &bad))
                return usage("--tokens %s: not a list of token ids, from \"%.20s\" on", a->tokens, bad);
        if (!a->file)
                return 0;
        int status = read_text(a->file, &t);
        if (status)
                return status;
        if (moec_tokenize(m, t.p, t.n, true, false, ids, n, &e) != MOEC_OK)
                status = failed(&e);
        else if (*n == 0)
                status = usage("%s: no tokens in it", a->file);
        free(t.p);
        return status;
}

int cmd_verify(const Args *a)
{
        moec_options opt;
        moec_error e = {0};
        moec_model *m = NULL;
        int32_t *ids = NULL;
        int n = 0;
        char *text = NULL;
        const char *path = model_path(a);
        if (!path)
                return MOEC_USAGE;
        options_of(a, &opt);
        catch_interrupt();
        int status = moec_open(path, &opt, &m, &e) ? failed(&e) : tokens(a, m, &ids, &n);
        if (!status) {
                moec_status st =
                        moec_verify(m, &opt, ids, n, a->format ? a->format : "text", NULL, &text, &e);
                clear_progress();
                if (text)
                        status = print_text(text);
                if (st)
                        status = failed(&e);
        }
        moec_free(ids);
        moec_close(m);
        return status;
}

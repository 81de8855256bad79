#include <stdlib.h>
#include <string.h>
#include "cli/common.h"

static int encode(const Args *a, const moec_model *m, const Text *t)
{
        moec_error e = {0};
        int32_t *ids;
        int n;
        if (moec_tokenize(m, t->p, t->n, !a->no_bos, true, &ids, &n, &e) != MOEC_OK)
                return failed(&e);
        putchar('[');
        for (int i = 0; i < n; i++)
                printf(i ? ", %d" : "%d", ids[i]);
        printf("]\n");
        moec_free(ids);
        return end_output(stdout);
}

/* The tokens' bytes as they are: what the text was before encoding, even where that was no UTF-8. */
static int decode(const moec_model *m, const Text *t)
{
        moec_error e = {0};
        const char *piece, *bad;
        size_t len;
        int32_t *ids;
        int n, status = 0;
        if (!parse_ids(t->p, &ids, &n, &bad))
                return usage("standard input: not a JSON array of token ids, from \"%.20s\" on", bad);
        for (int i = 0; i < n && !status; i++) {
                if (moec_piece(m, ids[i], true, &piece, &len, &e) != MOEC_OK)
                        status = failed(&e);
                else
                        fwrite(piece, 1, len, stdout);
        }
        free(ids);
        return status ? status : end_output(stdout);
}

int cmd_tokenize(const Args *a)
{
        moec_options opt;
        moec_error e = {0};
        moec_model *m = NULL;
        Text t;
        const char *path = model_path(a);
        if (!path)
                return MOEC_USAGE;
        options_of(a, &opt);
        if (moec_open(path, &opt, &m, &e) != MOEC_OK)
                return failed(&e);
        int status = read_text("-", &t);
        if (!status) {
                status = a->decode ? decode(m, &t) : encode(a, m, &t);
                free(t.p);
        }
        moec_close(m);
        return status;
}

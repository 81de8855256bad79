#include <stdlib.h>
#include <string.h>
#include "cli/common.h"

int cmd_opt(const Args *a)
{
        Text t;
        moec_error e = {0};
        char *out = NULL;
        if (!a->n_operand || !a->pass)
                return usage(!a->n_operand ? "which file? - is standard input"
                                           : "which passes? name them with --pass");
        int status = read_text(a->operand[0], &t);
        if (status)
                return status;
        if (memchr(t.p, 0, t.n))
                status = complain(
                        MOEC_DAMAGED, "%s: not a graph in text form: it has NUL bytes", a->operand[0]);
        else if (moec_opt(t.p, a->operand[0], a->pass, &out, &e) != MOEC_OK)
                status = failed(&e);
        else
                status = print_text(out);
        free(t.p);
        return status;
}

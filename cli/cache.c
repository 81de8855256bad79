#include "cli/common.h"

int cmd_cache(const Args *a)
{
        moec_options opt;
        moec_error e = {0};
        char *text = NULL;
        if (!a->n_operand)
                return usage("cache what? list, explain, prune or clear");
        options_of(a, &opt);
        if (moec_cache(&opt, a->operand[0], a->n_operand > 1 ? a->operand[1] : NULL,
                    a->format ? a->format : "text", &text, &e) != MOEC_OK)
                return failed(&e);
        return print_text(text);
}

#include "cli/common.h"
int cmd_bench(const Args *a)
{
        (void)a;
        return 0;
}

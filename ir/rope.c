#include <math.h>
#include "ir/rope.h"

static const double pi = 3.14159265358979323846;

/* The pair that turns `turns` times within octx positions. */
static double pair_of(const Node *n, double turns)
{
        double rdim = (double)attr_i(n, A_rdim), octx = (double)attr_i(n, A_octx);
        return rdim * log(octx / (turns * 2 * pi)) / (2 * log(attr_f(n, A_rbase)));
}

static double ramp(const Node *n, u64 i)
{
        double low = fmax(0, floor(pair_of(n, attr_f(n, A_fast))));
        double high = fmin((double)attr_i(n, A_rdim) - 1, ceil(pair_of(n, attr_f(n, A_slow))));
        double y = ((double)i - low) / fmax(0.001, high - low);
        return 1 - fmin(1, fmax(0, y));
}

u64 rope_pairs(const Node *n)
{
        return attr_i(n, A_rstyle) == ROPE_none ? 0 : (u64)attr_i(n, A_rdim) / 2;
}

double rope_rate(const Node *n, u64 i)
{
        double f = pow(attr_f(n, A_rbase), -2 * (double)i / (double)attr_i(n, A_rdim));
        double r = attr_f(n, A_ext) != 0 ? attr_f(n, A_ext) * ramp(n, i) : 0;
        return f * (r + (1 - r) / attr_f(n, A_rfactor));
}

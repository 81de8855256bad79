/* Operations that move values or work on them one by one. */
#include <math.h>
#include <string.h>
#include "ir/eval_part.h"
#include "ir/quant.h"

/* Nothing to do: whoever reads the result reads the weight (ev_source). */
void eval_dequant(Eval *e, const Node *n)
{
        (void)e;
        (void)n;
}

void eval_embed(Eval *e, const Node *n)
{
        Tensor ids = arg(e, n, S_ids), *y = result(e, n, 0);
        Mat m = ev_mat_open(e, in_get(n, S_w));
        const i32 *id = ids.data;
        for (u64 i = 0; i < ids.dim[0]; i++) {
                if (id[i] < 0 || (u64)id[i] >= m.rows)
                        err(MOEC_USAGE, "token %d is not in 0..%lld", id[i], (long long)m.rows - 1);
                const double *row = ev_mat_row(&m, (u64)id[i]);
                for (u64 c = 0; c < m.cols; c++)
                        ((float *)y->data)[i * m.cols + c] = (float)row[c];
        }
}

void eval_rows(Eval *e, const Node *n)
{
        Tensor x = arg(e, n, S_x), out = arg(e, n, S_out);
        u64 w = width(&x);
        float *y = result(e, n, 0)->data;
        for (u64 i = 0; i < out.dim[0]; i++)
                memcpy(y + i * w, (const float *)x.data + (u64)((const i32 *)out.data)[i] * w, w * sizeof *y);
}

/* b has a's size or is one row, used for every row of a. */
typedef struct Pair {
        const float *a, *b;
        u64 len, blen;
        float *y;
} Pair;

static Pair pair(Eval *e, const Node *n)
{
        Tensor a = arg(e, n, S_a), b = arg(e, n, S_b);
        return (Pair){a.data, b.data, tensor_len(&a), tensor_len(&b), result(e, n, 0)->data};
}

void eval_add(Eval *e, const Node *n)
{
        Pair p = pair(e, n);
        for (u64 i = 0; i < p.len; i++)
                p.y[i] = p.a[i] + p.b[i % p.blen];
}

void eval_mul(Eval *e, const Node *n)
{
        Pair p = pair(e, n);
        for (u64 i = 0; i < p.len; i++)
                p.y[i] = p.a[i] * p.b[i % p.blen];
}

void eval_scale(Eval *e, const Node *n)
{
        Tensor x = arg(e, n, S_x);
        float *y = result(e, n, 0)->data;
        for (u64 i = 0, len = tensor_len(&x); i < len; i++)
                y[i] = (float)(attr_f(n, A_by) * (double)((const float *)x.data)[i]);
}

static u64 parts(const Node *n)
{
        return (u64)MAX(attr_i(n, A_heads), 1);
}

void eval_slice(Eval *e, const Node *n)
{
        Tensor x = arg(e, n, S_x), *y = result(e, n, 0);
        u64 heads = parts(n), from = (u64)attr_i(n, A_from), wx = width(&x) / heads, wy = width(y) / heads;
        for (u64 r = 0, rows = tensor_rows(&x) * heads; r < rows; r++)
                memcpy((float *)y->data + r * wy, (const float *)x.data + r * wx + from, wy * sizeof(float));
}

void eval_concat(Eval *e, const Node *n)
{
        Tensor a = arg(e, n, S_a), b = arg(e, n, S_b), *y = result(e, n, 0);
        u64 heads = parts(n), wa = width(&a) / heads, wb = width(&b) / heads;
        for (u64 r = 0, rows = tensor_rows(&a) * heads; r < rows; r++) {
                float *to = (float *)y->data + r * (wa + wb);
                memcpy(to, (const float *)a.data + r * wa, wa * sizeof(float));
                memcpy(to + wa, (const float *)b.data + r * wb, wb * sizeof(float));
        }
}

void ev_quantize(Eval *e, const Node *n, float *y)
{
        Tensor x = arg(e, n, S_x);
        const float *norm = ev_vec(e, n, S_norm);
        u64 len = tensor_len(&x);
        memcpy(y, x.data, len * sizeof *y);
        if (norm)
                ev_norm_rows(y, len, norm, width(&x), attr_f(n, A_eps));
        if (!e->opt->exact)
                q8_round(y, len);
}

void eval_quantize(Eval *e, const Node *n)
{
        ev_quantize(e, n, result(e, n, 0)->data);
}

static double sigmoid(double x)
{
        return 1 / (1 + exp(-x));
}

static double gelu_tanh(double x)
{
        const double c = 0.79788456080286535588; /* sqrt(2 / pi) */
        return 0.5 * x * (1 + tanh(c * (x + 0.044715 * x * x * x)));
}

float ev_glu_one(const Node *n, float gate, float up)
{
        double g = gate, u = up, limit = attr_f(n, A_limit);
        switch ((enum Glu)attr_i(n, A_glu)) {
        case GLU_swiglu:
                return (float)(g * sigmoid(g) * u);
        case GLU_geglu:
                return (float)(gelu_tanh(g) * u);
        case GLU_swiglu_oai:
                g = g > limit ? limit : g;
                u = u > limit ? limit : u < -limit ? -limit : u;
                return (float)(g * sigmoid(attr_f(n, A_alpha) * g) * (u + 1));
        }
        die("no such glu");
}

void eval_glu(Eval *e, const Node *n)
{
        Tensor gate = arg(e, n, S_gate), up = arg(e, n, S_up);
        float *y = result(e, n, 0)->data;
        for (u64 i = 0, len = tensor_len(&gate); i < len; i++)
                y[i] = ev_glu_one(n, ((const float *)gate.data)[i], ((const float *)up.data)[i]);
}

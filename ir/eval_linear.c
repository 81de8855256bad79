/* Norms and products. */
#include <math.h>
#include <string.h>
#include "ir/eval_part.h"
#include "ir/quant.h"

/* Eight partial sums in a fixed tree: the order does not depend on what the compiler makes of it. */
enum { LANES = 8 };
#define TREE(s) (((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])))

double ev_dot(const double *a, const double *b, u64 n)
{
        double s[LANES] = {0};
        u64 i = 0;
        for (; i + LANES <= n; i += LANES)
                for (u64 j = 0; j < LANES; j++)
                        s[j] += a[i + j] * b[i + j];
        for (u64 j = 0; i < n; i++, j++)
                s[j] += a[i] * b[i];
        return TREE(s);
}

double ev_dotf(const float *a, const float *b, u64 n)
{
        double s[LANES] = {0};
        u64 i = 0;
        for (; i + LANES <= n; i += LANES)
                for (u64 j = 0; j < LANES; j++)
                        s[j] += (double)a[i + j] * (double)b[i + j];
        for (u64 j = 0; i < n; i++, j++)
                s[j] += (double)a[i] * (double)b[i];
        return TREE(s);
}

/* ---- norm ---- */

void ev_norm_row(float *x, const float *w, u64 n, double eps)
{
        double inv = 1 / sqrt(ev_dotf(x, x, n) / (double)n + eps);
        for (u64 i = 0; i < n; i++)
                x[i] = (float)((double)x[i] * inv * (double)w[i]);
}

void ev_norm_rows(float *x, u64 n, const float *w, u64 group, double eps)
{
        for (u64 i = 0; i < n; i += group)
                ev_norm_row(x + i, w, group, eps);
}

void eval_rmsnorm(Eval *e, const Node *n)
{
        Tensor x = arg(e, n, S_x);
        u64 len = tensor_len(&x), group = (u64)attr_i(n, A_group);
        float *y = result(e, n, 0)->data;
        memcpy(y, x.data, len * sizeof *y);
        ev_norm_rows(y, len, ev_vec(e, n, S_w), group ? group : width(&x), attr_f(n, A_eps));
}

/* ---- the matrix ---- */

Mat ev_mat_open(Eval *e, Ref r)
{
        Mat m = {0};
        r = ev_source(e, r);
        if (ref_kind(r) == R_WEIGHT) {
                const Weight *w = &e->g->weight[ref_idx(r)];
                if (!w->data)
                        err(MOEC_USAGE,
                                "weight %s has no values: the graph was not made from a file that holds "
                                "weights",
                                w->name);
                m.cols = w->dim[w->rank - 1];
                m.rows = 1;
                for (u32 i = 0; i + 1 < w->rank; i++)
                        m.rows *= w->dim[i];
                m.f = e->opt->cache ? ev_cache_find(e->opt->cache, w) : NULL;
                if (!m.f && !wtype_bytes(w->type, m.cols, &m.row_bytes))
                        die("weight %s: a row is not whole blocks", w->name);
                m.w = m.f ? NULL : w;
                m.fbuf = SCRATCH(e, float, m.cols);
        } else {
                Tensor t = ev_operand(e, r);
                m.cols = width(&t);
                m.rows = tensor_rows(&t);
                m.f = t.data;
        }
        m.dbuf = SCRATCH(e, double, m.cols);
        return m;
}

const double *ev_mat_row(Mat *m, u64 row)
{
        const float *f = m->f ? m->f + row * m->cols : m->fbuf;
        if (!m->f)
                dequant(m->w->type, (const u8 *)m->w->data + row * m->row_bytes, m->fbuf, m->cols);
        for (u64 i = 0; i < m->cols; i++)
                m->dbuf[i] = (double)f[i];
        return m->dbuf;
}

/* ---- the activations ---- */

const double *ev_round_in(Eval *e, float *x, u64 n, u64 w, bool q8)
{
        if (q8 && !e->opt->exact) {
                if (w % Q8_BLOCK)
                        die("rows of %llu values cannot be rounded in blocks of %d", (unsigned long long)w,
                                Q8_BLOCK);
                q8_round(x, n);
        }
        double *d = SCRATCH(e, double, n);
        for (u64 i = 0; i < n; i++)
                d[i] = (double)x[i];
        return d;
}

const double *ev_product_in(Eval *e, const Node *n, Slot slot, i64 act)
{
        Tensor t = arg(e, n, slot);
        const float *norm = op_info(n->op)->attr[A_eps] ? ev_vec(e, n, S_norm) : NULL;
        u64 len = tensor_len(&t);
        float *x = SCRATCH(e, float, len);
        memcpy(x, t.data, len * sizeof *x);
        if (norm)
                ev_norm_rows(x, len, norm, width(&t), attr_f(n, A_eps));
        return ev_round_in(e, x, len, width(&t), act == ACT_q8 && (norm || t.dt != D_q8));
}

void ev_add_res(Eval *e, const Node *n, float *y, u64 len)
{
        const float *res = ev_vec(e, n, S_res);
        for (u64 i = 0; res && i < len; i++)
                y[i] += res[i];
}

/* ---- products ---- */

void eval_matmul(Eval *e, const Node *n)
{
        const double *x = ev_product_in(e, n, S_x, attr_i(n, A_act));
        bool biased = in_count(n, S_bias);
        for (u32 i = 0; i < n->nout; i++) {
                Tensor *t = result(e, n, i);
                Mat m = ev_mat_open(e, in_nth(n, S_w, i));
                const float *b = biased ? ev_operand(e, in_nth(n, S_bias, i)).data : NULL;
                float *y = t->data;
                u64 rows = tensor_rows(t);
                for (u64 r = 0; r < m.rows; r++) {
                        const double *w = ev_mat_row(&m, r);
                        for (u64 s = 0; s < rows; s++)
                                y[s * m.rows + r] = (float)ev_dot(w, x + s * m.cols, m.cols);
                }
                for (u64 j = 0; b && j < rows * m.rows; j++)
                        y[j] += b[j % m.rows];
                ev_add_res(e, n, y, rows * m.rows);
        }
}

void eval_headmul(Eval *e, const Node *n)
{
        Mat m = ev_mat_open(e, in_get(n, S_w));
        const double *x = ev_product_in(e, n, S_x, attr_i(n, A_act));
        Tensor *t = result(e, n, 0);
        u64 rows = tensor_rows(t), heads = (u64)ref_type(e->g, in_get(n, S_w)).dim[0].n, out = m.rows / heads;
        for (u64 r = 0; r < m.rows; r++) {
                const double *w = ev_mat_row(&m, r);
                for (u64 s = 0; s < rows; s++)
                        ((float *)t->data)[s * m.rows + r] =
                                (float)ev_dot(w, x + (s * heads + r / out) * m.cols, m.cols);
        }
}

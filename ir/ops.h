/* The operations, as a table: the only list of them. Each row names its operands ("slots"), its attributes
 * and its results; ir/infer.c, ir/eval.c and the templates have one function or file of the same name.
 *
 *   O(name, slots, attributes, results)
 * A slot followed by ? may be missing, by + comes once or more, by * any number of times. Results: 1, or w:
 * one a `w` operand, or k: a second one, the new state, where slot k is present, or o: a second one where out
 * is q8.
 *
 * Shapes: T tokens (n_tok), H model width, values [T, ..] are row-major; weights are written outermost
 * dimension first: a product's matrix is [outputs, inputs]. "x * W" below is x [T, in] times W [out, in]
 * transposed. Optional slots fuse a neighbour: norm = rmsnorm of x with that weight first (attribute eps),
 * res = added to the result, bias = added to the product. A fused operation means exactly what the chain of
 * plain ones means, rounding included.
 *
 *   dequant       w                -> f32, the weight's values
 *   embed         w[ids]           -> [T, H], rows of the table
 *   rows          x[out]           -> [n_out, H], the rows whose logits are wanted
 *   add, mul      a + b, a * b     elementwise; b may be one row [1, N] or a weight [N], used for every token
 *   scale         by * x
 *   slice         x[:, from:to]    of the row, or with heads of each of its `heads` equal parts
 *   concat        [a | b]          along the last dimension, or with heads part by part: [a0 | b0 | a1 | ...]
 *   rmsnorm       x / sqrt(mean(x^2) + eps) * w, over each `group` neighbouring values (0: the whole row);
 *                 Zhang and Sennrich 2019. w has `group` values
 *   quantize      q8 of norm(x)
 *   matmul        res + norm(x) * W + bias, one result a w; act: what x is rounded to before the product
 *   headmul       x [T, heads * in] seen as [T, heads, in], W [heads, out, in] -> [T, heads * out]: a product
 *                 a head (MLA)
 *   rope          rotates the first rdim of each head's values by pos / rfactor: Su et al. 2021; neox pairs
 *                 (i, i + rdim/2), norm pairs (2i, 2i + 1); with ext != 0 YaRN (Peng et al. 2023) with its
 *                 ramp from fast to slow over octx; magnitudes times rattn; freqs divides each pair's
 *                 frequency
 *   kv_append     state with rope(norm(k)) and v stored at (seq, pos); norm by head. No v: values are a
 *                 prefix of the keys
 *   attend        softmax(scale * rope(norm(q)) K^T + mask) V over positions 0..pos of the token's own
 *                 sequence (the last `window` of them, 0: all), query heads share key heads in groups;
 *                 softcap c: scores c * tanh(s / c); sinks [heads]: one more logit a head in the softmax's
 *                 denominator, with no value. With k: kv_append first
 *   glu           swiglu: silu(gate) * up; geglu: gelu_tanh(gate) * up;
 *                 swiglu_oai: g = min(gate, limit), u = clamp(up, limit): g * sigmoid(alpha * g) * (u + 1)
 *   route         logits z = norm(x) * w (or x itself) [T, E]; scores s = softmax(z) | sigmoid(z) | z; the k
 *                 largest of s + bias (within the groups_k best of `groups` groups, by the sum of their two
 *                 best), lowest index first among equals; weights s (softmax_k: softmax over the chosen z),
 *                 renormed to sum 1 if renorm, times wscale; out q8: norm(x) in q8, too, for the experts
 *   experts       res + sum over the chosen experts e, in slot order:
 *                 weight_e * down_e(glu(gate_e(x'), up_e(x'))), x' = norm(x)
 *   sort          the (token, slot) pairs of a route grouped by expert, in order of tokens
 *   experts_up    glu(gate_e(x'), up_e(x')) of every chosen expert -> [T, k, F]; order: the schedule, no
 *                 change of meaning; out: q8 where the result is rounded for experts_down
 *   experts_down  res + sum over slots: weight_e * down_e(x[:, slot])
 */
#ifndef MOEC_OPS_H
#define MOEC_OPS_H

#define ROPE_ATTRS "rdim rbase rstyle rfactor ext rattn fast slow octx"

#define OPS(O)                                                                                               \
        O(dequant, "w", "", "1")                                                                             \
        O(embed, "w ids", "", "1")                                                                           \
        O(rows, "x out", "", "1")                                                                            \
        O(add, "a b", "", "1")                                                                               \
        O(mul, "a b", "", "1")                                                                               \
        O(scale, "x", "by", "1")                                                                             \
        O(slice, "x", "heads from to", "1")                                                                  \
        O(concat, "a b", "heads", "1")                                                                       \
        O(rmsnorm, "x w", "eps group", "1")                                                                  \
        O(quantize, "x norm?", "eps", "1")                                                                   \
        O(matmul, "x w+ norm? bias* res?", "act eps", "w")                                                   \
        O(headmul, "x w", "act", "1")                                                                        \
        O(rope, "x pos freqs?", "heads " ROPE_ATTRS, "1")                                                    \
        O(kv_append, "kv k v? pos seq norm? freqs?", "eps " ROPE_ATTRS, "1")                                 \
        O(attend, "q kv pos seq sinks? norm? freqs? k? v? knorm?",                                           \
                "heads dv scale window softcap eps out " ROPE_ATTRS, "k")                                    \
        O(glu, "gate up", "glu alpha limit", "1")                                                            \
        O(route, "x w? norm? bias?", "k gate renorm wscale groups groups_k eps out", "o")                    \
        O(experts, "x route gate up down gate_b? up_b? down_b? norm? res?", "act glu alpha limit eps", "1")  \
        O(sort, "route", "experts", "1")                                                                     \
        O(experts_up, "x route gate up gate_b? up_b? norm? order?", "act out glu alpha limit eps", "1")      \
        O(experts_down, "x route down down_b? res? order?", "act", "1")

/* Every slot name, in the order in which operands are kept and printed. */
/* clang-format off */
#define SLOTS(S)                                                                                             \
        S(x) S(a) S(b) S(q) S(kv) S(k) S(v) S(route) S(gate) S(up) S(down) S(w) S(ids) S(out) S(pos) S(seq)  \
        S(norm) S(knorm) S(freqs) S(sinks) S(bias) S(gate_b) S(up_b) S(down_b) S(order) S(res)
/* clang-format on */

/* Attributes: A(name, kind, default). Printed where they differ from the default, in this order. `layer` (the
 * model's layer a node belongs to, -1 none) may stand on every node. */
#define ATTRS(A)                                                                                             \
        A(layer, INT, -1)                                                                                    \
        A(heads, INT, 0)                                                                                     \
        A(k, INT, 0)                                                                                         \
        A(experts, INT, 0)                                                                                   \
        A(from, INT, 0)                                                                                      \
        A(to, INT, 0)                                                                                        \
        A(group, INT, 0)                                                                                     \
        A(dv, INT, 0) /* attend: width of a value head; 0: the state's */                                    \
        A(window, INT, 0)                                                                                    \
        A(groups, INT, 0)                                                                                    \
        A(groups_k, INT, 0)                                                                                  \
        A(renorm, INT, 0)                                                                                    \
        A(act, ENUM, ACT_f32)                                                                                \
        A(out, ENUM, ACT_f32)                                                                                \
        A(gate, ENUM, GATE_softmax)                                                                          \
        A(glu, ENUM, GLU_swiglu)                                                                             \
        A(rstyle, ENUM, ROPE_none)                                                                           \
        A(rdim, INT, 0)                                                                                      \
        A(octx, INT, 0)                                                                                      \
        A(eps, FLT, 0)                                                                                       \
        A(scale, FLT, 1)                                                                                     \
        A(by, FLT, 1)                                                                                        \
        A(softcap, FLT, 0)                                                                                   \
        A(wscale, FLT, 1)                                                                                    \
        A(alpha, FLT, 1.702)                                                                                 \
        A(limit, FLT, 7)                                                                                     \
        A(rbase, FLT, 10000)                                                                                 \
        A(rfactor, FLT, 1)                                                                                   \
        A(ext, FLT, 0)                                                                                       \
        A(rattn, FLT, 1)                                                                                     \
        A(fast, FLT, 32)                                                                                     \
        A(slow, FLT, 1)

/* The words of the ENUM attributes, one list an enumeration, and which attribute uses which: U(attribute,
 * enumeration). */
#define ENUM_ACT(E)  E(ACT, f32) E(ACT, q8)
#define ENUM_GATE(E) E(GATE, softmax) E(GATE, sigmoid) E(GATE, softmax_k)
#define ENUM_GLU(E)  E(GLU, swiglu) E(GLU, geglu) E(GLU, swiglu_oai)
#define ENUM_ROPE(E) E(ROPE, none) E(ROPE, neox) E(ROPE, norm)
#define ENUM_USES(U) U(act, ACT) U(out, ACT) U(gate, GATE) U(glu, GLU) U(rstyle, ROPE)

#define E(p, w) p##_##w,
enum Act { ENUM_ACT(E) };
enum Gate { ENUM_GATE(E) };
enum Glu { ENUM_GLU(E) };
enum Rope { ENUM_ROPE(E) };
#undef E

/* Symbolic dimensions. n_tok and n_out change every step, n_seq and n_ctx are fixed when a model is loaded.
 */
#define DIMS(D) D(n_tok) D(n_out) D(n_seq) D(n_ctx)

/* What a step is given: I(name, dimension): i32 arrays. pos: the token's position in its own sequence seq. */
#define INPUTS(I) I(ids, n_tok) I(pos, n_tok) I(seq, n_tok) I(out, n_out)

/* How a weight's bytes are laid out for its kernels: L(name). rows: as in the file. panel, split:
 * runtime/pack.h. */
#define LAYOUTS(L) L(rows) L(panel) L(split)

#endif

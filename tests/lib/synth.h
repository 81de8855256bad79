/* Small qwen3moe models of any shape and any types, with random weights, as GGUF files. */
#ifndef SYNTH_H
#define SYNTH_H
#include "ir/types.h"

/* The matrices, in the order in which Synth.type has their types. */
#define SYNTH_MATRICES(M)                                                                                    \
        M(token_embd)                                                                                        \
        M(attn_q)                                                                                            \
        M(attn_k) M(attn_v) M(attn_output) M(ffn_gate_exps) M(ffn_up_exps) M(ffn_down_exps) M(output)
enum {
#define M(name) SYNTH_##name,
        SYNTH_MATRICES(M)
#undef M
                N_SYNTH
};

typedef struct Synth {
        u32 layers, width, heads, kv_heads, dk, dv, rdim, experts, used, ff, vocab;
        Wtype type[N_SYNTH]; /* where rows are not whole blocks of it: F16 */
        bool tied;           /* no matrix of its own for the output */
        u64 seed;
        const char *name; /* general.name, and some more that a file says of itself; NULL: none */
} Synth;

/* 1 layer of width 256, 4 heads of 64, 2 of 5 experts, 64 tokens; all of that type. */
Synth synth_small(Wtype t);
void synth_write(const Synth *s, const char *path);

/* Shapes of which nothing is a round number, with every type in every matrix's place. */
enum { N_SYNTH_ODD = 12 };
Synth synth_odd(u32 i);
/* Writes it to path, and holds a target against the interpreter; false: why says what differs. */
bool synth_verify(const Synth *s, const char *path, const moec_options *opt, char *why, u64 room);

#endif

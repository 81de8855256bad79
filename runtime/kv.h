/* Sequences: what was said in each, and how far. Positions only grow; what is behind the length is forgotten.
 */
#ifndef MOEC_KV_H
#define MOEC_KV_H
#include "ir/util.h"

typedef struct Kv Kv;

moec_status kv_new(u32 n_seq, u32 n_ctx, Kv **out, moec_error *e);
void kv_free(Kv *kv); /* NULL is fine */
u32 kv_n_ctx(const Kv *kv);
u32 kv_n_seq(const Kv *kv);

/* Gives each token its position: pos[n]. Changes nothing yet. MOEC_REFUSED: a sequence that is not there, or
 * full. */
moec_status kv_place(Kv *kv, const moec_token *tok, u32 n, i32 *pos, moec_error *e);
void kv_append(Kv *kv, const moec_token *tok, u32 n); /* what kv_place was content with */
/* MOEC_USAGE: no such sequence, or len is more than it has. */
moec_status kv_trim(Kv *kv, int seq, int len, moec_error *e);

bool kv_has(const Kv *kv, int seq);
u32 kv_len(const Kv *kv, u32 seq);
const i32 *kv_ids(const Kv *kv, u32 seq); /* [kv_len] */

#endif

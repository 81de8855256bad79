/* A plan's weights on the host: the GGUF files found and recognised, and every weight where CPU kernels can
 * read it. */
#ifndef MOEC_WEIGHTS_H
#define MOEC_WEIGHTS_H
#include "runtime/plan.h"
#include "runtime/pool.h"

typedef struct Weights {
        const Plan *plan;
        Map *part; /* [n_part]; not mapped where no weight needs it */
        u64 n_part;
        bool random; /* moec_options.random_weights: no file is read */
        u8 *own;     /* what was copied or repacked, own_bytes */
        u64 own_bytes;
        const void **at; /* [number of weights], after weights_load */
} Weights;

/* Finds and maps the files: MOEC_NOT_FOUND, MOEC_MISMATCH, MOEC_DAMAGED (cut off), MOEC_USAGE (a shape file).
 * opt may be NULL. A file that another process truncates while it is mapped raises SIGBUS when a weight
 * behind its new end is read. On failure there is nothing to close. */
moec_status weights_open(const Plan *plan, const moec_options *opt, Weights *w, moec_error *e);

/* Weights in file order whose place in the mapping is aligned to WEIGHT_ALIGN, and embedded ones, stay where
 * they are; the others are copied or repacked into w->own by all threads. MOEC_NO_MEMORY, MOEC_INTERRUPTED.
 */
moec_status weights_load(Weights *w, Pool *pool, const moec_options *opt, moec_error *e);
/* For a device, which takes them in pieces. Bytes at .. at + n - 1 of weight i, in the file's layout, or in
 * the plan's where it is embedded, copied to dst by all threads; n less than 2^32. */
void weights_read(const Weights *w, u64 i, u64 at, u64 n, u8 *dst, Pool *pool);
bool weights_random(const Weights *w, u64 i); /* it is to be made up: there is nothing to read */
void weights_forget(
        const Weights *w, u64 i); /* its pages of the file stay in the system's cache, not in this process */
void weights_close(Weights *w);   /* a zeroed one is fine, and twice */

#define WEIGHT_ALIGN 32 /* what a GGUF gives */

#endif

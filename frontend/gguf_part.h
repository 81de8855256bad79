/* Between gguf.c and gguf_part.c: one file's bytes become a GgufPart. */
#ifndef MOEC_GGUF_PART_H
#define MOEC_GGUF_PART_H
#include "frontend/gguf.h"

/* Fills all of *p but path and map, which are given. max_meta: how many bytes may come before the data.
 * p->tensor[].part is set to `index`. */
void part_read(Arena *a, GgufPart *p, u32 index, u64 max_meta);
const GgufKey *part_key(const GgufPart *p, const char *name);
bool part_u64(const GgufPart *p, const char *name, u64 min, u64 max, u64 *out); /* as gguf_u64 */
u32 part_type_bytes(GgufType t);        /* of a scalar; 0: string, array */
u64 part_bits(GgufType t, const u8 *p); /* a scalar's bytes, zero-extended */
/* An integer as stored: its absolute value fits u64; *negative says its sign. False: t is no integer type. */
bool part_int(GgufType t, u64 bits, u64 *abs, bool *negative);

/* err(MOEC_DAMAGED, "path: byte N: key NAME ...") */
noreturn void part_bad_key(const GgufPart *p, const GgufKey *k, const char *fmt, ...) PRINTF(3, 4);

#endif

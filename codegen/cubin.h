/* What a CUBIN, which is an ELF file, says of its kernel's shared memory. */
#ifndef MOEC_CUBIN_H
#define MOEC_CUBIN_H
#include "ir/util.h"

/* Bytes of shared memory of a block: what the code declares, and what it wants from whoever launches it
 * (templates/cuda/device.m4, SHARED). False: p is no such file. */
bool cubin_shared(const void *p, u64 bytes, const char *kernel, u64 *shared);

/* The most that a block may have on devices of compute capability cc (90: 9.0), which is the same for every
 * device of that number. */
u64 cubin_shared_most(u32 cc);

#endif

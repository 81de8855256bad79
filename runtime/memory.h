/* How much memory this process can still have, and what it takes to load something. */
#ifndef MOEC_MEMORY_H
#define MOEC_MEMORY_H
#include "ir/util.h"

typedef struct Memory {
        u64 bytes;       /* UINT64_MAX: the system does not say */
        const char *who; /* sets that limit */
} Memory;
Memory memory_available(void);

/* Zeroed, page-aligned, taken from the system when first touched; huge: in large pages where it gives them.
 * NULL: none. bytes may be 0: then not NULL, and nothing may be touched. */
void *memory_map(u64 bytes, bool huge);
void memory_unmap(void *p, u64 bytes);

#endif

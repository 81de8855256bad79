/* A shared object that is in memory only: the CPU kernels of a plan. */
#ifndef MOEC_SO_H
#define MOEC_SO_H
#include "ir/util.h"

typedef struct So So;

/* Loaded through a memfd; where the system does not let those be executed, through a file in dir that is gone
 * before this returns. dir: a private folder, NULL for none. The bytes are code and are trusted as such. */
moec_status so_open(const void *p, u64 bytes, const char *dir, So **out, moec_error *e);
void *so_symbol(const So *so, const char *name); /* NULL: no such symbol */
void so_close(So *so);                           /* NULL is fine */

#endif

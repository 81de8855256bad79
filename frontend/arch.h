/* Which architectures there are: the built-in files arch/NAME.lua, and before them those of the user's folder
 * DIR/arch. */
#ifndef MOEC_ARCH_H
#define MOEC_ARCH_H
#include "frontend/embed.h"
#include "frontend/tab.h"

typedef struct Arch {
        Embed file;
        const Tab *tab;    /* what the file returned: name (a string or a list), about, roles, ignore */
        const char *about; /* one line */
} Arch;

/* general.architecture's file; NULL: there is none. dir may be NULL. */
const Arch *arch_find(Arena *a, const char *dir, const char *name);
const char *arch_list(Arena *a, const char *dir); /* "qwen3moe, ..." */

#endif

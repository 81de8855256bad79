/* The files that the program carries in itself: architectures, the pipeline, tuning tables, templates. The
 * table is made by the build from the files of the repository. */
#ifndef MOEC_EMBED_H
#define MOEC_EMBED_H
#include "ir/util.h"

typedef struct Embed {
        const char *name; /* "arch/qwen3moe.lua", "pipeline.lua", "templates/..." */
        const char *text; /* not NUL-terminated */
        size_t len;
} Embed;
extern const struct Embed embed_files[]; /* ends at name == NULL */

const Embed *embed_find(const char *name); /* NULL: no such file */

/* DIR/name where dir is not NULL and has such a file, else the built-in one: in the arena, path as messages
 * call it. False: neither exists. err(MOEC_IO) where a file is there but cannot be read. */
bool embed_text(Arena *a, const char *dir, const char *name, Embed *out);

#endif

/* Expands templates: one m4 process a Key. */
#ifndef MOEC_M4_H
#define MOEC_M4_H
#include "codegen/key.h"

/* Writes every template (those in `dir`, if not NULL, in place of the built-in ones) below folder `to`, as
 * to/templates/... */
moec_status m4_lay_out(Arena *a, const char *dir, const char *to, moec_error *e);
Hash m4_templates_hash(Arena *a, const char *dir); /* of all of them */

/* The source of a Key's kernel. search: folders below templates/, the most special first ("c/x86-64-v3",
 * "c/generic"); suffix:
 * ".c.m4". MOEC_TOOLCHAIN, with m4's words, if m4 fails or an identifier of the macro language is left over.
 */
moec_status m4_expand(const Key *k, const char *work, const char *const search[], const char *suffix,
        Buf *out, moec_error *e);

/* The facts as m4 gets them, for people. */
void m4_facts(const Key *k, Buf *out);

#endif

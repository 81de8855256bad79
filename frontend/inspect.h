/* What a model's file says, for people and for programs. */
#ifndef MOEC_INSPECT_H
#define MOEC_INSPECT_H
#include "frontend/model.h"

#define INSPECT_TOK 512 /* tokens of a step that the scratch memory is estimated for */

/* Appends text or JSON. n_ctx: context for the memory figures, 0: min(the model's, 4096). Also for a model
 * that cannot be compiled, with the reasons. Text from the file is escaped: it cannot drive a terminal or
 * break the JSON. */
void inspect(const Model *m, bool json, u64 n_ctx, Buf *out);

#endif

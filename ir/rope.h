/* How fast each pair of values of a head turns: the constants of rope, kv_append and attend, for eval and for
 * codegen. */
#ifndef MOEC_ROPE_H
#define MOEC_ROPE_H
#include "ir/graph.h"

/* Radians a position of pair i < rdim / 2, before the optional freqs divide it. Without YaRN rbase^(-2i/rdim)
 * / rfactor; with ext != 0 the pair keeps part of its original rate, all of it where it turns more than
 * `fast` times within octx positions, none below `slow` (Peng et al. 2023). */
double rope_rate(const Node *n, u64 i);
u64 rope_pairs(const Node *n); /* 0: nothing is rotated */

#endif

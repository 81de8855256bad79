/* A graph as a picture, in DOT. */
#ifndef MOEC_DOT_H
#define MOEC_DOT_H
#include "ir/graph.h"

/* layer: only that one's nodes, -1 for all. */
void dot(const Graph *g, i64 layer, Buf *out);

#endif

/* Selection for a whole graph: each node's kernel, and for CUDA, by codegen/schedule.h's rules, which of them
 * may read ahead of their waits. */
#ifndef MOEC_SELECT_GRAPH_H
#define MOEC_SELECT_GRAPH_H
#include "codegen/schedule.h"
#include "codegen/select.h"

/* sel[n_node], without a key where no kernel is needed. For CUDA the graph's buffers are placed; a kernel
 * that would read too early is the variant that waits first. Dies on any fault that is left. */
void select_graph(Arena *a, const Graph *g, Target target, const Tab *tune, Sel *sel);

/* "blk.3.experts_up", or the operation alone where it is no layer's. */
const char *launch_label(Arena *a, const Node *n);

/* What the nodes with a key read and write in the step, in their order; in front of them who writes the
 * inputs, behind them who reads the results. */
Launch *graph_launches(Arena *a, const Graph *g, const Sel *sel, u32 *n);

#endif

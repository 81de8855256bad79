/* From a node to the kernel that does it and how to launch that: instruction selection. Nothing here knows of
 * m4 or cc.
 *
 * The facts of a Key (a template sees them with MOE_ in front):
 *   NAME                      the kernel's symbol
 *   every attribute of the operation under its own name; ENUMs as their word
 *   ARG_out0 ..               which launch argument a result is
 *   ARG_<slot>, TYPE_<slot>   of each operand that is present: its argument and its type (dtype or weight
 * type); slots that repeat are numbered from 0. kv: ARG_kv is the plane of keys, ARG_kvv the plane of values
 *   NT                        tokens a tile, from codegen/tune.lua
 * and the operation's own, see select.c, and the target's, see select_TARGET.c. Arguments: results, then
 * operands in slot order. */
#ifndef MOEC_SELECT_H
#define MOEC_SELECT_H
#include "codegen/key.h"
#include "frontend/tab.h"
#include "ir/graph.h"
#include "passes/passes.h"
#include "runtime/plan.h"

#define MAX_ARG 64
typedef struct Sel {
        Key *key;
        struct SelArg {
                u32 kind; /* enum PlanArgKind */
                Ref ref;  /* what it is; the writer of the plan turns it into an index */
        } arg[MAX_ARG];
        u32 n_arg;
        u32 dim[3], mul[3], div[3]; /* the grid, as in PlanLaunch */
        u32 threads;                /* of a block */
} Sel;

/* The kernel of that role, whose arguments the runtime gives. False: the target has none. */
bool select_util(Arena *a, PlanRole role, Target target, Sel *s);

/* tune: the target's table of codegen/tune.lua. False: the node needs no kernel. */
bool select_node(Arena *a, const Graph *g, u32 node, Target target, const Tab *tune, Sel *s);

#endif

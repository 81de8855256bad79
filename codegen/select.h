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
 *   EARLY_<slot>              CUDA, of operands that the kernel can read before its wait for the launch in
 * front of it: 1, or 0 where it must not; TRIGGER: when it lets the launch behind it start, a word of
 * PLAN_TRIGGERS and the operation's own, see select.c, and the target's, see select_TARGET.c. Arguments:
 * results, then operands in slot order. */
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
                u32 kind;   /* enum PlanArgKind */
                Ref ref;    /* what it is; the writer of the plan turns it into an index */
                u32 slot;   /* of the operand; N_SLOT: a result */
                bool early; /* read before the kernel's wait for the launch in front of it */
        } arg[MAX_ARG];
        u32 n_arg;
        PlanTrigger trigger;
        u32 dim[3], mul[3], div[3]; /* the grid, as in PlanLaunch */
        u32 threads;                /* of a block */
        u32 flags;                  /* of PlanKernel */
} Sel;

/* The kernel of that role, whose arguments the runtime gives. False: the target has none. */
bool select_util(Arena *a, PlanRole role, Target target, Sel *s);

/* tune: the target's table of codegen/tune.lua. early: whether the kernel may read ahead of its wait. False:
 * the node needs no kernel. */
bool select_node(Arena *a, const Graph *g, u32 node, Target target, const Tab *tune, bool early, Sel *s);

#endif

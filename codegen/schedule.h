/* The schedule check: that what every launch of a phase reads and overwrites is ordered after what it depends
 * on, although launches start early.
 *
 * The model. On CUDA a phase is a graph of launches, each on a programmatic edge from the one in front of it
 * (CUDA C++ Programming Guide, "Programmatic Dependent Launch and Synchronization"; PTX ISA,
 * "griddepcontrol"):
 *
 *   - launch i may start once every block of launch i - 1 has triggered (griddepcontrol.launch_dependents)
 *     or ended;
 *   - its wait (griddepcontrol.wait) returns once launch i - 1 has ended and its writes can be seen. Every
 *     block of every launch waits before it ends, so then launches 0 .. i - 1 have all ended: what comes
 *     after the wait is ordered after everything in front of it;
 *   - nothing is written before the wait. So a launch overwrites only what all launches in front have done
 *     with, and what is read after the wait is whatever was written last;
 *   - what is read before the wait must not be touched by a launch that may still run. If launch i - 1
 *     triggers after its own wait, or not at all, launches 0 .. i - 2 have ended when launch i starts, and
 *     launch i - 1, which waited for them, has seen their writes; if it triggers first, only those that had
 *     ended when launch i - 1 itself started;
 *   - a trigger hands on nothing of what its own launch wrote;
 *   - what puts the step's inputs in place may be a launch of the same graph (the one that draws a token
 *     for the step from the last step's logits): it stands in front of all others, and is looked at like
 *     them. Weights and the step's sizes are in place before the graph starts and not looked at;
 *   - graphs follow one another on one stream: the first launch of one starts after the last of the one
 *     before it has ended.
 *
 * Checked beside that: every value is read while its bytes still hold it, and no result lies on an operand of
 * its own launch but where the operation may work in place. */
#ifndef MOEC_SCHEDULE_H
#define MOEC_SCHEDULE_H
#include "ir/util.h"
#include "runtime/plan.h"

/* The step's arena; its inputs, one a byte; and, + s, state s, which is one byte. */
enum TouchSpace { TOUCH_ARENA, TOUCH_INPUT, TOUCH_STATE };

/* What a launch reads or writes. */
typedef struct Touch {
        u32 space; /* enum TouchSpace */
        u32 value; /* which value of the graph is there; NO_VALUE: what the step found there */
        u64 at, bytes;
        bool write;
        bool early;    /* before the wait */
        bool in_place; /* read: what the launch itself writes may lie there. A state's readers that also
                          append read early only what other steps wrote */
} Touch;
#define NO_VALUE UINT32_MAX

typedef struct Launch {
        const char *label;
        PlanTrigger trigger;
        const Touch *touch;
        u32 n_touch;
} Launch;

/* How many launches, from the first on, have ended when launch i starts. */
u32 schedule_ended(const Launch *l, u32 i);

/* Whether launch i touches something before its wait that a launch in front of it, which may still run,
 * touches too, one of them writing: which touch of i, and in *by that launch; NULL: none. */
const Touch *schedule_early(const Launch *l, u32 i, u32 *by);

/* The first fault in a phase's n launches, in words; NULL: there is none. */
const char *schedule_fault(Arena *a, const char *phase, const Launch *l, u32 n);

#endif

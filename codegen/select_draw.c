/* The kernel that draws tokens: no node's, beside the phases' own. Facts: V, the vocabulary; GROUP, of which
 * the kernel keeps the largest logit; ENDS, DRAWS: how long PlanDraw's arrays are. */
#include "codegen/select_part.h"

#define THREADS   512
#define MAX_VOCAB (1 << 22) /* runtime/sample.h's */
#define GROUPS    4096      /* that the kernel has room for */

bool select_draw(Arena *a, i64 n_vocab, Target target, Sel *s)
{
        static const struct {
                const char *name;
                u32 kind, index;
        } arg[] = {{"draw", PLAN_DRAW, 0}, {"ids", PLAN_INPUT, PLAN_ids}, {"pos", PLAN_INPUT, PLAN_pos}};
        i64 group = 64;
        if (target != TARGET_cuda || n_vocab > MAX_VOCAB)
                return false;
        while (sel_tiles(n_vocab, group) > GROUPS)
                group *= 2;
        *s = (Sel){.key = key_new(a, "draw"), .threads = THREADS, .mul = {1, 1, 1}, .div = {1, 1, 1}};
        s->mul[0] = (u32)sel_tiles(n_vocab, group * (THREADS / 32));
        for (u32 i = 0; i < COUNT(arg); i++) {
                key_fmt(s->key, arena_fmt(a, "%u", i), "ARG_%s", arg[i].name);
                s->arg[s->n_arg++] = (struct SelArg){arg[i].kind, REF(R_INPUT, arg[i].index)};
        }
        key_int(s->key, "THREADS", THREADS);
        key_int(s->key, "NARG", s->n_arg);
        key_int(s->key, "V", n_vocab);
        key_int(s->key, "GROUP", group);
        key_int(s->key, "ENDS", PLAN_ENDS);
        key_int(s->key, "DRAWS", PLAN_DRAWS);
        key_done(s->key);
        return true;
}

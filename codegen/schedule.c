#include "codegen/schedule.h"

static bool meet(const Touch *t, const Touch *u)
{
        return t->space == u->space && t->at < u->at + u->bytes && u->at < t->at + t->bytes;
}

/* One of the two writes where the other one is. */
static bool clash(const Touch *t, const Touch *u)
{
        return t != u && (t->write || u->write) && meet(t, u);
}

static bool clashes(const Launch *l, const Touch *t)
{
        for (u32 i = 0; i < l->n_touch; i++)
                if (clash(t, &l->touch[i]))
                        return true;
        return false;
}

u32 schedule_ended(const Launch *l, u32 i)
{
        while (i && l[i - 1].trigger == PLAN_TRIGGER_first)
                i--;
        return i ? i - 1 : 0;
}

const Touch *schedule_early(const Launch *l, u32 i, u32 *by)
{
        u32 ended = schedule_ended(l, i);
        for (u32 k = 0; k < l[i].n_touch; k++)
                for (u32 j = ended; l[i].touch[k].early && j < i; j++)
                        if (clashes(&l[j], &l[i].touch[k])) {
                                *by = j;
                                return &l[i].touch[k];
                        }
        return NULL;
}

/* ---- words ---- */

typedef struct Place {
        Arena *arena;
        const char *phase;
        const Launch *launch;
} Place;

static const char *what(const Place *p, const Touch *t)
{
        if (t->space == TOUCH_INPUT)
                return arena_fmt(p->arena, "input %llu", (unsigned long long)t->at);
        if (t->space >= TOUCH_STATE)
                return arena_fmt(p->arena, "state %u", t->space - TOUCH_STATE);
        return arena_fmt(p->arena, "value %u (bytes %llu to %llu of the arena)", t->value,
                (unsigned long long)t->at, (unsigned long long)(t->at + t->bytes));
}

/* "phase decode: launch 7 (blk.1.attend) reads state 1", to be gone on with. */
static const char *does(const Place *p, u32 i, const Touch *t)
{
        return arena_fmt(p->arena, "phase %s: launch %u (%s) %s %s", p->phase, i, p->launch[i].label,
                t->write ? "writes" : "reads", what(p, t));
}

/* ---- the check ---- */

static const Touch *last_write(const Launch *l, u32 i, const Touch *t, u32 *by)
{
        for (*by = i; (*by)--;)
                for (u32 k = 0; k < l[*by].n_touch; k++)
                        if (l[*by].touch[k].write && meet(t, &l[*by].touch[k]))
                                return &l[*by].touch[k];
        return NULL;
}

/* Whoever wrote last where t reads must have written what t wants there, all of it. */
static const char *stale(const Place *p, u32 i, const Touch *t)
{
        u32 by;
        const Touch *u = last_write(p->launch, i, t, &by);
        if (!u && t->value == NO_VALUE)
                return NULL;
        if (!u)
                return arena_fmt(p->arena, "%s, which no launch in front of it writes", does(p, i, t));
        if (u->value == t->value && u->at <= t->at && t->at + t->bytes <= u->at + u->bytes)
                return NULL;
        return arena_fmt(p->arena, "%s, but launch %u (%s) has written %s there", does(p, i, t), by,
                p->launch[by].label, what(p, u));
}

/* A result on an operand, or on another result, that the operation does not replace piece by piece. */
static const char *overlap(const Place *p, u32 i, const Touch *t)
{
        const Launch *l = &p->launch[i];
        for (const Touch *u = l->touch; u < l->touch + l->n_touch; u++)
                if (clash(t, u) && !((t->in_place || u->in_place) && t->at == u->at))
                        return arena_fmt(p->arena, "%s, where it also %s %s", does(p, i, t),
                                u->write ? "writes" : "reads", what(p, u));
        return NULL;
}

static const char *launch_fault(const Place *p, u32 i)
{
        const Launch *l = &p->launch[i];
        const char *fault = NULL;
        u32 by;
        for (u32 k = 0; !fault && k < l->n_touch; k++)
                fault = overlap(p, i, &l->touch[k]);
        for (u32 k = 0; !fault && k < l->n_touch; k++)
                if (!l->touch[k].write)
                        fault = stale(p, i, &l->touch[k]);
        if (fault)
                return fault;
        const Touch *t = schedule_early(p->launch, i, &by);
        if (!t)
                return NULL;
        return arena_fmt(p->arena,
                "%s before its wait, when launch %u (%s) may still use that: only the first %u have surely "
                "ended",
                does(p, i, t), by, p->launch[by].label, schedule_ended(p->launch, i));
}

const char *schedule_fault(Arena *a, const char *phase, const Launch *l, u32 n)
{
        const Place p = {a, phase, l};
        const char *fault = NULL;
        for (u32 i = 0; !fault && i < n; i++)
                fault = launch_fault(&p, i);
        return fault;
}

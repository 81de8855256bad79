/* libFuzzer: bytes are a plan, as they are and with a right checksum (which no mutation would find); what is
 * accepted is used the way the runtime does. */
#include "runtime/plan.h"
#include "runtime/token.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static u64 sink;

static void touch(const void *p, u64 n)
{
        for (u64 i = 0; i < n; i++)
                sink += ((const u8 *)p)[i];
}

static void touch_str(const Plan *p, u32 off)
{
        sink += strlen(plan_str(p, off));
}

static void use_kernels(const Plan *p)
{
        const PlanImage *im;
        u64 n = plan_images(p, &im);
        for (u64 i = 0; i < n; i++) {
                touch_str(p, im[i].arch);
                touch(p->CODE + im[i].offset, im[i].bytes);
        }
        for (u64 i = 0; i < plan_count(p, PLAN_KERNEL); i++) {
                const PlanKernel *k = &p->KERNEL[i];
                touch_str(p, k->name);
                touch_str(p, k->key);
                touch(&im[k->image], sizeof *im);
                touch(p->SOURCE + k->source, k->source_bytes);
        }
}

static void use_arg(const Plan *p, const PlanArg *a)
{
        if (a->kind == PLAN_W)
                touch(&p->WEIGHT[a->index], sizeof *p->WEIGHT);
        else if (a->kind == PLAN_K || a->kind == PLAN_V)
                touch(&p->STATE[a->index], sizeof *p->STATE);
        else if (a->kind == PLAN_BUF && a->value >= p->META->arena_bytes)
                abort();
}

static void use_phases(const Plan *p)
{
        for (u64 i = 0; i < plan_count(p, PLAN_PHASE); i++) {
                const PlanPhase *f = &p->PHASE[i];
                touch_str(p, f->name);
                if (f->logits + 4ull * f->max_out * p->META->n_vocab > p->META->arena_bytes)
                        abort();
                for (u32 l = f->launch; l < f->launch + f->n_launch; l++) {
                        const PlanLaunch *launch = &p->LAUNCH[l];
                        touch_str(p, launch->label);
                        touch(&p->KERNEL[launch->kernel], sizeof *p->KERNEL);
                        sink += plan_blocks(launch, (u32[N_PLAN_DIM]){1, f->max_tok, f->max_out, 1, 1});
                        for (u32 a = 0; a < launch->n_arg; a++)
                                use_arg(p, &p->ARG[launch->arg + a]);
                }
        }
}

static void use_weights(const Plan *p)
{
        for (u64 i = 0; i < plan_count(p, PLAN_WEIGHT); i++) {
                const PlanWeight *w = &p->WEIGHT[i];
                touch_str(p, w->name);
                if (w->embedded != UINT64_MAX)
                        touch(p->WDATA + w->embedded, w->dst_bytes);
                else if (w->src + w->src_bytes > p->PART[w->part].bytes)
                        abort();
        }
        for (u64 i = 0; i < plan_count(p, PLAN_PART); i++)
                touch_str(p, p->PART[i].path);
        for (u64 i = 0; i < plan_count(p, PLAN_UTIL); i++)
                touch(&p->KERNEL[p->UTIL[i].kernel], sizeof *p->KERNEL);
        for (u64 i = 0; i < plan_count(p, PLAN_STATE); i++)
                touch_str(p, p->STATE[i].name);
}

static void use(const Plan *p)
{
        touch_str(p, p->META->arch);
        touch_str(p, p->META->isa);
        use_kernels(p);
        use_phases(p);
        use_weights(p);
        Token *t;
        if (token_open(p->TOKEN, plan_count(p, PLAN_TOKEN), &t, NULL) == MOEC_OK)
                token_close(t);
}

static void try(const void *p, size_t size)
{
        Plan *plan = NULL;
        moec_error e = {0};
        moec_status st = plan_view(p, size, &plan, &e);
        if (st == MOEC_OK) {
                use(plan);
                plan_close(plan);
        } else if ((st != MOEC_DAMAGED && st != MOEC_UNSUPPORTED) || e.status != st || !e.msg[0] || plan) {
                fprintf(stderr, "status %d: %s\n", st, e.msg);
                abort();
        }
}

/* As plan.h defines it, wherever the head leaves it defined. */
static bool fix_checksum(u8 *p, size_t size)
{
        PlanHead h;
        if (size < sizeof h)
                return false;
        memcpy(&h, p, sizeof h);
        const PlanSpan *last = &h.section[PLAN_SOURCE];
        if (last->offset < sizeof h || last->offset > size || last->count > size - last->offset)
                return false;
        Hash sum = hash_bytes(p + sizeof h, last->offset + last->count - sizeof h);
        h.checksum = hash_mix(sum, h.section, sizeof(PlanSpan) * PLAN_WDATA);
        memcpy(p, &h, sizeof h);
        return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        void *p;
        if (posix_memalign(&p, PLAN_ALIGN, size ? size : 1) != 0)
                return 0;
        if (size)
                memcpy(p, data, size);
        try(p, size);
        if (fix_checksum(p, size))
                try(p, size);
        free(p);
        return 0;
}

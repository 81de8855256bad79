/* Weights onto a CUDA device, piece by piece: from the mapped file to a pinned buffer by all threads, over
 * the bus to a buffer on the device, and from there to their place by the plan's kernel `repack`. What the
 * device needs as the file has it goes to its place at once; random weights are made on the device. */
#include "runtime/cuda.h"
#include "runtime/piece.h"

#define WEIGHT_START 256         /* alignment of a weight on the device */
#define CHUNK        (16u << 20) /* bytes of a piece at most */

/* Pieces take slots in turns, each a stream of its own: so one piece is read while another is on the bus and
 * a third is repacked. */
#define N_SLOT 3
typedef struct Slot {
        CuStream *stream;
        u8 *host; /* pinned: a Piece, then its rows; device: the same there */
        CuPtr device;
} Slot;

typedef struct Loader {
        CudaRt *c;
        Slot slot[N_SLOT];
        u32 turn;
        u64 done, told; /* bytes */
} Loader;

/* A weight on its way. */
typedef struct Load {
        u64 i;
        Piece piece;
        u64 n, from_row, to_row; /* rows, and bytes of one before and after */
        bool random, repack;
        CuPtr to;
} Load;

u64 cuda_weight_room(const PlanWeight *w)
{
        return (w->dst_bytes + WEIGHT_START - 1) & ~(u64)(WEIGHT_START - 1);
}

u64 cuda_load_room(void)
{
        return N_SLOT * (u64)(PIECE_ROOM + CHUNK);
}

static moec_status load_new(const CudaRt *c, u64 i, CuPtr to, Load *l, moec_error *e)
{
        const PlanWeight *w = &c->rt.plan->WEIGHT[i];
        const char *name = plan_str(c->rt.plan, w->name);
        bool embedded = w->embedded != UINT64_MAX;
        *l = (Load){.i = i, .n = 1, .to = to, .random = weights_random(&c->rt.weights, i)};
        for (u32 d = 0; d + 1 < w->rank; d++)
                l->n *= w->dim[d];
        l->repack = w->layout == PLAN_split && !embedded;
        l->to_row = w->dst_bytes / l->n;
        l->from_row = embedded ? l->to_row : w->src_bytes / l->n;
        if (w->layout != PLAN_rows && w->layout != PLAN_split)
                return fail(e, MOEC_DAMAGED,
                        "weight %s is laid out for another target; compile the plan again", name);
        if (l->from_row > CHUNK)
                return fail(e, MOEC_UNSUPPORTED, "weight %s has rows of more than %u bytes", name, CHUNK);
        if ((l->repack && plan_util(c->rt.plan, PLAN_repack) == UINT32_MAX) ||
                (l->random && plan_util(c->rt.plan, PLAN_random) == UINT32_MAX))
                return fail(e, MOEC_DAMAGED, "the plan has no kernel to %s weight %s with; compile it again",
                        l->random ? "fill" : "repack", name);
        l->piece = piece_new((Wtype)w->type, 0, w->dim[w->rank - 1]);
        l->piece.seed = random_seed(name);
        return MOEC_OK;
}

/* Rows first .. first + n - 1, all matrices' rows counted together. */
static int send_piece(Loader *o, const Load *l, u64 first, u64 n)
{
        CudaRt *c = o->c;
        const Driver *d = c->d;
        Slot *s = &o->slot[o->turn++ % N_SLOT];
        u64 bytes = n * l->from_row;
        CuPtr to = l->to + first * l->to_row, rows = l->repack ? s->device + PIECE_ROOM : to;
        Piece *p = (Piece *)(void *)s->host;
        int rc = d->cuStreamSynchronize(s->stream);
        if (rc != CU_OK)
                return rc;
        *p = l->piece;
        p->rows = (u32)n;
        p->at = first * l->from_row;
        if (!l->random)
                weights_read(&c->rt.weights, l->i, p->at, bytes, s->host + PIECE_ROOM, c->rt.pool);
        if (l->random || l->repack)
                rc = d->cuMemcpyHtoDAsync(s->device, p, sizeof *p, s->stream);
        if (rc == CU_OK && !l->random)
                rc = d->cuMemcpyHtoDAsync(rows, s->host + PIECE_ROOM, bytes, s->stream);
        if (rc == CU_OK && l->random)
                rc = cuda_util(c, PLAN_random, s->stream, bytes, (u64[]){s->device, rows}, 2);
        if (rc == CU_OK && l->repack)
                rc = cuda_util(c, PLAN_repack, s->stream, n * l->to_row / 4, (u64[]){s->device, to}, 2);
        return rc;
}

static moec_status tell(Loader *o, moec_error *e)
{
        const Rt *rt = &o->c->rt;
        if (!rt->progress || (o->done - o->told < CHUNK && o->done < rt->mem.weights))
                return MOEC_OK;
        o->told = o->done;
        if (rt->progress(rt->user, "loading", o->done, rt->mem.weights))
                return MOEC_OK;
        return fail(e, MOEC_INTERRUPTED, "stopped while loading weights");
}

static moec_status send_weight(Loader *o, u64 i, CuPtr to, moec_error *e)
{
        Load l;
        moec_status st = load_new(o->c, i, to, &l, e);
        for (u64 at = 0, n; st == MOEC_OK && at < l.n; at += n) {
                n = MIN(CHUNK / l.from_row, l.n - at);
                o->done += n * l.to_row;
                st = driver_check(o->c->d, send_piece(o, &l, at, n), "sending weights", e);
                if (st == MOEC_OK)
                        st = tell(o, e);
        }
        weights_forget(&o->c->rt.weights, i);
        return st;
}

static moec_status slots_new(Loader *o, moec_error *e)
{
        const Driver *d = o->c->d;
        int rc = CU_OK;
        for (Slot *s = o->slot; rc == CU_OK && s < o->slot + N_SLOT; s++) {
                void *p = NULL;
                rc = d->cuMemHostAlloc(&p, PIECE_ROOM + CHUNK, 0);
                s->host = p;
                if (rc == CU_OK)
                        rc = d->cuMemAlloc(&s->device, PIECE_ROOM + CHUNK);
                if (rc == CU_OK)
                        rc = d->cuStreamCreate(&s->stream, CU_STREAM_OF_ITS_OWN);
        }
        return driver_check(d, rc, "buffers to load weights through", e);
}

/* What of its pieces still was on its way has come; the driver's status. */
static int slot_free(const Driver *d, Slot *s)
{
        int rc = CU_OK;
        if (s->stream) {
                rc = d->cuStreamSynchronize(s->stream);
                d->cuStreamDestroy(s->stream);
        }
        if (s->device)
                d->cuMemFree(s->device);
        if (s->host)
                d->cuMemFreeHost(s->host);
        return rc;
}

moec_status cuda_load_weights(CudaRt *c, moec_error *e)
{
        Loader o = {.c = c};
        const Plan *p = c->rt.plan;
        CuPtr to = c->weights;
        moec_status st = slots_new(&o, e);
        for (u64 i = 0; st == MOEC_OK && i < plan_count(p, PLAN_WEIGHT); i++) {
                st = send_weight(&o, i, to, e);
                to += cuda_weight_room(&p->WEIGHT[i]);
        }
        for (u32 i = 0; i < N_SLOT; i++) {
                int rc = slot_free(c->d, &o.slot[i]);
                if (st == MOEC_OK)
                        st = driver_check(c->d, rc, "sending weights", e);
        }
        return st;
}

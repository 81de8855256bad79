/* Kernels that no node asks for: a plan carries them for the runtime (PLAN_ROLES). */
#include "codegen/select_part.h"
#include "runtime/piece.h"

static void kernel(Sel *s, u32 threads, u32 n_arg)
{
        s->threads = threads;
        s->n_arg = n_arg;
        key_int(s->key, "THREADS", threads);
        key_int(s->key, "NARG", n_arg);
}

/* runtime/piece.h's tables, as C. */
static void facts_piece(Key *k)
{
#define F(type, name, array) G(type, name, array)
#define G(type, name, array) #type " " #name #array "; "
        key_word(k, "PIECE", PIECE_FIELDS(F));
#undef F
#undef G
#define X(kind) #kind ", "
        key_word(k, "KINDS", RANDOM_KINDS(X));
#undef X
        key_int(k, "ROOM", PIECE_ROOM);
}

static void cuda_repack(Sel *s)
{
        kernel(s, 256, 2);
        facts_piece(s->key);
}
static void cuda_random(Sel *s)
{
        kernel(s, 256, 2);
        facts_piece(s->key);
}
static void cuda_read(Sel *s)
{
        kernel(s, 512, 4);
        key_int(s->key, "BLOCKS", 2);
}
static void cuda_draw(Sel *s)
{
        kernel(s, 512, 3);
#define F(type, name, array) G(type, name, array)
#define G(type, name, array) #type " " #name #array "; "
        key_word(s->key, "DRAW", DRAW_FIELDS(F));
#undef F
#undef G
#define X(name) #name ", "
        key_word(s->key, "STATES", DRAW_STATES(X));
#undef X
        key_int(s->key, "GROUPS", PLAN_GROUPS);
}

bool select_util(Arena *a, PlanRole role, Target target, Sel *s)
{
        static const struct {
                const char *name;
                void (*select)(Sel *);
        } all[N_PLAN_ROLE] = {
#define X(role) {#role, cuda_##role},
                PLAN_ROLES(X)
#undef X
        };
        if (target != TARGET_cuda)
                return false;
        *s = (Sel){.key = key_new(a, all[role].name), .mul = {1, 1, 1}, .div = {1, 1, 1}};
        all[role].select(s);
        key_done(s->key);
        return true;
}

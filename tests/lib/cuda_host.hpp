// The primitives of templates/cuda/device.m4 for a CPU: a kernel's threads are fibres that take turns at
// barriers and shuffles. Stands in place of device.m4 when a template is expanded for tests; KERNEL is the
// kernel's name. C++, no headers.
//
// KERNEL_run runs a whole grid, block after block. Shared memory is filled with NaN before each block. The
// step's memory is shut (by the caller's `gate`) until every thread of a block has come to pdl_wait. Errors
// are returned: threads that wait for what never comes, a shuffle without the whole warp, a kernel that ends
// without pdl_wait, a pdl_trigger at another place than the selection has it, loads that are not aligned.
#define __global__
#define __device__ static
#define __shared__ static __attribute__((section(SHARED_SECTION)))
#define __launch_bounds__(...)
#define __grid_constant__
#define REGISTERS(...)
#define INLINE    static inline __attribute__((always_inline, unused))
#define INLINE_IN inline __attribute__((always_inline))
typedef decltype(sizeof 0) Size;

namespace host
{
enum State { READY, AT_BARRIER, AT_PART, AT_WARP, AT_WAIT, AT_CLUSTER, DONE };
enum { STACK = 128 * 1024, MOST = 8192 };
struct Fibre {
        void *sp;
        State state;
        bool waited;
        unsigned turn;     // of the two places for what is shuffled
        bool arrived;      // at the cluster's barrier
        int part, threads; // of the barrier for a part
};
static Fibre fibre[MOST];
static int now;               // of all threads of a cluster
static u8 *far_room[CLUSTER]; // the shared memory of each of its blocks while another one runs
static void *home;
static const char *error;
static bool triggered; // any thread of the launch
static u32 block[3];
static u64 slot[2][MOST];
static u8 *stacks;

extern "C" void KERNEL_SWITCH(void **from, void *to) __attribute__((visibility("hidden")));
static void yield(State s)
{
        fibre[now].state = s;
        KERNEL_SWITCH(&fibre[now].sp, home);
}
static void check(bool ok, const char *what)
{
        if (!ok && !error)
                error = what;
}
template <class T> static T swap(T v, int lane)
{
        Fibre *f = &fibre[now];
        unsigned turn = f->turn++ & 1;
        union {
                u64 u;
                T v;
        } u = {0};
        u.v = v;
        slot[turn][now] = u.u;
        yield(AT_WARP);
        u.u = slot[turn][now / 32 * 32 + lane];
        return u.v;
}
template <class T> static T aligned(const void *p)
{
        check((u64)p % sizeof(T) == 0, "a load is not aligned");
        T v;
        __builtin_memcpy(&v, p, sizeof v);
        return v;
}
} // namespace host

#define TID (host::now % THREADS)
#define BX  (host::block[0])
#define BY  (host::block[1])
#define BZ  (host::block[2])
INLINE U4 load16(const void *p)
{
        return host::aligned<U4>(p);
}
INLINE U4 kept16(const void *p)
{
        return host::aligned<U4>(p);
}
INLINE u32 kept4(const void *p)
{
        return host::aligned<u32>(p);
}
INLINE u32 kept2(const void *p)
{
        return host::aligned<u16>(p);
}
INLINE u32 kept1(const void *p)
{
        return *(const u8 *)p;
}
INLINE void ahead(const void *p)
{
        (void)*(const volatile u8 *)p;
}
INLINE float load_far(const float *p)
{
        return *p;
}
INLINE F4 load_far4(const F4 *p)
{
        return host::aligned<F4>(p);
}
template <class T> INLINE T shfl_xor(T v, int m)
{
        return host::swap(v, host::now % 32 ^ m);
}
template <class T> INLINE T shfl(T v, int lane)
{
        return host::swap(v, lane & 31);
}
INLINE u32 match_any(i32 v)
{
        u32 same = 0;
        for (int lane = 0; lane < 32; lane++)
                same |= (u32)(host::swap(v, lane) == v) << lane;
        return same;
}
INLINE u32 ballot(bool b)
{
        u32 all = 0;
        for (int i = 0; i < 32; i++)
                all |= (u32)shfl((u32)b, i) << i;
        return all;
}
INLINE int bits_of(u32 b)
{
        return __builtin_popcount(b);
}
INLINE int lowest_of(u32 b)
{
        return __builtin_ffs((int)b) - 1;
}
INLINE void barrier()
{
        host::yield(host::AT_BARRIER);
}
INLINE void warp_barrier()
{
        host::yield(host::AT_WARP);
}
INLINE void part_barrier(int id, int threads)
{
        host::fibre[host::now].part = id, host::fibre[host::now].threads = threads;
        host::yield(host::AT_PART);
}
INLINE i32 dp4a(u32 a, u32 b, i32 c)
{
        for (int i = 0; i < 32; i += 8)
                c += (i32)(i8)(a >> i) * (i32)(i8)(b >> i);
        return c;
}
INLINE u32 prmt(u32 a, u32 b, u32 selector)
{
        u64 all = a | (u64)b << 32;
        u32 d = 0;
        for (int i = 0; i < 4; i++)
                d |= (u32)(all >> (selector >> (4 * i) & 7) * 8 & 255) << (8 * i);
        return d;
}
INLINE float bits_f32(u32 b)
{
        return __builtin_bit_cast(float, b);
}
INLINE u32 f32_bits(float f)
{
        return __builtin_bit_cast(u32, f);
}
INLINE float f16_f32(u32 h)
{
        u32 m = (h & 0x7fff) << 13, sign = (h & 0x8000) << 16;
        if ((h & 0x7c00) == 0x7c00)
                return bits_f32(sign | m | 0x7f800000);
        return bits_f32(sign | __builtin_bit_cast(u32, bits_f32(m) * 0x1p112f));
}
INLINE u32 f32_f16(float f)
{
        u32 b = __builtin_bit_cast(u32, f), sign = b >> 16 & 0x8000, m = b & 0x7fffffff;
        if (m > 0x7f800000)
                return sign | 0x7e00;
        if (m >= 0x477ff000)
                return sign | 0x7c00;
        if (m < 0x38800000)
                return sign | (__builtin_bit_cast(u32, bits_f32(m) + 0.5f) - 0x3f000000);
        return sign | (m - 0x38000000 + 0xfff + (m >> 13 & 1)) >> 13;
}
INLINE u32 pack_f16(float low, float high)
{
        return f32_f16(low) | f32_f16(high) << 16;
}
INLINE float mul1(float a, float b)
{
        return a * b;
}
INLINE float fma1(float a, float b, float c)
{
        return __builtin_fmaf(a, b, c);
}
INLINE i32 nearest(float f)
{
        return (i32)__builtin_rintf(f);
}
INLINE double nearest(double f)
{
        return __builtin_rint(f);
}
INLINE float max_f32(float a, float b)
{
        return __builtin_fmaxf(a, b);
}
INLINE float exp2_f32(float f)
{
        return __builtin_exp2f(f);
}
INLINE float inverse_f32(float f)
{
        return 1.0f / f;
}
INLINE float rsqrt_f32(float f)
{
        return 1.0f / __builtin_sqrtf(f);
}
INLINE float sqrt_f32(float f)
{
        return __builtin_sqrtf(f);
}
INLINE double sqrt_f64(double f)
{
        return __builtin_sqrt(f);
}
INLINE void pdl_wait()
{
        host::fibre[host::now].waited = true;
        host::yield(host::AT_WAIT);
}
// Where the selection has it, for schedules are checked by that.
INLINE void pdl_trigger()
{
        bool waited = host::fibre[host::now].waited;
        host::check(TRIGGER != TRIGGER_none, "lets the next launch start, which the selection does not say");
        host::check(TRIGGER != TRIGGER_waited || waited, "lets the next launch start before its own wait");
        host::check(TRIGGER != TRIGGER_first || !waited, "lets the next launch start after its own wait");
        host::triggered = true;
}
INLINE void publish() {}
INLINE u32 atomic_inc(u32 *p)
{
        return (*p)++;
}
INLINE void atomic_add(u64 *p, u64 v)
{
        *p += v;
}

// ---- shared memory of any size, copies that land later, clusters, tensor cores ----

enum { ARCH = 900, WHOLE_ROOM = 227 << 10, SHARED_ROOM = 112 << 10 };
#define SHARED(T)                                                                                            \
        alignas(128) static __attribute__((section(SHARED_SECTION))) u8 room_[sizeof(T)];                    \
        INLINE T &shared_memory()                                                                            \
        {                                                                                                    \
                return *(T *)room_;                                                                          \
        }
#define sh shared_memory()

// A thread's copies, in batches; each lands when a wait wants it.
struct Copies {
        unsigned begun, landed, n; // batches; copies of those not landed
        struct {
                void *to;
                const void *from;
                unsigned batch, bytes;
        } copy[64];
};
static Copies copies[host::MOST];
INLINE void copy_any(void *to, const void *from, unsigned bytes)
{
        Copies *c = &copies[host::now];
        host::check((u64)to % bytes == 0 && (u64)from % bytes == 0, "a copy is not aligned");
        host::check(c->n < 64, "too many copies at a time");
        (void)(((const volatile u8 *)from)[0] + ((const volatile u8 *)from)[bytes - 1]);
        for (unsigned i = 0; i < bytes; i++)
                ((u8 *)to)[i] = 0xff;
        c->copy[c->n++] = {to, from, c->begun, bytes};
}
INLINE void copy16(void *to, const void *from)
{
        copy_any(to, from, 16);
}
INLINE void copy4(void *to, const void *from)
{
        copy_any(to, from, 4);
}
INLINE void copies_end()
{
        copies[host::now].begun++;
}
template <int LEFT> INLINE void copies_wait_but()
{
        Copies *c = &copies[host::now];
        unsigned left = 0;
        for (unsigned i = 0; i < c->n; i++)
                if (c->copy[i].batch + LEFT < c->begun)
                        __builtin_memcpy(c->copy[i].to, c->copy[i].from, c->copy[i].bytes);
                else
                        c->copy[left++] = c->copy[i];
        c->n = left;
}
INLINE void copies_wait()
{
        copies_end();
        copies_wait_but<0>();
}

// The copies of one turn; they land when somebody waits for it.
struct Landing {
        unsigned turn, wanted, asked, n, warps, begun;
        struct {
                void *to;
                const void *from;
                u32 bytes;
        } copy[64];
};
INLINE void landing_init(Landing *l, int warps = 1)
{
        l->turn = l->wanted = l->asked = l->n = l->begun = 0;
        l->warps = (unsigned)warps;
}
INLINE void fetch_begin(Landing *l, u32 bytes)
{
        if (host::now % 32 == 0)
                l->wanted += bytes, l->begun++;
        host::yield(host::AT_WARP);
}
INLINE void fetch(void *to, const void *from, u32 bytes, Landing *l, int by)
{
        if (host::now % 32 != by)
                return;
        host::check((u64)to % 16 == 0 && (u64)from % 16 == 0 && bytes % 16 == 0, "a copy is not aligned");
        host::check(l->n < 64, "too many copies at a time");
        for (u32 i = 0; i < bytes; i++)
                ((u8 *)to)[i] = 0xff;
        l->copy[l->n].to = to, l->copy[l->n].from = from, l->copy[l->n++].bytes = bytes;
        l->asked += bytes;
}
INLINE void fetch_mine(bool wants, void *to, const void *from, u32 bytes, Landing *l)
{
        if (wants)
                fetch(to, from, bytes, l, host::now % 32);
}
INLINE void fetch_end(Landing *) {}
// Others of the block may still have to ask, or to pass; the threads that wait see it some turns later.
INLINE void landing_wait(Landing *l, u32 turn)
{
        host::yield(host::AT_WARP);
        for (int i = 0; l->turn % 2 == turn && !host::error; i++) {
                if (l->n && l->begun == l->warps && l->asked == l->wanted) {
                        for (u32 k = 0; k < l->n; k++)
                                __builtin_memcpy(l->copy[k].to, l->copy[k].from, l->copy[k].bytes);
                        l->n = l->asked = l->wanted = l->begun = 0;
                        l->turn++;
                } else {
                        host::check(i < 10000, "waits for what nobody asked for, or for other bytes");
                        host::yield(host::READY);
                }
        }
        host::yield(host::AT_WARP);
}
struct Count {
        u32 n;
};
INLINE void count_pass(Count *c)
{
        host::yield(host::AT_WARP);
        c->n += host::now % 32 == 0;
        host::yield(host::AT_WARP);
}
INLINE void count_wait(Count *c, u32 passes)
{
        host::yield(host::AT_WARP);
        for (int i = 0; c->n < passes && !host::error; i++) {
                host::check(i < 10000, "waits for what nobody passes");
                host::yield(host::READY);
        }
        host::yield(host::AT_WARP);
}

INLINE void cluster_arrive()
{
        host::check(!host::fibre[host::now].arrived, "arrives twice at a cluster's barrier");
        host::fibre[host::now].arrived = true;
}
INLINE void cluster_wait()
{
        host::check(host::fibre[host::now].arrived, "waits at a cluster's barrier before it arrives");
        host::yield(host::AT_CLUSTER);
}
template <class T> INLINE T *cluster_at(T *p, u32 rank);

/* Never inlined: kernels have hundreds, and compile for long otherwise. */
#define ONCE static __attribute__((noinline, unused))
static float mma_a[CLUSTER * THREADS / 32][16][16], mma_b[CLUSTER * THREADS / 32][8][16]; // rows; columns
ONCE void mma_f16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2])
{
        int lane = host::now % 32, row = lane / 4, col = lane % 4 * 2;
        auto x = mma_a[host::now / 32], y = mma_b[host::now / 32];
        for (int i = 0; i < 8; i++)
                x[row + i / 2 % 2 * 8][col + i % 2 + i / 4 * 8] = f16_f32(a[i / 2] >> (i % 2 * 16) & 0xffff);
        for (int i = 0; i < 4; i++)
                y[row][col + i % 2 + i / 2 * 8] = f16_f32(b[i / 2] >> (i % 2 * 16) & 0xffff);
        host::yield(host::AT_WARP);
        for (int i = 0; i < 4; i++)
                for (int k = 0; k < 16; k++)
                        d[i] += x[row + i / 2 * 8][k] * y[col + i % 2][k];
        host::yield(host::AT_WARP);
}

ONCE void mma_tf32(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2])
{
        int lane = host::now % 32, row = lane / 4, col = lane % 4;
        auto x = mma_a[host::now / 32], y = mma_b[host::now / 32];
        for (int i = 0; i < 4; i++)
                x[row + i % 2 * 8][col + i / 2 * 4] = bits_f32(a[i] & 0xffffe000);
        for (int i = 0; i < 2; i++)
                y[row][col + i * 4] = bits_f32(b[i] & 0xffffe000);
        host::yield(host::AT_WARP);
        for (int i = 0; i < 4; i++)
                for (int k = 0; k < 8; k++)
                        d[i] += x[row + i / 2 * 8][k] * y[2 * col + i % 2][k];
        host::yield(host::AT_WARP);
}

INLINE u32 fma_f16x2(u32 a, u32 b, u32 c)
{
        u32 d[2];
        for (int i = 0; i < 2; i++)
                d[i] = f32_f16(fma1(f16_f32(a >> 16 * i & 0xffff), f16_f32(b >> 16 * i & 0xffff),
                        f16_f32(c >> 16 * i & 0xffff)));
        return d[0] | d[1] << 16;
}
INLINE u32 sub_f16x2(u32 a, u32 b)
{
        return fma_f16x2(b, 0xbc00bc00, a);
}
INLINE u32 mul_f16x2(u32 a, u32 b)
{
        return fma_f16x2(a, b, 0x80008000);
}

template <class T> INLINE T here(T v)
{
        return v;
}
// Where every lane's row is; then block b's value, row r, column c.
static const u16 *matrix_row[CLUSTER * THREADS];
ONCE void ldmatrix_any(u32 (&d)[4], const void *row, bool turned)
{
        int warp = host::now / 32 * 32, lane = host::now % 32, r = lane / 4, c = lane % 4 * 2;
        host::check((u64)row % 16 == 0, "a row of a matrix is not aligned");
        matrix_row[host::now] = (const u16 *)row;
        host::yield(host::AT_WARP);
        for (int b = 0; b < 4; b++) {
                const u16 *const *at = matrix_row + warp + 8 * b;
                d[b] = turned ? at[c][r] | (u32)at[c + 1][r] << 16 : at[r][c] | (u32)at[r][c + 1] << 16;
        }
        host::yield(host::AT_WARP);
}
INLINE void ldmatrix(u32 (&d)[4], const void *row)
{
        ldmatrix_any(d, row, false);
}
INLINE void ldmatrix_turned(u32 (&d)[4], const void *row)
{
        ldmatrix_any(d, row, true);
}

#include "cuda_host_tile.hpp"

// ---- the scheduler ----

extern "C" void KERNEL(const Args a);
extern "C" u8 SHARED_FIRST[] __attribute__((weak, visibility("hidden"))),
        SHARED_END[] __attribute__((weak, visibility("hidden")));

#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)
__asm__(".text\n.p2align 4\n.hidden " TEXT(KERNEL_SWITCH) "\n.globl " TEXT(KERNEL_SWITCH) "\n" TEXT(
        KERNEL_SWITCH) ":\n"
                       "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
                       "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
                       "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");

namespace host
{
static Args args;
static void enter()
{
        KERNEL(args);
        check(fibre[now].waited, "a thread ended that had not waited for the launch before");
        yield(DONE);
}
static void start(int i)
{
        void **sp = (void **)(stacks + (u64)(i + 1) * STACK) - 2;
        *sp = (void *)enter; // returned to; the stack is then as after a call
        for (int r = 0; r < 6; r++)
                *--sp = 0;
        fibre[i] = {sp, READY, false, 0, false, 0, 0};
        copies[i] = {};
        tile_products[i] = {};
}
static bool all_at(int from, int n, State s, bool or_done)
{
        bool some = false;
        for (int i = from; i < from + n; i++) {
                if (fibre[i].state != s && !(or_done && fibre[i].state == DONE))
                        return false;
                some = some || fibre[i].state == s;
        }
        return some;
}
static void release(int from, int n)
{
        for (int i = from; i < from + n; i++)
                if (fibre[i].state != DONE)
                        fibre[i].state = READY;
}
// Lets those go on who are all at one barrier for a part of the block; whether any did.
static bool release_part(int first)
{
        int here[16] = {}, wanted[16] = {};
        bool any = false;
        for (int i = first; i < first + THREADS; i++)
                if (fibre[i].state == AT_PART)
                        here[fibre[i].part & 15]++, wanted[fibre[i].part & 15] = fibre[i].threads;
        for (int i = first; i < first + THREADS; i++)
                if (fibre[i].state == AT_PART && here[fibre[i].part & 15] == wanted[fibre[i].part & 15]) {
                        fibre[i].state = READY;
                        any = true;
                }
        return any;
}
// A block's shared memory in its place, where its threads run, or put by.
static void move_room(u8 *by, bool in)
{
        Size n = SHARED_END - SHARED_FIRST;
        if (CLUSTER > 1)
                __builtin_memcpy(in ? SHARED_FIRST : by, in ? by : SHARED_FIRST, n);
}
// Runs the threads of a block until all wait for something; whether any ran.
static bool run_ready(int first, bool backward)
{
        bool moved = false, any = true;
        while (any && !error) {
                any = false;
                for (int k = 0; k < THREADS; k++) {
                        int i = first + (backward ? THREADS - 1 - k : k);
                        if (fibre[i].state != READY)
                                continue;
                        any = moved = true;
                        now = i;
                        KERNEL_SWITCH(&home, fibre[i].sp);
                }
                for (int w = first; w < first + THREADS; w += 32)
                        if (all_at(w, 32, AT_WARP, false)) {
                                release(w, 32);
                                any = true;
                        }
                any |= release_part(first);
                if (all_at(first, THREADS, AT_BARRIER, true)) {
                        release(first, THREADS);
                        any = true;
                }
        }
        return moved;
}
static bool arrived(int n)
{
        for (int i = 0; i < n; i++)
                if (fibre[i].state != DONE && !fibre[i].arrived)
                        return false;
        return true;
}
static void run_cluster(const u32 (&at)[3], bool backward, void (*gate)(bool open))
{
        enum { ALL = CLUSTER * THREADS };
        for (u8 *p = SHARED_FIRST; p < SHARED_END; p++)
                *p = 0xff;
        for (int c = 0; c < CLUSTER; c++) {
                far_room[c] = stacks + (u64)MOST * STACK + (u64)c * (SHARED_END - SHARED_FIRST);
                move_room(far_room[c], false);
        }
        for (int i = 0; i < ALL; i++)
                start(i);
        gate(false);
        for (bool moved = true; moved && !error;) {
                moved = false;
                for (int c = 0; c < CLUSTER; c++) {
                        block[0] = at[0], block[1] = at[1], block[2] = at[2] + c;
                        move_room(far_room[c], true);
                        moved |= run_ready(c * THREADS, backward);
                        move_room(far_room[c], false);
                }
                if (all_at(0, ALL, AT_WAIT, true)) {
                        gate(true);
                        release(0, ALL);
                        moved = true;
                }
                for (int i = 0; i < ALL && all_at(0, ALL, AT_CLUSTER, true) && arrived(ALL);) {
                        for (i = 0; i < ALL; i++)
                                fibre[i].arrived = false;
                        release(0, ALL);
                        moved = true;
                }
        }
        gate(true);
        for (int i = 0; i < ALL; i++)
                check(fibre[i].state == DONE, fibre[i].state == AT_WARP
                                                      ? "a shuffle lacks threads of its warp"
                                                      : "a barrier lacks threads of its block");
}
} // namespace host

// NULL, or what went wrong. stacks: THREADS * 128 KB; backward: blocks in the opposite order, and threads in every other block: what
// blocks find out each for itself must not depend on that.
extern "C" __attribute__((visibility("default"))) const char *KERNEL_RUN(void *const *arg, const void *dim,
        const u32 *grid, bool backward, void *stacks, void (*gate)(bool open))
{
        for (Size i = 0; i < sizeof host::args.arg / sizeof *arg; i++)
                host::args.arg[i] = arg[i];
        host::args.dim = (const KernelDim *)dim;
        host::stacks = (u8 *)stacks;
        host::error = 0;
        host::triggered = TRIGGER == TRIGGER_none;
        u64 n = (u64)grid[0] * grid[1] * grid[2] / CLUSTER;
        for (u64 b = 0; b < n && !host::error; b++) {
                u64 i = backward ? n - 1 - b : b;
                const u32 at[] = {(u32)(i % grid[0]), (u32)(i / grid[0] % grid[1]),
                        (u32)(i / grid[0] / grid[1]) * CLUSTER};
                host::run_cluster(at, backward && b % 2 == 0, gate);
        }
        host::check(host::triggered, "never lets the next launch start, which the selection says");
        return host::error;
}
// Of another block: where its shared memory was put by.
template <class T> INLINE T *cluster_at(T *p, u32 rank)
{
        if (rank == (u32)(host::now / THREADS))
                return p;
        return (T *)(host::far_room[rank] + ((u8 *)p - SHARED_FIRST));
}

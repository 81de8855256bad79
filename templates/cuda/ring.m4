// What products of many tokens read on its way through shared memory, by copies that each thread asks for steps ahead, so that nobody
// waits for L2: tokens' values, in slots that only the thread itself reads; rows of weights, each copied and read by four lanes of a
// warp. What a row has beside its codes of 16 bytes comes whole, where there is room, when the row is begun; else straight to registers.
#undef W16
#undef K16
#undef W4
#undef W2
#undef W1
#define W16(p) (*(const U4 *)(p))
#define K16(p) W16(p)
#define W4(p) small4(p)
#define W2(p) small2(p)
#define W1(p) small1(p)
// Rows in memory, for small loads; a plain pointer is one to shared memory.
struct Far {
        const u8 *p;
        INLINE_IN Far operator+(u32 n) const { return {p + n}; }
};
INLINE u32 small4(const u8 *p) { return *(const u32 *)p; }
INLINE u32 small2(const u8 *p) { return *(const u16 *)p; }
INLINE u32 small1(const u8 *p) { return *p; }
INLINE u32 small4(Far f) { return kept4(f.p); }
INLINE u32 small2(Far f) { return kept2(f.p); }
INLINE u32 small1(Far f) { return kept1(f.p); }

// How the block's rows of type W lie there: so far apart that no bank is met twice.
template <class W, int K> struct Staged {
        typedef typename W::template At<CK> Piece;
        typedef typename W::template At<K> Whole;
        enum { FIRST = Piece::HIGH - Piece::WIDE, SECOND = Piece::WIDE_END - Piece::HIGH, PARTS = (FIRST + SECOND) / 16, PITCH = 16 * (PARTS | 1), PIECE = ROWS * PITCH };
        enum { SMALL_PARTS = (Whole::SMALL_END - Whole::SMALL) / 16, SMALL_PITCH = 16 * (SMALL_PARTS | 1), SMALL = SMALL_PARTS ? ROWS * SMALL_PITCH : 0 };
};
template <int... N> struct Most { enum { OF = 0 }; };
template <int A, int... N> struct Most<A, N...> { enum { OF = A > (int)Most<N...>::OF ? A : (int)Most<N...>::OF }; };

// For rows of the types W in a block that has REST bytes beside it, so that two blocks share a processor where that can be. DEPTH steps
// of tokens, AHEAD pieces of rows, SMALL bytes of what is small: not where the blocks of a cluster share K, and need a part of it.
template <int REST, int K, class... W> struct Ring {
        enum { EACH = THREADS / ORDERS / 4, MANY = (NT + EACH - 1) / EACH, STEP_BYTES = MANY * THREADS * 20 };
        enum { PIECE = Most<Staged<W, K>::PIECE...>::OF, WANTED = CLUSTER > 1 ? 0 : Most<Staged<W, K>::SMALL...>::OF };
        enum { ROOM = SHARED_ROOM - (REST + 127) / 128 * 128 - MANY * THREADS * 4 };
        enum { DEPTH = ROOM >= 4 * STEP_BYTES + PIECE ? 4 : 2, LEFT = ROOM - DEPTH * STEP_BYTES, SMALL = LEFT >= PIECE + WANTED ? WANTED : 0 };
        enum { FIT = (LEFT - SMALL) / PIECE, AHEAD = FIT < 1 ? 1 : FIT > 3 ? 3 : FIT };
        U4 code[DEPTH][MANY][THREADS];
        u8 piece[AHEAD][PIECE];
        float scale[DEPTH][MANY][THREADS], by[MANY][THREADS]; // by: what the thread's tokens are scaled by, for want of registers
        alignas(16) u8 small[SMALL ? SMALL : 16];
};

// A thread's two rows of weights: the units of a piece that it has in registers, and the copies of the pieces to come, which the four
// lanes of a row share.
template <class W, int K, class R> struct Rows {
        typedef Staged<W, K> S;
        enum { PIECES = (K + CK - 1) / CK, EACH = CK / W::UNIT, V = EACH / 4, UNITS = K / W::UNIT, G = W::UNIT / 16, AHEAD = R::AHEAD };
        enum { MOST = (PIECES + CLUSTER - 1) / CLUSTER }; // of a block
        enum { NEAR = R::SMALL > 0 && S::SMALL > 0 }; // whether what is small is in shared memory
        R &ring;
        const u8 *row[2];
        int slot; // of the piece in registers
        W w[V][2];
        W next[V][2]; // what is small, where it comes from memory
        INLINE_IN Rows(R &r) : ring(r) {}
        // Which of the block's rows.
        static INLINE_IN u32 place(u32 r, u32 tid = (u32)TID) { return tid / 32 * 16 + 8 * r + tid % 32 / 4; }
        // Of n rows from base on, those that the product gives this thread from `first` on; or the last one again.
        INLINE_IN void at(const u8 *base, int first, int n)
        {
#pragma unroll
                for (int r = 0; r < 2; r++) {
                        int i = first + (int)(place((u32)r) % (ROWS / 2));
                        row[r] = here(base + (u64)(u32)(i < n ? i : n - 1) * Row<W, K>::BYTES); // or it is made again for each load
                }
        }
        // part(to, from) for each part of a piece that this lane copies: where it goes in a slot, from the lane's first part on.
        template <class F> INLINE_IN void each(int piece, u32 lane, F part) const
        {
#pragma unroll
                for (int r = 0; r < 2; r++)
#pragma unroll
                        for (int j = 0; j < (S::PARTS + 3) / 4; j++) {
                                // the lanes' parts in the same plane, where it has whole fours of them
                                bool high = 64 * j + (S::FIRST % 64 ? lane : 0) >= S::FIRST;
                                u32 from = (u32)piece * (high ? S::SECOND : S::FIRST) + lane, end = high ? S::Whole::WIDE_END - S::Whole::HIGH : S::Whole::HIGH - S::Whole::WIDE;
                                u32 at = 64 * j - (high ? S::FIRST : 0);
                                // behind the row's end nobody looks
                                if ((S::PARTS % 4 == 0 || 64 * j + lane < 16 * S::PARTS) && (K % CK == 0 || from + at < end))
                                        part(8 * r * S::PITCH + 64 * j, row[r] + from + (high ? S::Whole::HIGH : S::Whole::WIDE) + (int)at);
                        }
        }
        INLINE_IN void copy(int piece, int slot)
        {
                u32 tid = (u32)here(TID), lane = 16 * (tid % 4); // where the copies go is made anew, or it takes registers through the product
                u8 *to = &ring.piece[slot][place(0, tid) * S::PITCH] + lane;
                each(piece, lane, [&](int at, const u8 *from) { copy16(to + at, from); });
        }
        INLINE_IN void copy_small()
        {
                u32 lane = 16 * ((u32)TID % 4);
#pragma unroll
                for (int r = 0; r < 2; r++)
#pragma unroll
                        for (int j = 0; j < (S::SMALL_PARTS + 3) / 4; j++)
                                if (S::SMALL_PARTS % 4 == 0 || 64 * j + lane < 16 * S::SMALL_PARTS)
                                        copy16(&ring.small[place(0) * S::SMALL_PITCH] + lane + 8 * r * S::SMALL_PITCH + 64 * j, row[r] + lane + S::Whole::SMALL + 64 * j);
        }
        // The first copies, of pieces first .. last - 1; nobody reads the ring's pieces any more.
        INLINE_IN void begin(int first, int last)
        {
                slot = 0;
                if (NEAR)
                        copy_small();
                else
                        ask(first);
#pragma unroll
                for (int p = 0; p < AHEAD; p++)
                        if (p < MOST && first + p < last)
                                copy(first + p, p);
        }
        // The piece AHEAD of the one in registers, in whose slot nobody reads any more.
        INLINE_IN void more(int piece) { copy(piece + AHEAD, slot); }
        static INLINE_IN int unit(int piece, int j)
        {
                int u = piece * EACH + 4 * j + TID % 4;
                return K % CK == 0 || u < UNITS ? u : UNITS - 1; // behind the row's end the tokens' values are 0
        }
        // What is small and comes from memory.
        INLINE_IN void ask(int piece)
        {
#pragma unroll
                for (int j = 0; j < V; j++)
#pragma unroll
                        for (int r = 0; r < 2; r++)
                                next[j][r].template small<K>(Far{row[r]}, (u32)unit(piece, j));
        }
        INLINE_IN void load(int piece, int from)
        {
                slot = from;
#pragma unroll
                for (int j = 0; j < V; j++)
#pragma unroll
                        for (int r = 0; r < 2; r++) {
                                u32 u = (u32)unit(piece, j);
                                if (NEAR)
                                        w[j][r].template small<K>(&ring.small[place((u32)r) * S::SMALL_PITCH] - S::Whole::SMALL, u);
                                else
                                        w[j][r] = next[j][r];
                                w[j][r].template wide<CK>(&ring.piece[from][place((u32)r) * S::PITCH] - S::Piece::WIDE, u - (u32)(piece * EACH));
                        }
        }
        INLINE_IN int after() const { return slot + 1 < AHEAD ? slot + 1 : 0; }
        // Words of codes, and what they are multiplied by, of step s of the piece; by: of step s - 1.
        INLINE_IN void codes(int s, u32 (&c)[2][4], Factor (&by)[2]) const
        {
                int j = s / G, g = s % G, u = 4 * j + TID % 4;
#pragma unroll
                for (int r = 0; r < 2; r++) {
                        float scale, m;
                        w[j][r].group(u, g, c[r], scale, m);
                        if (g % W::SAME == 0)
                                by[r].template set_weights<W>(scale, m);
                }
        }
        // Which group of 16 values of a piece the lane's codes of step s are: a part that is the lane's and one that is the step's.
        static INLINE_IN int lane_group() { return W::at(TID % 4, 0); }
        static INLINE_IN int step_group(int s) { return W::at(s / G * 4, s % G); }
};

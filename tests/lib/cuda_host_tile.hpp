// Of cuda_host.hpp: products by groups of warps, which are done late, at their wait, so that it shows where
// an operand is touched too early. A thread's products, in batches; each is done when a wait wants it.
struct Products {
        unsigned begun, n;
        struct {
                float (*acc)[4];
                const u32 *a;
                const U4 *x;
                int nb, apart;
                unsigned batch;
        } product[16];
};
static Products tile_products[CLUSTER * THREADS];
INLINE void tile_fence() {}
INLINE void tile_begin() {}
INLINE void tile_end()
{
        tile_products[host::now].begun++;
}
template <int NB>
INLINE void tile_product(float (&acc)[NB][4], const u32 (&a)[4], const U4 *x, int at, int apart)
{
        Products *p = &tile_products[host::now];
        host::check(p->n < 16, "too many products at a time");
        p->product[p->n++] = {acc, a, x + at, NB, apart, p->begun};
}
ONCE void tile_wait()
{
        Products *p = &tile_products[host::now];
        int warp = host::now / 32 * 32, lane = host::now % 32;
        host::yield(host::AT_WARP);
        for (unsigned j = 0; j < p->n; j++) {
                auto &t = p->product[j];
                host::check(t.batch < p->begun, "waits for a batch that has not ended");
                for (int k = 0; k < 16; k++) {
                        // as mma.m16n8k16 has its operands
                        const u32 *a =
                                tile_products[warp + lane / 4 * 4 + k % 8 / 2].product[j].a + k / 8 * 2;
                        float v[2] = {
                                f16_f32(a[0] >> k % 2 * 16 & 0xffff), f16_f32(a[1] >> k % 2 * 16 & 0xffff)};
                        for (int i = 0; i < 4 * t.nb; i++) {
                                const U4 *x = t.x + k / 8 * t.apart + i / 4 * 8 + lane % 4 * 2 + i % 2;
                                t.acc[i / 4][i % 4] += v[i % 4 / 2] * f16_f32(((const u16 *)x)[k % 8]);
                        }
                }
        }
        host::yield(host::AT_WARP);
        p->n = 0;
        host::yield(host::AT_WARP);
}

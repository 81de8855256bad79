// read: reads memory and does nothing else: the ceiling that other kernels' GB/s are held against.
//
// arg 0: the memory; 1: how many 16-byte parts of it; 2: u32 [blocks, WARPS], the parts' words XORed, which keeps the loads alive.
// 3: blocks. A thread has EACH loads under way. Grid: as many blocks as are resident together.
//
//      H100, 2 GB, GB/s: 3097
m4_include(«prelude.m4»)
enum { EACH = 8 };

moe_kernel
{
        pdl_wait();
        const U4 *p = (const U4 *)a.arg[0];
        u64 n = (u64)a.arg[1], step = (u64)a.arg[3] * THREADS, i = (u64)BX * THREADS + TID;
        u32 sum = 0;
        for (; i + (EACH - 1) * step < n; i += EACH * step) {
                U4 v[EACH];
#pragma unroll
                for (int k = 0; k < EACH; k++)
                        v[k] = load16(p + i + k * step);
#pragma unroll
                for (int k = 0; k < EACH; k++)
                        sum ^= v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
        }
        for (; i < n; i += step) {
                U4 v = load16(p + i);
                sum ^= v.x ^ v.y ^ v.z ^ v.w;
        }
        for (int m = 16; m; m /= 2)
                sum ^= shfl_xor(sum, m);
        if (TID % 32 == 0)
                ((u32 *)a.arg[2])[BX * WARPS + TID / 32] = sum;
}

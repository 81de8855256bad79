// kv_append: keys (normed, rotated) and values of every token into the cache, at the token's sequence and position.
//
// k f32 [T, KVH * DK]; v f32 [T, KVH * DV]; planes [n_seq, KVH, n_ctx] rows of DK and DV. A block: one token, a head a
// warp. 128 threads. Grid: T.
m4_include(«prelude.m4»)
m4_include(«heads.m4»)
enum { KVH = MOE_KVH, DK = MOE_DK, DV = MOE_DV };
moe_cache_row(«Key», MOE_KTYPE, MOE_DK)
moe_has(«v», «moe_cache_row(«Value», MOE_VTYPE, MOE_DV)», «»)
__shared__ float key[WARPS][DK];

moe_kernel
{
        moe_trigger(first);
        pdl_wait();
        u32 t = BX;
        if (t >= a.dim->n_tok)
                return;
        i32 pos = ((const i32 *)moe_arg(«pos»))[t], seq = ((const i32 *)moe_arg(«seq»))[t];
        moe_if(MOE_HALF, 0, «», «rope_table(pos, moe_has(«freqs», «(const float *)moe_arg(«freqs»)», «0»));
        barrier();»)
        int warp = TID / 32;
#pragma unroll 1
        for (u32 h = (u32)warp; h < KVH; h += WARPS) {
                u64 row = ((u64)(u32)seq * KVH + h) * a.dim->n_ctx + (u32)pos;
                place_head((const float *)moe_arg(«k») + ((u64)t * KVH + h) * DK, key[warp], DK, moe_has(«norm», «(const float *)moe_arg(«norm»)», «0»), MOE_eps);
                for (int i = TID % 32; i < DK; i += 32)
                        Key::put((u8 *)moe_arg(«kv») + row * MOE_KBYTES, i, key[warp][i]);
                moe_has(«v», «for (int i = TID % 32; i < DV; i += 32)
                        Value::put((u8 *)moe_arg(«kvv») + row * MOE_VBYTES, i, ((const float *)moe_arg(«v»))[((u64)t * KVH + h) * DV + (u32)i]);», «»)
                warp_barrier();
        }
}

// kv_append: keys (normed, rotated) and values of every token into the cache, at the token's sequence and position.
//
// k f32 [T, KVH * DK]; v f32 [T, KVH * DV]; planes [n_seq, KVH, n_ctx] rows of DK and DV. A block: one head of one token.
m4_include(«prelude.m4»)
m4_define(«MOE_act», «f32»)m4_dnl
m4_include(«product.m4»)
m4_include(«heads.m4»)
enum { KVH = MOE_KVH, DK = MOE_DK, DV = MOE_DV };
moe_cache_row(«key», MOE_KTYPE, MOE_DK)
moe_has(«v», «moe_cache_row(«value», MOE_VTYPE, MOE_DV)», «»)

moe_kernel
{
        for (u32 b = first; b < last; b++) {
                u32 t = b / KVH, h = b % KVH;
                i32 pos = ((const i32 *)moe_arg(«pos»))[t], seq = ((const i32 *)moe_arg(«seq»))[t];
                u64 row = ((u64)(u32)seq * KVH + h) * dim->n_ctx + (u32)pos;
                const float *k = (const float *)moe_arg(«k») + (u64)t * KVH * DK + h * DK;
                float x[DK];
                moe_has(«norm», «norm_row(k, moe_arg(«norm»), DK, (float)MOE_eps, x);», «memcpy(x, k, sizeof x);»)
                moe_if(MOE_HALF, 0, «», «float cos[PADHALF], sin[PADHALF];
                rope_table(pos, moe_has(«freqs», «moe_arg(«freqs»)», «0»), cos, sin);
                rope_row(x, cos, sin);»)
                store_key((u8 *)moe_arg(«kv») + row * MOE_KBYTES, x, DK);
                moe_has(«v», «store_value((u8 *)moe_arg(«kvv») + row * MOE_VBYTES,
                        (const float *)moe_arg(«v») + (u64)t * KVH * DV + h * DV, DV);», «»)
        }
}

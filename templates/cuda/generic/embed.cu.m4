// embed: row ids[t] of the table w [V, K], in the file's layout, to f32 [T, K]. A block: one token. 256 threads. Grid: T.
m4_include(«prelude.m4»)
m4_include(«table_row.m4»)

moe_kernel
{
        pdl_wait();
        u32 t = BX;
        if (t >= a.dim->n_tok)
                return;
        u64 id = (u64)(u32)((const i32 *)moe_arg(«ids»))[t];
        table_row<MOE_K, MOE_ROW_BYTES>((const u8 *)moe_arg(«w») + id * MOE_ROW_BYTES, (float *)moe_arg(«out0») + (u64)t * MOE_K);
}

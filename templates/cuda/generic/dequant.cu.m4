// dequant: all rows of w [V, K], in the file's layout, to f32. A block: one row. 256 threads. Grid: V.
m4_include(«prelude.m4»)
m4_include(«table_row.m4»)

moe_kernel
{
        pdl_wait();
        u64 r = BX;
        table_row<MOE_K, MOE_ROW_BYTES>((const u8 *)moe_arg(«w») + r * MOE_ROW_BYTES, (float *)moe_arg(«out0») + r * MOE_K);
}

// dequant: all rows of w [V, K], in the file's layout, to f32. A block: one row.
m4_include(«prelude.m4»)
m4_include(«table_row.m4»)
enum { K = MOE_K };

moe_kernel
{
        (void)dim;
        for (u64 r = first; r < last; r++)
                table_row((const u8 *)moe_arg(«w») + r * MOE_ROW_BYTES, (float *)moe_arg(«out0») + r * K, K);
}

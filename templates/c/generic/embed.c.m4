// embed: row ids[t] of the table w [V, K], in the file's layout, to f32 [T, K]. A block: one token.
m4_include(«prelude.m4»)
m4_include(«table_row.m4»)
enum { K = MOE_K };

moe_kernel
{
        (void)dim;
        for (u64 t = first; t < last; t++)
                table_row((const u8 *)moe_arg(«w») + (u64)((const i32 *)moe_arg(«ids»))[t] * MOE_ROW_BYTES, (float *)moe_arg(«out0») + t * K, K);
}

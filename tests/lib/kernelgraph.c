#include "tests/lib/kernelgraph.h"
#include <string.h>
#include "tests/lib/randgraph.h"

static Graph *bound(Arena *arena, Graph *g, u64 seed)
{
        Rand r = {seed};
        for (u32 i = 0; i < g->n_weight; i++) {
                u64 n = 1;
                for (u32 k = 0; k < g->weight[i].rank; k++)
                        n *= g->weight[i].dim[k];
                g->weight[i].data = rand_weight(arena, &r, g->weight[i].type, n);
        }
        return g;
}

Graph *types_graph(Arena *arena, bool quant, u32 every)
{
        Buf b = {0};
        buf_fmt(&b, "graph types {\n$e =F32[512,512]\n$n =F32[512]\n$z =F32[6,512]\n");
        u32 n = 0, type[N_WTYPE];
        for (u32 t = 0; t < N_WTYPE; t++)
                if (wtype_info[t].quant || !quant)
                        type[n++] = t;
        for (u32 i = 0; i < n; i++) {
                const char *name = wtype_info[type[i]].name, *other = wtype_info[type[(i + 1) % n]].name;
                buf_fmt(&b,
                        "$w%u =%s[19,512]\n$g%u =%s[6,256,512]\n$u%u =%s[6,256,512]\n$d%u "
                        "=%s[6,512,256]\n$t%u =%s[512,512]\n",
                        i, name, i, name, i, other, i, name, i, name);
        }
        buf_fmt(&b, "%%0 =f32[n_tok,512] embed w $e, ids @ids\n%%1 =f32[n_tok,6] matmul x %%0, w $z, norm "
                    "$n, eps 0x1p-20\n");
        buf_fmt(&b, "%%2 =route[n_tok,3] route x %%1, k 3, renorm 1\n");
        u32 v = 3;
        for (u32 i = 0; i < n; i++)
                buf_fmt(&b, "%%%u =f32[n_tok,19]%s", v++, i + 1 < n ? ", " : " matmul x %0");
        for (u32 i = 0; i < n; i++)
                buf_fmt(&b, ", w $w%u", i);
        buf_fmt(&b, ", norm $n, eps 0x1p-20\n");
        u32 x = 0, end = v;
        for (u32 i = 0; i < n; i += every, x = v++)
                buf_fmt(&b,
                        "%%%u =f32[n_tok,512] experts x %%%u, route %%2, gate $g%u, up $u%u, down $d%u, norm "
                        "$n, res %%%u, eps 0x1p-20\n",
                        v, x, i, i, i, x);
        for (u32 i = 0; i < n && !quant; i++, x = v++) {
                buf_fmt(&b, "%%%u =f32[n_tok,512] embed w $t%u, ids @ids\n", v++, i);
                buf_fmt(&b, "%%%u =f32[n_tok,512] add a %%%u, b %%%u\n", v, x, v - 1);
        }
        buf_fmt(&b, "%%%u =f32[n_out,512] rows x %%%u, out @out\nreturn %%%u", v, x, v);
        for (u32 i = 3; i < end; i++)
                buf_fmt(&b, ", %%%u", i);
        buf_fmt(&b, "\n}\n");
        Graph *g = parse(arena, b.p, b.len, "types");
        buf_free(&b);
        return bound(arena, g, 7);
}

Graph *past_graph(Arena *arena, int dk, const char *kept)
{
        int q = 6 * dk, k = 2 * dk;
        const char *text = arena_fmt(arena,
                "graph past {\n$e =F32[288,96]\n$q =F32[%d,96]\n$k =F32[%d,96]\n$v =F32[%d,96]\n"
                "$o =Q8_0[64,%d]\nstate &kv =kv[2,%d,%d] %s\n"
                "%%0 =f32[n_tok,96] embed w $e, ids @ids\n%%1 =f32[n_tok,%d] matmul x %%0, w $q\n"
                "%%2 =f32[n_tok,%d] matmul x %%0, w $k\n%%3 =f32[n_tok,%d] matmul x %%0, w $v\n"
                "%%4 =f32[n_tok,%d], %%5 =kv[2,%d,%d] attend q %%1, kv &kv, pos @pos, seq @seq, k %%2, v "
                "%%3, "
                "heads 6, rstyle norm, rdim %d, scale 0x1p-2\n"
                "%%6 =f32[n_tok,64] matmul x %%4, w $o\n%%7 =f32[n_out,64] rows x %%6, out @out\n"
                "return %%7, %%5\n}\n",
                q, k, k, q, dk, dk, kept, q, k, k, q, dk, dk, dk);
        Graph *g = parse(arena, text, strlen(text), "past");
        return bound(arena, g, 8);
}

Graph *past_one_graph(Arena *arena)
{
        static const char text[] =
                "graph past {\n$e =F32[512,96]\n$q =F32[512,96]\n$k =F32[128,96]\n$v "
                "=F32[128,96]\n$o =Q8_0[64,512]\n$n =F32[64]\n$s =F32[8]\nstate &kv =kv[2,64,64] f16 f16\n"
                "%0 =f32[n_tok,96] embed w $e, ids @ids\n%1 =f32[n_tok,512] matmul x %0, "
                "w $q\n%2 =f32[n_tok,128] matmul x %0, w $k\n"
                "%3 =f32[n_tok,128] matmul x %0, w $v\n"
                "%4 =f32[n_tok,512], %5 =kv[2,64,64] attend q %1, kv &kv, pos @pos, seq "
                "@seq, norm $n, k %2, v %3, knorm $n, heads 8, scale 0x1p-3, eps 0x1p-20, "
                "rdim 64, rstyle neox\n"
                "%6 =f32[n_tok,512] attend q %1, kv %5, pos @pos, seq @seq, sinks $s, heads 8, "
                "window 300, scale 0x1p-3, softcap 0x1.4p+3, rdim 32, rstyle norm\n"
                "%7 =f32[n_out,512] rows x %4, out @out\n%8 =f32[n_tok,64] matmul x %6, w $o\n"
                "%9 =f32[n_out,64] rows x %8, out @out\nreturn %7, %9, %5\n}\n";
        Graph *g = parse(arena, text, sizeof text - 1, "past");
        return bound(arena, g, 9);
}

Graph *products_graph(Arena *arena)
{
        static const char text[] =
                "graph many {\n$e =F32[832,832]\n$n =F32[832]\n$z =F32[3,832]\n$a =Q8_0[45,832]\n$b "
                "=Q4_0[7,832]\n"
                "$ab =F32[45]\n$c =Q4_1[832,832]\n$g =Q4_0[3,192,832]\n$u =IQ4_NL[3,192,832]\n"
                "$gb =F32[3,192]\n$d =Q5_1[3,832,192]\n$db =F32[3,832]\n"
                "%0 =f32[n_tok,832] embed w $e, ids @ids\n%1 =f32[n_tok,832] rmsnorm x %0, w $n, eps "
                "0x1p-20\n"
                "%2 =f32[n_tok,45], %3 =f32[n_tok,7] matmul x %1, w $a, w $b\n"
                "%4 =f32[n_tok,832] matmul x %1, w $c\n%5 =f32[n_tok,832] add a %4, b %0\n"
                "%6 =f32[n_tok,45] matmul x %5, w $a, bias $ab\n"
                "%7 =f32[n_tok,3] matmul x %5, w $z\n%8 =route[n_tok,2] route x %7, k 2, renorm 1\n"
                "%9 =f32[n_tok,832] experts x %5, route %8, gate $g, up $u, down $d, gate_b $gb, up_b $gb, "
                "down_b $db, res %5\n"
                "%10 =f32[n_out,832] rows x %9, out @out\nreturn %10, %2, %3, %6\n}\n";
        Graph *g = parse(arena, text, sizeof text - 1, "many");
        return bound(arena, g, 10);
}

Graph *counts_graph(Arena *arena, const char *type, const char *down, int k, int f)
{
        enum { E = 4, IDS = 32 };
        const char *text = arena_fmt(arena,
                "graph counts {\n$e =F32[%d,%d]\n$z =F32[%d,%d]\n$g =%s[%d,%d,%d]\n$u =%s[%d,%d,%d]\n"
                "$d =%s[%d,%d,%d]\n%%0 =f32[n_tok,%d] embed w $e, ids @ids\n"
                "%%1 =f32[n_tok,%d] matmul x %%0, w $z\n%%2 =route[n_tok,1] route x %%1, k 1, renorm 1\n"
                "%%3 =f32[n_tok,%d] experts x %%0, route %%2, gate $g, up $u, down $d, res %%0\n"
                "%%4 =f32[n_out,%d] rows x %%3, out @out\nreturn %%4\n}\n",
                IDS, k, E, k, type, E, f, k, type, E, f, k, down, E, k, f, k, E, k, k);
        Graph *g = bound(arena, parse(arena, text, strlen(text), "counts"), 12);
        float *e = NEWN(arena, float, IDS *k), *z = NEWN(arena, float, E *k);
        memcpy(e, g->weight[0].data, sizeof *e * IDS * (size_t)k);
        g->weight[0].data = e, g->weight[1].data = z;
        for (int i = 0; i < E; i++)
                z[i * k + i] = 1;
        for (int i = 0; i < IDS * E; i++)
                e[i / E * k + i % E] = i / E % E == i % E ? 4 : -4;
        return g;
}

Graph *router_graph(Arena *arena, int experts)
{
        const char *text = arena_fmt(arena,
                "graph router {\n$e =F32[2048,2048]\n$n =F32[2048]\n$z =F32[%d,2048]\n$g =Q8_0[%d,32,2048]\n"
                "$d =Q8_0[%d,2048,32]\n%%0 =f32[n_tok,2048] embed w $e, ids @ids\n"
                "%%1 =f32[n_tok,2048] rmsnorm x %%0, w $n, eps 0x1p-20\n"
                "%%2 =f32[n_tok,%d] matmul x %%1, w $z\n%%3 =route[n_tok,3] route x %%2, k 3, renorm 1\n"
                "%%4 =f32[n_tok,2048] experts x %%1, route %%3, gate $g, up $g, down $d, res %%0\n"
                "%%5 =f32[n_out,2048] rows x %%4, out @out\nreturn %%5\n}\n",
                experts, experts, experts, experts);
        return bound(arena, parse(arena, text, strlen(text), "router"), 11);
}

Graph *slots_graph(Arena *arena, const char *down, int f)
{
        const char *text = arena_fmt(arena,
                "graph slots {\n$e =F32[512,512]\n$n =F32[512]\n$z =F32[16,512]\n$g =Q8_0[16,%d,512]\n"
                "$d =%s[16,512,%d]\n%%0 =f32[n_tok,512] embed w $e, ids @ids\n"
                "%%1 =f32[n_tok,512] rmsnorm x %%0, w $n, eps 0x1p-20\n%%2 =f32[n_tok,16] matmul x %%1, w "
                "$z\n"
                "%%3 =route[n_tok,8] route x %%2, k 8, renorm 1\n"
                "%%4 =f32[n_tok,512] experts x %%1, route %%3, gate $g, up $g, down $d, res %%0\n"
                "%%5 =f32[n_out,512] rows x %%4, out @out\nreturn %%5\n}\n",
                f, down, f);
        return bound(arena, parse(arena, text, strlen(text), "slots"), 13);
}

Graph *attend_graph(Arena *arena, const AttendShape *m)
{
        int q = m->heads * m->dk, k = m->kvh * m->dk, v = m->kvh * m->dv, y = m->heads * m->dv;
        const char *text = arena_fmt(arena,
                "graph many {\n$e =F32[64,32]\n$q =F32[%d,32]\n$k =F32[%d,32]\n$v =F32[%d,32]\n"
                "$o =Q8_0[64,%d]\n$n =F32[%d]\n$s =F32[%d]\n$f =F32[16]\nstate &kv =kv[%d,%d,%d] %s\n"
                "%%0 =f32[n_tok,32] embed w $e, ids @ids\n%%1 =f32[n_tok,%d] matmul x %%0, w $q\n"
                "%%2 =f32[n_tok,%d] matmul x %%0, w $k\n%%3 =f32[n_tok,%d] matmul x %%0, w $v\n"
                "%%4 =kv[%d,%d,%d] kv_append kv &kv, k %%2, v %%3, pos @pos, seq @seq\n"
                "%%5 =%s[n_tok,%d] attend q %%1, kv %%4, pos @pos, seq @seq, heads %d, out %s, %s\n"
                "%%6 =f32[n_tok,64] matmul x %%5, w $o, act %s\n"
                "%%7 =f32[n_out,64] rows x %%6, out @out\nreturn %%7, %%4\n}\n",
                q, k, v, y, m->dk, m->heads, m->kvh, m->dk, m->dv, m->kept, q, k, v, m->kvh, m->dk, m->dv,
                m->out, y, m->heads, m->out, m->attrs, m->out);
        Graph *g = parse(arena, text, strlen(text), "many");
        return bound(arena, g, 10);
}

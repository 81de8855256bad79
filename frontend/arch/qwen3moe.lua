-- Qwen3-MoE: Qwen Team, "Qwen3 Technical Report", 2025 (arXiv 2505.09388). Grouped-query attention whose queries and keys
-- are normed head by head, then a mixture of experts in every layer. Keys and tensor names as in llama.cpp's GGUF files.

local function build(g, hp)
        local n_layer = hp.u32("block_count", 1, 512)
        local embd = hp.u32("embedding_length", 1, 65536)
        local heads = hp.u32("attention.head_count", 1, 1024)
        local kv_heads = hp.u32("attention.head_count_kv", 1, heads, heads)
        local dk = hp.u32("attention.key_length", 2, 1024, embd // heads)
        local dv = hp.u32("attention.value_length", 1, 1024, dk)
        local rdim = hp.u32("rope.dimension_count", 2, dk, dk)
        local experts = hp.u32("expert_count", 1, 1024)
        local used = hp.u32("expert_used_count", 1, experts)
        local ff = hp.u32("expert_feed_forward_length", 1, 1 << 20)
        local eps = hp.f32("attention.layer_norm_rms_epsilon")
        local rope = hp.rope()
        hp.check(heads % kv_heads == 0, "attention.head_count " .. heads .. " is no multiple of head_count_kv " .. kv_heads)
        hp.check(dk % 2 == 0 and rdim % 2 == 0, "heads of an odd width cannot be rotated")

        local table = g:w("token_embd.weight", {hp.n_vocab, embd})
        local x = g:embed{w=table, ids=g.ids}
        local states = {}

        for il = 0, n_layer - 1 do
                g:layer(il)
                local h = g:rmsnorm{x=x, w=g:w("blk.%d.attn_norm.weight", {embd}), eps=eps}
                local q = g:matmul{x=h, w=g:w("blk.%d.attn_q.weight", {heads * dk, embd})}
                local k = g:matmul{x=h, w=g:w("blk.%d.attn_k.weight", {kv_heads * dk, embd})}
                local v = g:matmul{x=h, w=g:w("blk.%d.attn_v.weight", {kv_heads * dv, embd})}
                q = g:rmsnorm{x=q, w=g:w("blk.%d.attn_q_norm.weight", {dk}), eps=eps, group=dk}
                k = g:rmsnorm{x=k, w=g:w("blk.%d.attn_k_norm.weight", {dk}), eps=eps, group=dk}
                q = g:rope{x=q, pos=g.pos, heads=heads, rstyle="neox", rdim=rdim, rope}
                k = g:rope{x=k, pos=g.pos, heads=kv_heads, rstyle="neox", rdim=rdim, rope}
                local kv = g:kv_append{kv=g:state("kv.%d", kv_heads, dk, dv), k=k, v=v, pos=g.pos, seq=g.seq}
                local att = g:attend{q=q, kv=kv, pos=g.pos, seq=g.seq, heads=heads, scale=1 / math.sqrt(dk)}
                x = g:add{a=x, b=g:matmul{x=att, w=g:w("blk.%d.attn_output.weight", {embd, heads * dv})}}
                states[#states + 1] = kv

                h = g:rmsnorm{x=x, w=g:w("blk.%d.ffn_norm.weight", {embd}), eps=eps}
                local logits = g:matmul{x=h, w=g:w("blk.%d.ffn_gate_inp.weight", {experts, embd})}
                local y = g:experts{
                        x=h, route=g:route{x=logits, k=used, gate="softmax", renorm=1}, glu="swiglu",
                        gate=g:w("blk.%d.ffn_gate_exps.weight", {experts, ff, embd}),
                        up=g:w("blk.%d.ffn_up_exps.weight", {experts, ff, embd}),
                        down=g:w("blk.%d.ffn_down_exps.weight", {experts, embd, ff}),
                }
                x = g:add{a=x, b=y}
        end

        g:layer()
        x = g:rows{x=x, out=g.out}
        x = g:rmsnorm{x=x, w=g:w("output_norm.weight", {embd}), eps=eps}
        return g:matmul{x=x, w=g:opt("output.weight", {hp.n_vocab, embd}) or table}, states
end

return {
        name = "qwen3moe",
        about = "Qwen3 mixture of experts",
        build = build,
}

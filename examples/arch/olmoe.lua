-- OLMoE: Muennighoff et al., "OLMoE: Open Mixture-of-Experts Language Models", 2024 (arXiv 2409.02060).
-- It differs from Qwen3-MoE in three places: queries and keys are normed over their whole width, not head by head; the
-- weights of the chosen experts are not brought to a sum of 1; the width of an expert is feed_forward_length.

local function attention(g, p, x)
        local h = g:rmsnorm{x=x, w=g:w("blk.%d.attn_norm.weight", {p.embd}), eps=p.eps}
        local q = g:matmul{x=h, w=g:w("blk.%d.attn_q.weight", {p.heads * p.dk, p.embd})}
        local k = g:matmul{x=h, w=g:w("blk.%d.attn_k.weight", {p.kv_heads * p.dk, p.embd})}
        local v = g:matmul{x=h, w=g:w("blk.%d.attn_v.weight", {p.kv_heads * p.dk, p.embd})}
        q = g:rmsnorm{x=q, w=g:w("blk.%d.attn_q_norm.weight", {p.heads * p.dk}), eps=p.eps}
        k = g:rmsnorm{x=k, w=g:w("blk.%d.attn_k_norm.weight", {p.kv_heads * p.dk}), eps=p.eps}
        q = g:rope{x=q, pos=g.pos, heads=p.heads, rstyle="neox", rdim=p.dk, p.rope}
        k = g:rope{x=k, pos=g.pos, heads=p.kv_heads, rstyle="neox", rdim=p.dk, p.rope}
        local kv = g:kv_append{kv=g:state("kv.%d", p.kv_heads, p.dk, p.dk), k=k, v=v, pos=g.pos, seq=g.seq}
        local y = g:attend{q=q, kv=kv, pos=g.pos, seq=g.seq, heads=p.heads, scale=1 / math.sqrt(p.dk)}
        y = g:matmul{x=y, w=g:w("blk.%d.attn_output.weight", {p.embd, p.heads * p.dk})}
        return g:add{a=x, b=y}, kv
end

local function experts(g, p, x)
        local h = g:rmsnorm{x=x, w=g:w("blk.%d.ffn_norm.weight", {p.embd}), eps=p.eps}
        local logits = g:matmul{x=h, w=g:w("blk.%d.ffn_gate_inp.weight", {p.experts, p.embd})}
        local y = g:experts{
                x=h, route=g:route{x=logits, k=p.used, gate="softmax", renorm=0}, glu="swiglu",
                gate=g:w("blk.%d.ffn_gate_exps.weight", {p.experts, p.ff, p.embd}),
                up=g:w("blk.%d.ffn_up_exps.weight", {p.experts, p.ff, p.embd}),
                down=g:w("blk.%d.ffn_down_exps.weight", {p.experts, p.embd, p.ff}),
        }
        return g:add{a=x, b=y}
end

local function build(g, hp)
        local p = {
                embd = hp.u32("embedding_length", 1, 65536),
                heads = hp.u32("attention.head_count", 1, 1024),
                experts = hp.u32("expert_count", 1, 1024),
                ff = hp.u32("feed_forward_length", 1, 1 << 20),
                eps = hp.f32("attention.layer_norm_rms_epsilon"),
                rope = hp.rope(),
        }
        p.kv_heads = hp.u32("attention.head_count_kv", 1, p.heads, p.heads)
        p.used = hp.u32("expert_used_count", 1, p.experts)
        p.dk = p.embd // p.heads
        hp.check(p.embd % p.heads == 0, "attention.head_count " .. p.heads .. " does not divide embedding_length " .. p.embd)
        hp.check(p.heads % p.kv_heads == 0, "attention.head_count is no multiple of head_count_kv")
        hp.check(p.dk % 2 == 0, "heads of an odd width cannot be rotated")
        if (hp.f32("attention.clamp_kqv", 0, 0)) > 0 then
                hp.unsupported("attention.clamp_kqv: queries, keys and values are not clamped")
        end

        local x = g:embed{w=g:w("token_embd.weight", {hp.n_vocab, p.embd}), ids=g.ids}
        local states = {}
        for il = 0, hp.u32("block_count", 1, 512) - 1 do
                g:layer(il)
                x, states[il + 1] = attention(g, p, x)
                x = experts(g, p, x)
        end
        g:layer()
        x = g:rmsnorm{x=g:rows{x=x, out=g.out}, w=g:w("output_norm.weight", {p.embd}), eps=p.eps}
        return g:matmul{x=x, w=g:w("output.weight", {hp.n_vocab, p.embd})}, states
end

return {name = "olmoe", about = "OLMoE", build = build}

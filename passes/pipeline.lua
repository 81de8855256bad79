-- Which passes, in which order, with which options, per target and phase (passes/passes.h lists both).
-- A step takes the first phase that it fits; without max_tok (tokens) or max_out (rows of logits) a phase takes the
-- caller's whole batch, without max_seq_tok (tokens from a sequence's first in the step to its last) any of them.

-- CUDA: decode's six launches a layer for several tokens; wider experts have no kernels for that (codegen/select_few.c), and are grouped
-- as in larger steps.
local few = {
        "fold", "dce", "experts grouped=4097", "qmatmul",
        "fuse dup_norm fuse_kv round_attend round_route route_max=4194304",
        "layout split", "order", "buffers",
}

-- Up to 64 tokens: experts as few has them, all else by the kernels of larger steps, but for what attention takes over.
local function batch(attention)
        return {
                "fold", "dce", "experts grouped=4097", "qmatmul",
                "fuse quantize " .. attention .. " route_norm round_route route_max=4194304",
                "layout split", "order", "buffers",
        }
end

return {
        cpu = {
                {       -- few tokens: bytes of weights are everything, and every launch costs
                        name = "decode", max_tok = 1, max_out = 1,
                        passes = {
                                "fold", "dce", "experts", "qmatmul",
                                "fuse dup_norm fuse_kv route_max=4194304",
                                "layout panel", "order", "buffers",
                        },
                },
                {       -- many: work is shared between tokens, so nothing is done twice
                        name = "prefill",
                        passes = {
                                "fold", "dce", "experts grouped", "qmatmul",
                                "fuse quantize",
                                "layout panel", "order", "buffers",
                        },
                },
        },
        cuda = {
                {       -- six launches a layer
                        name = "decode", max_tok = 1, max_out = 1,
                        passes = {
                                "fold", "dce", "experts", "qmatmul",
                                "fuse dup_norm fuse_kv round_attend route_max=4194304",
                                "layout split", "order", "buffers",
                        },
                },
                {       -- very few tokens go by decode's kernels (codegen/select_one.c)
                        name = "four", max_tok = 4, max_out = 4,
                        passes = few,
                },
                {       -- some sequences that decode together, or a few tokens of one
                        name = "few", max_tok = 32, max_out = 32,
                        passes = few,
                },
                {       -- more sequences that decode together: attention as above, too
                        name = "batch", max_tok = 64, max_out = 64, max_seq_tok = 8,
                        passes = batch("fuse_kv round_attend"),
                },
                {       -- a short prompt, whose tokens share what they read of the past
                        name = "short", max_tok = 64, max_out = 64,
                        passes = batch("round_attend"),
                },
                {
                        name = "prefill",
                        passes = {
                                "fold", "dce", "experts grouped", "qmatmul",
                                "fuse quantize round_attend",
                                "layout split", "order", "buffers",
                        },
                },
        },
}

-- Tile sizes, per target and operation: data, found by measuring (docs/decisions.md), never by name of a processor in code.
-- NT: tokens that share one unpacking of a weight.
return {
        cpu = {
                attend = { NT = 4 },
                matmul = { NT = 4 },
                experts_up = { NT = 4 },
                experts_down = { NT = 4 },
        },
        -- THREADS, NT, RPB, PART, SPLIT: codegen/select_cuda.c, which has a default for each. few: in templates of few tokens.
        cuda = {
        },
}

// glu: the gated activation of two f32 [T, N].
m4_include(«prelude.m4»)
m4_include(«glu_fn.m4»)
m4_include(«elementwise.m4»)
moe_elementwise(«glu(x, y)»)

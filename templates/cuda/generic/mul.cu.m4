// mul: a * b, f32 [T, N].
m4_include(«prelude.m4»)
m4_include(«elementwise.m4»)
moe_elementwise(«x * y»)

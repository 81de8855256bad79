// The activation between an expert's (or a dense layer's) two products, of 8 lanes: MOE_glu.
INLINE f32x8 glu(f32x8 g, f32x8 u)
{
m4_ifelse(MOE_glu, swiglu, «        return g / (1.0f + exp8(-g)) * u;
», MOE_glu, geglu, «        // gelu(g) by tanh: g * sigmoid(2 sqrt(2 / pi) (g + 0.044715 g^3))
        return g / (1.0f + exp8(-1.5957691216f * (g + 0.044715f * g * g * g))) * u;
», MOE_glu, swiglu_oai, «        const f32x8 limit = splat((float)MOE_limit);
        g = min8(g, limit);
        u = max8(min8(u, limit), -limit);
        return g / (1.0f + exp8((float)-(MOE_alpha) * g)) * (u + 1.0f);
»)}

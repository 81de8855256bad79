// The activation between an expert's (or a dense layer's) two products: MOE_glu.
INLINE float glu(float g, float u)
{
m4_ifelse(MOE_glu, swiglu, «        return g / (1.0f + exp1(-g)) * u;
», MOE_glu, geglu, «        // gelu(g) by tanh: g * sigmoid(2 sqrt(2 / pi) (g + 0.044715 g^3))
        return g / (1.0f + exp1(-1.5957691216f * (g + 0.044715f * g * g * g))) * u;
», MOE_glu, swiglu_oai, «        const float limit = (float)MOE_limit;
        g = min1(g, limit);
        u = max1(min1(u, limit), -limit);
        return g / (1.0f + exp1((float)-(MOE_alpha) * g)) * (u + 1.0f);
»)}

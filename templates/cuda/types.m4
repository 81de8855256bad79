// The types of a product's weights, so that those of one type share their code.
// Usage: moe_type_first(I): the first weight that has weight I's type. moe_types: how many types there are.
m4_define(«moe_type_first», «moe_type_from(0, $1)»)m4_dnl
m4_define(«moe_type_from», «m4_ifelse(moe_fact(«TYPE_w», «$1»), moe_fact(«TYPE_w», «$2»), «$1», «moe_type_from(m4_incr(«$1»), «$2»)»)»)m4_dnl
m4_define(«moe_types», m4_eval(0 moe_for(«I», 0, m4_eval(MOE_NW - 1), «m4_ifelse(moe_type_first(I), I, + 1)»)))m4_dnl

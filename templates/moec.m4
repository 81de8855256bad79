m4_divert(-1)
// The macro language of the templates: all of it. Loaded first, once. Run as
//
//     m4 -P -s -I DIRS moec.m4 - TEMPLATE       (facts on stdin)
//
// -P: builtins are called m4_define, m4_ifelse, ... Quotes are « » and nothing else, so that C's quotes, brackets and
// apostrophes are plain text. Comments are C++'s: nothing in a line comment expands; templates use no other kind.
// A template is C; m4 gives it constants (MOE_ facts), picks fragments by name and unrolls short lists. After expansion no
// identifier may begin with m4_, moe_ or MOE_: codegen/m4.c looks for them.
m4_changequote(«,»)
m4_changecom(«//»)

// moe_arity(NAME, WANTED, GOT): every macro below begins with it.
m4_define(«moe_arity», «m4_ifelse(«$2», «$3», «»,
        «m4_errprint(m4___file__:m4___line__«: $1 wants $2 arguments, got $3
»)m4_m4exit(2)»)»)

// Usage: moe_fact(NAME, I): the fact MOE_NAME followed by I, for facts about numbered operands.
m4_define(«moe_fact», «moe_arity(«moe_fact», 2, $#)m4_ifdef(«MOE_$1$2», «m4_indir(«MOE_$1$2»)»,
        «m4_errprint(m4___file__:m4___line__«: no fact MOE_$1$2
»)m4_m4exit(2)»)»)

// Usage: moe_has(NAME, THEN, ELSE): THEN if the operand NAME is present.
m4_define(«moe_has», «moe_arity(«moe_has», 3, $#)m4_ifdef(«MOE_ARG_$1», «$2», «$3»)»)

// Usage: moe_if(A, B, THEN, ELSE): THEN if A and B are the same text.
m4_define(«moe_if», «moe_arity(«moe_if», 4, $#)m4_ifelse(«$1», «$2», «$3», «$4»)»)

// Usage: moe_arg(NAME): the launch argument that holds operand NAME.
m4_define(«moe_arg», «moe_arity(«moe_arg», 1, $#)arg[moe_fact(«ARG_$1», «»)]»)

// Usage: moe_for(VAR, FROM, TO, BODY): BODY for VAR = FROM .. TO.
m4_define(«moe_for», «moe_arity(«moe_for», 4, $#)m4_ifelse(m4_eval(«$2 > $3»), 1, «»,
        «m4_pushdef(«$1», «$2»)$4«»m4_popdef(«$1»)moe_for(«$1», m4_incr(«$2»), «$3», «$4»)»)»)

// Usage: moe_once(FILE): includes FILE where nothing has included it yet.
m4_define(«moe_once», «moe_arity(«moe_once», 1, $#)m4_ifdef(«moe_seen_$1», «», «m4_define(«moe_seen_$1»)m4_include(«$1»)»)»)

// Usage: moe_quant(TYPE): the fragment that unpacks weights of TYPE, once.
m4_define(«moe_quant», «moe_arity(«moe_quant», 1, $#)moe_once(«quant/$1.m4»)»)
m4_divert(0)m4_dnl

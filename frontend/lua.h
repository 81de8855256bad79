/* Lua 5.4: the one part that includes lua.h. A file is evaluated in a sandbox of its own: it reaches no
 * files, no other code and no bytecode, has bounds on memory, steps and time, and leaves nothing behind.
 * Errors end in err(); they name the file and the line: MOEC_ERROR where the Lua file is at fault, else the
 * status of what it asked for. */
#ifndef MOEC_LUA_H
#define MOEC_LUA_H
#include "frontend/build.h"
#include "frontend/tab.h"

#define LUA_MAX_TEXT  (4u << 20)  /* bytes of a file */
#define LUA_MAX_BYTES (64u << 20) /* that a file may hold at once */
#define LUA_MAX_STEPS 20000000u   /* instructions of the virtual machine */
#define LUA_MAX_S     10          /* seconds */

/* The table that a file returns, which must be plain data. name is what messages call the file. */
const Tab *lua_config(Arena *a, const char *name, const char *text, size_t len);

/* The same of an architecture's file, without its function `build`, which must be there. */
const Tab *lua_arch(Arena *a, const char *name, const char *text, size_t len);

/* Calls its build(g, hp): b->g then has the nodes, the logits and the states' last values as results. */
void lua_build(Build *b, const char *name, const char *text, size_t len);

#endif

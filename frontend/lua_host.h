/* Between lua.c (running a file) and lua_arch.c (what an architecture's file can call): the only place that
 * includes lua.h.
 *
 * Two kinds of long jump meet here. What is called through lua_guard may err() but calls no Lua function that
 * can raise an error; what is outside may raise one and never errs. lua_guard turns the first into the
 * second, lua_run the second into the first once the state is closed. */
#ifndef MOEC_LUA_HOST_H
#define MOEC_LUA_HOST_H
#include <lua5.4/lua.h>
#include <lua5.4/lauxlib.h>
#include "frontend/build.h"
#include "frontend/tab.h"

typedef struct Host Host;
struct Host {
        const char *name, *text;
        size_t len;
        void (*job)(lua_State *L); /* with the file's result on the stack */
        size_t bytes;              /* held now */
        u64 steps;
        double deadline;
        bool full;
        bool caught; /* an err() is on its way out: `error` */
        moec_error error;
        char where[256]; /* the lines where it happened */
        Arena *arena;
        bool with_build; /* the table has a function `build` */
        const Tab *tab;
        Build *b;
};

Host *lua_host(lua_State *L);
void lua_run(Host *h);
void lua_guard(lua_State *L, void (*work)(void *), void *arg);

#endif

#ifndef FAKE_HELP_H
#define FAKE_HELP_H
#include "tests/fake/fake.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Where a fake library is: they lie beside the tests' folder. */
static inline const char *fake_path(const char *name)
{
        static char path[2][PATH_MAX + 64];
        static int turn;
        char exe[PATH_MAX] = "";
        if (readlink("/proc/self/exe", exe, sizeof exe - 1) < 0)
                fail_msg("where is this program?");
        *strrchr(exe, '/') = 0;
        turn ^= 1;
        snprintf(path[turn], sizeof path[turn], "%s/../fake/%s.so", exe, name);
        return path[turn];
}

static inline void *fake_load(const char *name)
{
        void *h = dlopen(fake_path(name), RTLD_NOW | RTLD_LOCAL), *f = h ? dlsym(h, "fake") : NULL;
        if (!f)
                fail_msg("%s", dlerror());
        return f;
}

#endif

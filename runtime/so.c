#include "runtime/so.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct So {
        void *handle;
        int fd; /* open as long as the object: dlopen takes equal names, which hold the number, for the same
                   object */
};

static bool write_all(int fd, const u8 *p, u64 n)
{
        while (n) {
                ssize_t did = write(fd, p, MIN(n, (u64)1 << 30));
                if (did < 0 && errno == EINTR)
                        continue;
                if (did <= 0)
                        return false;
                p += did;
                n -= (u64)did;
        }
        return true;
}

static bool open_memfd(So *so, const void *p, u64 bytes, char why[256])
{
        char path[64];
        so->fd = memfd_create("moec-kernels", MFD_CLOEXEC);
        if (so->fd >= 0 && write_all(so->fd, p, bytes)) {
                snprintf(path, sizeof path, "/proc/self/fd/%d", so->fd);
                so->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
                if (so->handle)
                        return true;
                const char *said = dlerror();
                snprintf(why, 256, "%s", said ? said : "dlopen failed");
        } else
                snprintf(why, 256, "memfd: %s", strerror(errno));
        if (so->fd >= 0)
                close(so->fd);
        so->fd = -1;
        return false;
}

static bool open_file(So *so, const void *p, u64 bytes, const char *dir, char why[256])
{
        char path[PATH_MAX];
        if (snprintf(path, sizeof path, "%s/kernels-XXXXXX", dir) >= (int)sizeof path)
                return false;
        int fd = mkostemp(path, O_CLOEXEC);
        bool ok = fd >= 0 && write_all(fd, p, bytes) && fchmod(fd, 0700) == 0;
        if (!ok)
                snprintf(why, 256, "%.200s: %s", path, strerror(errno));
        if (fd >= 0)
                close(fd);
        if (ok && !(so->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL))) {
                const char *said = dlerror();
                snprintf(why, 256, "%s", said ? said : "dlopen failed");
        }
        if (fd >= 0)
                unlink(path);
        return so->handle != NULL;
}

moec_status so_open(const void *p, u64 bytes, const char *dir, So **out, moec_error *e)
{
        char why[256], why_file[256] = "there is no cache folder to try instead";
        *out = NULL;
        So *so = calloc(1, sizeof *so);
        if (!so)
                return fail(e, MOEC_NO_MEMORY, "out of memory loading kernels");
        so->fd = -1;
        if (open_memfd(so, p, bytes, why) || (dir && open_file(so, p, bytes, dir, why_file))) {
                *out = so;
                return MOEC_OK;
        }
        free(so);
        return fail(e, MOEC_RUNTIME, "cannot load the compiled kernels: %s; %s", why, why_file);
}

void *so_symbol(const So *so, const char *name)
{
        return dlsym(so->handle, name);
}

void so_close(So *so)
{
        if (!so)
                return;
        dlclose(so->handle);
        if (so->fd >= 0)
                close(so->fd);
        free(so);
}

#include "runtime/driver.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY "libcuda.so.1"

typedef int GetProc(const char *name, void **out, int version, u64 flags, int *found);

static moec_status too_old(int version, const char *lacks, moec_error *e)
{
        return fail(e, MOEC_NO_DEVICE,
                "the CUDA driver is too old: it is for CUDA %d.%d%s%s, but %d.%d or newer is needed; install "
                "a newer driver, or use "
                "--target cpu",
                version / 1000, version % 1000 / 10, lacks ? " and has no " : "", lacks ? lacks : "",
                DRIVER_NEEDS / 1000, DRIVER_NEEDS % 1000 / 10);
}

static moec_status get_functions(Driver *d, void *h, moec_error *e)
{
        int (*version)(int *);
        GetProc *get;
        void *f = dlsym(h, "cuDriverGetVersion"), *g = dlsym(h, "cuGetProcAddress_v2");
        if (!f)
                return fail(e, MOEC_NO_DEVICE, "%s is no CUDA driver: it has no cuDriverGetVersion", LIBRARY);
        memcpy(&version, &f, sizeof f);
        if (version(&d->version) != CU_OK)
                d->version = 0;
        if (!g || d->version < DRIVER_NEEDS)
                return too_old(d->version, NULL, e);
        memcpy(&get, &g, sizeof g);
#define D(name, args)                                                                                        \
        f = NULL;                                                                                            \
        if (get(#name, &f, DRIVER_NEEDS, 0, NULL) != CU_OK || !f)                                            \
                return too_old(d->version, #name, e);                                                        \
        memcpy(&d->name, &f, sizeof f);
        DRIVER_API(D)
#undef D
        return MOEC_OK;
}

static moec_status find_devices(Driver *d, moec_error *e)
{
        int rc = d->cuInit(0);
        if (rc == CU_OK)
                rc = d->cuDeviceGetCount(&d->n_device);
        if (rc == CU_NO_DEVICE || (rc == CU_OK && d->n_device < 1))
                return fail(e, MOEC_NO_DEVICE,
                        "the CUDA driver sees no device; use --target cpu, or see what nvidia-smi says");
        if (rc == CU_OK)
                return MOEC_OK;
        const char *why = NULL;
        d->cuGetErrorString(rc, &why);
        return fail(e, MOEC_NO_DEVICE, "the CUDA driver does not start: %s (%d); see what nvidia-smi says",
                why ? why : "no reason given", rc);
}

moec_status driver_open(const char *library, Driver **out, moec_error *e)
{
        *out = NULL;
        void *h = dlopen(library ? library : LIBRARY, RTLD_NOW | RTLD_LOCAL);
        if (!h)
                return fail(e, MOEC_NO_DEVICE,
                        "there is no CUDA driver here: %.300s; install NVIDIA's, or use --target cpu",
                        dlerror());
        Driver *d = calloc(1, sizeof *d);
        if (!d)
                return fail(e, MOEC_NO_MEMORY, "out of memory loading the CUDA driver");
        moec_status st = get_functions(d, h, e);
        if (st == MOEC_OK)
                st = find_devices(d, e);
        if (st == MOEC_OK)
                *out = d;
        else
                free(d);
        return st;
}

void driver_close(Driver *d)
{
        free(d);
}

moec_status driver_check(const Driver *d, int rc, const char *what, moec_error *e)
{
        const char *name = NULL, *why = NULL;
        if (rc == CU_OK)
                return MOEC_OK;
        d->cuGetErrorName(rc, &name);
        d->cuGetErrorString(rc, &why);
        if (rc == CU_NO_MEMORY)
                return fail(e, MOEC_NO_MEMORY,
                        "out of device memory: %s; another program may use the device (nvidia-smi), or the "
                        "context "
                        "(-c) is too long",
                        what);
        return fail(e, MOEC_RUNTIME,
                "the CUDA device failed: %s: %s (%s, %d); start again, and if that fails too, see what "
                "nvidia-smi says",
                what, why ? why : "no reason given", name ? name : "?", rc);
}

moec_status driver_device(const Driver *d, int id, Device *out, moec_error *e)
{
        int dev = 0, major = 0, minor = 0, n = 0;
        *out = (Device){.id = id};
        int rc = d->cuDeviceGet(&dev, id);
        if (rc == CU_OK)
                rc = d->cuDeviceGetName(out->name, (int)sizeof out->name, dev);
        if (rc == CU_OK)
                rc = d->cuDeviceGetAttribute(&major, CU_ATTR_CC_MAJOR, dev);
        if (rc == CU_OK)
                rc = d->cuDeviceGetAttribute(&minor, CU_ATTR_CC_MINOR, dev);
        if (rc == CU_OK)
                rc = d->cuDeviceGetAttribute(&n, CU_ATTR_PROCESSORS, dev);
        out->id = dev;
        out->major = (u32)major;
        out->minor = (u32)minor;
        out->processors = (u32)n;
        return driver_check(d, rc, "asking for the device's properties", e);
}

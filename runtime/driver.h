/* The CUDA driver, loaded when needed: neither building nor starting needs CUDA. */
#ifndef MOEC_DRIVER_H
#define MOEC_DRIVER_H
#include "ir/util.h"

/* The driver API's types, as its documentation lays them out. */
typedef u64 CuPtr;
typedef struct CuContext CuContext;
typedef struct CuModule CuModule;
typedef struct CuFunction CuFunction;
typedef struct CuStream CuStream;
typedef struct CuGraph CuGraph;
typedef struct CuGraphExec CuGraphExec;
typedef struct CuEvent CuEvent;
typedef struct CuAttribute {
        u32 id, pad;
        u32 value[16];
} CuAttribute;
typedef struct CuLaunch {
        u32 grid[3], block[3], smem;
        CuStream *stream;
        CuAttribute *attribute;
        u32 n_attribute;
} CuLaunch;

enum {
        CU_OK = 0,
        CU_NO_MEMORY = 2,
        CU_NO_DEVICE = 100,
        CU_INVALID_IMAGE = 200,
        CU_NO_BINARY = 209,
        CU_PTX_TOO_NEW = 222,
        CU_NOT_FOUND = 500,
        CU_ATTR_CC_MAJOR = 75,
        CU_ATTR_CC_MINOR = 76,
        CU_ATTR_PROCESSORS = 16,
        CU_CAPTURE_RELAXED = 2,
        CU_FUNC_SHARED = 8,   /* the most dynamic shared memory */
        CU_FUNC_CARVEOUT = 9, /* percent of the L1's memory that is shared memory */
        CU_STREAM_OF_ITS_OWN = 1,
        CU_LAUNCH_PROGRAMMATIC = 6, /* may start before the launch in front of it ends */
};

/*   D(name, arguments)   in the version that CUDA DRIVER_NEEDS has */
#define DRIVER_NEEDS 12000
#define DRIVER_API(D)                                                                                        \
        D(cuInit, (u32))                                                                                     \
        D(cuGetErrorName, (int, const char **))                                                              \
        D(cuGetErrorString, (int, const char **))                                                            \
        D(cuDeviceGetCount, (int *))                                                                         \
        D(cuDeviceGet, (int *, int))                                                                         \
        D(cuDeviceGetName, (char *, int, int))                                                               \
        D(cuDeviceGetAttribute, (int *, int, int))                                                           \
        D(cuDevicePrimaryCtxRetain, (CuContext **, int))                                                     \
        D(cuDevicePrimaryCtxRelease, (int))                                                                  \
        D(cuCtxSetCurrent, (CuContext *))                                                                    \
        D(cuMemGetInfo, (size_t *, size_t *))                                                                \
        D(cuMemAlloc, (CuPtr *, size_t))                                                                     \
        D(cuMemFree, (CuPtr))                                                                                \
        D(cuMemHostAlloc, (void **, size_t, u32))                                                            \
        D(cuMemFreeHost, (void *))                                                                           \
        D(cuMemcpyHtoDAsync, (CuPtr, const void *, size_t, CuStream *))                                      \
        D(cuMemcpyDtoHAsync, (void *, CuPtr, size_t, CuStream *))                                            \
        D(cuMemsetD8Async, (CuPtr, u8, size_t, CuStream *))                                                  \
        D(cuStreamCreate, (CuStream **, u32))                                                                \
        D(cuStreamDestroy, (CuStream *))                                                                     \
        D(cuStreamSynchronize, (CuStream *))                                                                 \
        D(cuStreamBeginCapture, (CuStream *, int))                                                           \
        D(cuStreamEndCapture, (CuStream *, CuGraph **))                                                      \
        D(cuGraphInstantiate, (CuGraphExec **, CuGraph *, u64))                                              \
        D(cuGraphLaunch, (CuGraphExec *, CuStream *))                                                        \
        D(cuGraphExecDestroy, (CuGraphExec *))                                                               \
        D(cuGraphDestroy, (CuGraph *))                                                                       \
        D(cuModuleLoadData, (CuModule **, const void *))                                                     \
        D(cuModuleUnload, (CuModule *))                                                                      \
        D(cuModuleGetFunction, (CuFunction **, CuModule *, const char *))                                    \
        D(cuModuleGetGlobal, (CuPtr *, size_t *, CuModule *, const char *))                                  \
        D(cuFuncSetAttribute, (CuFunction *, int, int))                                                      \
        D(cuLaunchKernelEx, (const CuLaunch *, CuFunction *, void **, void **))                              \
        D(cuEventCreate, (CuEvent **, u32))                                                                  \
        D(cuEventDestroy, (CuEvent *))                                                                       \
        D(cuEventRecord, (CuEvent *, CuStream *))                                                            \
        D(cuEventElapsedTime, (float *, CuEvent *, CuEvent *))

typedef struct Driver {
#define D(name, args) int(*name) args;
        DRIVER_API(D)
#undef D
        int version; /* 13000 */
        int n_device;
} Driver;

/* library: NULL for the system's. MOEC_NO_DEVICE: no driver, one too old (what is needed, what is there), or
 * no device. */
moec_status driver_open(const char *library, Driver **out, moec_error *e);
void driver_close(Driver *d); /* NULL is fine; the library stays loaded */

typedef struct Device {
        int id;
        char name[128];
        u32 major, minor; /* compute capability */
        u32 processors;
} Device;
moec_status driver_device(const Driver *d, int id, Device *out, moec_error *e);

/* Nothing where rc is CU_OK; else MOEC_NO_MEMORY or MOEC_RUNTIME, saying what was tried and the driver's
 * words. */
moec_status driver_check(const Driver *d, int rc, const char *what, moec_error *e);

#endif

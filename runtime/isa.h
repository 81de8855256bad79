/* Instruction sets, as a plan's META.isa names them: a level ("x86-64-v3") or "native:" and every feature
 * that the kernels may use ("native:avx2,fma,f16c"), spelled as the compiler's -m options are. */
#ifndef MOEC_ISA_H
#define MOEC_ISA_H
#include "ir/util.h"

#define ISA_MAX 512 /* bytes that isa_native writes at most, its end included */

/* MOEC_NO_DEVICE, naming what is missing here or not known. */
moec_status isa_have(const char *isa, moec_error *e);
bool isa_feature(const char *name); /* this processor has it, and the system keeps its registers */
void isa_native(char out[ISA_MAX]); /* of this machine */

#define CUDA_NEEDS 8 /* the least major compute capability that CUDA kernels run on */

#endif

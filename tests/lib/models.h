/* The demo models and what is known to be right for them (tests/models/README.md). Tests run at the top of
 * the tree. */
#ifndef MOEC_TEST_MODELS_H
#define MOEC_TEST_MODELS_H
#include "ir/util.h"

enum { MAX_MODELS = 32, N_PROMPT = 4, MAX_PROMPT = 512 };

typedef struct TestModel {
        char name[128];   /* fables-Q4_K_M */
        char path[512];   /* of the GGUF */
        char golden[512]; /* what its golden files' names start with */
} TestModel;

/* The committed models, then those of the folder $MODELS that have golden values; how many. */
u32 test_models(TestModel m[MAX_MODELS]);

/* Token ids of a prompt, n of them. */
u32 test_prompt(u32 prompt, i32 ids[MAX_PROMPT]);

/* A golden file of that model, n values of 4 bytes; NULL where there is none. The caller frees. */
void *test_golden(const TestModel *m, const char *suffix, u64 n);

/* |a - b| / |b|, over n values. */
double test_distance(const float *a, const float *b, u64 n);

#endif

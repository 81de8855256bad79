/* What bench's files share: bench.c measures and tells; bench_profile.c tells a profile; bench_batched.c
 * measures sequences that decode together. */
#ifndef MOEC_BENCH_H
#define MOEC_BENCH_H
#include "cli/common.h"

/* Where the time of a test has gone. */
typedef struct Profile {
        const moec_profile_row *row; /* [n], the context's */
        int n;
        double seconds;   /* what the test took when it was measured */
        double bandwidth; /* bytes a second that reading alone reaches */
} Profile;
/* On stderr, as results are on stdout: a table, or CSV with whole Keys; nothing as "json". */
void profile_tell(const Profile *p, const char *title, const char *as);
void profile_json(const Profile *p, FILE *f); /* an array, for the result */

typedef struct List {
        int32_t *v; /* free() it */
        int n;
} List;
int read_list(const char *option, const char *text, List *l); /* an exit status */

int32_t random_token(uint32_t *state, int n_vocab);
/* moec_step, or MOEC_INTERRUPTED where there was a Ctrl-C. */
moec_status step_unless_interrupted(moec_context *c, const moec_token *tok, int n, moec_error *e);

int bench_batched(const Args *a); /* an exit status */

#endif

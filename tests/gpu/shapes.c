/* Models of odd shapes, with every type in every matrix's place, on the device. A program without cmocka, as
 * a machine with a device may have no more than that and the driver. */
#include <stdio.h>
#include "tests/lib/synth.h"
#include "tests/lib/tempdir.h"

int main(void)
{
        static char why[8192];
        char dir[64], path[80];
        int failed = 0;
        snprintf(path, sizeof path, "%s/model.gguf", temp_new(dir));
        for (u32 i = 0; i < N_SYNTH_ODD; i++)
                for (u32 act = MOEC_ACT_Q8; act <= MOEC_ACT_F32; act++) {
                        Synth s = synth_odd(i);
                        moec_options opt = {.target = "cuda", .act = (moec_act)act};
                        bool good = synth_verify(&s, path, &opt, why, sizeof why);
                        printf("%sok shape %u, %s\n%s", good ? "" : "not ", i, act ? "f32" : "q8",
                                good ? "" : why);
                        fflush(stdout);
                        failed += !good;
                }
        temp_remove(dir);
        return failed != 0;
}

/* libFuzzer: bytes are a GGUF file, opened and used to the last byte. With MOECPART between them they are two
 * parts of one model. Copies are exact, so one byte too many is seen; what is refused must be the file's
 * fault. */
#include "tests/hostile/gen.h"
#include "tests/hostile/walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const char mark[] = "MOECPART";
        const u8 *cut = memmem(data, size, mark, sizeof mark - 1);
        Buf part[2] = {{0}};
        buf_add(&part[0], data, cut ? (size_t)(cut - data) : size);
        if (cut)
                buf_add(&part[1], cut + sizeof mark - 1, size - part[0].len - (sizeof mark - 1));
        Opened o;
        g_open(&o, &part[0], cut ? &part[1] : NULL);
        moec_status st = o.error.status;
        if (st == MOEC_OK) {
                walk(o.g);
        } else if (st != MOEC_DAMAGED && st != MOEC_UNSUPPORTED) {
                fprintf(stderr, "status %d: %s\n", st, o.error.msg);
                abort();
        }
        if (arena_used(o.a) > 4096 + 16 * size)
                abort();
        g_shut(&o);
        buf_free(&part[0]);
        buf_free(&part[1]);
        return 0;
}

/* libFuzzer: bytes are a tokenizer's blob; one that opens encodes and decodes a text, and gives it back. */
#include "runtime/token.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char text[] = "Once upon a time, <|im_start|>x\xc3\xa9\xff 123\n\n  it's\t";

static void use(const Token *t)
{
        i32 *ids = NULL;
        int n = 0;
        moec_error e = {0};
        if (token_encode(t, text, sizeof text - 1, true, true, &ids, &n, &e) != MOEC_OK) {
                fprintf(stderr, "status %d: %s\n", e.status, e.msg);
                abort();
        }
        for (int i = -1; i <= n; i++) {
                const char *piece;
                size_t len;
                i32 id = i < 0 || i == n ? i : ids[i];
                if (token_piece(t, id, true, &piece, &len, NULL) == MOEC_OK)
                        for (size_t k = 0; k < len; k++)
                                (void)*(volatile const char *)(piece + k);
                (void)token_is_end(t, id);
        }
        if (token_bos(t) >= 0 && (u32)token_bos(t) >= token_count(t))
                abort();
        free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        u8 *p = malloc(size ? size : 1);
        if (!p)
                return 0;
        if (size)
                memcpy(p, data, size);
        Token *t = NULL;
        moec_error e = {0};
        moec_status st = token_open(p, size, &t, &e);
        if (st == MOEC_OK) {
                use(t);
                token_close(t);
        } else if ((st != MOEC_DAMAGED && st != MOEC_UNSUPPORTED) || !e.msg[0]) {
                fprintf(stderr, "status %d: %s\n", st, e.msg);
                abort();
        }
        free(p);
        return 0;
}

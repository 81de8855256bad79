#include "runtime/utf8.h"
#include <string.h>

int utf8_next(const char *p, size_t n)
{
        const u8 *s = (const u8 *)p;
        if (!n)
                return 0;
        if (s[0] < 0x80)
                return 1;
        if (s[0] < 0xc2 || s[0] > 0xf4)
                return -1;
        int len = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
        /* Only the second byte's range depends on the first: no overlong forms, surrogates or numbers too
         * large. */
        u8 lo = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
        u8 hi = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
        for (int i = 1; i < len; i++) {
                if ((size_t)i == n)
                        return 0;
                if (s[i] < lo || s[i] > hi)
                        return -i;
                lo = 0x80;
                hi = 0xbf;
        }
        return len;
}

size_t utf8_run(const char *p, size_t n)
{
        size_t i = 0;
        for (;;) {
                u64 w;
                while (n - i >= sizeof w && (memcpy(&w, p + i, sizeof w), !(w & 0x8080808080808080)))
                        i += sizeof w;
                int len = utf8_next(p + i, n - i);
                if (len <= 0)
                        return i;
                i += (size_t)len;
        }
}

static size_t put(char *out, size_t o, const void *p, size_t n)
{
        memcpy(out + o, p, n);
        return o + n;
}

size_t moec_utf8_push(moec_utf8 *u, const char *bytes, size_t len, bool flush, char *out)
{
        static const char replacement[3] = "\xef\xbf\xbd";
        size_t o = 0;
        while (u->n || len) {
                /* What is kept is always the beginning of a character: take bytes until it is whole or
                 * broken. */
                const char *p = bytes;
                size_t n = len, had = (size_t)u->n;
                if (had) {
                        size_t take = MIN(len, sizeof u->part - had);
                        if (take)
                                memcpy(u->part + had, bytes, take);
                        p = (const char *)u->part;
                        n = had + take;
                }
                int k = utf8_next(p, n);
                if (k == 0) {
                        if (!had && n)
                                memcpy(u->part, p, n);
                        u->n = (int)n;
                        break;
                }
                size_t used = (size_t)(k < 0 ? -k : k);
                o = k < 0 ? put(out, o, replacement, sizeof replacement) : put(out, o, p, used);
                u->n = 0;
                bytes += used - had;
                len -= used - had;
        }
        if (flush && u->n) {
                o = put(out, o, replacement, sizeof replacement);
                u->n = 0;
        }
        return o;
}

/* UTF-8 as Unicode defines it: no surrogates, no overlong forms, nothing above U+10FFFF. */
#ifndef MOEC_UTF8_H
#define MOEC_UTF8_H
#include "ir/util.h"

/* The character at p, of n bytes that are there: its length, 1 to 4. 0: the bytes are the beginning of a
 * character, and more are needed. Negative: none begins so, and -result bytes (1 to 3) make up the broken
 * one. n 0 gives 0. */
int utf8_next(const char *p, size_t n);

/* How many bytes from p on are whole, valid characters. */
size_t utf8_run(const char *p, size_t n);

#endif

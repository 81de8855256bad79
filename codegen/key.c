#include "codegen/key.h"
#include <stdio.h>

Key *key_new(Arena *a, const char *op)
{
        Key *k = NEW(a, Key);
        k->arena = a;
        k->op = op;
        return k;
}

void key_word(Key *k, const char *name, const char *word)
{
        GROW(k->arena, k->fact, k->n, k->cap);
        k->fact[k->n++] = (Fact){name, word};
}

void key_int(Key *k, const char *name, i64 v)
{
        key_word(k, name, arena_fmt(k->arena, "%lld", (long long)v));
}

void key_flt(Key *k, const char *name, double v)
{
        key_word(k, name, arena_fmt(k->arena, "%a", v));
}

void key_fmt(Key *k, const char *value, const char *name, ...)
{
        char buf[64];
        va_list ap;
        va_start(ap, name);
        vsnprintf(buf, sizeof buf, name, ap);
        va_end(ap);
        key_word(k, arena_str(k->arena, buf), value);
}

void key_done(Key *k)
{
        Buf b = {0};
        char hex[HASH_HEX + 1];
        buf_str(&b, k->op);
        for (u32 i = 0; i < k->n; i++)
                buf_fmt(&b, " %s=%s", k->fact[i].name, k->fact[i].value);
        k->text = arena_strn(k->arena, b.p, b.len);
        k->name = arena_fmt(k->arena, "k_%s_%.12s", k->op, hash_hex(hash_bytes(b.p, b.len), hex));
        buf_free(&b);
}

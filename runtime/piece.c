#include "runtime/piece.h"
#include <string.h>
#include "runtime/pack.h"

_Static_assert(sizeof(Piece) <= PIECE_ROOM, "PIECE_ROOM");

/* A number has 4 bytes unless its field has less. */
#define F(bytes, unit)                        &&((bytes) == 1 || (bytes) == 2 || (bytes) % 4 == 0)
#define W(name, id, per, bytes, kind, fields) _Static_assert(1 fields, #name ": a field of odd numbers");
WTYPES(W)
#undef F
#undef W

u64 random_seed(const char *tensor)
{
        return hash_str(tensor, strlen(tensor));
}

static u64 random_word(u64 seed, u64 at)
{
        u64 z = seed + (at + 1) * 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
}

/* In two formats a field of two bytes is no scale, but other bits, which may be anything. */
static RandomKind random_kind(Wtype t, const Field *f)
{
        if (!wtype_info[t].quant)
                return t == W_F32 ? RANDOM_f32 : t == W_F16 ? RANDOM_f16 : RANDOM_bf16;
        return f->bytes == 2 ? RANDOM_scale : f->bytes == 1 ? RANDOM_exponent : RANDOM_codes;
}

static u32 random_number(RandomKind kind, u64 r)
{
        float v = (float)((i32)(r >> 40) - (1 << 23)) * 0x1p-27f;
        u32 bits;
        memcpy(&bits, &v, sizeof bits);
        switch (kind) {
        case RANDOM_f32:
                return bits;
        case RANDOM_f16:
                return f32_to_f16(v);
        case RANDOM_bf16:
                return bits >> 16;
        case RANDOM_scale:
                return f32_to_f16(v * 0.125f);
        case RANDOM_exponent:
                return 118 + (u32)(r & 3);
        case RANDOM_codes:
                break;
        }
        return (u32)(r >> 32);
}

void random_blocks(Wtype t, u64 seed, u64 at, u8 *dst, u64 blocks)
{
        const WtypeInfo *w = &wtype_info[t];
        for (u64 b = 0; b < blocks; b++)
                for (const Field *f = w->field; f < w->field + MAX_FIELD && f->bytes; f++) {
                        RandomKind kind = random_kind(t, f);
                        u32 unit = MIN(f->bytes, 4);
                        for (u32 i = 0; i < f->bytes; i += unit, at += unit, dst += unit) {
                                u32 v = random_number(kind, random_word(seed, at));
                                memcpy(dst, &v, unit); /* little-endian, as GGUF is */
                        }
                }
}

Piece piece_new(Wtype t, u64 rows, u64 cols)
{
        const WtypeInfo *w = &wtype_info[t];
        Piece p = {.rows = (u32)rows,
                .row_bytes = (u32)(cols / w->per * w->bytes),
                .split_bytes = (u32)pack_split_bytes(t, cols),
                .blocks = (u32)(cols / w->per),
                .block_bytes = w->bytes};
        for (u32 i = 0; i < MAX_FIELD && w->field[i].bytes; i++) {
                p.field[i] = w->field[i].bytes;
                p.kind[i] = random_kind(t, &w->field[i]);
        }
        return p;
}

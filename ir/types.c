#include "ir/types.h"
#include <string.h>

#define FLOAT false
#define QUANT true

#define F(bytes, unit) {bytes, unit},
const WtypeInfo wtype_info[N_WTYPE] = {
#define W(name, id, per, bytes, kind, fields) {#name, id, per, bytes, kind, {fields}},
        WTYPES(W)
#undef W
};
#undef F

/* A block is its fields and nothing else, and fields are whole units. */
#define F(bytes, unit) +(bytes)
#define W(name, id, per, bytes, kind, fields)                                                                \
        _Static_assert((bytes) == (0 fields), #name ": the fields do not add up to the block");
WTYPES(W)
#undef F
#define F(bytes, unit) +((bytes) / (unit) * (unit) != (bytes))
#undef W
#define W(name, id, per, bytes, kind, fields)                                                                \
        _Static_assert(0 == (0 fields), #name ": a field of part units");
WTYPES(W)
#undef F
#define F(bytes, unit) +1
#undef W
/* One more, so that every row ends at a field of no bytes. */
#define W(name, id, per, bytes, kind, fields)                                                                \
        _Static_assert(MAX_FIELD >= (1 fields), #name ": more fields than MAX_FIELD");
WTYPES(W)
#undef W
#undef F

const DtypeInfo dtype_info[N_DTYPE] = {
#define D(name, bytes) {#name, bytes},
        DTYPES(D)
#undef D
};

u64 kv_row_bytes(Dtype t, u64 n)
{
        return t == D_q8_0 ? (n + n / KV_BLOCK * sizeof(u16) + 15) / 16 * 16 : n * dtype_info[t].bytes;
}

bool wtype_by_id(u32 id, Wtype *out)
{
        for (int t = 0; t < N_WTYPE; t++)
                if (wtype_info[t].id == id) {
                        *out = (Wtype)t;
                        return true;
                }
        return false;
}

bool wtype_by_name(const char *name, size_t n, Wtype *out)
{
        for (int t = 0; t < N_WTYPE; t++)
                if (strlen(wtype_info[t].name) == n && memcmp(wtype_info[t].name, name, n) == 0) {
                        *out = (Wtype)t;
                        return true;
                }
        return false;
}

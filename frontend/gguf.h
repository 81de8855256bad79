/* GGUF files, versions 2 and 3, little-endian, whole or split: metadata and the place of every tensor's data.
 * Nothing in a file is believed: whatever gguf_read accepts lies inside the file, does not overlap, and was
 * checked without overflow; whatever it refuses ends in err(MOEC_DAMAGED, ...) naming the file, the byte, and
 * the key or tensor. Numbers a file only claims (counts, lengths) never size an allocation before they are
 * bounded by the bytes that are left.
 *
 * Strings of a file are hostile text. Key and tensor names are printable ASCII; string values are raw bytes
 * until gguf_str or the caller checks them.
 *
 * The files are mapped, not read. A file that another process truncates while it is open raises SIGBUS when a
 * byte behind its new end is touched, as with any mapped file. Lengths and positions are copied when the file
 * is opened, so content that changes later gives wrong numbers, never an access out of bounds.
 *
 * A Gguf is immutable once read and may be shared by threads. Everything a function returns belongs to its
 * arena or its mapping and lasts until gguf_close. */
#ifndef MOEC_GGUF_H
#define MOEC_GGUF_H
#include "ir/types.h"

/* Types of metadata values: T(name, bytes of a scalar), in the order of their ids, from 0. */
/* clang-format off */
#define GGUF_TYPES(T)                                                                                        \
        T(u8, 1) T(i8, 1) T(u16, 2) T(i16, 2) T(u32, 4) T(i32, 4) T(f32, 4) T(bool, 1) T(string, 0)          \
        T(array, 0) T(u64, 8) T(i64, 8) T(f64, 8)
/* clang-format on */
typedef enum GgufType {
#define T(name, bytes) GGUF_##name,
        GGUF_TYPES(T)
#undef T
                GGUF_N_TYPE
} GgufType;
const char *gguf_type_name(GgufType t); /* "u8", ... */

typedef struct GgufStr {
        const char *p; /* not NUL-terminated; in the mapping */
        u64 n;
} GgufStr;

typedef struct GgufKey {
        const char *name;
        u64 at;        /* where the value is: bytes from the start of the file */
        GgufType type; /* of the value; array: n elements of type elem */
        GgufType elem;
        u64 n;          /* array: elements; string: bytes */
        u64 bits;       /* scalar: as stored, zero-extended */
        const u8 *data; /* array, string: the first byte, in the mapping, not aligned */
        const u32 *off; /* string array: element i is data[off[i] + 8 .. off[i + 1]); n + 1 of them */
} GgufKey;

#define GGUF_MAX_DIM 4
typedef struct GgufTensor {
        const char *name;
        u64 at;      /* where its record is, in its file */
        u32 id;      /* ggml's type number, whatever it is */
        bool usable; /* the type is one of ours: `type` holds */
        Wtype type;
        u32 part;              /* which file holds its data */
        u32 n_dim;             /* 1..4 */
        u64 dim[GGUF_MAX_DIM]; /* row-major: dim[0] outermost, dim[n_dim - 1] contiguous in the file */
        u64 n;                 /* values: the product of dim */
        u64 bytes;             /* 0 where the size of the type is not known */
        u64 offset;            /* of the data, from the start of its file */
} GgufTensor;

typedef struct GgufPart {
        const char *path;
        Map map;
        u32 version;
        u64 meta_bytes; /* header, keys and tensor table */
        u64 data_start; /* meta_bytes aligned: where tensor data starts */
        u64 align;
        GgufKey *key;
        u32 *key_order; /* by name */
        GgufTensor *tensor;
        u32 n_key, n_tensor;
        bool is_shape;
} GgufPart;

typedef struct Gguf Gguf;

/* In this order. gguf_new owns nothing but arena memory; gguf_close is safe at any time after it, twice too,
 * and must be called even if gguf_read failed. gguf_read opens every part of a split file, given the first
 * one's path. Fails with MOEC_DAMAGED; MOEC_UNSUPPORTED: another version or byte order; MOEC_NOT_FOUND: a
 * part is missing; MOEC_USAGE: not the first part; MOEC_IO. */
Gguf *gguf_new(Arena *a);
void gguf_read(Gguf *g, const char *path);
void gguf_close(Gguf *g);

/* What gguf_read is made of: each part in order, its map taken over; then what concerns all of them. */
void gguf_add(Gguf *g, const char *path, Map map);
void gguf_finish(Gguf *g);

const char *gguf_path(const Gguf *g); /* of the first part */
u32 gguf_n_parts(const Gguf *g);
const GgufPart *gguf_part(const Gguf *g, u32 i);
bool gguf_is_shape(const Gguf *g); /* has tensors, and ends exactly where their data would start */
/* Which model this is: XXH3-128 (hash_bytes) of the first meta_bytes bytes of the first part; hash_mix adds
 * the same of each further part. A shape file has its model's hash. */
Hash gguf_hash(const Gguf *g);

/* ---- keys: those of the first part ---- */
u32 gguf_n_keys(const Gguf *g);
const GgufKey *gguf_key_at(const Gguf *g, u32 i);         /* in file order */
const GgufKey *gguf_key(const Gguf *g, const char *name); /* NULL: no such key */

/* Scalars: false, with *out untouched, where there is no such key; err(MOEC_DAMAGED) where it is of another
 * type or out of range (bounds inclusive). Integers may have any width and sign, floats either width; they
 * must be finite. Strings must be UTF-8 without NUL. */
bool gguf_u64(const Gguf *g, const char *name, u64 min, u64 max, u64 *out);
bool gguf_f32(const Gguf *g, const char *name, double min, double max, float *out);
bool gguf_bool(const Gguf *g, const char *name, bool *out);
bool gguf_str(const Gguf *g, const char *name, GgufStr *out);

/* Arrays: NULL where there is no such key; err where it is not an array of such elements or has not
 * min_n..max_n of them. */
typedef enum GgufKind { GGUF_INTS, GGUF_FLOATS, GGUF_BOOLS, GGUF_STRINGS } GgufKind;
const GgufKey *gguf_arr(const Gguf *g, const char *name, GgufKind kind, u64 min_n, u64 max_n);
/* Elements of what gguf_arr returned for that kind; i < n. */
u64 gguf_elem_u64(const Gguf *g, const GgufKey *arr, u64 i, u64 min, u64 max);
float gguf_elem_f32(const Gguf *g, const GgufKey *arr, u64 i, double min, double max);
bool gguf_elem_bool(const GgufKey *arr, u64 i);
GgufStr gguf_elem_str(const GgufKey *arr, u64 i); /* raw bytes */

/* ---- tensors: those of all parts ---- */
u32 gguf_n_tensors(const Gguf *g);
const GgufTensor *gguf_tensor_at(const Gguf *g, u32 i);         /* in file order */
const GgufTensor *gguf_tensor(const Gguf *g, const char *name); /* NULL: no such tensor */
/* Any type number has a name: of types that are not ours too, "unknown" for what nobody defined. */
const char *gguf_tensor_type(u32 id);
/* What to call before a tensor is used: its type, or err(MOEC_UNSUPPORTED) naming it. */
Wtype gguf_wtype(const Gguf *g, const GgufTensor *t);
/* The tensor's t->bytes bytes, aligned to the file's alignment; NULL in a shape file. Checks the type as
 * gguf_wtype does. */
const u8 *gguf_data(const Gguf *g, const GgufTensor *t);

/* Limits; what no sane file comes near. */
#define GGUF_MAX_META                                                                                        \
        (512u << 20) /* bytes before the tensor data, all parts together; positions in it fit 32 bits */
#define GGUF_MAX_KEYS    (1u << 16)
#define GGUF_MAX_TENSORS (1u << 18)
#define GGUF_MAX_KEY     65535u
#define GGUF_MAX_NAME    63u
#define GGUF_MAX_STRING  (64u << 20)
#define GGUF_MAX_ALIGN   65536u
#define GGUF_MAX_PARTS   1000u

#endif

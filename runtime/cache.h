/* The compile cache: a private folder of files named KEY.KIND, KEY being a hash of everything that made the
 * contents. Any number of processes may use it at once. An entry that is damaged is deleted and counts as
 * missing. It holds code: a folder that others could write to is refused.
 *
 * A Cache is immutable; threads may share it. NULL is a cache that holds nothing and takes nothing. */
#ifndef MOEC_CACHE_H
#define MOEC_CACHE_H
#include "ir/util.h"

typedef struct Cache Cache;

/* dir: NULL or "off": none; it and its parents are made where missing. MOEC_REFUSED: it belongs to somebody
 * else, or others may write to it. Where it cannot be made or opened (a read-only or full disk) *out is NULL
 * and the status MOEC_OK. */
moec_status cache_open(const char *dir, Cache **out, moec_error *e);
void cache_close(Cache *c);
const char *cache_dir(const Cache *c); /* NULL for NULL */

/* An entry's contents, in place: data is aligned to 64. map_close(&hit.map) ends it; it outlives the entry's
 * deletion. */
typedef struct CacheHit {
        Map map;
        const u8 *data;
        u64 at, bytes; /* data's place in the map */
} CacheHit;
bool cache_get(const Cache *c, Hash key, const char *kind, CacheHit *hit);

/* kind: up to 15 of a-z, 0-9. text: what made the key, a line "name: value" for each part. MOEC_IO: not
 * stored, which may well be ignored; nothing is left behind. */
moec_status cache_put(const Cache *c, Hash key, const char *kind, const char *text, const void *data,
        u64 bytes, moec_error *e);

#define CACHE_KIND 16
#define CACHE_NAME (HASH_HEX + 1 + CACHE_KIND)
typedef struct CacheEntry {
        char name[CACHE_NAME]; /* KEY.KIND */
        u64 bytes;
        i64 used; /* seconds since 1970 */
} CacheEntry;
/* The last used first. *entry is malloc'ed, the caller frees it; NULL where there are none. */
moec_status cache_list(const Cache *c, CacheEntry **entry, u32 *n, moec_error *e);
/* An entry's text; name: KEY.KIND or the beginning of one only. *text is malloc'ed. MOEC_NOT_FOUND,
 * MOEC_USAGE: several. */
moec_status cache_text(const Cache *c, const char *name, char **text, moec_error *e);
/* Compares a text with the most similar one of that kind: its name ("" where the cache has none of the kind;
 * `but`, a name, is passed over) and the lines that differ, "-" before the cache's and "+" before text's.
 * *out is malloc'ed. */
moec_status cache_compare(const Cache *c, const char *kind, const char *text, const char *but,
        char name[CACHE_NAME], char **out, moec_error *e);

/* Deletes the longest unused entries until the rest has at most `keep` bytes, and what crashed writers left.
 * 0: all. */
moec_status cache_prune(const Cache *c, u64 keep, u32 *n_removed, u64 *bytes_left, moec_error *e);

#endif

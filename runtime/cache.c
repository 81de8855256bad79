#include "runtime/cache.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAGIC      "MOECCAC1"
#define ALIGN      64
#define TEMP       ".tmp-"
#define TEMP_AGE_S 3600 /* a writer that old is dead */

struct Cache {
        int fd;
        char path[];
};

/* A file: this, the text with its end, zeros up to a multiple of ALIGN, the data. */
typedef struct Head {
        char magic[8];
        char kind[CACHE_KIND];
        u64 text_bytes, data_bytes;
        Hash key;
        Hash checksum; /* of kind, of the text, then of the data */
} Head;

/* ---- the folder ---- */

/* As mkdir -p, the last one for its owner only. */
static bool make_dirs(const char *dir)
{
        char path[PATH_MAX];
        if (snprintf(path, sizeof path, "%s", dir) >= (int)sizeof path)
                return false;
        for (char *s = path + 1; (s = strchr(s, '/')); *s++ = '/') {
                *s = 0;
                mkdir(path, 0755); /* what matters is whether the last succeeds */
        }
        return mkdir(path, 0700) == 0 || errno == EEXIST;
}

moec_status cache_open(const char *dir, Cache **out, moec_error *e)
{
        *out = NULL;
        if (!dir || !*dir || strcmp(dir, "off") == 0 || !make_dirs(dir))
                return MOEC_OK;
        int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct stat st;
        if (fd < 0)
                return MOEC_OK;
        Cache *c = NULL;
        moec_status status = MOEC_OK;
        if (fstat(fd, &st) != 0 || !(c = malloc(sizeof *c + strlen(dir) + 1)))
                status = MOEC_OK; /* as if there were none */
        else if (st.st_uid != geteuid())
                status = fail(e, MOEC_REFUSED,
                        "the cache folder %s belongs to another user (uid %lu), who could have put code "
                        "there; name another "
                        "with MOEC_CACHE_DIR, or MOEC_CACHE_DIR=off for none",
                        dir, (unsigned long)st.st_uid);
        else if (st.st_mode & (S_IWGRP | S_IWOTH))
                status = fail(e, MOEC_REFUSED,
                        "the cache folder %s may be written to by others (mode %03o), who could put code "
                        "there; chmod 700 it",
                        dir, (unsigned)st.st_mode & 0777);
        else {
                c->fd = fd;
                memcpy(c->path, dir, strlen(dir) + 1);
                *out = c;
                return MOEC_OK;
        }
        free(c);
        close(fd);
        return status;
}

void cache_close(Cache *c)
{
        if (!c)
                return;
        close(c->fd);
        free(c);
}

const char *cache_dir(const Cache *c)
{
        return c ? c->path : NULL;
}

/* ---- one entry ---- */

static void entry_name(Hash key, const char *kind, char name[CACHE_NAME])
{
        hash_hex(key, name);
        snprintf(name + HASH_HEX, 1 + CACHE_KIND, ".%s", kind);
}

static u64 data_at(u64 text_bytes)
{
        return (sizeof(Head) + text_bytes + ALIGN - 1) & ~(u64)(ALIGN - 1);
}

static Hash checksum(const Head *h, const void *text, const void *data)
{
        Hash sum = hash_bytes(h->kind, sizeof h->kind);
        return hash_mix(hash_mix(sum, text, h->text_bytes), data, h->data_bytes);
}

static bool whole(const Map *m, const char *name)
{
        Head h;
        char own[CACHE_NAME];
        if (m->size < sizeof h)
                return false;
        memcpy(&h, m->p, sizeof h);
        if (memcmp(h.magic, MAGIC, sizeof h.magic) != 0 || h.kind[CACHE_KIND - 1])
                return false;
        entry_name(h.key, h.kind, own);
        if (strcmp(own, name) != 0)
                return false;
        const u8 *text = m->p + sizeof h;
        if (h.text_bytes == 0 || h.text_bytes > m->size - sizeof h || text[h.text_bytes - 1] != 0)
                return false;
        u64 at = data_at(h.text_bytes);
        if (at > m->size || h.data_bytes != m->size - at)
                return false;
        return hash_same(checksum(&h, text, m->p + at), h.checksum);
}

/* Maps a whole entry. A damaged one is deleted. */
static bool entry_open(const Cache *c, const char *name, Map *m)
{
        int fd = c ? openat(c->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
        struct stat st;
        *m = (Map){.fd = -1};
        if (fd < 0)
                return false;
        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0) {
                void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
                if (p != MAP_FAILED) {
                        *m = (Map){.p = p, .size = (u64)st.st_size, .fd = fd};
                        if (whole(m, name))
                                return true;
                        map_close(m);
                        unlinkat(c->fd, name, 0);
                        return false;
                }
        } else
                unlinkat(c->fd, name, 0);
        close(fd);
        return false;
}

bool cache_get(const Cache *c, Hash key, const char *kind, CacheHit *hit)
{
        char name[CACHE_NAME];
        entry_name(key, kind, name);
        *hit = (CacheHit){.map.fd = -1};
        if (!entry_open(c, name, &hit->map))
                return false;
        futimens(hit->map.fd, NULL); /* last used; on a read-only disk it stays as it is */
        Head h;
        memcpy(&h, hit->map.p, sizeof h);
        hit->at = data_at(h.text_bytes);
        hit->data = hit->map.p + hit->at;
        hit->bytes = h.data_bytes;
        return true;
}

static bool write_all(int fd, const void *data, u64 n)
{
        for (const u8 *p = data; n;) {
                ssize_t did = write(fd, p, MIN(n, (u64)1 << 30));
                if (did < 0 && errno == EINTR)
                        continue;
                if (did < 0)
                        return false;
                p += did;
                n -= (u64)did;
        }
        return true;
}

static bool write_entry(int fd, const Head *h, const char *text, const void *data)
{
        static const u8 zero[ALIGN];
        u64 gap = data_at(h->text_bytes) - sizeof *h - h->text_bytes;
        return write_all(fd, h, sizeof *h) && write_all(fd, text, h->text_bytes) &&
               write_all(fd, zero, gap) && write_all(fd, data, h->data_bytes) && fsync(fd) == 0;
}

/* A new file; processes of other containers may have this one's number. */
static int open_temp(const Cache *c, char temp[64])
{
        static atomic_uint counter;
        int fd, tries = 0;
        do {
                snprintf(temp, 64, TEMP "%ld-%u", (long)getpid(), atomic_fetch_add(&counter, 1));
                fd = openat(c->fd, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        } while (fd < 0 && errno == EEXIST && ++tries < 1000);
        return fd;
}

moec_status cache_put(const Cache *c, Hash key, const char *kind, const char *text, const void *data,
        u64 bytes, moec_error *e)
{
        char name[CACHE_NAME], temp[64];
        if (!c)
                return MOEC_OK;
        if (strlen(kind) >= CACHE_KIND || kind[strspn(kind, "abcdefghijklmnopqrstuvwxyz0123456789")] ||
                !*kind)
                return fail(e, MOEC_USAGE, "%s is no kind of cache entry", kind);
        Head h = {.text_bytes = strlen(text) + 1, .data_bytes = bytes, .key = key};
        memcpy(h.magic, MAGIC, sizeof h.magic);
        memcpy(h.kind, kind, strlen(kind));
        h.checksum = checksum(&h, text, data);
        entry_name(key, kind, name);
        int fd = open_temp(c, temp);
        bool ok = fd >= 0 && write_entry(fd, &h, text, data);
        int why = errno;
        if (fd >= 0 && close(fd) != 0 && ok) {
                ok = false;
                why = errno;
        }
        if (ok && renameat(c->fd, temp, c->fd, name) != 0) {
                ok = false;
                why = errno;
        }
        if (ok)
                return MOEC_OK;
        if (fd >= 0)
                unlinkat(c->fd, temp, 0);
        return fail(e, MOEC_IO, "cannot write to the cache folder %s: %s", c->path, strerror(why));
}

/* ---- all entries ---- */

static bool is_entry(const char *name)
{
        size_t n = strlen(name);
        return n > HASH_HEX + 1 && n < HASH_HEX + 1 + CACHE_KIND &&
               strspn(name, "0123456789abcdef") == HASH_HEX && name[HASH_HEX] == '.';
}

static int by_use(const void *a, const void *b)
{
        const CacheEntry *x = a, *y = b;
        if (x->used != y->used)
                return x->used < y->used ? 1 : -1;
        return strcmp(x->name, y->name);
}

/* used is in nanoseconds here, so that what was used in one second still has an order. */
static moec_status scan(const Cache *c, CacheEntry **entry, u32 *n, bool drop_temp, moec_error *e)
{
        u32 cap = 0;
        *entry = NULL;
        *n = 0;
        int fd = c ? openat(c->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
        DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
        if (!d && fd >= 0)
                close(fd);
        if (!d)
                return c ? fail(e, MOEC_IO, "cannot read the cache folder %s: %s", c->path, strerror(errno))
                         : MOEC_OK;
        moec_status status = MOEC_OK;
        for (struct dirent *f; (f = readdir(d)) && status == MOEC_OK;) {
                struct stat st;
                if (fstatat(c->fd, f->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
                        continue;
                if (drop_temp && strncmp(f->d_name, TEMP, strlen(TEMP)) == 0 &&
                        time(NULL) - st.st_mtime > TEMP_AGE_S)
                        unlinkat(c->fd, f->d_name, 0);
                if (!is_entry(f->d_name))
                        continue;
                if (*n == cap) {
                        cap = cap ? cap * 2 : 64;
                        CacheEntry *more = realloc(*entry, cap * sizeof **entry);
                        if (!more) {
                                status = fail(e, MOEC_NO_MEMORY, "out of memory listing the cache");
                                break;
                        }
                        *entry = more;
                }
                CacheEntry *x = &(*entry)[(*n)++];
                memcpy(x->name, f->d_name, strlen(f->d_name) + 1); /* is_entry saw that it fits */
                x->bytes = (u64)st.st_size;
                x->used = (i64)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
        }
        closedir(d);
        if (status == MOEC_OK && *n)
                qsort(*entry, *n, sizeof **entry, by_use);
        if (status != MOEC_OK) {
                free(*entry);
                *entry = NULL;
                *n = 0;
        }
        return status;
}

moec_status cache_list(const Cache *c, CacheEntry **entry, u32 *n, moec_error *e)
{
        moec_status st = scan(c, entry, n, false, e);
        for (u32 i = 0; i < *n; i++)
                (*entry)[i].used /= 1000000000;
        return st;
}

moec_status cache_prune(const Cache *c, u64 keep, u32 *n_removed, u64 *bytes_left, moec_error *e)
{
        CacheEntry *entry;
        u32 n;
        u64 left = 0;
        *n_removed = 0;
        *bytes_left = 0;
        moec_status st = scan(c, &entry, &n, true, e);
        for (u32 i = 0; i < n && st == MOEC_OK; i++) {
                if (entry[i].bytes <= keep && left <= keep - entry[i].bytes) {
                        left += entry[i].bytes;
                        continue;
                }
                keep = left; /* what is older than the first that went goes too */
                if (unlinkat(c->fd, entry[i].name, 0) == 0)
                        ++*n_removed;
                else if (errno != ENOENT)
                        st = fail(e, MOEC_IO, "cannot delete %s/%s: %s", c->path, entry[i].name,
                                strerror(errno));
        }
        *bytes_left = left;
        free(entry);
        return st;
}

/* ---- explaining ---- */

static char *text_of(const Cache *c, const char *name)
{
        Map m;
        if (!entry_open(c, name, &m))
                return NULL;
        char *text = strdup((const char *)m.p + sizeof(Head)); /* whole() saw its end */
        map_close(&m);
        return text;
}

moec_status cache_text(const Cache *c, const char *name, char **text, moec_error *e)
{
        CacheEntry *entry;
        u32 n, found = 0, which = 0;
        *text = NULL;
        moec_status st = cache_list(c, &entry, &n, e);
        if (st != MOEC_OK)
                return st;
        for (u32 i = 0; i < n; i++)
                if (strncmp(entry[i].name, name, strlen(name)) == 0) {
                        found++;
                        which = i;
                }
        if (found > 1)
                st = fail(e, MOEC_USAGE, "%u cache entries begin with %.64s; give more of the key", found,
                        name);
        else if (!found || !(*text = text_of(c, entry[which].name)))
                st = fail(e, MOEC_NOT_FOUND, "no cache entry %.64s", name);
        free(entry);
        return st;
}

static bool has_line(const char *text, const char *line, size_t n)
{
        for (const char *s = text; *s; s += strcspn(s, "\n"), s += *s == '\n')
                if (strcspn(s, "\n") == n && memcmp(s, line, n) == 0)
                        return true;
        return false;
}

/* How many of text's lines `other` has not; where out is given they are written there, `mark` before each. */
static u32 lines_not_in(const char *text, const char *other, char mark, char *out, size_t *len)
{
        u32 count = 0;
        for (const char *s = text; *s; s += *s == '\n') {
                size_t n = strcspn(s, "\n");
                if (n && !has_line(other, s, n)) {
                        count++;
                        if (out)
                                *len += (size_t)sprintf(out + *len, "%c %.*s\n", mark, (int)n, s);
                }
                s += n;
        }
        return count;
}

static char *differences(const char *old, const char *new)
{
        size_t len = 0;
        char *out = malloc(4 * (strlen(old) + strlen(new)) + 1);
        if (out) {
                out[0] = 0;
                lines_not_in(old, new, '-', out, &len);
                lines_not_in(new, old, '+', out, &len);
        }
        return out;
}

moec_status cache_compare(const Cache *c, const char *kind, const char *text, const char *but,
        char name[CACHE_NAME], char **out, moec_error *e)
{
        CacheEntry *entry;
        u32 n, best = UINT32_MAX;
        char *nearest = NULL;
        name[0] = 0;
        *out = NULL;
        moec_status st = cache_list(c, &entry, &n, e);
        for (u32 i = 0; i < n; i++) {
                if (strcmp(entry[i].name + HASH_HEX + 1, kind) != 0 ||
                        (but && strcmp(entry[i].name, but) == 0))
                        continue;
                char *t = text_of(c, entry[i].name);
                u32 d = t ? lines_not_in(text, t, 0, NULL, NULL) + lines_not_in(t, text, 0, NULL, NULL)
                          : UINT32_MAX;
                if (d < best) {
                        best = d;
                        free(nearest);
                        nearest = t;
                        memcpy(name, entry[i].name, sizeof entry[i].name);
                } else
                        free(t);
        }
        free(entry);
        if (st == MOEC_OK && !(*out = differences(nearest ? nearest : "", text)))
                st = fail(e, MOEC_NO_MEMORY, "out of memory comparing cache entries");
        free(nearest);
        return st;
}

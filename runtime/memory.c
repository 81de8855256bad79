#include "runtime/memory.h"
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* "name: 123 kB" or "name 123" in a file of such lines; name NULL: the file is the number alone. */
static bool number_in(const char *path, const char *name, u64 *out)
{
        char line[256];
        bool found = false;
        FILE *f = fopen(path, "re");
        if (!f)
                return false;
        while (!found && fgets(line, sizeof line, f)) {
                char *s = line;
                if (name) {
                        size_t n = strlen(name);
                        if (strncmp(line, name, n) != 0)
                                continue;
                        s += n + strspn(line + n, ": \t");
                }
                s[strspn(s, "0123456789")] = 0;
                found = parse_u64(s, UINT64_MAX, out);
        }
        fclose(f);
        return found;
}

/* What is left in one cgroup: its limit less what is used and cannot be dropped. */
static bool cgroup_left(const char *dir, const char *limit, const char *used, u64 *left)
{
        char path[PATH_MAX];
        u64 max, now, cache = 0, part;
        if (snprintf(path, sizeof path, "%s/%s", dir, limit) >= (int)sizeof path ||
                !number_in(path, NULL, &max))
                return false; /* "max" is no number */
        if (snprintf(path, sizeof path, "%s/%s", dir, used) >= (int)sizeof path ||
                !number_in(path, NULL, &now))
                return false;
        if (snprintf(path, sizeof path, "%s/memory.stat", dir) < (int)sizeof path) {
                static const char *const droppable[] = {"active_file", "inactive_file"};
                for (size_t i = 0; i < COUNT(droppable); i++)
                        if (number_in(path, droppable[i], &part))
                                cache += part;
        }
        now -= MIN(cache, now);
        *left = max - MIN(now, max);
        return true;
}

/* The tightest of this process's cgroup and those around it. own: its line's end in /proc/self/cgroup. */
static u64 cgroup_tightest(const char *root, const char *own, const char *limit, const char *used)
{
        char dir[PATH_MAX];
        u64 least = UINT64_MAX, left;
        if (snprintf(dir, sizeof dir, "%s%s", root, own) >= (int)sizeof dir)
                return least;
        for (size_t n = strlen(dir); n >= strlen(root); n--) {
                if (dir[n] != 0 && dir[n] != '/')
                        continue;
                dir[n] = 0;
                if (cgroup_left(dir, limit, used, &left))
                        least = MIN(least, left);
        }
        return least;
}

static u64 cgroup_available(void)
{
        char line[PATH_MAX];
        u64 least = UINT64_MAX;
        FILE *f = fopen("/proc/self/cgroup", "re");
        while (f && fgets(line, sizeof line, f)) {
                line[strcspn(line, "\n")] = 0;
                char *what = strchr(line, ':'), *own = what ? strchr(what + 1, ':') : NULL;
                if (!own)
                        continue;
                *own++ = 0;
                u64 left = UINT64_MAX;
                if (strcmp(what, ":") == 0)
                        left = cgroup_tightest("/sys/fs/cgroup", own, "memory.max", "memory.current");
                else if (strcmp(what, ":memory") == 0)
                        left = cgroup_tightest("/sys/fs/cgroup/memory", own, "memory.limit_in_bytes",
                                "memory.usage_in_bytes");
                least = MIN(least, left);
        }
        if (f)
                fclose(f);
        return least;
}

Memory memory_available(void)
{
        Memory m = {UINT64_MAX, "nothing"};
        u64 v;
        if (number_in("/proc/meminfo", "MemAvailable", &v) && mul_u64(v, 1024, &v))
                m = (Memory){v, "MemAvailable of the system"};
        v = cgroup_available();
        if (v < m.bytes)
                m = (Memory){v, "its control group's limit"};
        struct rlimit r;
        if (getrlimit(RLIMIT_AS, &r) == 0 && r.rlim_cur != RLIM_INFINITY) {
                u64 pages = 0, page = (u64)sysconf(_SC_PAGESIZE);
                number_in("/proc/self/statm", NULL, &pages);
                v = r.rlim_cur - MIN(pages * page, r.rlim_cur);
                if (v < m.bytes)
                        m = (Memory){v, "its address space limit (ulimit -v)"};
        }
        return m;
}

void *memory_map(u64 bytes, bool huge)
{
        if (bytes > SIZE_MAX / 2)
                return NULL;
        size_t n = bytes ? bytes : 1;
        void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
                return NULL;
        if (huge)
                madvise(p, n, MADV_HUGEPAGE); /* only faster */
        return p;
}

void memory_unmap(void *p, u64 bytes)
{
        if (p)
                munmap(p, bytes ? bytes : 1);
}

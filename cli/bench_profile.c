/* bench --profile: where the time goes, kernel by kernel. */
#include "cli/bench.h"
#include <ctype.h>
#include <string.h>

/* Whether a Key's fact is worth a place in a table: a weight's type, or a size of the operation. */
static bool telling(const char *name, size_t n, const char *value)
{
        static const char *const size[] = {"K", "H", "F", "E", "KTOP", "HEADS", "KVH", "DK", "DV"};
        if (n > 5 && !strncmp(name, "TYPE_", 5))
                return isupper((unsigned char)*value) && strncmp(name + n - 4, "norm", 4) != 0;
        if (n > 1 && *name == 'N' && isdigit((unsigned char)name[1]))
                return true;
        for (size_t i = 0; i < sizeof size / sizeof *size; i++)
                if (strlen(size[i]) == n && !strncmp(size[i], name, n))
                        return true;
        return false;
}

/* "matmul_one ARG_out0=0 TYPE_w0=Q4_K ... K=2048 ... N0=4096": "matmul_one Q4_K K=2048 N0=4096". */
static void short_key(const char *key, char *out, size_t room)
{
        size_t n = strcspn(key, " "), at = (size_t)snprintf(out, room, "%.*s", (int)n, key);
        for (const char *f = key + n; *f && at < room; f += strcspn(f, " ")) {
                f += strspn(f, " ");
                size_t name = strcspn(f, "= "), all = strcspn(f, " ");
                if (f[name] != '=' || !telling(f, name, f + name + 1))
                        continue;
                size_t skip = strncmp(f, "TYPE_", 5) ? 0 : name + 1;
                at += (size_t)snprintf(out + at, room - at, " %.*s", (int)(all - skip), f + skip);
        }
}

static double rate(const moec_profile_row *r)
{
        return r->seconds > 0 ? (double)r->bytes / r->seconds : 0;
}

static double ceiling(const Profile *p, const moec_profile_row *r)
{
        return p->bandwidth > 0 ? rate(r) / p->bandwidth : 0;
}

static void table_row(const Profile *p, const moec_profile_row *r, double sum, const char *what, FILE *f)
{
        double calls = r->calls ? (double)r->calls : 1;
        fprintf(f, "%8llu %10.2f %10.3f %6.1f%% %9.3f %8.1f %7.1f%%  %s\n", (unsigned long long)r->calls,
                r->seconds * 1e6 / calls, r->seconds * 1e3, sum > 0 ? 100 * r->seconds / sum : 0,
                (double)r->bytes * 1e-6 / calls, rate(r) * 1e-9, 100 * ceiling(p, r), what);
}

static void profile_csv(const Profile *p, const char *title, FILE *f)
{
        fprintf(f, "test,kernel,key,calls,ns,bytes,bytes_per_s,ceiling\n");
        for (int i = 0; i < p->n; i++) {
                const moec_profile_row *r = &p->row[i];
                fprintf(f, "%s,%s,\"%s\",%llu,%.0f,%llu,%.0f,%.4f\n", title, r->kernel, r->what,
                        (unsigned long long)r->calls, r->seconds * 1e9, (unsigned long long)r->bytes, rate(r),
                        ceiling(p, r));
        }
}

static void profile_table(const Profile *p, const char *title, FILE *f)
{
        moec_profile_row all = {0};
        char what[160];
        for (int i = 0; i < p->n; i++) {
                all.calls += p->row[i].calls;
                all.bytes += p->row[i].bytes;
                all.seconds += p->row[i].seconds;
        }
        fprintf(f, "%s\n%8s %10s %10s %7s %9s %8s %8s  %s\n", title, "calls", "us/call", "ms", "share",
                "MB/call", "GB/s", "ceiling", "kernel");
        for (int i = 0; i < p->n; i++) {
                short_key(p->row[i].what, what, sizeof what);
                table_row(p, &p->row[i], all.seconds, what, f);
        }
        table_row(p, &all, all.seconds, "all", f);
        fprintf(f, "%8s %10s %10.3f %8s  of %.3f ms without a profile, outside of kernels\n", "", "",
                (p->seconds - all.seconds) * 1e3, "", p->seconds * 1e3);
}

void profile_json(const Profile *p, FILE *f)
{
        for (int i = 0; i < p->n; i++) {
                const moec_profile_row *r = &p->row[i];
                fprintf(f, "%s{\"kernel\": \"%s\", \"key\": ", i ? ", " : "[", r->kernel);
                json_string(f, r->what, strlen(r->what));
                fprintf(f, ", \"calls\": %llu, \"ns\": %.0f, \"bytes\": %llu, \"bytes_per_s\": %.0f, ",
                        (unsigned long long)r->calls, r->seconds * 1e9, (unsigned long long)r->bytes,
                        rate(r));
                fprintf(f, "\"ceiling\": %.4f}", ceiling(p, r));
        }
        fputs(p->n ? "]" : "[]", f);
}

void profile_tell(const Profile *p, const char *title, const char *as)
{
        if (!strcmp(as, "md"))
                profile_table(p, title, stderr);
        else if (!strcmp(as, "csv"))
                profile_csv(p, title, stderr);
}

/* Plans run: the same bits whatever the threads and the steps' sizes, and every refusal at loading. */
#include <errno.h>
#include <math.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include "runtime/piece.h"
#include "runtime/exec_part.h"
#include "runtime/so.h"
#include "tests/unit/plan_help.h"
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>

static Plan *open_plan(Buf b)
{
        Plan *p;
        moec_error e = {0};
        if (plan_copy(b.p, b.len, &p, &e) != MOEC_OK)
                fail_msg("%s", e.msg);
        buf_free(&b);
        return p;
}

static Rt *open_rt(const Plan *p, int threads, u32 n_ctx, u32 n_seq)
{
        Rt *rt;
        moec_error e = {0};
        moec_options opt = {.threads = threads};
        if (rt_open(p, &opt, n_ctx, n_seq, &rt, &e) != MOEC_OK)
                fail_msg("%s", e.msg);
        return rt;
}

static void expect_row(const i32 *ids, int n, const float *got)
{
        float want[VOCAB];
        tiny_expect(ids, n, want);
        assert_memory_equal(want, got, sizeof want);
}

/* Two sequences, mixed in steps of 1 to 20 tokens; every position's logits. */
static void run_mixed(Rt *rt)
{
        i32 said[2][60], id[20], pos[20], seq[20];
        u32 out[20], len[2] = {0, 0};
        float logits[20 * VOCAB];
        u64 r = 1;
        for (u32 step = 0; step < 12; step++) {
                u32 n = step % 3 == 0 ? 1 : 1 + step * 7 % 20;
                for (u32 i = 0; i < n; i++) {
                        r = r * 6364136223846793005u + 1442695040888963407u;
                        u32 s = len[r >> 63] < 55 ? (u32)(r >> 63) : 1 - (u32)(r >> 63);
                        seq[i] = (i32)s;
                        pos[i] = (i32)len[s];
                        id[i] = said[s][len[s]++] = (i32)(r >> 33) % VOCAB;
                        out[i] = i;
                }
                Batch b = {n, n, id, pos, seq, out};
                assert_int_equal(rt_step(rt, &b, logits, NULL), MOEC_OK);
                for (u32 i = 0; i < n; i++)
                        expect_row(said[seq[i]], pos[i] + 1, logits + i * VOCAB);
        }
}

static void same_for_any_threads(void **state)
{
        (void)state;
        for (tiny_table_at = 128; tiny_table_at <= 132; tiny_table_at += 4) {
                Plan *p = open_plan(tiny_plan());
                for (int threads = 1; threads <= 4; threads++) {
                        Rt *rt = open_rt(p, threads, 64, 2);
                        assert_int_equal(pool_threads(rt_pool(rt)), threads);
                        run_mixed(rt);
                        rt_close(rt);
                }
                plan_close(p);
        }
        tiny_table_at = 128;
}

/* Rows wanted here and there, in more parts than one; and none. */
static void parts(void **state)
{
        (void)state;
        Plan *p = open_plan(tiny_plan());
        Rt *rt = open_rt(p, 2, 64, 1);
        i32 id[30], pos[30], seq[30] = {0};
        for (int i = 0; i < 30; i++) {
                id[i] = i * 3 % VOCAB;
                pos[i] = i;
        }
        float logits[8 * VOCAB];
        static const u32 wanted[][8] = {
                {29}, {0, 29}, {0, 1, 2, 3, 4, 5, 6, 7}, {7, 8, 9, 10, 11, 12, 20, 29}};
        static const u32 n_wanted[] = {1, 2, 8, 8};
        for (size_t w = 0; w < COUNT(wanted); w++) {
                Batch b = {30, n_wanted[w], id, pos, seq, wanted[w]};
                memset(logits, 0xff, sizeof logits);
                assert_int_equal(rt_step(rt, &b, logits, NULL), MOEC_OK);
                for (u32 i = 0; i < n_wanted[w]; i++)
                        expect_row(id, (int)wanted[w][i] + 1, logits + i * VOCAB);
        }
        Batch none = {30, 0, id, pos, seq, NULL};
        assert_int_equal(rt_step(rt, &none, NULL, NULL), MOEC_OK);
        rt_close(rt);
        plan_close(p);
}

static moec_status no_logits(Rt *rt, u32 phase, u32 n, float *logits, moec_error *e)
{
        (void)rt;
        (void)phase;
        (void)n;
        (void)logits;
        return (fail)(e, MOEC_RUNTIME, "not called");
}

/* Logits can stay with a target that fetches them, if all are of the last part: of 8 tokens and 3 rows here.
 */
static void kept_logits(void **state)
{
        (void)state;
        static const struct {
                u32 n, n_out, out[4];
                bool kept;
        } all[] = {{1, 1, {0}, true}, {8, 3, {0, 4, 7}, true}, {8, 4, {0, 1, 4, 7}, false},
                {30, 1, {29}, true}, {30, 2, {24, 29}, true}, {30, 2, {23, 29}, false}, {30, 1, {7}, false},
                {30, 0, {0}, true}};
        Plan *p = open_plan(tiny_plan());
        const RtTarget keeps = {.logits = no_logits}, gives = {.name = "gives"};
        Rt rt = {.plan = p};
        for (size_t i = 0; i < COUNT(all); i++) {
                i32 some[30] = {0};
                Batch b = {all[i].n, all[i].n_out, some, some, some, all[i].out};
                rt.target = &keeps;
                assert_int_equal(rt_keeps(&rt, &b), all[i].kept);
                rt.target = &gives;
                assert_false(rt_keeps(&rt, &b));
        }
        plan_close(p);
}

static u32 noted_phase;
static moec_status note_phase(Rt *rt, const Batch *b, const Part *p, float *logits, moec_error *e)
{
        (void)rt;
        (void)b;
        (void)logits;
        (void)e;
        noted_phase = p->phase;
        return MOEC_OK;
}

/* A phase for tokens of many sequences, each of which has no more than two in a row, in front of one for any. */
static void phase_of_near_tokens(void **state)
{
        (void)state;
        static const struct {
                u32 n;
                i32 seq[8];
                u32 phase;
        } all[] = {{1, {3}, 0}, {2, {0, 0}, 0}, {5, {0, 0, 1, 1, 2}, 0}, {8, {0, 1, 2, 3, 4, 5, 6, 7}, 0},
                {3, {0, 1, 0}, 1}, {3, {0, 0, 0}, 1}, {8, {0, 1, 2, 3, 4, 5, 6, 0}, 1},
                {6, {0, 0, 1, 2, 2, 2}, 1}};
        Plan *p = open_plan(tiny_plan());
        PlanPhase f[2] = {p->PHASE[1], p->PHASE[1]};
        f[0].max_seq_tok = 2;
        p->PHASE = f;
        const RtTarget notes = {.run = note_phase};
        Rt rt = {.plan = p, .target = &notes};
        for (size_t i = 0; i < COUNT(all); i++) {
                i32 some[8] = {0};
                Batch b = {all[i].n, 0, some, some, all[i].seq, NULL};
                assert_int_equal(rt_step(&rt, &b, NULL, NULL), MOEC_OK);
                assert_int_equal(noted_phase, all[i].phase);
        }
        plan_close(p);
}

typedef struct Seen {
        Rt *rt;
        u32 n, launch[64];
        u64 phases;
        bool meddle;
} Seen;

static void see(void *user, u32 phase, u32 launch)
{
        Seen *s = user;
        s->phases |= 1ull << phase;
        s->launch[s->n++ % 64] = launch;
        if (s->meddle && launch == 3) { /* the prefill's embed: its rows lie at 64 */
                float x[H];
                rt_read(s->rt, 64, x, sizeof x);
                for (int i = 0; i < H; i++) {
                        assert_true(x[i] == tiny_table(5, i));
                        x[i] = tiny_table(6, i);
                }
                rt_write(s->rt, 64, x, sizeof x);
        }
}

static void hook(void **state)
{
        (void)state;
        Plan *p = open_plan(tiny_plan());
        Rt *rt = open_rt(p, 2, 64, 1);
        Seen s = {.rt = rt, .meddle = true};
        rt_set_hook(rt, see, &s);
        i32 id[9] = {5, 1, 2, 3, 4, 5, 6, 7, 8}, meant[1] = {6}, pos[9] = {0, 1, 2, 3, 4, 5, 6, 7, 8},
            seq[9] = {0};
        u32 out[1] = {0};
        float logits[VOCAB];
        Batch b = {9, 1, id, pos, seq, out};
        assert_int_equal(rt_step(rt, &b, logits, NULL), MOEC_OK);
        expect_row(meant, 1, logits);
        assert_int_equal(s.phases, 3); /* 8 tokens by prefill, 1 by decode */
        static const u32 order[] = {3, 4, 5, 0, 1, 2};
        assert_int_equal(s.n, COUNT(order));
        assert_memory_equal(s.launch, order, sizeof order);
        rt_set_hook(rt, NULL, NULL);
        assert_int_equal(rt_step(rt, &b, logits, NULL), MOEC_OK);
        assert_int_equal(s.n, COUNT(order));
        rt_close(rt);
        plan_close(p);
}

static void profile(void **state)
{
        (void)state;
        Plan *p = open_plan(tiny_plan());
        Rt *rt = open_rt(p, 2, 64, 1);
        assert_null(rt_profile_stop(rt));
        assert_int_equal(rt_profile_start(rt, NULL), MOEC_OK);
        i32 id[9] = {0}, pos[9] = {0, 1, 2, 3, 4, 5, 6, 7, 8}, seq[9] = {0};
        const u32 out[] = {2, 7};
        float logits[2 * VOCAB];
        Batch b = {9, 2, id, pos, seq, out};
        assert_int_equal(rt_step(rt, &b, logits, NULL), MOEC_OK);
        const RtProfile *f = rt_profile_stop(rt);
        assert_non_null(f);
        assert_int_equal(f->n_sample, 6);
        assert_int_equal(f->sample[0].launch, 3);
        assert_int_equal(f->sample[0].n_tok, 8);
        for (u32 l = 0; l < 6; l++) {
                assert_int_equal(f->calls[l], 1);
                /* one token chooses 1 of 4 experts; 8 choose 4 (1 - (3/4)^8) = 3.5995 */
                assert_int_equal(f->bytes[l],
                        l < 3 ? 100 + 10 + 9 + (1 << 16) : 100 + 8 * 10 + 36 + 2 * 1000 + (1 << 18) - 26244);
                assert_true(f->seconds[l] >= 0);
        }
        rt_close(rt);
        plan_close(p);
}

/* ---- refusals ---- */

static void expect_refused(const Plan *p, const moec_options *opt, moec_status want, const char *word)
{
        Rt *rt;
        moec_error e = {0};
        assert_int_equal(rt_open(p, opt, 64, 1, &rt, &e), want);
        assert_int_equal(e.status, want);
        assert_null(rt);
        if (!strstr(e.msg, word))
                fail_msg("\"%s\" does not say \"%s\"", e.msg, word);
}

static void change_file(const char *path, u64 at, int byte, u64 size)
{
        int fd = open(path, O_WRONLY);
        u8 b = (u8)byte;
        assert_true(fd >= 0);
        if (byte >= 0)
                assert_int_equal(pwrite(fd, &b, 1, (off_t)at), 1);
        if (size)
                assert_int_equal(ftruncate(fd, (off_t)size), 0);
        close(fd);
}

static void wrong_files(void **state)
{
        (void)state;
        char other[128];
        snprintf(other, sizeof other, "%s/other.gguf", tiny_dir);
        Plan *p = open_plan(tiny_plan());
        moec_options opt = {.weights = other};
        expect_refused(p, &opt, MOEC_NOT_FOUND, other);
        tiny_write_gguf(other);
        change_file(other, 50, 7, 0);
        expect_refused(p, &opt, MOEC_MISMATCH, other);
        expect_refused(p, &opt, MOEC_MISMATCH, tiny_gguf);
        tiny_write_gguf(other);
        Rt *rt;
        assert_int_equal(rt_open(p, &opt, 64, 2, &rt, NULL), MOEC_OK);
        run_mixed(rt);

        rt_close(rt);
        change_file(other, 0, -1, FILE_BYTES - 1);
        expect_refused(p, &opt, MOEC_DAMAGED, "cut off");
        change_file(other, 0, -1, HEADER);
        expect_refused(p, &opt, MOEC_USAGE, "shape file");
        change_file(other, 0, -1, HEADER - 1);
        expect_refused(p, &opt, MOEC_MISMATCH, other);
        change_file(tiny_gguf, 3, 99, 0);
        expect_refused(p, NULL, MOEC_MISMATCH, "no longer");
        assert_int_equal(unlink(tiny_gguf), 0);
        expect_refused(p, NULL, MOEC_NOT_FOUND, tiny_gguf);
        plan_close(p);
}

/* With random weights no file is needed; they are random_blocks', whatever the layout and the threads. */
static void random_weights(void **state)
{
        float table[VOCAB * H], head[VOCAB * H];
        (void)state;
        Plan *p = open_plan(tiny_plan());
        assert_int_equal(unlink(tiny_gguf), 0);
        moec_options opt = {.random_weights = true, .threads = 2};
        float first[VOCAB], logits[VOCAB];
        for (int t = 0; t < 2; t++) {
                Rt *rt;
                opt.threads = t + 1;
                assert_int_equal(rt_open(p, &opt, 64, 1, &rt, NULL), MOEC_OK);
                i32 id[1] = {3}, pos[1] = {0}, seq[1] = {0};
                u32 out[1] = {0};
                Batch b = {1, 1, id, pos, seq, out};
                assert_int_equal(rt_step(rt, &b, t ? logits : first, NULL), MOEC_OK);
                rt_close(rt);
        }
        assert_memory_equal(first, logits, sizeof first);
        random_blocks(W_F32, random_seed("table"), 0, (u8 *)table, VOCAB * H);
        random_blocks(W_F32, random_seed("head"), 0, (u8 *)head, VOCAB * H);
        for (int v = 0; v < VOCAB; v++) {
                float want = 0;
                for (int i = 0; i < H; i++)
                        want += table[3 * H + i] * (table[3 * H] / 2) * head[v * H + i];
                assert_true(want != 0 && fabsf(logits[v] - want) <= 1e-6f * fabsf(want) + 1e-9f);
        }
        plan_close(p);
}

static void wrong_machine(void **state)
{
        (void)state;
        Plan *p = open_plan(tiny_plan_for("cuda", "sm_90a"));
        expect_refused(p, NULL, MOEC_NO_DEVICE, "cuda");
        plan_close(p);
        p = open_plan(tiny_plan_for("cpu", "native:sse3,flux"));
        expect_refused(p, NULL, MOEC_NO_DEVICE, "flux");
        plan_close(p);
}

static void does_not_fit(void **state)
{
        (void)state;
        Plan *p = open_plan(tiny_plan());
        Rt *rt;
        moec_error e = {0};
        assert_int_equal(rt_open(p, NULL, 1u << 24, 1u << 16, &rt, &e), MOEC_NO_MEMORY);
        static const char *const words[] = {
                "weights 1.38 KiB", "KV cache 64.00 TiB", "16777216 x 65536", "longest context"};
        for (size_t i = 0; i < COUNT(words); i++)
                if (!strstr(e.msg, words[i]))
                        fail_msg("\"%s\" does not say \"%s\"", e.msg, words[i]);
        /* What it says fits does fit. */
        unsigned long long fits = strtoull(strstr(e.msg, "that fits is ") + 13, NULL, 10);
        assert_true(fits > 1 && fits < 1u << 24);
        assert_int_equal(rt_open(p, NULL, (u32)fits / 10 * 9, 1u << 16, &rt, &e), MOEC_OK);
        rt_close(rt);
        assert_int_equal(rt_open(p, NULL, INT32_MAX, INT32_MAX, &rt, &e), MOEC_NO_MEMORY);
        plan_close(p);
}

/* An address space limit counts too, and leaves the process usable. */
static void limited(void **state)
{
        (void)state;
        unsigned long long pages = 0;
        FILE *f = fopen("/proc/self/statm", "r");
        assert_non_null(f);
        assert_int_equal(fscanf(f, "%llu", &pages), 1);
        fclose(f);
        if (pages > 1u << 18) {
                puts("a sanitizer's shadow is larger than the limit");
                skip();
        }
        Plan *p = open_plan(tiny_plan());
        pid_t pid = fork();
        if (pid == 0) {
                struct rlimit r = {1ull << 30, 1ull << 30};
                setrlimit(RLIMIT_AS, &r);
                Rt *rt;
                moec_error e = {0};
                moec_status st = rt_open(p, NULL, 1u << 24, 4, &rt, &e);
                _exit(st == MOEC_NO_MEMORY && strstr(e.msg, "ulimit -v") ? 0 : 1);
        }
        int how;
        assert_int_equal(waitpid(pid, &how, 0), pid);
        assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
        plan_close(p);
}

/* ---- weights inside the plan ---- */

static void embedded(void **state)
{
        (void)state;
        Buf b = tiny_plan();
        static u8 data[4096];
        PlanHead h;
        memcpy(&h, b.p, sizeof h);
        PlanWeight w[2];
        memcpy(w, b.p + h.section[PLAN_WEIGHT].offset, sizeof w);
        Map m;
        assert_int_equal(map_open(tiny_gguf, &m, NULL), MOEC_OK);
        memcpy(data, m.p + w[0].src, WEIGHT);
        pack_panel(W_F32, m.p + w[1].src, data + 1024, VOCAB, H);
        map_close(&m);
        w[0].embedded = 0;
        w[1].embedded = 1024;
        memcpy(b.p + h.section[PLAN_WEIGHT].offset, w, sizeof w);
        Hash sum = hash_bytes(b.p + sizeof h, b.len - sizeof h);
        h.checksum = hash_mix(sum, h.section, sizeof(PlanSpan) * PLAN_WDATA);
        memcpy(b.p, &h, sizeof h);
        plan_embed(&b, sizeof data, hash_bytes(data, sizeof data));
        assert_int_equal(b.len % PLAN_PAGE, 0);
        buf_add(&b, data, sizeof data);
        Plan *p = open_plan(b);
        assert_int_equal(unlink(tiny_gguf), 0);
        Rt *rt = open_rt(p, 2, 64, 2);
        run_mixed(rt);
        rt_close(rt);
        plan_close(p);
}

static u32 told;
static bool stop_at_second(void *user, const char *what, uint64_t done, uint64_t total)
{
        assert_true(done <= total);
        assert_non_null(what);
        return ++told < *(u32 *)user;
}

static void interrupted(void **state)
{
        (void)state;
        Plan *p = open_plan(tiny_plan());
        u32 when = 1;
        moec_options opt = {.progress = stop_at_second, .user = &when};
        told = 0;
        expect_refused(p, &opt, MOEC_INTERRUPTED, "loading");
        when = 3; /* once for the weights, once between the parts of the step */
        told = 0;
        Rt *rt;
        assert_int_equal(rt_open(p, &opt, 64, 1, &rt, NULL), MOEC_OK);
        i32 id[30] = {0}, pos[30], seq[30] = {0};
        for (int i = 0; i < 30; i++)
                pos[i] = i;
        Batch b = {30, 0, id, pos, seq, NULL};
        assert_int_equal(rt_step(rt, &b, NULL, NULL), MOEC_INTERRUPTED);
        rt_close(rt);
        plan_close(p);
}

/* ---- code ---- */

/* From now on this process gets no memfd. */
static bool forbid_memfd(void)
{
        struct sock_filter f[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_create, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
        struct sock_fprog prog = {COUNT(f), f};
        return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
               prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0;
}

static int without_memfd(void)
{
        So *so;
        moec_error e = {0};
        char cmd[128];
        if (!forbid_memfd())
                return 77;
        if (so_open(tiny_so.p, tiny_so.len, NULL, &so, &e) != MOEC_RUNTIME || so || !strstr(e.msg, "memfd"))
                return 1;
        if (so_open(tiny_so.p, tiny_so.len, "/nowhere", &so, &e) != MOEC_RUNTIME ||
                !strstr(e.msg, "/nowhere"))
                return 2;
        if (so_open(tiny_so.p, tiny_so.len, tiny_dir, &so, &e) != MOEC_OK || !so_symbol(so, "append"))
                return 3;
        so_close(so);
        snprintf(cmd, sizeof cmd, "! ls %s | grep -q kernels-", tiny_dir);
        return system(cmd) == 0 ? 0 : 4; /* the file is gone */
}

static void code_from_memory(void **state)
{
        (void)state;
        So *a, *b;
        moec_error e = {0};
        assert_int_equal(so_open(tiny_so.p, tiny_so.len, NULL, &a, &e), MOEC_OK);
        assert_int_equal(so_open(tiny_so.p, tiny_so.len, NULL, &b, &e), MOEC_OK);
        assert_non_null(so_symbol(a, "embed"));
        assert_ptr_not_equal(so_symbol(a, "embed"), so_symbol(b, "embed")); /* two objects, not one twice */
        assert_null(so_symbol(a, "absent"));
        so_close(a);
        assert_non_null(so_symbol(b, "logits"));
        so_close(b);
        assert_int_equal(so_open("no object", 9, tiny_dir, &a, &e), MOEC_RUNTIME);
        assert_null(a);
        pid_t pid = fork();
        if (pid == 0)
                _exit(without_memfd());
        int how;
        assert_int_equal(waitpid(pid, &how, 0), pid);
        assert_true(WIFEXITED(how));
        if (WEXITSTATUS(how) == 77) {
                puts("no seccomp here");
                skip();
        }
        assert_int_equal(WEXITSTATUS(how), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(same_for_any_threads),
                cmocka_unit_test(parts),
                cmocka_unit_test(kept_logits),
                cmocka_unit_test(phase_of_near_tokens),
                cmocka_unit_test(hook),
                cmocka_unit_test(profile),
                cmocka_unit_test(wrong_files),
                cmocka_unit_test(random_weights),
                cmocka_unit_test(wrong_machine),
                cmocka_unit_test(does_not_fit),
                cmocka_unit_test(limited),
                cmocka_unit_test(embedded),
                cmocka_unit_test(interrupted),
                cmocka_unit_test(code_from_memory),
        };
        return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}

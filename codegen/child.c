#include "codegen/child.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
enum { IN, OUT, ERR, N_PIPE };

typedef struct Pipes {
        int ours[N_PIPE], theirs[N_PIPE]; /* -1: closed */
} Pipes;

static void shut(int *fd)
{
        if (*fd >= 0)
                close(*fd);
        *fd = -1;
}

static void shut_all(Pipes *p)
{
        for (int i = 0; i < N_PIPE; i++) {
                shut(&p->ours[i]);
                shut(&p->theirs[i]);
        }
}

static bool open_pipes(Pipes *p)
{
        for (int i = 0; i < N_PIPE; i++)
                p->ours[i] = p->theirs[i] = -1;
        for (int i = 0; i < N_PIPE; i++) {
                int fd[2];
                if (pipe2(fd, O_CLOEXEC) != 0)
                        return false;
                p->ours[i] = fd[i == IN];
                p->theirs[i] = fd[i != IN];
        }
        return fcntl(p->ours[IN], F_SETFL, O_NONBLOCK) == 0;
}

static int spawn(const char *const argv[], const char *cwd, Pipes *p, pid_t *pid)
{
        posix_spawn_file_actions_t act;
        posix_spawnattr_t attr;
        sigset_t none, pipe;
        int rc = posix_spawn_file_actions_init(&act);
        if (rc != 0)
                return rc;
        rc = posix_spawnattr_init(&attr);
        if (rc == 0) {
                sigemptyset(&none);
                sigemptyset(&pipe);
                sigaddset(&pipe, SIGPIPE);
                posix_spawnattr_setsigmask(&attr, &none);
                posix_spawnattr_setsigdefault(&attr, &pipe);
                posix_spawnattr_setpgroup(
                        &attr, 0); /* the terminal's Ctrl-C is for us, who then stop in order */
                posix_spawnattr_setflags(
                        &attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
                for (int i = 0; i < N_PIPE; i++)
                        posix_spawn_file_actions_adddup2(&act, p->theirs[i], i);
                if (cwd)
                        posix_spawn_file_actions_addchdir_np(&act, cwd);
                rc = posix_spawnp(pid, argv[0], &act, &attr, (char *const *)(uintptr_t)argv, environ);
                posix_spawnattr_destroy(&attr);
        }
        posix_spawn_file_actions_destroy(&act);
        return rc;
}

/* True while the pipe is open. */
static bool drain(int *fd, Buf *to)
{
        char buf[65536];
        ssize_t n = read(*fd, buf, sizeof buf);
        if (n < 0 && errno == EINTR)
                return true;
        if (n <= 0) {
                shut(fd);
                return false;
        }
        if (to->len + (size_t)n <= CHILD_MAX)
                buf_add(to, buf, (size_t)n);
        return true;
}

static void feed(int *fd, const char **in, size_t *left)
{
        ssize_t n = *left ? write(*fd, *in, *left) : 0;
        if (n > 0) {
                *in += n;
                *left -= (size_t)n;
        }
        if (*left == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
                shut(fd);
}

static void converse(Pipes *p, const char *in, size_t left, Buf *out, Buf *errors)
{
        while (p->ours[OUT] >= 0 || p->ours[ERR] >= 0) {
                struct pollfd fds[N_PIPE] = {
                        {p->ours[IN], POLLOUT, 0}, {p->ours[OUT], POLLIN, 0}, {p->ours[ERR], POLLIN, 0}};
                if (poll(fds, N_PIPE, -1) < 0 && errno != EINTR)
                        break;
                if (fds[IN].revents)
                        feed(&p->ours[IN], &in, &left);
                if (fds[OUT].revents)
                        drain(&p->ours[OUT], out);
                if (fds[ERR].revents)
                        drain(&p->ours[ERR], errors);
        }
}

moec_status child_run(const char *const argv[], const char *cwd, const char *in, size_t n_in, Buf *out,
        Buf *errors, int *code, moec_error *e)
{
        Pipes p;
        pid_t pid;
        int st = 0;
        if (!open_pipes(&p)) {
                shut_all(&p);
                return fail(e, MOEC_TOOLCHAIN, "%s: cannot make pipes: %s", argv[0], strerror(errno));
        }
        int rc = spawn(argv, cwd, &p, &pid);
        if (rc != 0) {
                shut_all(&p);
                return fail(e, MOEC_TOOLCHAIN,
                        "cannot run %s: %s. It is needed to compile a model: install it, or put it in PATH",
                        argv[0], strerror(rc));
        }
        for (int i = 0; i < N_PIPE; i++)
                shut(&p.theirs[i]);
        sigset_t pipe, old;
        sigemptyset(&pipe);
        sigaddset(&pipe, SIGPIPE); /* a child that does not read its input must not end us */
        pthread_sigmask(SIG_BLOCK, &pipe, &old);
        converse(&p, in, n_in, out, errors);
        struct timespec now = {0, 0};
        while (sigtimedwait(&pipe, NULL, &now) == SIGPIPE)
                ;
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        shut_all(&p);
        while (waitpid(pid, &st, 0) < 0 && errno == EINTR)
                ;
        *code = WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
        return MOEC_OK;
}

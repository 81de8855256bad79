/* A compiled executable: this program with a plan behind it. It takes run's options. */
#include <limits.h>
#include <string.h>
#include <unistd.h>
#include "cli/common.h"

/* The program's file, by a name that messages can show where it has one. */
static const char *self(char path[PATH_MAX])
{
        ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 1);
        if (n > 0) {
                path[n] = 0;
                if (access(path, R_OK) == 0)
                        return path;
        }
        return "/proc/self/exe";
}

int main(int argc, char **argv)
{
        Args a = {.exe = true};
        char path[PATH_MAX];
        int status;
        report_limits();
        if (argc > 0) {
                const char *slash = strrchr(argv[0], '/');
                prog = slash ? slash + 1 : argv[0];
        }
        if (argc == 2 && !strcmp(argv[1], "--version")) {
                printf("%s: compiled by moec %s\n", prog, MOEC_VERSION);
                return end_output(stdout);
        }
        if (!args_parse(&a, CMD_run, argc - 1, argv + 1, &status))
                return status;
        if (a.model && !a.weights)
                a.weights = a.model; /* the program is the model: -m can only mean where its weights are */
        return run_model(&a, self(path), moec_open_plan);
}

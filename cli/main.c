/* The command: finds the subcommand. */
#include <string.h>
#include "cli/common.h"

static int (*const command[])(const Args *a) = {
#define X(name, operands, n, help) cmd_##name,
        COMMANDS(X)
#undef X
};

int cmd_run(const Args *a)
{
        const char *path = model_path(a);
        return path ? run_model(a, path, moec_open) : MOEC_USAGE;
}

int main(int argc, char **argv)
{
        Args a = {0};
        int status;
        report_limits();
        if (argc < 2)
                return usage("which command?");
        const char *word = argv[1];
        int cmd = cmd_find(word);
        if (cmd >= 0)
                return args_parse(&a, (CmdId)cmd, argc - 2, argv + 2, &status) ? command[cmd](&a) : status;
        if (!strcmp(word, "--version"))
                printf("moec %s\n", MOEC_VERSION);
        else if (!strcmp(word, "--help") || !strcmp(word, "-h"))
                main_help(stdout);
        else if (!strcmp(word, "--completion-bash"))
                completion_bash(stdout);
        else
                return usage("unknown %s %s", *word == '-' ? "option" : "command", word);
        return end_output(stdout);
}

#include "tests/lib/tempdir.h"
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "ir/util.h"

char *temp_new(char path[64])
{
        strcpy(path, "/tmp/moec-test-XXXXXX");
        if (!mkdtemp(path))
                die("%s: cannot be made", path);
        return path;
}

static int gone(const char *path, const struct stat *st, int kind, struct FTW *f)
{
        (void)st, (void)kind, (void)f;
        return remove(path);
}

void temp_remove(const char *path)
{
        nftw(path, gone, 16, FTW_DEPTH | FTW_PHYS);
}

/* A folder for a test's files, gone at the end. */
#ifndef TEMPDIR_H
#define TEMPDIR_H

char *temp_new(char path[64]);      /* makes one */
void temp_remove(const char *path); /* with all that it holds */

#endif

/* One system call, in a container that has nothing else: call NUMBER [ARGUMENT …]
 * An argument is a number, `s:TEXT` for a pointer to the text, or `b:N` for a pointer to N zeroes.
 * Prints the name of the errno, or `done`. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    long words[7] = {0};
    for (int i = 1; i < argc && i < 8; i++) {
        if (strncmp(argv[i], "s:", 2) == 0)
            words[i - 1] = (long)(argv[i] + 2);
        else if (strncmp(argv[i], "b:", 2) == 0)
            words[i - 1] = (long)calloc(1, strtoul(argv[i] + 2, 0, 0));
        else
            words[i - 1] = strtol(argv[i], 0, 0);
    }
    long result = syscall(words[0], words[1], words[2], words[3], words[4], words[5], words[6]);
    puts(result >= 0 ? "done" : strerrorname_np(errno));
    return 0;
}

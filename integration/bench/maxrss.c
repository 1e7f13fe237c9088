/*
 * maxrss FILE CMD [ARG …]: runs CMD and writes its peak resident set in KiB to FILE.
 * A process inherits the peak of the image that called exec, so the caller must be small: static C.
 */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct rusage usage;
    FILE *file;
    int status;
    pid_t pid;

    if (argc < 3)
        return 2;
    pid = vfork();
    if (pid == 0) {
        execv(argv[2], argv + 2);
        _exit(127);
    }
    if (pid < 0 || wait4(pid, &status, 0, &usage) < 0)
        return 3;
    file = fopen(argv[1], "w");
    if (file == NULL || fprintf(file, "%ld\n", usage.ru_maxrss) < 0 || fclose(file) != 0)
        return 3;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

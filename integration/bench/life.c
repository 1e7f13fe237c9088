/*
 * life RUNTIME ROOT BUNDLE ID: a container's whole life as an engine drives it, each step a command:
 * create, start, wait for the container's own process, delete. Prints the four times in milliseconds.
 *
 * The container's process is orphaned when `create` exits; as a subreaper we become its parent and can wait for it.
 */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void command(char **argv)
{
    pid_t pid;
    int status;

    if (posix_spawn(&pid, argv[0], NULL, NULL, argv, environ) != 0) {
        perror(argv[0]);
        exit(3);
    }
    if (waitpid(pid, &status, 0) != pid || status != 0) {
        fprintf(stderr, "life: %s %s failed, wait status %#x\n", argv[0], argv[3], status);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    double created, started, ended, deleted, begin;
    char pid_file[4096];
    FILE *file;
    int status, pid;

    if (argc != 5)
        return 2;
    snprintf(pid_file, sizeof pid_file, "%s.pid.%d", argv[2], getpid());
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);

    begin = now();
    command((char *[]){argv[1], "--root", argv[2], "create", "--bundle", argv[3], "--pid-file", pid_file, argv[4], NULL});
    created = now();
    command((char *[]){argv[1], "--root", argv[2], "start", argv[4], NULL});
    started = now();
    file = fopen(pid_file, "r");
    if (file == NULL || fscanf(file, "%d", &pid) != 1 || waitpid(pid, &status, 0) != pid) {
        perror("life: wait for the container");
        return 1;
    }
    fclose(file);
    unlink(pid_file);
    ended = now();
    command((char *[]){argv[1], "--root", argv[2], "delete", argv[4], NULL});
    deleted = now();
    printf("%.3f %.3f %.3f %.3f\n", created - begin, started - created, ended - started, deleted - ended);
    return status != 0;
}

// What a container is asked that busybox cannot answer.
//
//   probe call NAME|NUMBER [ARG…]   makes a system call; prints its result, or the name of its error
//   probe threads NUMBER [ARG…]     makes it in a second thread; prints "alive" if the first one outlives that
//   probe sched                     policy, nice, priority, runtime, deadline, period, reset-on-fork of itself
//   probe mempolicy                 mode with flags, and the node mask, of itself
//   probe devopen PATH r|w|rw       opens a device
//   probe memory MIB                touches that much memory
//   probe size                      columns and lines of the terminal on stdin
//   probe clock                     seconds of CLOCK_MONOTONIC and CLOCK_BOOTTIME
//   probe fds                       the descriptors above 2 that it was given
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long args[7];

static int answer(long result) {
    if (result < 0)
        puts(strerrorname_np(errno));
    else
        printf("%ld\n", result);
    fflush(stdout);
    return 0;
}

static long make_call(void) {
    return syscall(args[0], args[1], args[2], args[3], args[4], args[5], args[6]);
}

static void *in_thread(void *unused) {
    make_call();
    return unused;
}

static long number(const char *word) {
    static const struct {
        const char *name;
        long number;
    } names[] = {
        {"getpid", SYS_getpid}, {"getppid", SYS_getppid}, {"dup", SYS_dup}, {"dup3", SYS_dup3},
        {"personality", SYS_personality}, {"ioprio_get", SYS_ioprio_get}, {"keyctl", SYS_keyctl},
        {"unshare", SYS_unshare}, {"setns", SYS_setns}, {"ptrace", SYS_ptrace}, {"bpf", SYS_bpf},
        {"umask", SYS_umask}, {"sethostname", SYS_sethostname}, {"add_key", SYS_add_key}, {"lseek", SYS_lseek},
        {"clone3", SYS_clone3}, {"prctl", SYS_prctl}, {"kexec_load", SYS_kexec_load}, {"getuid", SYS_getuid},
        {"seccomp", SYS_seccomp}, {"open_by_handle_at", SYS_open_by_handle_at}, {"getpriority", SYS_getpriority},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i].name, word))
            return names[i].number;
    return strtol(word, NULL, 0);
}

static int sched(void) {
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
        uint32_t min, max;
    } attr = {0};
    if (syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0) < 0)
        return answer(-1);
    printf("%u %d %u %llu %llu %llu %llu\n", attr.policy, attr.nice, attr.priority, (unsigned long long)attr.runtime,
           (unsigned long long)attr.deadline, (unsigned long long)attr.period, (unsigned long long)attr.flags);
    return 0;
}

static int mempolicy(void) {
    int mode = 0;
    unsigned long nodes[64] = {0};
    if (syscall(SYS_get_mempolicy, &mode, nodes, sizeof nodes * 8, NULL, 0) < 0)
        return answer(-1);
    printf("%#x %lu\n", mode, nodes[0]);
    return 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "call") || !strcmp(what, "threads")) {
        args[0] = number(argv[2]);
        for (int i = 3; i < argc && i < 9; i++)
            args[i - 2] = (long)strtoull(argv[i], NULL, 0);
        if (*what == 'c')
            return answer(make_call());
        pthread_t thread;
        if (pthread_create(&thread, NULL, in_thread, NULL))
            return 1;
        sleep(1);
        puts("alive");
        fflush(stdout);
        _exit(0);
    }
    if (!strcmp(what, "sched"))
        return sched();
    if (!strcmp(what, "mempolicy"))
        return mempolicy();
    if (!strcmp(what, "devopen"))
        return answer(open(argv[2], (strcmp(argv[3], "r") ? strcmp(argv[3], "w") ? O_RDWR : O_WRONLY : O_RDONLY) | O_NONBLOCK));
    if (!strcmp(what, "memory")) {
        size_t bytes = strtoul(argv[2], NULL, 0) << 20;
        char *memory = malloc(bytes);
        for (size_t i = 0; memory && i < bytes; i += 4096)
            ((volatile char *)memory)[i] = 1;
        puts(memory ? "touched" : "refused");
        return 0;
    }
    if (!strcmp(what, "size")) {
        struct winsize size;
        if (ioctl(0, TIOCGWINSZ, &size) < 0)
            return answer(-1);
        printf("%u %u\n", size.ws_col, size.ws_row);
        return 0;
    }
    if (!strcmp(what, "clock")) {
        struct timespec mono, boot;
        clock_gettime(CLOCK_MONOTONIC, &mono);
        clock_gettime(CLOCK_BOOTTIME, &boot);
        printf("%.3f %.3f\n", mono.tv_sec + mono.tv_nsec / 1e9, boot.tv_sec + boot.tv_nsec / 1e9);
        return 0;
    }
    if (!strcmp(what, "fds")) {
        for (int fd = 3; fd < 1024; fd++)
            if (fcntl(fd, F_GETFD) >= 0)
                printf("%d ", fd);
        putchar('\n');
        return 0;
    }
    return 2;
}

// The view from inside a container, one `key=value` per line (a line feed in a value is `\n`), then `end`; then it waits
// to be killed.
//
//   probe [path=PATH] [file=PATH] [call=NAME] …
//
// Asked for beyond what it always tells: what a path is and what can be done with it, what a file holds, and what a system
// call answers.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/keyctl.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void escaped(const char *text) {
    for (; *text; text++)
        if (*text == '\n')
            fputs("\\n", stdout);
        else if (*text == '\\')
            fputs("\\\\", stdout);
        else
            putchar(*text);
}

static void text(const char *key, const char *value) {
    fputs(key, stdout);
    putchar('=');
    escaped(value);
    putchar('\n');
}

__attribute__((format(printf, 2, 3))) static void told(const char *key, const char *format, ...) {
    char value[8192];
    __builtin_va_list list;
    __builtin_va_start(list, format);
    vsnprintf(value, sizeof value, format, list);
    __builtin_va_end(list);
    text(key, value);
}

// The value, or the name of the error where a call gave -1.
static void number(const char *key, long value) {
    if (value == -1)
        text(key, strerrorname_np(errno));
    else
        told(key, "%ld", value);
}

static const char *joined(const char *one, const char *other) {
    static char key[PATH_MAX + 64];
    snprintf(key, sizeof key, "%s%s", one, other);
    return key;
}

static void file(const char *key, const char *path) {
    static char content[1 << 17];
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        text(key, strerrorname_np(errno));
        return;
    }
    size_t size = 0;
    ssize_t got = 0;
    while (size < sizeof content - 1 && (got = read(fd, content + size, sizeof content - 1 - size)) > 0)
        size += (size_t)got;
    if (got < 0 && !size)
        snprintf(content, sizeof content, "%s", strerrorname_np(errno));
    else
        content[size] = 0;
    close(fd);
    text(key, content);
}

static const char *kind(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFDIR: return "directory";
    case S_IFREG: return "file";
    case S_IFLNK: return "link";
    case S_IFCHR: return "character device";
    case S_IFBLK: return "block device";
    case S_IFIFO: return "pipe";
    default: return "socket";
    }
}

static void what(const char *key, const char *path) {
    struct stat it;
    char extra[PATH_MAX + 16] = "";
    if (lstat(path, &it)) {
        text(key, strerrorname_np(errno));
        return;
    }
    if (S_ISLNK(it.st_mode)) {
        char target[PATH_MAX] = "";
        if (readlink(path, target, sizeof target - 1) > 0)
            snprintf(extra, sizeof extra, " -> %s", target);
    } else if (S_ISCHR(it.st_mode) || S_ISBLK(it.st_mode)) {
        snprintf(extra, sizeof extra, " %u:%u", major(it.st_rdev), minor(it.st_rdev));
    }
    told(key, "%s %04o %u:%u%s", kind(it.st_mode), it.st_mode & 07777, it.st_uid, it.st_gid, extra);
}

static int by_name(const struct dirent **one, const struct dirent **other) {
    return strcmp((*one)->d_name, (*other)->d_name);
}

static int not_dots(const struct dirent *entry) {
    return strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
}

static void tree(const char *path, int depth) {
    struct dirent **entries;
    int count = scandir(path, &entries, not_dots, by_name);
    for (int i = 0; i < count; i++) {
        char below[PATH_MAX], key[PATH_MAX + 8];
        snprintf(below, sizeof below, "%s%s%s", path, path[1] ? "/" : "", entries[i]->d_name);
        snprintf(key, sizeof key, "tree.%s", below);
        what(key, below);
        if (depth > 1 && entries[i]->d_type == DT_DIR)
            tree(below, depth - 1);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

// What a path is, what reading it gives and whether it can be written.
static void path(const char *name) {
    char key[PATH_MAX + 32];
    snprintf(key, sizeof key, "path.%s", name);
    what(key, name);
    struct stat it;
    if (stat(name, &it))
        return;
    if (S_ISDIR(it.st_mode)) {
        struct dirent **entries;
        int count = scandir(name, &entries, not_dots, by_name);
        snprintf(key, sizeof key, "path.%s.entries", name);
        told(key, "%s", count < 0 ? strerrorname_np(errno) : count ? "some" : "none");
    } else {
        char byte;
        snprintf(key, sizeof key, "path.%s.read", name);
        int fd = open(name, O_RDONLY | O_NONBLOCK | O_NOCTTY);
        ssize_t got = fd < 0 ? -1 : read(fd, &byte, 1);
        told(key, "%s", got < 0 ? strerrorname_np(errno) : got ? "data" : "empty");
        if (fd >= 0)
            close(fd);
    }
    snprintf(key, sizeof key, "path.%s.write", name);
    told(key, "%s", faccessat(AT_FDCWD, name, W_OK, AT_EACCESS) ? strerrorname_np(errno) : "allowed");
}

static long call(const char *name) {
    static const struct {
        const char *name;
        long number, args[5];
    } calls[] = {
        {"getppid", SYS_getppid, {0}},
        {"personality", SYS_personality, {0xffffffff}},
        {"umask", SYS_umask, {022}},
        {"getpriority", SYS_getpriority, {PRIO_PROCESS, 0}},
        {"sethostname", SYS_sethostname, {(long)"probed", 6}},
        {"mknod", SYS_mknod, {(long)"/tmp/probed", S_IFIFO | 0600, 0}},
        {"mkdir", SYS_mkdir, {(long)"/tmp/probed.d", 0700}},
        {"chroot", SYS_chroot, {(long)"/"}},
        {"unshare", SYS_unshare, {CLONE_NEWUTS}},
        {"unshare-user", SYS_unshare, {CLONE_NEWUSER}},
        {"keyctl", SYS_keyctl, {KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0}},
        {"dup", SYS_dup, {1}},
        {"lseek", SYS_lseek, {-1, 0, 0}},
        {"lseek-1", SYS_lseek, {-1, 0, 1}},
        {"lseek-2", SYS_lseek, {-1, 0, 2}},
        {"mount", SYS_mount, {(long)"none", (long)"/tmp", (long)"tmpfs", 0, 0}},
        {"setuid", SYS_setuid, {54321}},
        {"kexec_load", SYS_kexec_load, {0, 0, 0, 0}},
        {"bpf", SYS_bpf, {0, 0, 0}},
        {"ptrace", SYS_ptrace, {16, 999999, 0, 0}},
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (!strcmp(calls[i].name, name)) {
            const long *args = calls[i].args;
            return syscall(calls[i].number, args[0], args[1], args[2], args[3], args[4]);
        }
    errno = EDOM;
    return -1;
}

// In a child, which a filter may kill. Only whether it worked counts: some answers are numbers of no meaning.
static void called(const char *name) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        _exit(call(name) == -1 ? errno : 0);
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status))
        told(joined("call.", name), "killed by %s", sigabbrev_np(WTERMSIG(status)));
    else
        told(joined("call.", name), "%s", WEXITSTATUS(status) ? strerrorname_np(WEXITSTATUS(status)) : "works");
}

// For what a filter may kill the caller for.
static void in_child(void (*function)(void)) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        function();
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static void descriptors(void) {
    for (int fd = 0; fd < 256; fd++) {
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0)
            continue;
        struct stat it;
        char key[32];
        fstat(fd, &it);
        snprintf(key, sizeof key, "descriptor.%d", fd);
        told(key, "%s %s", kind(it.st_mode), (flags & O_ACCMODE) == O_RDONLY ? "r" : (flags & O_ACCMODE) == O_WRONLY ? "w" : "rw");
    }
}

static void namespaces(void) {
    static const char *names[] = {"cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char target[64] = "";
        char place[64];
        snprintf(place, sizeof place, "/proc/self/ns/%s", names[i]);
        ssize_t size = readlink(place, target, sizeof target - 1);
        told(joined("namespace.", names[i]), "%s", size < 0 ? strerrorname_np(errno) : target);
    }
}

static void scheduling(void) {
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
        uint32_t min, max;
    } it = {0};
    if (!syscall(SYS_sched_getattr, 0, &it, sizeof it, 0))
        told("scheduler", "policy %u flags %llu nice %d priority %u", it.policy, (unsigned long long)it.flags, it.nice, it.priority);
    errno = 0;
    number("io-priority", syscall(SYS_ioprio_get, 1, 0));
    number("timer-slack", prctl(PR_GET_TIMERSLACK));
    cpu_set_t cpus;
    if (!sched_getaffinity(0, sizeof cpus, &cpus))
        number("cpus", CPU_COUNT(&cpus));
    int mode = -1;
    unsigned long nodes[64] = {0};
    syscall(SYS_get_mempolicy, &mode, nodes, sizeof nodes * 8, NULL, 0);
    told("memory-policy", "%#x %lu", mode, nodes[0]);
}

static void network(void) {
    struct ifreq request = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && !ioctl(fd, SIOCGIFFLAGS, &request))
        told("network.lo", "%s", request.ifr_flags & IFF_UP ? "up" : "down");
    if (fd >= 0 && !ioctl(fd, SIOCGIFADDR, &request))
        text("network.lo.address", inet_ntoa(((struct sockaddr_in *)&request.ifr_addr)->sin_addr));
    close(fd);
    struct if_nameindex *interfaces = if_nameindex();
    int count = 0;
    while (interfaces && interfaces[count].if_index)
        count++;
    number("network.interfaces", count);
}

static void its_personality(void) {
    number("personality", personality(0xffffffff));
}

static void keyring(void) {
    char name[256] = "";
    long size = syscall(SYS_keyctl, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING, name, sizeof name - 1, 0);
    text("keyring", size < 0 ? strerrorname_np(errno) : name);
}

int main(int argc, char **argv) {
    static char buffer[1 << 20];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    descriptors();

    static const char *const files[] = {"status", "mountinfo", "limits", "cgroup", "oom_score_adj", "uid_map", "gid_map", "setgroups",
                                        "comm", "timens_offsets", "coredump_filter", "attr/current", "cmdline"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char place[64];
        snprintf(place, sizeof place, "/proc/self/%s", files[i]);
        file(joined("proc.", files[i]), place);
    }
    for (int i = 0; i < argc; i++) {
        char key[32];
        snprintf(key, sizeof key, "arg.%d", i);
        text(key, argv[i]);
    }
    for (int i = 0; environ[i]; i++) {
        char key[32];
        snprintf(key, sizeof key, "env.%d", i);
        text(key, environ[i]);
    }
    char directory[PATH_MAX];
    text("cwd", getcwd(directory, sizeof directory) ? directory : strerrorname_np(errno));
    number("pid", getpid());
    told("session", "%s", getsid(0) == getpid() ? "its own" : "another's");
    told("process-group", "%s", getpgrp() == getpid() ? "its own" : "another's");
    number("dumpable", prctl(PR_GET_DUMPABLE));
    number("keep-capabilities", prctl(PR_GET_KEEPCAPS));
    number("securebits", prctl(PR_GET_SECUREBITS));
    number("no-huge-pages", prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    int value = -1;
    prctl(PR_GET_PDEATHSIG, &value);
    number("death-signal", value);
    value = -1;
    prctl(PR_GET_CHILD_SUBREAPER, &value);
    number("subreaper", value);
    in_child(its_personality);
    struct utsname names;
    uname(&names);
    text("hostname", names.nodename);
    text("domainname", names.domainname);
    text("machine", names.machine);
    namespaces();
    scheduling();
    network();
    in_child(keyring);
    what("root", "/");
    tree("/", 1);
    tree("/dev", 2);
    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], "path=", 5))
            path(argv[i] + 5);
        else if (!strncmp(argv[i], "file=", 5))
            file(joined("file.", argv[i] + 5), argv[i] + 5);
        else if (!strncmp(argv[i], "call=", 5))
            called(argv[i] + 5);
    puts("end=");
    fflush(stdout);
    for (;;)
        pause();
}

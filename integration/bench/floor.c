/*
 * floor [OPTION …] ROOTFS CMD [ARG …]: the least that a sandbox can cost, to compare a judged run with.
 *
 * One clone3 makes all namespaces, with the child born in a leaf of the v2 hierarchy (CLONE_INTO_CGROUP). The child
 * enters the v1 cgroups by writing 0 to `tasks` files that its parent opened, mounts, changes its root, execs CMD.
 * The parent waits and removes the cgroups. No limits, no seccomp, no checks, no proof.
 *
 *   --user          a user namespace too, mapping 0 to host id 200000, 65,536 ids
 *   --no-cgroups    no cgroups
 *   --bind SRC DST  read-only bind of SRC; DST is relative to ROOTFS and must exist
 *   --device SRC DST  bind of a device node
 *   --symlink TEXT DST
 *   --tmpfs DST     a tmpfs
 *   --proc DST      proc
 *   --seed          the root is a fresh tmpfs on ROOTFS, whose content is not seen; DSTs are made
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* <sys/mount.h> and <linux/mount.h> cannot both be included with this glibc. */
int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);
enum { FLAG_RDONLY = 1, FLAG_NOSUID = 2, FLAG_NODEV = 4, FLAG_NOEXEC = 8, FLAG_BIND = 4096, FLAG_REC = 16384,
       FLAG_PRIVATE = 1 << 18, DETACH = 2 };

static const char *const v1[] = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"};
enum { V1 = sizeof v1 / sizeof *v1, MAX_MOUNTS = 64 };

struct operation {
    enum { BIND, DEVICE, SYMLINK, TMPFS, PROC } kind;
    const char *source, *target;
};

static void die(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    _exit(125);
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        die(path);
    close(fd);
}

/* Gives a new cpuset what its parent has; without it nothing may enter. */
static void copy_file(const char *from, const char *to)
{
    char text[256] = "";
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
        die(from);
    close(fd);
    write_file(to, text);
}

static void apply(const struct operation *op)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
    int tree;

    switch (op->kind) {
    case DEVICE:
        attr.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
        /* fall through */
    case BIND:
        tree = syscall(SYS_open_tree, AT_FDCWD, op->source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        if (tree < 0 || syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0 ||
            syscall(SYS_move_mount, tree, "", AT_FDCWD, op->target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
            die(op->source);
        close(tree);
        break;
    case SYMLINK:
        if (symlink(op->source, op->target) < 0)
            die(op->target);
        break;
    case TMPFS:
        if (mount("tmpfs", op->target, "tmpfs", FLAG_NOSUID | FLAG_NODEV, "size=16m,mode=1777") < 0)
            die(op->target);
        break;
    case PROC:
        if (mount("proc", op->target, "proc", FLAG_NOSUID | FLAG_NODEV | FLAG_NOEXEC, NULL) < 0)
            die(op->target);
        break;
    }
}

/* Makes the mount point of an operation in a fresh root. What is there already, as below proc, is left alone. */
static void make_target(const struct operation *op)
{
    char path[512];
    struct stat source;
    char *slash;

    snprintf(path, sizeof path, "%s", op->target);
    for (slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0755);
        *slash = '/';
    }
    if (op->kind == SYMLINK)
        return;
    if (op->kind == TMPFS || op->kind == PROC || (stat(op->source, &source) == 0 && S_ISDIR(source.st_mode)))
        mkdir(path, 0755);
    else
        close(open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0644));
}

int main(int argc, char **argv)
{
    struct operation ops[MAX_MOUNTS];
    int count = 0, user = 0, cgroups = 1, seed = 0, i, status = 0;
    int tasks[V1], leaf_fd = -1, go[2];
    char v1_dir[V1][256], leaf[256], path[512], map[64];
    const char *rootfs;
    char ch;
    pid_t pid;

    for (i = 1; i < argc && argv[i][0] == '-' && count < MAX_MOUNTS; i++) {
        if (!strcmp(argv[i], "--user"))
            user = 1;
        else if (!strcmp(argv[i], "--no-cgroups"))
            cgroups = 0;
        else if (!strcmp(argv[i], "--seed"))
            seed = 1;
        else if ((!strcmp(argv[i], "--bind") || !strcmp(argv[i], "--device") || !strcmp(argv[i], "--symlink")) &&
                 i + 2 < argc) {
            ops[count++] = (struct operation){
                argv[i][2] == 'b' ? BIND : argv[i][2] == 'd' ? DEVICE : SYMLINK, argv[i + 1], argv[i + 2]};
            i += 2;
        } else if (!strcmp(argv[i], "--tmpfs") && i + 1 < argc)
            ops[count++] = (struct operation){TMPFS, NULL, argv[++i]};
        else if (!strcmp(argv[i], "--proc") && i + 1 < argc)
            ops[count++] = (struct operation){PROC, NULL, argv[++i]};
        else
            return 2;
    }
    if (argc - i < 2)
        return 2;
    rootfs = argv[i];
    argv += i + 1;

    if (cgroups) {
        snprintf(leaf, sizeof leaf, "/sys/fs/cgroup/unified/floor-%d", getpid());
        if (mkdir(leaf, 0755) < 0 || (leaf_fd = open(leaf, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
            die(leaf);
        for (i = 0; i < V1; i++) {
            snprintf(v1_dir[i], sizeof v1_dir[i], "/sys/fs/cgroup/%s/floor-%d", v1[i], getpid());
            if (mkdir(v1_dir[i], 0755) < 0)
                die(v1_dir[i]);
            if (!strcmp(v1[i], "cpuset")) {
                snprintf(path, sizeof path, "%s/cpuset.cpus", v1_dir[i]);
                copy_file("/sys/fs/cgroup/cpuset/cpuset.cpus", path);
                snprintf(path, sizeof path, "%s/cpuset.mems", v1_dir[i]);
                copy_file("/sys/fs/cgroup/cpuset/cpuset.mems", path);
            }
            snprintf(path, sizeof path, "%s/tasks", v1_dir[i]);
            if ((tasks[i] = open(path, O_WRONLY | O_CLOEXEC)) < 0)
                die(path);
        }
    }
    if (pipe2(go, O_CLOEXEC) < 0)
        die("pipe");

    struct clone_args args = {
        .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET |
                 (user ? CLONE_NEWUSER : 0) | (cgroups ? CLONE_INTO_CGROUP : 0),
        .exit_signal = SIGCHLD,
        .cgroup = cgroups ? leaf_fd : 0,
    };
    pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0)
        die("clone3");
    if (pid == 0) {
        for (i = 0; cgroups && i < V1; i++)
            if (write(tasks[i], "0", 1) < 0)
                die(v1[i]);
        if (user && (read(go[0], &ch, 1) != 1 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0))
            die("user namespace");
        if (unshare(CLONE_NEWCGROUP) < 0)
            die("cgroup namespace");
        if (mount(NULL, "/", NULL, FLAG_REC | FLAG_PRIVATE, NULL) < 0)
            die("mount / private");
        if (seed ? mount("tmpfs", rootfs, "tmpfs", FLAG_NOSUID | FLAG_NODEV, "size=1m,mode=755") < 0
                 : mount(rootfs, rootfs, NULL, FLAG_BIND, NULL) < 0)
            die(rootfs);
        if (chdir(rootfs) < 0)
            die(rootfs);
        for (i = 0; i < count; i++) {
            if (seed)
                make_target(&ops[i]);
            apply(&ops[i]);
        }
        if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", DETACH) < 0 || chdir("/") < 0)
            die("pivot_root");
        execv(argv[0], argv);
        die(argv[0]);
    }
    if (user) {
        snprintf(map, sizeof map, "0 200000 65536\n");
        snprintf(path, sizeof path, "/proc/%d/uid_map", pid);
        write_file(path, map);
        snprintf(path, sizeof path, "/proc/%d/gid_map", pid);
        write_file(path, map);
        if (write(go[1], "1", 1) != 1)
            die("pipe");
    }
    if (waitpid(pid, &status, 0) != pid)
        die("waitpid");
    if (cgroups) {
        for (i = 0; i < V1; i++)
            if (rmdir(v1_dir[i]) < 0)
                die(v1_dir[i]);
        if (rmdir(leaf) < 0)
            die(leaf);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

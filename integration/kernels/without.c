/*
 * Executes a program where system calls fail, as on a kernel that does not have them (ENOSYS) or below a filter that keeps
 * everybody from them (EPERM). For root: a filter without no_new_privs.
 *
 *     without ENOSYS|EPERM CALL[,CALL…] PROGRAM [ARGUMENT…]
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
    const char *name;
    unsigned number;
} calls[] = {
    {"clone3", SYS_clone3},
    {"close_range", SYS_close_range},
    {"faccessat2", SYS_faccessat2},
    {"fsmount", SYS_fsmount},
    {"fsopen", SYS_fsopen},
    {"mount_setattr", SYS_mount_setattr},
    {"move_mount", SYS_move_mount},
    {"open_tree", SYS_open_tree},
    {"openat2", SYS_openat2},
    {"pidfd_getfd", SYS_pidfd_getfd},
    {"pidfd_open", SYS_pidfd_open},
    {"pidfd_send_signal", SYS_pidfd_send_signal},
    {"statx", SYS_statx},
};
enum { CALLS = sizeof calls / sizeof *calls };

int main(int argc, char **argv)
{
    if (argc < 4 || (strcmp(argv[1], "ENOSYS") && strcmp(argv[1], "EPERM"))) {
        fprintf(stderr, "usage: without ENOSYS|EPERM CALL[,CALL...] PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    unsigned error = strcmp(argv[1], "EPERM") ? ENOSYS : EPERM;
    struct sock_filter code[4 + 2 * CALLS + 1];
    unsigned short length = 0;
    /* Calls of other architectures have other numbers: a test makes none. */
    code[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (char *name = strtok(argv[2], ","); name; name = strtok(NULL, ",")) {
        size_t at = 0;
        while (at < CALLS && strcmp(calls[at].name, name))
            at++;
        if (at == CALLS || length + 3 > (int)(sizeof code / sizeof *code)) {
            fprintf(stderr, "without: %s: no such call, or too many\n", name);
            return 2;
        }
        code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[at].number, 0, 1);
        code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error);
    }
    code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog filter = {length, code};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) {
        perror("without: seccomp");
        return 1;
    }
    execv(argv[3], argv + 3);
    perror(argv[3]);
    return 127;
}

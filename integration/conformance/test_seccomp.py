"""config-linux.md#seccomp: every action, every operator, engines' profiles, notification."""

import array
import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
import threading

import oci
import pytest

ARCH = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}.get(os.uname().machine)
ALLOW = "SCMP_ACT_ALLOW"
ERRNO = "SCMP_ACT_ERRNO"


def profile(*rules, default=ALLOW, **members):
    return {"linux": {"seccomp": {"defaultAction": default, "syscalls": list(rules), **({"architectures": [ARCH]} if ARCH else {}), **members}}}


def rule(name="dup3", action=ERRNO, args=None, **members):
    return {"names": [name], "action": action, **({"args": args} if args else {}), **members}


def dup3(world, patch, *args):
    """What the kernel or the filter answers to a dup3 with these arguments; EBADF or EINVAL when it gets through."""
    return world.output(["probe", "call", "dup3", *map(str, args or (900, 901, 0))], patch)


def test_no_filter_by_default(world):
    """config-linux.md#seccomp: seccomp is optional; without it the process has no filter."""
    assert world.output(["grep", "^Seccomp:", "/proc/self/status"]).split()[1] == "0"


def test_a_filter(world):
    """config-linux.md#seccomp: with seccomp the process runs under a filter."""
    assert world.output(["grep", "^Seccomp:", "/proc/self/status"], profile(rule())).split()[1] == "2"


# action: exit status of a program that makes the call, and what it says
ACTIONS = {
    "SCMP_ACT_KILL": (128 + signal.SIGSYS, ""), "SCMP_ACT_KILL_THREAD": (128 + signal.SIGSYS, ""), "SCMP_ACT_KILL_PROCESS": (128 + signal.SIGSYS, ""),
    "SCMP_ACT_TRAP": (128 + signal.SIGSYS, ""), "SCMP_ACT_ERRNO": (0, "EPERM\n"), "SCMP_ACT_TRACE": (0, "ENOSYS\n"), "SCMP_ACT_ALLOW": (0, "EBADF\n"),
    "SCMP_ACT_LOG": (0, "EBADF\n"),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_action(world, action):
    """config-linux.md#seccomp: the action is what a matching call meets."""
    code, text = ACTIONS[action]
    default = "SCMP_ACT_LOG" if action == ALLOW else ALLOW
    script = "probe call dup3 900 901 0 > /tmp/out; code=$?; cat /tmp/out; exit $code"
    out = world.container(script, profile(rule(action=action), default=default)).run()
    assert (out.code, out.out) == (code, text), out


@pytest.mark.parametrize("action, text", [("SCMP_ACT_KILL_THREAD", "alive"), ("SCMP_ACT_KILL", "alive"), ("SCMP_ACT_KILL_PROCESS", "")])
def test_what_is_killed(world, action, text):
    """config-linux.md#seccomp: KILL and KILL_THREAD end the thread alone, KILL_PROCESS the process."""
    out = world.container("probe threads dup3 900 901 0 > /tmp/out; cat /tmp/out", profile(rule(action=action))).run()
    assert out.line == text


@pytest.mark.parametrize("number", [1, 13, 38, 98])
def test_errno_ret(world, number):
    """config-linux.md#seccomp: errnoRet is the error that the call returns."""
    assert dup3(world, profile(rule(errnoRet=number))) == errno.errorcode[number]


def test_errno_ret_of_zero(world):
    """config-linux.md#seccomp: errnoRet 0 makes the call succeed without doing anything."""
    assert dup3(world, profile(rule(errnoRet=0))) == "0"


def default_errno(world, number=None):
    names = ["execve", "exit_group", "exit", "write", "writev", "brk", "mmap", "munmap", "mprotect", "arch_prctl", "set_tid_address", "set_robust_list", "rseq",
             "readlink", "readlinkat", "getrandom", "prlimit64", "fstat", "newfstatat", "close", "fcntl", "futex", "capset", "prctl", "setgid", "setuid", "setgroups",
             "read", "openat", "epoll_pwait", "nanosleep", "rt_sigreturn", "tgkill", "rt_sigprocmask", "rt_sigaction", "getpid", "gettid", "stat", "lstat",
             "fchdir", "fstatfs", "getdents64", "chdir", "madvise", "sigaltstack", "clone", "clone3", "epoll_ctl", "epoll_create1", "eventfd2", "close_range",
             "dup", "dup2", "faccessat", "faccessat2", "access", "execveat", "getuid", "geteuid", "setresuid", "setresgid", "poll", "ppoll", "sendmsg", "recvmsg",
             "sendto", "recvfrom", "statx", "fchown", "open", "getppid", "wait4", "lseek", "pread64", "umask", "sched_getaffinity", "seccomp", "sched_yield"]
    members = {} if number is None else {"defaultErrnoRet": number}
    return dup3(world, profile({"names": names, "action": ALLOW}, default=ERRNO, **members))


def test_default_action(world):
    """config-linux.md#seccomp: defaultAction is what a call meets that no rule matches; its error is EPERM by default."""
    assert default_errno(world) == "EPERM"


def test_default_errno_ret(world):
    """config-linux.md#seccomp: defaultErrnoRet is the error of the default action."""
    assert default_errno(world, 13) == "EACCES"


# operator: value, an argument that matches, one that does not
OPERATORS = {
    "SCMP_CMP_EQ": ({"value": 700}, 700, 701), "SCMP_CMP_NE": ({"value": 700}, 701, 700), "SCMP_CMP_LT": ({"value": 700}, 699, 700),
    "SCMP_CMP_LE": ({"value": 700}, 700, 701), "SCMP_CMP_GT": ({"value": 700}, 701, 700), "SCMP_CMP_GE": ({"value": 700}, 700, 699),
    "SCMP_CMP_MASKED_EQ": ({"value": 0xF0, "valueTwo": 0x50}, 0x1052, 0x1062),
}


@pytest.mark.parametrize("matches", [True, False], ids=["match", "no match"])
@pytest.mark.parametrize("op", OPERATORS)
def test_operator(world, op, matches):
    """config-linux.md#seccomp: the operator compares the argument with value (and valueTwo, under the mask)."""
    values, yes, no = OPERATORS[op]
    patch = profile(rule(args=[{"index": 0, "op": op, **values}]))
    assert dup3(world, patch, yes if matches else no, 901, 0) == ("EPERM" if matches else "EBADF")


@pytest.mark.parametrize("index", [0, 1, 2])
def test_index(world, index):
    """config-linux.md#seccomp: index is the number of the argument."""
    args = [900, 901, 0]
    args[index] = 903 if index < 2 else 524288
    patch = profile(rule(args=[{"index": index, "value": args[index], "op": "SCMP_CMP_EQ"}]))
    assert dup3(world, patch, *args) == "EPERM"
    assert dup3(world, patch) == "EBADF"


def test_all_arguments_must_match(world):
    """config-linux.md#seccomp: a rule with several arguments matches where all of them do."""
    patch = profile(rule(args=[{"index": 0, "value": 900, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 905, "op": "SCMP_CMP_EQ"}]))
    assert dup3(world, patch, 900, 905, 0) == "EPERM"
    assert dup3(world, patch, 900, 906, 0) == "EBADF"


def test_an_argument_of_64_bits(world):
    """config-linux.md#seccomp: value is a number of 64 bits."""
    big = 0x1_0000_0005
    patch = profile(rule(name="lseek", args=[{"index": 1, "value": big, "op": "SCMP_CMP_EQ"}]))
    answer = lambda offset: world.output(["probe", "call", "lseek", "900", str(offset), "0"], patch)
    assert answer(big) == "EPERM" and answer(5) == "EBADF"


def test_several_rules(world):
    """config-linux.md#seccomp: every rule counts, with its own action."""
    patch = profile(rule(), rule("add_key", errnoRet=13), rule("kexec_load", errnoRet=38))
    words = [world.output(["probe", "call", name], patch) for name in ("dup3", "add_key", "kexec_load")]
    assert words == ["EPERM", "EACCES", "ENOSYS"]


def test_several_names(world):
    """config-linux.md#seccomp: a rule is for every name that it lists."""
    patch = profile({"names": ["add_key", "kexec_load"], "action": ERRNO, "errnoRet": 13})
    assert [world.output(["probe", "call", name], patch) for name in ("add_key", "kexec_load")] == ["EACCES", "EACCES"]


def test_a_name_that_this_machine_lacks(world):
    """config-linux.md#seccomp: engines' profiles list calls of other machines and of newer kernels; these are passed over."""
    assert dup3(world, profile({"names": ["nosuchcall", "arm_sync_file_range", "dup3"], "action": ERRNO})) == "EPERM"


def test_an_engines_profile(world):
    """config-linux.md#seccomp: the shape of an engine's default profile: deny by default, several architectures, masked flags of clone."""
    shell = ["execve", "exit_group", "exit", "write", "writev", "read", "brk", "mmap", "munmap", "mprotect", "mremap", "arch_prctl", "set_tid_address",
             "set_robust_list", "rseq", "readlink", "readlinkat", "getrandom", "prlimit64", "fstat", "newfstatat", "stat", "lstat", "statx", "close",
             "close_range", "fcntl", "futex", "capset", "prctl", "setgid", "setuid", "setgroups", "openat", "open", "nanosleep", "rt_sigreturn", "tgkill",
             "rt_sigprocmask", "rt_sigaction", "getpid", "gettid", "getppid", "fchdir", "chdir", "fstatfs", "statfs", "getdents64", "madvise", "sigaltstack",
             "dup", "dup2", "dup3", "faccessat", "faccessat2", "access", "execveat", "getuid", "geteuid", "getgid", "getegid", "setresuid", "setresgid",
             "poll", "ppoll", "select", "pselect6", "sendmsg", "recvmsg", "sendto", "recvfrom", "wait4", "waitid", "lseek", "pread64", "umask", "uname",
             "getcwd", "ioctl", "vfork", "fork", "pipe", "pipe2", "kill", "clock_gettime", "gettimeofday", "epoll_pwait", "epoll_ctl", "epoll_create1",
             "eventfd2", "sched_yield", "sched_getaffinity", "seccomp", "getpgrp", "setpgid", "getpgid", "setsid", "fchown", "unlink", "sysinfo"]
    namespaces = 0x7E020000
    patch = profile(
        {"names": shell, "action": ALLOW},
        rule("clone", ALLOW, [{"index": 0, "value": namespaces, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]),
        rule("clone3", ERRNO, errnoRet=38),
        rule("personality", ALLOW, [{"index": 0, "value": 0xFFFFFFFF, "op": "SCMP_CMP_EQ"}]),
        default=ERRNO, defaultErrnoRet=1)
    if os.uname().machine == "x86_64":
        patch["linux"]["seccomp"]["architectures"] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    script = "echo $(echo forked); probe call unshare 0x10000000; probe call personality 0xFFFFFFFF; probe call personality 8; probe call 56 0x10000011 0 0 0 0"
    if os.uname().machine != "x86_64":
        script = script.rpartition(";")[0]
    lines = world.container(script, patch).capabilities("CAP_SYS_ADMIN").run().ok().lines
    assert lines[:2] == ["forked", "EPERM"] and lines[2] == "0" and lines[3] == "EPERM" and lines[4:] in ([], ["EPERM"])


@pytest.mark.parametrize("user", [0, 1000])
@pytest.mark.parametrize("nnp", [True, False], ids=["nnp", "no nnp"])
def test_with_and_without_no_new_privileges(world, user, nnp):
    """config-linux.md#seccomp: the filter is loaded with noNewPrivileges and without it, for root and for others."""
    patch = profile(rule())
    patch["process"] = {"user": {"uid": user, "gid": user}, "noNewPrivileges": nnp}
    assert dup3(world, patch) == "EPERM"


def test_exec_gets_it_too(world):
    """config-linux.md#seccomp: the filter is the container's: an exec'ed process runs under it."""
    box = world.sleeper(profile(rule()))
    assert box.exec(box.id, "probe", "call", "dup3", "900", "901", "0").ok().line == "EPERM"


BAD = {
    "unknown action": profile(rule(action="SCMP_ACT_NOSUCH")),
    "unknown default action": profile(default="SCMP_ACT_NOSUCH"),
    "unknown operator": profile(rule(args=[{"index": 0, "value": 1, "op": "SCMP_CMP_NOSUCH"}])),
    "unknown architecture": profile(rule(), architectures=["SCMP_ARCH_NOSUCH"]),
    "argument beyond the sixth": profile(rule(args=[{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}])),
    "no default action": {"linux": {"seccomp": {"syscalls": [rule()]}}},
    "errnoRet of an action that has none": profile(rule(action="SCMP_ACT_KILL", errnoRet=5)),
    "no names": profile({"names": [], "action": ERRNO}),
    "notify without a listener": profile(rule(action="SCMP_ACT_NOTIFY")),
    "unknown flag": profile(rule(), flags=["SECCOMP_FILTER_FLAG_NOSUCH"]),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_filter_is_an_error(world, name):
    """config-linux.md#seccomp: what is not in the lists, or cannot be done, MUST be an error.

    Kept: a filter that is thought to be there and is not is the worst answer.
    """
    world.container(patch=BAD[name]).run().fails()


@pytest.mark.parametrize("flag", ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])
def test_flag(world, flag):
    """config-linux.md#seccomp: the flag is one of seccomp(2) and MUST be understood."""
    assert dup3(world, profile(rule(), flags=[flag])) == "EPERM"


def test_a_listener_path_that_is_not_used_is_ignored(world):
    """config-linux.md#seccomp: without SCMP_ACT_NOTIFY listenerPath is ignored."""
    assert dup3(world, profile(rule(), listenerPath="/nonexistent/socket")) == "EPERM"


def test_notify_with_no_one_listening_is_an_error(world):
    """config-linux.md#seccomp: if sending to the socket fails, the runtime MUST generate an error."""
    world.container(patch=profile(rule(action="SCMP_ACT_NOTIFY"), listenerPath=world.path("none"))).run().fails()


class Agent:
    """Listens for one connection, keeps what is sent, sees whether it is closed then, and answers one call with an error."""

    IOCTL_RECV, IOCTL_SEND = 0xC0502100, 0xC0182101

    def __init__(self, world, error):
        self.path = world.path("agent")
        self.error = error
        self.messages, self.fds, self.nr = b"", [], None
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server.bind(self.path)
        self.server.listen()
        self.server.settimeout(oci.PATIENCE)
        world.undo.callback(self.close)
        self.ended = False
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        try:
            peer, _ = self.server.accept()
        except OSError:
            return
        while not (self.fds and self.complete()):
            peer.settimeout(oci.PATIENCE)
            data, ancillary, _, _ = peer.recvmsg(65536, socket.CMSG_SPACE(64))
            if not data:
                return
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds = array.array("i")
                    fds.frombytes(content[:len(content) // 4 * 4])
                    self.fds += list(fds)
            self.messages += data
        peer.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while peer.recv(4096):
                pass
            self.ended = True
        self.answer()

    def complete(self):
        try:
            return json.loads(self.messages)
        except ValueError:
            return None

    def answer(self):
        if not select.select([self.fds[0]], [], [], oci.PATIENCE)[0]:
            return
        request = bytearray(80)
        fcntl.ioctl(self.fds[0], self.IOCTL_RECV, request)
        identity, _, _, self.nr = struct.unpack_from("QIIi", request)
        fcntl.ioctl(self.fds[0], self.IOCTL_SEND, bytearray(struct.pack("QqiI", identity, 0, -self.error, 0)))

    def close(self):
        self.server.close()
        for fd in self.fds:
            os.close(fd)


def notified(world, **members):
    agent = Agent(world, 95)
    box = world.container(["probe", "call", "add_key"], profile(rule("add_key", "SCMP_ACT_NOTIFY"), listenerPath=agent.path, **members))
    out = box.run().ok()
    agent.thread.join(5)
    return agent, box, out


def test_notify(world):
    """config-linux.md#seccomp: SCMP_ACT_NOTIFY hands the call to the agent, whose answer it returns."""
    agent, _, out = notified(world)
    assert out.line in ("ENOTSUP", "EOPNOTSUPP") and agent.nr is not None


def test_the_container_process_state(world):
    """config-linux.md#the-container-process-state: one JSON document with ociVersion, fds, pid and state MUST be sent."""
    agent, box, _ = notified(world)
    document = json.loads(agent.messages)
    assert document["ociVersion"] and document["state"]["id"] == box.id and isinstance(document["pid"], int)
    assert document["fds"] == ["seccompFd"] and len(agent.fds) == 1


def test_the_connection_is_closed(world):
    """config-linux.md#seccomp: the connection MUST be closed after the state is sent.

    Kept: an agent that reads to the end of the connection would never answer; runc and crun close it only when they end.
    """
    assert notified(world)[0].ended


def test_listener_metadata(world):
    """config-linux.md#seccomp: listenerMetadata is sent as metadata."""
    assert json.loads(notified(world, listenerMetadata="opaque \xfc")[0].messages)["metadata"] == "opaque \xfc"


def test_listener_metadata_without_a_path_is_an_error(world):
    """config-linux.md#seccomp: listenerMetadata MUST NOT be set without listenerPath.

    Kept: the words are plain; crun does not look.
    """
    world.container(patch=profile(rule(), listenerMetadata="x")).run().fails()

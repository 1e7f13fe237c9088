"""
Where the tests of one runtime run: a mount and a cgroup namespace with an /etc and a /tmp of their own, in which a test of runc's
leaves files, and a cgroup of its own in every hierarchy that looks like the root from inside. What a test leaves there is found
and removed from outside.
"""

import contextlib
import ctypes
import os
import signal
import stat
import subprocess
import time

CGROUP = "/sys/fs/cgroup"
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
MS_BIND = 4096
MS_REC = 0x4000
MS_REC_PRIVATE = 0x4000 | 0x40000
MNT_DETACH = 2
libc = ctypes.CDLL(None, use_errno=True)


def call(name, *args):
    """A function of the C library that returns -1 on failure."""
    if getattr(libc, name)(*args) < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{name}: {os.strerror(errno)}")


def mount(source, target, kind="none", flags=0, data=None):
    encode = lambda text: None if text is None else text.encode()
    call("mount", encode(source), encode(target), encode(kind), ctypes.c_ulong(flags), encode(data))


def hierarchies():
    """The mounted cgroup hierarchies: directory, kind of file system and, for v1, its mount option."""
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind, _, options = after.split()[:3]
            if kind == "cgroup":
                names = [word for word in options.split(",") if word not in ("rw", "ro", "xattr", "noprefix", "clone_children")]
                option = ",".join(names)
                yield before.split()[4], kind, "none," + option if option.startswith("name=") else option
            elif kind == "cgroup2":
                yield before.split()[4], kind, None


class World:
    def __init__(self, name, directory, needed, without_unified):
        """`directory` holds what is private, `needed` are directories that tests must see, also where they are below /tmp."""
        self.directory = directory
        self.needed = sorted({os.path.realpath(path) for path in needed})
        self.without_unified = without_unified
        # On a pure v2 machine a cgroup with processes hands no controllers down: there the root stays the machine's.
        self.unified_only = os.path.exists(f"{CGROUP}/cgroup.controllers")
        self.hierarchies = [] if self.unified_only else list(hierarchies())
        self.cgroups = [f"{directory}/{name}" for directory, _, _ in self.hierarchies]
        self.before = set(self._all(CGROUP)) if self.unified_only else set()

    def make(self):
        subprocess.run(["cp", "-a", "/etc", self.directory], check=True)
        for cgroup in self.cgroups:
            os.mkdir(cgroup)
            for file in ("cpuset.cpus", "cpuset.mems"):
                if os.path.exists(f"{cgroup}/{file}"):
                    with open(f"{os.path.dirname(cgroup)}/{file}") as parent, open(f"{cgroup}/{file}", "w") as own:
                        own.write(parent.read())
            # A new cgroup has no real-time budget, the root has.
            with contextlib.suppress(OSError):
                for file in ("cpu.rt_period_us", "cpu.rt_runtime_us"):
                    with open(f"{os.path.dirname(cgroup)}/{file}") as parent, open(f"{cgroup}/{file}", "w") as own:
                        own.write(parent.read())

    def enter(self):
        """Moves the calling process in."""
        for cgroup in self.cgroups:
            with open(f"{cgroup}/cgroup.procs", "w") as file:
                file.write("0")
        call("unshare", CLONE_NEWNS | CLONE_NEWCGROUP)
        mount("none", "/", flags=MS_REC_PRIVATE)
        # A runtime that gives the streams of a process to its user finds a /dev/null of ours, not the machine's.
        mount("none", "/mnt", "tmpfs")
        os.mknod("/mnt/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.chmod("/mnt/null", 0o666)
        mount("/mnt/null", "/dev/null", flags=MS_BIND)
        call("umount2", b"/mnt", MNT_DETACH)
        mount(f"{self.directory}/etc", "/etc", flags=MS_BIND)
        below = {path: os.open(path, os.O_PATH) for path in self.needed if path.startswith("/tmp/")}
        mount("tmpfs", "/tmp", "tmpfs", data="mode=1777")
        for path, handle in below.items():
            os.makedirs(path, exist_ok=True)
            mount(f"/proc/self/fd/{handle}", path, flags=MS_BIND | MS_REC)
            os.close(handle)
        if not self.unified_only:
            mount("tmpfs", CGROUP, "tmpfs", data="mode=755")
            for directory, kind, option in self.hierarchies:
                os.makedirs(directory, exist_ok=True)
                if kind == "cgroup" or not self.without_unified:
                    mount("cgroup", directory, kind, data=option)

    @staticmethod
    def _all(top):
        for path, directories, _ in os.walk(top, topdown=False):
            yield from (f"{path}/{name}" for name in directories)

    def left(self):
        """The cgroups that are there beside those of the world itself, children before their parents."""
        if self.unified_only:
            return [path for path in self._all(CGROUP) if path not in self.before]
        return [path for cgroup in self.cgroups for path in self._all(cgroup)]

    def sweep(self):
        """Ends every process in the cgroups that tests have left, and removes those."""
        end = time.monotonic() + 10
        while (left := self.left()) and time.monotonic() < end:
            for path in left:
                thaw(path)
                for pid in processes(path):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(OSError):
                    os.rmdir(path)
            time.sleep(0.01)
        return left

    def remove(self):
        """Ends what is left of a test that was broken off, and removes everything; returns what would not go."""
        for pid in [pid for cgroup in self.cgroups for pid in processes(cgroup)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        left = self.sweep()
        for cgroup in self.cgroups:
            for _ in range(500):
                try:
                    os.rmdir(cgroup)
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.01)
            else:
                left.append(cgroup)
        return left


def processes(cgroup):
    with contextlib.suppress(OSError), open(f"{cgroup}/cgroup.procs") as file:
        return [int(line) for line in file if line.strip() != "0"]
    return []


def thaw(cgroup):
    for file, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
        with contextlib.suppress(OSError), open(f"{cgroup}/{file}", "r+") as file:
            file.write(word)

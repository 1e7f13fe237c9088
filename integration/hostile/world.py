"""The host's view: what the payloads might leave, before and after."""

import ctypes
import os
import pathlib
import subprocess
import time

# The judge's range of ids (docs/judge.md).
FIRST_ID, LAST_ID = 1_879_048_192, 1_879_048_192 + 65_536 * 4096
SETTLING = 10
CLONE_NEWNS = 0x20000


def isolate(further=0):
    """A mount namespace of the suite's own, and further ones: whatever is mounted in it was mounted by what it runs."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | further):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def ours(uid):
    return FIRST_ID <= uid < LAST_ID


def processes(mark):
    """Processes in a cgroup of a sandbox's, or with the suite's mark in their environment, and not of the suite itself."""
    found = set()
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            own = mark in (entry / "cgroup").read_text()
            marked = int(entry.name) != os.getpid() and f"RUSTBOX_HOSTILE={mark}".encode() in (entry / "environ").read_bytes()
            if own or marked:
                found.add(f"{entry.name} {(entry / 'comm').read_text().strip()}")
        except OSError:  # it has ended
            pass
    return found


def cgroups(mark):
    found = set()
    for line in open("/proc/self/mountinfo"):
        words = line.split(" - ")
        if words[1].startswith("cgroup"):
            place = words[0].split()[4]
            # os.walk passes over what others remove meanwhile.
            found.update(os.path.join(parent, name) for parent, names, _ in os.walk(place) for name in names if mark in name)
    return found


def mounts():
    """Everything mounted here, by place and kind; not the ids, which change."""
    return {" ".join(line.split()[3:]) for line in open("/proc/self/mountinfo")}


def namespaces(mark):
    """Namespaces of others than the suite's that a process of a sandbox holds."""
    held = set()
    for process in processes(mark):
        for entry in pathlib.Path(f"/proc/{process.split()[0]}/ns").glob("*"):
            try:
                held.add(os.readlink(entry))
            except OSError:
                pass
    return held


def files(directory):
    """Files of a sandbox's ids where anybody may write; and what the state root holds, caches apart."""
    found = set()
    for place in ("/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/dev/mqueue"):
        for parent, directories, names in os.walk(place):
            for name in directories + names:
                path = os.path.join(parent, name)
                try:
                    if ours(os.lstat(path).st_uid):
                        found.add(path)
                except OSError:
                    pass
    for name in (".judge", ".ids"):
        place = directory / "root" / name
        found.update(str(path) for path in place.iterdir()) if place.exists() else None
    root = directory / "root"
    found.update(str(path) for path in root.iterdir() if not path.name.startswith(".")) if root.exists() else None
    return found


def shared():
    """System V objects of a sandbox's ids, keys of theirs."""
    found = set()
    for kind, column in (("shm", 7), ("sem", 4), ("msg", 7)):
        for line in pathlib.Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]:
            if ours(int(line.split()[column])):
                found.add(f"{kind} {line}")
    for line in pathlib.Path("/proc/keys").read_text().splitlines() if os.path.exists("/proc/keys") else []:
        if ours(int(line.split()[5])):
            found.add(f"key {line}")
    return found


def settings():
    """What a payload might set for the whole machine."""
    names = ("kernel/core_pattern", "kernel/hostname", "kernel/domainname", "kernel/modprobe", "kernel/randomize_va_space",
             "vm/overcommit_memory", "vm/nr_hugepages", "fs/suid_dumpable", "net/ipv4/ip_forward")
    found = {f"{name} {pathlib.Path('/proc/sys', name).read_text().strip()}" for name in names if pathlib.Path("/proc/sys", name).exists()}
    found.add("swaps " + str(len(open("/proc/swaps").readlines())))
    return found


def look(directory, mark):
    return {"processes": processes(mark), "cgroups": cgroups(mark), "mounts": mounts(), "namespaces": namespaces(mark),
            "files": files(directory), "shared objects": shared(), "settings": settings()}


def differences(before, after):
    """What there is more of; of what only this suite can change, also what there is less of."""
    return [f"{kind}: {sign} {thing}" for kind in before for sign, things in
            (("left", after[kind] - before[kind]), ("gone", before[kind] - after[kind] if kind in ("mounts", "settings") else ()))
            for thing in sorted(things)]


def settled(differ):
    """What still differs after a bounded time."""
    bound = time.monotonic() + SETTLING
    while (left := differ()) and time.monotonic() < bound:
        time.sleep(0.2)
    return left

"""Timing, counting and cleaning up: what every benchmark here is made of. Times are milliseconds."""

import ctypes
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
MS_REC_PRIVATE = 0x4000 | 0x40000
UNIFIED = b"/sys/fs/cgroup/unified"


class Broken(Exception):
    """The benchmark itself failed; there is no figure to print."""


def run(argv, **options):
    """Runs a command that must succeed; its output is kept for the message when it does not."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode != 0:
        raise Broken(f"{' '.join(argv)}: status {done.returncode}: {done.stdout.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="replace")


def bundle(rustbox, path, args, seccomp=None):
    """A busybox bundle as `rustbox spec` writes it, without a terminal: the same file for every runtime."""
    rootfs = os.path.join(path, "rootfs")
    for directory in ("bin", "dev", "proc", "sys", "tmp"):
        os.makedirs(os.path.join(rootfs, directory))
    shutil.copy("/bin/busybox", os.path.join(rootfs, "bin"))
    for applet in ("true", "sleep", "sh"):
        os.symlink("busybox", os.path.join(rootfs, "bin", applet))
    run([rustbox, "spec"], cwd=path)
    with open(os.path.join(path, "config.json")) as file:
        config = json.load(file)
    config["ociVersion"] = "1.0.2"  # crun 1.8 refuses later ones
    config["process"]["terminal"] = False
    config["process"]["args"] = args
    if seccomp:
        config["linux"]["seccomp"] = seccomp
    with open(os.path.join(path, "config.json"), "w") as file:
        json.dump(config, file)
    return path


def spawn(argv):
    """
    Runs a command and returns its wall time. posix_spawn: no copy of this interpreter is made. What it says goes to
    a file, for the message when it fails; not to a pipe, which a container would keep open.
    """
    with tempfile.NamedTemporaryFile() as said:
        files = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                 (os.POSIX_SPAWN_DUP2, said.fileno(), 2)]
        begin = time.perf_counter()
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=files)
        _, status = os.waitpid(pid, 0)
        taken = (time.perf_counter() - begin) * 1e3
        if status != 0:
            message = said.read().decode(errors="replace").strip()
            raise Broken(f"{' '.join(argv)}: wait status {status:#x}: {message}")
    return taken


def hyperfine(commands, runs, warmup=3, rounds=6):
    """Median wall time of each command, by name. The commands take turns, so that drift hits all alike."""
    times = {name: [] for name in commands}
    for _ in range(rounds):
        for name, argv in commands.items():
            spawn(argv)  # a failure shows its own message, which hyperfine would hide
            with tempfile.NamedTemporaryFile(suffix=".json") as out:
                run(["hyperfine", "-N", "--style", "none", "--warmup", str(warmup), "--runs", str(-(-runs // rounds)),
                     "--export-json", out.name, " ".join(argv)])
                times[name] += [1e3 * t for t in json.load(out)["results"][0]["times"]]
    return {name: statistics.median(samples) for name, samples in times.items()}


def spaced(commands, samples, gap=0.5):
    """Median wall time of each command when runs are `gap` seconds apart: the kernel's grace periods show."""
    times = {name: [] for name in commands}
    for _ in range(samples):
        for name, argv in commands.items():
            time.sleep(gap)
            times[name].append(spawn(argv))
    return {name: statistics.median(taken) for name, taken in times.items()}


def maxrss(helper, argv):
    """Peak resident set of a command, KiB. Not through a pipe: a container would keep it open."""
    with tempfile.NamedTemporaryFile() as out:
        spawn([helper, out.name, *argv])
        return int(out.read())


def traced(argv, out):
    """Starts a command under `strace -f -c`; the count is complete when strace, and so every tracee, has ended."""
    return subprocess.Popen(["strace", "-f", "-c", "-o", out, *argv],
                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def traced_calls(out):
    """The number of calls in a `strace -c` table: the line `100.00 SECONDS USECS CALLS ERRORS total`."""
    with open(out) as table:
        for line in table:
            found = re.match(r"100\.00\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?total", line)
            if found:
                return int(found.group(1))
    raise Broken(f"no total in {out}")


def apart(function, *arguments, hide_unified=False):
    """
    Calls `function` in a child with a mount and a cgroup namespace of its own and returns its (JSON) result.

    Every runtime is measured in the same surroundings. crun refuses hybrid hosts, so where it is measured the v2
    hierarchy is unmounted, in that namespace only.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(CLONE_NEWNS | CLONE_NEWCGROUP) != 0:
                raise OSError(ctypes.get_errno(), "unshare")
            libc.mount(None, b"/", None, MS_REC_PRIVATE, None)
            if hide_unified and os.path.ismount(UNIFIED):
                # In its place a directory like the one below it, of this namespace: crun leaves directories there.
                if libc.umount2(UNIFIED, 0) != 0 or libc.mount(b"tmpfs", UNIFIED, b"tmpfs", 0, None) != 0:
                    raise OSError(ctypes.get_errno(), "hide the v2 hierarchy")
            result = {"value": function(*arguments)}
            status = 0
        except BaseException as error:  # the parent prints it
            result = {"error": f"{type(error).__name__}: {error}"}
        with os.fdopen(writer, "w") as pipe:
            json.dump(result, pipe)
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    result = json.loads(text or '{"error": "the measuring child died"}')
    if "error" in result:
        raise Broken(result["error"])
    return result["value"]


def delete_all(runtimes, root):
    """Kills and deletes whatever containers are left below the private root. Says so: a clean bench leaves none."""
    for name, binary in runtimes.items():
        states = os.path.join(root, name)
        for container in os.listdir(states) if os.path.isdir(states) else []:
            if container.startswith("bench"):
                print(f"deleting the left-over container {container} of {name}", file=sys.stderr)
                subprocess.run([binary, "--root", states, "delete", "--force", container], stdin=subprocess.DEVNULL)

"""
What the tests of real engines share: a place that keeps everything private, checks, and the proof that nothing remains.

An engine's test calls `main`. That starts the script once more as process 1 of its own mount, pid, network, IPC and UTS
namespaces, with a /run, /dev/shm and temporary directory that no other process sees: a daemon that is left over there
dies with it, and "no process remains" can be read from /proc. Only cgroups are shared with the machine; each test uses
a parent of its own there and removes it.
"""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
INSIDE = "RUSTBOX_ENGINE_TEST"
CGROUP_ROOT = "/sys/fs/cgroup"
COMMAND_SECONDS = 40
CHECK_SECONDS = 90

# A CRIU that knows this kernel (integration/ci/criu), for whoever looks for one.
if os.environ.get("RUSTBOX_CRIU"):
    os.environ["PATH"] = os.path.dirname(os.environ["RUSTBOX_CRIU"]) + os.pathsep + os.environ["PATH"]


class Failed(Exception):
    """A check's finding: the runtime or the engine did something else than expected."""


class Skip(Exception):
    """The reason why this machine or engine cannot answer a check."""


def brief(argv):
    """A command line without the environment and the private directories in front of its command."""
    text = " ".join(argv)
    return re.sub(r"^.*?\b(podman|ctr|docker) (--\S+ /\S+ )*", r"\1 ", text)


class Done:
    """A command that has ended: its status, output and error output."""

    def __init__(self, argv, status, out, err):
        self.argv, self.status, self.out, self.err = argv, status, out, err

    def __str__(self):
        text = f"`{brief(self.argv)}` ended with {self.status}"
        for stream in (self.out, self.err):
            if stream.strip():
                text += "; " + " / ".join(stream.strip().splitlines()[-4:])
        return text


def command(argv, status=0, stdin=None, timeout=COMMAND_SECONDS, **options):
    """Runs `argv` to its end. `status` is what it must end with: a number, several, or None for any."""
    argv = [str(word) for word in argv]
    options.setdefault("stdin", subprocess.DEVNULL if stdin is None else None)
    if stdin is not None:
        del options["stdin"]
        options["input"] = stdin
    try:
        # A child that outlives the command may keep a pipe open: files have no end to wait for.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            code = subprocess.run(argv, text=True, timeout=timeout, stdout=out, stderr=err, **options).returncode
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read())
    except subprocess.TimeoutExpired:
        raise Failed(f"`{brief(argv)}` did not end in {timeout} s") from None
    done = Done(argv, code, *texts)
    if status is not None and code not in (status if isinstance(status, tuple) else (status,)):
        raise Failed(f"{done} instead of {status}")
    return done


def expect(condition, text):
    if not condition:
        raise Failed(str(text))


def same(found, wanted, what="output"):
    if found != wanted:
        raise Failed(f"{what} is {found!r} instead of {wanted!r}")


def eventually(question, what, timeout=15):
    """Asks until the answer is true, and returns it."""
    end = time.monotonic() + timeout
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > end:
            raise Failed(f"not within {timeout} s: {what}")
        time.sleep(0.05)


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, argv, rows=24, columns=80):
        self.seen = ""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            try:
                os.execvp(argv[0], [str(word) for word in argv])
            finally:
                os._exit(127)
        self.resize(rows, columns)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text):
        os.write(self.master, text.encode())

    def _read(self, seconds):
        ready, _, _ = select.select([self.master], [], [], seconds)
        if ready:
            with contextlib.suppress(OSError):  # EIO: the other side is closed
                self.seen += os.read(self.master, 4096).decode(errors="replace")

    def expect(self, pattern, timeout=15):
        """Waits until the output since the last match contains the regular expression; returns the match."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            match = re.search(pattern, self.seen)
            if match:
                self.seen = self.seen[match.end() :]
                return match
            self._read(0.2)
        raise Failed(f"the terminal does not show {pattern!r} within {timeout} s, but {self.seen[-300:]!r}")

    def wait(self, timeout=15):
        """Waits for the command's end and returns its status."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self._read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise Failed(f"the command on the terminal did not end within {timeout} s; it shows {self.seen[-300:]!r}")


# --- what remains ---


def hierarchies():
    """The mount points of the cgroup hierarchies."""
    found = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            head, tail = line.split(" - ")
            if tail.split()[0] in ("cgroup", "cgroup2"):
                found.append(head.split()[4])
    return found


def cgroups(parent):
    """The cgroups below `parent` in any hierarchy, deepest first."""
    found = []
    for hierarchy in hierarchies():
        for directory, _, _ in os.walk(f"{hierarchy}/{parent}", topdown=False):
            found.append(directory)
    return found


def remove_cgroups(directories):
    for directory in directories:
        with contextlib.suppress(OSError):
            os.rmdir(directory)


def cgroup_file(pid, controller, name):
    """Reads a file of the cgroup that process `pid` is in, of a v1 controller."""
    with open(f"/proc/{pid}/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if controller in controllers.split(","):
                with open(f"{CGROUP_ROOT}/{controller}{path}/{name}") as value:
                    return value.read().strip()
    raise Skip(f"no cgroup v1 controller {controller} here")


def mounts():
    """Mount points with their types, as a list: two mounts on one point are two entries."""
    found = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            head, tail = line.split(" - ")
            found.append(f"{head.split()[4]} ({tail.split()[0]})")
    return sorted(found)


def processes():
    """All processes of this pid namespace but this one and its ancestors, as "pid name"."""
    own = {1, os.getpid()}
    found = []
    for entry in glob.glob("/proc/[0-9]*"):
        pid = int(os.path.basename(entry))
        with contextlib.suppress(OSError), open(f"{entry}/stat") as file:
            name, rest = re.match(r"\d+ \((.*)\) (.*)", file.read(), re.S).groups()
            if pid not in own and rest[0] != "Z":
                found.append(f"{pid} {name}")
    return sorted(found)


def children(directory):
    """The containers' states in a state root. Names with a dot are none: `.seccomp` is rustbox's cache of filters."""
    return sorted(it for it in os.listdir(directory) if it[0] != ".") if os.path.isdir(directory) else []


# --- checks ---


class Checks:
    """The checks of one engine in the order of their declaration."""

    def __init__(self):
        self.all = []

    def __call__(self, name, *seconds):
        """`seconds`: how long it may take, if longer than usual. `CHECKS` in the environment is a part of the names to take."""

        def declare(function):
            if os.environ.get("CHECKS", "") in name:
                self.all.append((name, function, *seconds))
            return function

        return declare


class Results:
    """Check by check, what each runtime gave."""

    def __init__(self, runtimes):
        self.runtimes = runtimes
        self.rows = {}
        self.reasons = []

    def take(self, runtime, name, function, seconds=CHECK_SECONDS):
        def late(*_):
            raise Failed(f"not done after {seconds} s")

        signal.signal(signal.SIGALRM, late)
        signal.alarm(seconds)
        began = time.monotonic()
        try:
            function()
            outcome, reason = "pass", None
        except Skip as skip:
            outcome, reason = "skip", str(skip)
        except Failed as failed:
            outcome, reason = "FAIL", str(failed)
        except Exception:
            outcome, reason = "FAIL", traceback.format_exc(limit=-3)
        finally:
            signal.alarm(0)
        self.rows.setdefault(name, {})[runtime] = outcome
        if reason:
            self.reasons.append((runtime, name, outcome, reason))
        print(f"  {outcome}  {name} ({time.monotonic() - began:.1f} s)" + (f": {reason}" if reason else ""), flush=True)

    def report(self, title):
        width = max(len(name) for name in self.rows)
        print(f"\n{title}\n")
        print("| " + " | ".join(["check".ljust(width)] + [runtime.ljust(7) for runtime in self.runtimes]) + " |")
        print("|" + "|".join(["-" * (width + 2)] + ["-" * 9] * len(self.runtimes)) + "|")
        for name, outcomes in self.rows.items():
            cells = [outcomes.get(runtime, "-").ljust(7) for runtime in self.runtimes]
            print("| " + " | ".join([name.ljust(width)] + cells) + " |")
        for runtime, name, outcome, reason in self.reasons:
            print(f"\n{outcome} {runtime}: {name}\n    " + reason.strip().replace("\n", "\n    "))

    def count(self, runtime):
        outcomes = [row.get(runtime) for row in self.rows.values()]
        return tuple(outcomes.count(outcome) for outcome in ("pass", "FAIL", "skip"))


# --- the private place ---


def busybox_rootfs(directory):
    """A root file system of one static busybox with its applets."""
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"):
        os.makedirs(f"{directory}/{name}", exist_ok=True)
    os.chmod(f"{directory}/tmp", 0o1777)
    shutil.copy("/bin/busybox", f"{directory}/bin/busybox")
    for applet in command(["/bin/busybox", "--list"]).out.split():
        if applet != "busybox":
            os.symlink("busybox", f"{directory}/bin/{applet}")
    with open(f"{directory}/etc/passwd", "w") as file:
        file.write("root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
    with open(f"{directory}/etc/group", "w") as file:
        file.write("root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n")
    return directory


def oci_image(rootfs, archive, name, argv):
    """Writes an OCI image of one layer to a tar archive, as `ctr image import` and `docker load` take it."""
    layout = f"{archive}.d"
    blobs = f"{layout}/blobs/sha256"
    os.makedirs(blobs)

    def blob(data, **more):
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{blobs}/{digest}", "wb") as file:
            file.write(data)
        return {"digest": f"sha256:{digest}", "size": len(data), **more}

    prefix = "application/vnd.oci.image"
    layer = subprocess.run(["tar", "-C", rootfs, "-c", "."], check=True, stdout=subprocess.PIPE).stdout
    layer = blob(layer, mediaType=f"{prefix}.layer.v1.tar")
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": argv},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    config = blob(json.dumps(config).encode(), mediaType=f"{prefix}.config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": f"{prefix}.manifest.v1+json", "config": config, "layers": [layer]}
    manifest = blob(json.dumps(manifest).encode(), mediaType=f"{prefix}.manifest.v1+json")
    manifest["annotations"] = {"io.containerd.image.name": name}
    with open(f"{layout}/index.json", "w") as file:
        json.dump({"schemaVersion": 2, "manifests": [manifest]}, file)
    with open(f"{layout}/oci-layout", "w") as file:
        json.dump({"imageLayoutVersion": "1.0.0"}, file)
    command(["tar", "-C", layout, "-cf", archive, "."])
    return archive


class Daemon:
    """A daemon of the engine, its output in a file; ended and waited for at the end."""

    def __init__(self, argv, log, ready, seconds=20, **options):
        self.log = log
        with open(log, "w") as file:
            self.child = subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=file, stderr=file, **options)
        try:
            eventually(lambda: ready() or self.child.poll() is not None, f"{argv[0]} is ready", seconds)
        except Failed as failed:
            self.stop()
            raise Failed(f"{failed}: {self.tail()}") from None
        if self.child.poll() is not None:
            raise Failed(f"{argv[0]} ended with {self.child.returncode}: {self.tail()}")

    def tail(self):
        with open(self.log) as file:
            return file.read()[-800:]

    def stop(self):
        self.child.terminate()
        try:
            self.child.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def private(work, files=()):
    """Covers the places that engines write to, for this mount namespace alone. `files`: path → text that it shows."""
    for place in ("/run", "/dev/shm"):
        command(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", place])
    os.chmod("/dev/shm", 0o1777)
    os.makedirs("/run/lock")
    for place in ("/var/lib/cni", "/var/lib/containers", "/var/lib/rustbox"):
        if os.path.isdir(place):
            own = f"{work}/cover{place}"
            os.makedirs(own)
            command(["mount", "--bind", own, place])
    for path, text in dict(files).items():
        own = f"{work}/cover{path}"
        os.makedirs(os.path.dirname(own), exist_ok=True)
        with open(own, "w") as file:
            file.write(text)
        if not os.path.exists(path):
            raise Failed(f"{path} is missing, so nothing can be mounted over it")
        command(["mount", "--bind", own, path])
    command(["ip", "link", "set", "lo", "up"])


def runtimes(work, peers=("runc",)):
    """name → path of the runtimes compared; rustbox under that base name, which engines look at."""
    binary = os.environ.get("RUSTBOX_BIN") or shutil.which("rustbox")
    if not binary:
        sys.exit("no rustbox: set RUSTBOX_BIN")
    own = f"{work}/bin/rustbox"
    os.makedirs(os.path.dirname(own))
    shutil.copy(binary, own)
    found = {"rustbox": own, **{peer: shutil.which(peer) for peer in peers}}
    wanted = os.environ.get("RUNTIMES")
    return {name: path for name, path in found.items() if path and (not wanted or name in wanted.split(","))}


def _inside(work, test):
    """Process 1: reaps whatever is orphaned, and ends with the status of the test, its child."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = test(work)
        except Failed as failed:
            print(f"cannot test: {failed}", flush=True)
        except Exception:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(status)
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def main(engine, parents, test, seconds=900):
    """
    Runs `test(work)` inside; `parents` are the names of the cgroups it makes at the top.
    Ends the script with the test's status, or with 1 if something of it is left on the machine.
    """
    if os.environ.get(INSIDE):
        _inside(os.environ[INSIDE], test)
    if os.geteuid() != 0:
        sys.exit(f"{engine}: needs root")
    before = [directory for parent in parents for directory in cgroups(parent)]

    def left():
        return [directory for parent in parents for directory in cgroups(parent) if directory not in before]

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    work = tempfile.mkdtemp(prefix=f"rustbox-{engine}-", dir="/var/tmp")
    os.chmod(work, 0o755)
    namespaces = ["--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
    child = subprocess.Popen(
        ["unshare", *namespaces, sys.executable, os.path.abspath(sys.argv[0]), *sys.argv[1:]],
        env={**os.environ, INSIDE: work, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        cwd=work,  # some engines leave files where they are
    )
    status = 1
    try:
        status = child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        print(f"{engine}: not done after {seconds} s", flush=True)
    finally:
        child.kill()
        child.wait()
        with contextlib.suppress(Failed):
            eventually(lambda: remove_cgroups(left()) or not left(), "the cgroups are empty", 10)
        shutil.rmtree(work, ignore_errors=True)
    remaining = left() + ([work] if os.path.exists(work) else [])
    for path in remaining:
        print(f"{engine}: remains: {path}")
    sys.exit(1 if remaining else status)

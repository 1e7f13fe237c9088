"""
What the conformance tests are made of: one runtime driven by its command line, bundles with a busybox root filesystem,
and the removal of everything that a test made, whatever became of it.
"""

import contextlib
import copy
import ctypes
import functools
import glob
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time

PATIENCE = 20  # seconds; no command of a runtime takes longer, and one that does fails its test
HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
SCHEMA_DIR = os.environ.get("SCHEMA_DIR", os.path.join(REPOSITORY, "../shared/reference/runtime-spec-schema"))
CGROUP = "/sys/fs/cgroup"
V2 = os.path.exists(f"{CGROUP}/cgroup.controllers")

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
MS_REC_PRIVATE = 0x4000 | 0x40000
MS_BIND = 4096
MNT_DETACH = 2
PR_SET_CHILD_SUBREAPER = 36
libc = ctypes.CDLL(None, use_errno=True)

APPLETS = """[ awk basename cat chgrp chmod chown chroot chrt cp cut date dd df dirname echo env expr false find grep head hostname
id ifconfig ionice ip ipcs kill ln ls md5sum mkdir mkfifo mknod mount mv nc nice nproc od pidof printf ps pwd readlink realpath rm
rmdir sed seq setsid sh sleep sort stat stty sync sysctl tail tee test touch tr true tty umount uname unshare uptime wc which xargs
yes""".split()

CAPS = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


def call(name, *args):
    """A function of the C library that returns -1 on failure."""
    if getattr(libc, name)(*args) < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{name}: {os.strerror(errno)}")


def mount(source, target, kind="none", flags=0, data=None):
    encode = lambda text: None if text is None else text.encode()
    call("mount", encode(source), encode(target), encode(kind), ctypes.c_ulong(flags), encode(data))


def isolate(without_unified):
    """
    Gives this process and its children a mount and a cgroup namespace of their own, so that mounts of a test never
    reach the host and cgroup paths mean the same under every runtime. `without_unified` hides the second hierarchy of a
    hybrid host behind an empty file system.
    """
    call("unshare", CLONE_NEWNS | CLONE_NEWCGROUP)
    mount("none", "/", flags=MS_REC_PRIVATE)
    # crun gives the streams of a process to its user, also where they are the host's /dev/null: let that be a node of ours.
    mount("none", "/mnt", "tmpfs")
    os.mknod("/mnt/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.chmod("/mnt/null", 0o666)
    mount("/mnt/null", "/dev/null", flags=MS_BIND)
    call("umount2", b"/mnt", MNT_DETACH)
    if without_unified and os.path.ismount(f"{CGROUP}/unified"):
        mount("none", f"{CGROUP}/unified", "tmpfs")


def reap():
    """
    Goes on in a child process; this one buries, until that child ends, what containers leave behind. On a host whose init
    takes its time, a runtime would otherwise wait for the corpse of every container.
    """
    call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = os.fork()
    if child == 0:
        return
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


class Out:
    """What a finished command said. `code` is negative after a signal."""

    def __init__(self, argv, code, out, err):
        self.argv, self.code, self.out, self.err = argv, code, out, err

    def __repr__(self):
        return f"{' '.join(self.argv)}: status {self.code}\nstdout: {self.out!r}\nstderr: {self.err!r}"

    def ok(self):
        assert self.code == 0, f"should have succeeded: {self}"
        return self

    def fails(self):
        """The runtime refused: it exited by itself and not with success."""
        assert self.code != 0, f"should have failed: {self}"
        assert self.code > 0 and self.code != 101, f"should have failed in good order: {self}"
        return self

    @property
    def line(self):
        return self.out.strip()

    @property
    def lines(self):
        return self.out.splitlines()

    def json(self):
        return json.loads(self.out)


class Runtime:
    """One runtime by its path and the name that its report goes under."""

    def __init__(self, word):
        path = word
        if "/" not in word:
            path = os.environ.get("RUSTBOX_BIN") if word == "rustbox" else None
            path = path or shutil.which(word)
        if not path or not os.access(path, os.X_OK):
            raise FileNotFoundError(f"no runtime {word}; set RUNTIME to a name on PATH or to a path, or RUSTBOX_BIN")
        self.path = os.path.abspath(path)
        self.name = os.path.basename(self.path)

    def version(self):
        return subprocess.run([self.path, "--version"], capture_output=True, text=True, timeout=PATIENCE).stdout.splitlines()[0]


@functools.cache
def tools():
    """A directory with a copy of busybox and the compiled probe, made once per run."""
    path = tempfile.mkdtemp(prefix="oci-tools-")
    source = next(name for name in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(name))
    shutil.copy(source, f"{path}/busybox")
    subprocess.run(["gcc", "-O1", "-Wall", "-static", "-o", f"{path}/probe", f"{HERE}/probe.c"], check=True, timeout=120)
    return path


def remove_tools():
    if tools.cache_info().currsize:
        shutil.rmtree(tools(), ignore_errors=True)
        tools.cache_clear()


def make_rootfs(path):
    for name in ("", "bin", "dev", "etc", "proc", "sys", "tmp", "mnt"):
        os.mkdir(os.path.join(path, name))
    os.chmod(f"{path}/tmp", 0o1777)
    for tool in ("busybox", "probe"):
        os.link(f"{tools()}/{tool}", f"{path}/bin/{tool}")
    for applet in APPLETS:
        os.symlink("busybox", f"{path}/bin/{applet}")
    with open(f"{path}/etc/passwd", "w") as file:
        file.write("root:x:0:0:root:/:/bin/sh\n")


def default_config():
    """What an engine would ask for, small: root in new pid, network, ipc, uts and mount namespaces."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": list(CAPS), "effective": list(CAPS), "permitted": list(CAPS)},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
        },
    }


def merge(target, patch):
    """RFC 7396: objects merge, None removes, anything else replaces."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = copy.deepcopy(value)
    return target


def wait_for(what, condition, seconds=5):
    """Polls until the condition holds and returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"did not come within {seconds} s: {what}"
        time.sleep(0.01)


def alive(pid):
    """Whether there is such a process, and not only its corpse."""
    try:
        return read(f"/proc/{pid}/stat").rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def read(path):
    with open(path) as file:
        return file.read()


class World:
    """One test's directory, state root, containers and whatever else must be gone when it ends."""

    def __init__(self, runtime, tag):
        self.runtime = runtime
        self.tag = tag
        self.dir = tempfile.mkdtemp(prefix="oci-conformance-")
        os.chmod(self.dir, 0o755)
        self.root = f"{self.dir}/state"
        self.containers = []
        self.children = []
        self.undo = contextlib.ExitStack()
        self.commands = 0

    def path(self, name):
        return os.path.join(self.dir, name)

    def file(self, name, content="", mode=0o644):
        """A host file in the test's directory."""
        path = self.path(name)
        with open(path, "w") as file:
            file.write(content)
        os.chmod(path, mode)
        return path

    def folder(self, name, mode=0o755):
        path = self.path(name)
        os.mkdir(path)
        os.chmod(path, mode)
        return path

    def spawn(self, argv, stdin=subprocess.DEVNULL, env=None, cwd=None, **options):
        """Starts a command whose output goes to files, since a container may hold them open for longer than it lives."""
        self.commands += 1
        base = self.path(f"command-{self.commands}")
        with open(base + ".out", "wb") as out, open(base + ".err", "wb") as err:
            child = subprocess.Popen(
                argv, stdin=stdin, stdout=out, stderr=err, cwd=cwd or self.dir, start_new_session=True,
                env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                     "RUSTBOX_STATE_DIR": f"{self.dir}/worker", **(env or {})}, **options)
        child.base = base
        self.children.append(child)
        return child

    def finish(self, child, timeout=PATIENCE):
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise AssertionError(f"did not end within {timeout} s: {' '.join(child.args)}\n{read(child.base + '.err')}")
        output = lambda end: open(child.base + end, errors="replace").read()
        return Out(child.args, code, output(".out"), output(".err"))

    def command(self, argv, **options):
        return self.finish(self.spawn(argv, **options))

    def cli(self, *args, **options):
        """The runtime with these arguments, on this test's state root."""
        return self.command([self.runtime.path, "--root", self.root, *map(str, args)], **options)

    def container(self, program=None, patch=None, rootfs=True, cgroup=True):
        """A bundle and the id that its container will have. A string is a shell script, a list an argument vector."""
        number = len(self.containers)
        box = Container(self, f"{self.tag}-{number}", self.folder(f"bundle-{number}"))
        self.containers.append(box)
        if rootfs:
            make_rootfs(box.rootfs)
        config = box.config
        if program is not None:
            config["process"]["args"] = ["sh", "-c", program] if isinstance(program, str) else program
        if cgroup:
            config["linux"]["cgroupsPath"] = f"/{box.id}"
        merge(config, patch or {})
        return box

    def output(self, program, patch=None):
        """What a program prints in a container of its own, without the last line break."""
        return self.container(program, patch).run().ok().line

    def sleeper(self, patch=None):
        """A running container that does nothing."""
        box = self.container(["sleep", "600"], patch)
        box.create().ok()
        box.start().ok()
        return box

    def mount(self, source, target, kind="none", flags=0, data=None):
        mount(source, target, kind, flags, data)
        self.undo.callback(libc.umount2, target.encode(), MNT_DETACH)

    def close(self):
        """Kills and removes everything of this test, also what a runtime has left behind."""
        for child in self.children:
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        for box in self.containers:
            if box.touched:
                with contextlib.suppress(AssertionError):
                    self.cli("delete", "--force", box.id)
        self.undo.close()
        for cgroup in cgroups_named(self.tag + "-"):
            remove_cgroup(cgroup)
        for point in reversed([line.split()[4] for line in open("/proc/self/mountinfo")]):
            if point.startswith(self.dir + "/"):
                libc.umount2(point.encode(), MNT_DETACH)
        shutil.rmtree(self.dir, ignore_errors=True)


def mounted(path):
    """The type of the file system that is mounted last at this very path, or None."""
    kinds = [line.split(" - ")[1].split()[0] for line in open("/proc/self/mountinfo") if line.split()[4] == path]
    return kinds[-1] if kinds else None


def cgroups_named(name):
    """Every cgroup of the host whose name has this in it, the innermost first."""
    plain = {os.stat(path).st_dev for path in (CGROUP, f"{CGROUP}/unified") if mounted(path) == "tmpfs"}
    found = [
        path for depth in ("", "*/", "*/*/", "*/*/*/") for path in glob.glob(f"{CGROUP}/{depth}*{name}*")
        if os.path.exists(f"{path}/cgroup.procs") and os.stat(path).st_dev not in plain]
    inner = [path for top in found for path, _, _ in os.walk(top)]
    return sorted(set(inner), key=len, reverse=True)


def remove_cgroup(path):
    """Kills what is in the cgroup and removes it."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            for pid in read(f"{path}/cgroup.procs").split():
                os.kill(int(pid), signal.SIGKILL)
        with contextlib.suppress(OSError):
            with open(f"{path}/freezer.state", "w") as file:
                file.write("THAWED")
        with contextlib.suppress(OSError):
            os.rmdir(path)
        if not os.path.exists(path):
            return
        time.sleep(0.02)


class Container:
    """One bundle, and the operations on the container made from it."""

    def __init__(self, world, name, bundle):
        self.world = world
        self.id = name
        self.bundle = bundle
        self.rootfs = f"{bundle}/rootfs"
        self.config = default_config()
        self.touched = False
        self.output = None  # base name of the files that create's and so the program's output go to

    # -- the bundle

    @property
    def process(self):
        return self.config["process"]

    @property
    def linux(self):
        return self.config["linux"]

    def patch(self, patch):
        merge(self.config, patch)
        return self

    def mount(self, destination, kind="tmpfs", source="tmpfs", options=(), **more):
        self.config["mounts"].append(
            {"destination": destination, "type": kind, "source": source, "options": list(options), **more})
        return self

    def bind(self, source, destination, *options, **more):
        return self.mount(destination, "bind", source, ["rbind", *options], **more)

    def unmount(self, destination):
        self.config["mounts"] = [entry for entry in self.config["mounts"] if entry["destination"] != destination]
        return self

    def namespace(self, kind, path=None):
        """Asks for a namespace, new or by path, instead of what was asked for of its type."""
        self.without_namespace(kind)
        self.linux["namespaces"].append({"type": kind, **({"path": path} if path else {})})
        return self

    def without_namespace(self, kind):
        self.linux["namespaces"] = [entry for entry in self.linux["namespaces"] if entry["type"] != kind]
        return self

    def user_namespace(self, host=100000, size=65536):
        """A new user namespace whose root is this id of the host, which then owns the root filesystem."""
        extent = [{"containerID": 0, "hostID": host, "size": size}]
        self.namespace("user")
        self.linux.update({"uidMappings": extent, "gidMappings": copy.deepcopy(extent)})
        for top, folders, files in os.walk(self.rootfs):
            for name in [top] + [os.path.join(top, name) for name in folders + files]:
                if os.lstat(name).st_nlink == 1 or os.path.isdir(name):
                    os.lchown(name, host, host)
        return self

    def capabilities(self, *names):
        self.process["capabilities"] = {kind: list(names) for kind in ("bounding", "effective", "permitted")}
        return self

    def hook(self, point, script=None, **entry):
        """Adds a hook; by default a shell of the host (or, where it runs in there, of the container) with this script."""
        entry.setdefault("path", "/bin/sh")
        if script is not None:
            entry["args"] = ["sh", "-c", script]
        self.config.setdefault("hooks", {}).setdefault(point, []).append(entry)
        return self

    def write(self):
        with open(f"{self.bundle}/config.json", "w") as file:
            json.dump(self.config, file)

    # -- the operations

    def cli(self, *args, **options):
        self.touched = True
        return self.world.cli(*args, **options)

    def create(self, *args, **options):
        self.write()
        return self.create_again(*args, **options)

    def create_again(self, *args, **options):
        """Creates from the config.json as it lies there."""
        out = self.cli("create", "--bundle", self.bundle, *args, self.id, **options)
        self.output = self.world.path(f"command-{self.world.commands}.out")
        return out

    def start(self):
        return self.cli("start", self.id)

    def run(self, *args, **options):
        self.write()
        return self.cli("run", "--bundle", self.bundle, *args, self.id, **options)

    def up(self):
        """Creates and starts."""
        self.create().ok()
        self.start().ok()
        return self

    def kill(self, *args):
        return self.cli("kill", self.id, *args)

    def delete(self, *args):
        return self.cli("delete", *args, self.id)

    def exec(self, *args, **options):
        return self.cli("exec", *args, **options)

    def query(self):
        return self.cli("state", self.id)

    def state(self):
        return self.query().ok().json()

    def status(self):
        return self.state()["status"]

    def pid(self):
        return self.state()["pid"]

    def wait(self, status="stopped", seconds=10):
        wait_for(f"{self.id} {status}", lambda: self.status() == status, seconds)

    def stop(self):
        """Kills the program and waits for its end."""
        self.kill("KILL").ok()
        self.wait()
        return self

    def said(self):
        """What the program of a created container has printed so far."""
        return read(self.output)

    def cgroup(self, controller=None):
        """The cgroup directory, on cgroup v1 that of a controller."""
        path = self.linux["cgroupsPath"].lstrip("/")
        return f"{CGROUP}/{path}" if V2 else f"{CGROUP}/{controller}/{path}"


class Mount:
    """One line of a mountinfo: point, root, flags of the mount, propagation, type, source, flags of the file system."""

    def __init__(self, line):
        left, right = line.split(" - ")
        _, _, _, self.root, self.point, flags, *propagation = left.split()
        self.flags = set(flags.split(","))
        self.propagation = {word.split(":")[0] for word in propagation}
        self.type, self.source, *rest = right.split()
        self.data = set(rest[0].split(",")) if rest else set()


def mounts(text):
    """The mounts of a mountinfo by mount point; of several at one point the last, which is the visible one."""
    return {mount.point: mount for mount in map(Mount, text.splitlines())}


def has_namespace(kind):
    return os.path.exists(f"/proc/self/ns/{kind}")


def is_device(path, major, minor, check=stat.S_ISCHR):
    data = os.lstat(path)
    return check(data.st_mode) and (os.major(data.st_rdev), os.minor(data.st_rdev)) == (major, minor)

"""
What the guests are started from: a kernel and the images of their systems, made of Debian's packages and kept in a cache.

Everything kept carries the hash of what it was made of, or the version of its package, in its name.
"""

import glob
import hashlib
import os
import re
import shutil
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
KERNEL = "linux-image-cloud-amd64"
PACKAGES = [
    # What the bundles of C, C++, Python and the shell bind into their containers.
    *("gcc", "g++", "libc6-dev", "python3", "busybox-static", "iproute2", "kmod", "procps", "strace"),
    # Process 1 with both of its buses, a manager for each user, and ranges of ids for a user.
    *("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "uidmap"),
]
# Nothing here is to be waited for, and nothing is to start in the middle of a test.
MASKED = ["apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer"]
MASKED += ["getty@tty1.service", "serial-getty@ttyS0.service", "systemd-tmpfiles-clean.timer", "systemd-update-utmp.service"]
MASKED += ["systemd-pstore.service", "systemd-random-seed.service", "remote-fs.target", "modprobe@.service", "tmp.mount"]
USER = 1000
# Of the kernel's modules, in the order in which they are loaded.
MODULES = ["drivers/net/veth.ko", "drivers/net/dummy.ko", "fs/overlayfs/overlay.ko"]


def sh(*words, **options):
    return subprocess.run(words, check=True, capture_output=True, text=True, **options).stdout


def digest(*parts):
    """Sixteen digits for texts, and for the contents of the files of which a path is given as bytes."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, bytes):
            with open(part, "rb") as file:
                part = hashlib.sha256(file.read()).hexdigest()
        state.update(part.encode() + b"\0")
    return state.hexdigest()[:16]


def harness():
    """The hash of what of this directory is in every image."""
    return digest(*(os.path.join(HERE, name).encode() for name in ("images.py", "init", "job", "job.service", "outb.c")))


def forget(cache, prefix, keep):
    """Removes what the same thing was made of before."""
    for path in glob.glob(os.path.join(glob.escape(cache), f"{prefix}-*")):
        if path != keep:
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


def kernel(cache):
    """The kernel's package, unpacked and not installed."""
    package = re.search(r"Depends: (\S+)", sh("apt-cache", "depends", KERNEL)).group(1)
    version = re.search(r"^Version: (\S+)", sh("apt-cache", "show", "--no-all-versions", package), re.M).group(1)
    place = os.path.join(cache, f"kernel-{package}_{version}")
    sh(f"{REPOSITORY}/integration/ci/unpack", package, place)
    forget(cache, "kernel", place)
    return place


def vmlinuz(cache):
    """The kernel's image."""
    return next(iter(glob.glob(os.path.join(glob.escape(kernel(cache)), "boot/vmlinuz-*"))))


def debian(cache):
    """A directory with Debian's packages, of the release and from the mirror of this machine."""
    targets = sh("apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT) $(RELEASE)", "Created-By: Packages")
    mirror, _, release = next(line.split() for line in targets.splitlines() if re.search(r" main [^-]+$", line))
    place = os.path.join(cache, f"tree-{digest(release, *PACKAGES)}")
    if not os.path.exists(place):
        print(f"vm: installing {release} into {place}", flush=True)
        fresh = place + ".new"
        shutil.rmtree(fresh, ignore_errors=True)
        sh("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", release, fresh, mirror)
        os.rename(fresh, place)
        forget(cache, "tree", place)
    return place


def write(root, path, text, mode=0o644):
    """A file of the image, never of the tree that it shares its links with."""
    path = os.path.join(root, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        os.remove(path)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)


def append(root, path, text):
    path = os.path.join(root, path)
    with open(path) as file:
        write(root, os.path.relpath(path, root), file.read() + text, os.stat(path).st_mode & 0o777)


def debian_disk(cache):
    """Debian, to be started with our own first process or with systemd, which runs our job as a unit."""
    tree = debian(cache)
    image = os.path.join(cache, f"debian-{digest(os.path.basename(tree), os.path.basename(kernel(cache)), harness())}.img")
    if not os.path.exists(image):
        with tempfile.TemporaryDirectory(dir=cache) as place:
            root = os.path.join(place, "root")
            sh("cp", "-al", tree, root)
            os.makedirs(f"{root}/work")
            units = "etc/systemd/system"
            for unit in MASKED:
                path = f"{root}/{units}/{unit}"
                if os.path.lexists(path):
                    os.remove(path)
                os.symlink("/dev/null", path)
            with open(f"{HERE}/job.service") as file:
                write(root, f"{units}/job.service", file.read())
            os.makedirs(f"{root}/{units}/multi-user.target.wants", exist_ok=True)
            os.symlink("../job.service", f"{root}/{units}/multi-user.target.wants/job.service")
            os.remove(f"{root}/{units}/default.target") if os.path.lexists(f"{root}/{units}/default.target") else None
            os.symlink("/lib/systemd/system/multi-user.target", f"{root}/{units}/default.target")
            write(root, "etc/systemd/journald.conf.d/guest.conf", "[Journal]\nStorage=volatile\n")
            write(root, "etc/machine-id", digest("machine") * 2 + "\n")
            write(root, "etc/hostname", "guest\n")
            write(root, "etc/hosts", "127.0.0.1 localhost guest\n")
            write(root, "etc/fstab", "")
            append(root, "etc/passwd", f"user:x:{USER}:{USER}::/home/user:/bin/sh\n")
            append(root, "etc/group", f"user:x:{USER}:\n")
            append(root, "etc/shadow", "user:*:19000:0:99999:7:::\n")
            for file in ("etc/subuid", "etc/subgid"):
                write(root, file, "user:100000:65536\n")
            os.makedirs(f"{root}/home/user")
            os.chown(f"{root}/home/user", USER, USER)
            # As `loginctl enable-linger`: the user's manager runs from the start.
            write(root, "var/lib/systemd/linger/user", "")
            finish(cache, root, image)
        forget(cache, "debian", image)
    return image


def busybox_disk(cache):
    """A system of busybox alone."""
    image = os.path.join(cache, f"busybox-{digest(b'/bin/busybox', os.path.basename(kernel(cache)), harness())}.img")
    if not os.path.exists(image):
        with tempfile.TemporaryDirectory() as root:
            for place in ("bin", "sbin", "usr", "dev", "proc", "sys", "tmp", "run", "var", "work", "root", "etc", "mnt"):
                os.mkdir(os.path.join(root, place))
            os.symlink("../bin", f"{root}/usr/bin")
            os.symlink("../sbin", f"{root}/usr/sbin")
            shutil.copy("/bin/busybox", f"{root}/bin/busybox")
            for applet in sh("/bin/busybox", "--list").split():
                if applet != "busybox":
                    os.symlink("busybox", f"{root}/bin/{applet}")
            write(root, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
            write(root, "etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")
            write(root, "etc/hosts", "127.0.0.1 localhost guest\n")
            finish(cache, root, image)
        forget(cache, "busybox", image)
    return image


def finish(cache, root, image):
    """Adds the first process, the one that runs the job and the modules, and makes the image."""
    for name in ("init", "job"):
        with open(f"{HERE}/{name}") as file:
            write(root, f"guest/{name}", file.read(), 0o755)
    for number, module in enumerate(MODULES):
        source = glob.glob(os.path.join(glob.escape(kernel(cache)), "lib/modules/*/kernel", module))
        shutil.copy(source[0], f"{root}/guest/{number}-{os.path.basename(module)}")
    sh("gcc", "-O1", "-static", "-o", f"{root}/guest/outb", f"{HERE}/outb.c")
    fresh = image + ".new"
    with open(fresh, "wb") as file:
        # Most of it is a hole.
        file.truncate(2 << 30)
    sh("/sbin/mkfs.ext4", "-q", "-F", "-d", root, fresh)
    os.rename(fresh, image)

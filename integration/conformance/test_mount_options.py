"""config.md#linux-mount-options: every option of the table."""

import os

import oci
import pytest

MS_SHARED = 1 << 20
MS_BIND_REMOUNT = 4096 | 32
ATIME = {"noatime", "relatime"}

# name: options of a new tmpfs, flags that its mount must have, flags that it must not have
FLAGS = {
    "atime": (["noatime", "atime"], set(), {"noatime"}),
    "noatime": (["noatime"], {"noatime"}, {"relatime"}),
    "relatime": (["noatime", "relatime"], {"relatime"}, {"noatime"}),
    "norelatime": (["relatime", "norelatime"], set(), {"noatime"}),
    "strictatime": (["strictatime"], set(), ATIME),
    "nostrictatime": (["strictatime", "nostrictatime"], {"relatime"}, {"noatime"}),
    "diratime": (["nodiratime", "diratime"], set(), {"nodiratime"}),
    "nodiratime": (["nodiratime"], {"nodiratime"}, set()),
    "dev": (["nodev", "dev"], set(), {"nodev"}),
    "nodev": (["nodev"], {"nodev"}, set()),
    "exec": (["noexec", "exec"], set(), {"noexec"}),
    "noexec": (["noexec"], {"noexec"}, set()),
    "suid": (["nosuid", "suid"], set(), {"nosuid"}),
    "nosuid": (["nosuid"], {"nosuid"}, set()),
    "ro": (["ro"], {"ro"}, {"rw"}),
    "rw": (["ro", "rw"], {"rw"}, {"ro"}),
    "symfollow": (["nosymfollow", "symfollow"], set(), {"nosymfollow"}),
    "nosymfollow": (["nosymfollow"], {"nosymfollow"}, set()),
    "defaults": (["defaults"], {"rw"}, {"nosuid", "nodev", "noexec", "ro"}),
}

# name: options of a new tmpfs, flags of its file system that must be there, flags that must not
SUPER = {
    "sync": (["sync"], {"sync"}, set()),
    "async": (["sync", "async"], set(), {"sync"}),
    "dirsync": (["dirsync"], {"dirsync"}, set()),
    "lazytime": (["lazytime"], {"lazytime"}, set()),
    "nolazytime": (["lazytime", "nolazytime"], set(), {"lazytime"}),
}

# name: flags of mount(2) that the tree has which is bound, flags that both its mounts must have then, flags that they must not have
RECURSIVE = {
    "rro": (0, {"ro"}, {"rw"}), "rrw": (1, {"rw"}, {"ro"}),
    "rnosuid": (0, {"nosuid"}, set()), "rsuid": (2, set(), {"nosuid"}),
    "rnodev": (0, {"nodev"}, set()), "rdev": (4, set(), {"nodev"}),
    "rnoexec": (0, {"noexec"}, set()), "rexec": (8, set(), {"noexec"}),
    "rnodiratime": (0, {"nodiratime"}, set()), "rdiratime": (2048, set(), {"nodiratime"}),
    "rnoatime": (0, {"noatime"}, {"relatime"}), "ratime": (1024, set(), {"noatime"}),
    "rrelatime": (1024, {"relatime"}, {"noatime"}), "rnorelatime": (0, set(), {"noatime"}),
    "rstrictatime": (0, set(), ATIME), "rnostrictatime": (1 << 24, {"relatime"}, {"noatime"}),
    "rnosymfollow": (0, {"nosymfollow"}, set()), "rsymfollow": (256, set(), {"nosymfollow"}),
}


def tree(world, flags=0):
    """A directory of the host that is a mount and has another mount in it, both with these flags."""
    top = world.folder("tree")
    world.mount("tmpfs", top, "tmpfs")
    os.mkdir(f"{top}/inner")
    world.mount("tmpfs", f"{top}/inner", "tmpfs")
    for path in (top, f"{top}/inner"):
        oci.mount("none", path, flags=flags | MS_BIND_REMOUNT)
    return top


@pytest.mark.parametrize("name", FLAGS)
def test_new_mount(world, name):
    """config.md#linux-mount-options: the option MUST be supported and take effect on a mount; of two opposites the later.

    Kept: mount(8), to which the table refers, lets the later of two opposites count; runc and crun only add flags.
    """
    options, have, lack = FLAGS[name]
    mount = oci.mounts(world.container(["cat", "/proc/self/mountinfo"]).mount("/mnt", options=options).run().ok().out)["/mnt"]
    assert have <= mount.flags and not lack & mount.flags, mount.flags


@pytest.mark.parametrize("name", SUPER)
def test_file_system(world, name):
    """config.md#linux-mount-options: the option MUST be supported and take effect on the file system."""
    options, have, lack = SUPER[name]
    mount = oci.mounts(world.container(["cat", "/proc/self/mountinfo"]).mount("/mnt", options=options).run().ok().out)["/mnt"]
    assert have <= mount.data and not lack & mount.data, mount.data


@pytest.mark.parametrize("name", ["iversion", "noiversion", "loud", "silent", "mand", "nomand"])
def test_option_without_a_trace(world, name):
    """config.md#linux-mount-options: the option MUST be understood by the runtime, though the kernel shows nothing of it."""
    mount = oci.mounts(world.container(["cat", "/proc/self/mountinfo"]).mount("/mnt", options=[name]).run().ok().out)["/mnt"]
    assert mount.type == "tmpfs"


@pytest.mark.parametrize("name", ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow", "strictatime"])
def test_bind_mount(world, name):
    """config.md#linux-mount-options: the option MUST take effect on a bind mount, and not on its source."""
    source = world.folder("source")
    world.mount("tmpfs", source, "tmpfs")
    box = world.container(["cat", "/proc/self/mountinfo"]).bind(source, "/mnt", name)
    _, have, lack = FLAGS[name][0], *FLAGS[name][1:]
    flags = oci.mounts(box.run().ok().out)["/mnt"].flags
    assert have <= flags and not lack & flags
    outside = oci.mounts(oci.read("/proc/self/mountinfo"))[source].flags
    assert "relatime" in outside and not outside & {"ro", "nosuid", "nodev", "noexec", "nodiratime", "nosymfollow"}


@pytest.mark.parametrize("name", RECURSIVE)
def test_recursive(world, name):
    """config.md#linux-mount-options: the r-option MUST take effect on a bind mount and every mount below it.

    Kept: the table says MUST for each of them, since 1.1; where both peers fail it is by their age.
    """
    flags, have, lack = RECURSIVE[name]
    box = world.container(["cat", "/proc/self/mountinfo"]).bind(tree(world, flags), "/mnt", name)
    inside = oci.mounts(box.run().ok().out)
    for point in ("/mnt", "/mnt/inner"):
        assert have <= inside[point].flags and not lack & inside[point].flags, (point, inside[point].flags)


@pytest.mark.parametrize("name", ["ro", "noexec"])
def test_plain_option_is_not_recursive(world, name):
    """config.md#linux-mount-options: without r the option is for the mount itself alone."""
    box = world.container(["cat", "/proc/self/mountinfo"]).bind(tree(world), "/mnt", name)
    inside = oci.mounts(box.run().ok().out)
    assert name in inside["/mnt"].flags and name not in inside["/mnt/inner"].flags


def test_bind(world):
    """config.md#linux-mount-options: bind binds one mount."""
    box = world.container("ls /mnt; ls /mnt/inner")
    top = tree(world)
    open(f"{top}/inner/deep", "w").close()
    box.mount("/mnt", "none", top, ["bind"])
    assert box.run().ok().lines == ["inner"]


def test_rbind(world):
    """config.md#linux-mount-options: rbind binds a mount and those below it."""
    box = world.container("ls /mnt; ls /mnt/inner")
    top = tree(world)
    open(f"{top}/inner/deep", "w").close()
    box.mount("/mnt", "none", top, ["rbind"])
    assert box.run().ok().lines == ["inner", "deep"]


def test_remount(world):
    """config.md#linux-mount-options: remount changes the flags of what is mounted there."""
    box = world.container(["cat", "/proc/self/mountinfo"]).mount("/mnt", options=["nosuid"])
    box.mount("/mnt", options=["remount", "ro", "noexec"])
    lines = [line for line in box.run().ok().lines if line.split()[4] == "/mnt"]
    assert len(lines) == 1 and {"ro", "noexec"} <= oci.Mount(lines[0]).flags


def test_remount_of_a_bind_mount(world):
    """config.md#linux-mount-options: remount with bind changes the flags of a bind mount."""
    source = world.folder("source")
    box = world.container(["cat", "/proc/self/mountinfo"]).bind(source, "/mnt").mount("/mnt", "none", source, ["bind", "remount", "ro"])
    assert "ro" in oci.mounts(box.run().ok().out)["/mnt"].flags


@pytest.mark.parametrize("name", ["idmap", "ridmap"])
def test_idmap(world, name):
    """config.md#linux-mount-options: idmap and ridmap take the mappings of the mount; the container sees mapped owners.

    Kept: the options are in the table since 1.1, the mappings since 1.0.3: runc 1.1 has neither, crun 1.8 only its own syntax.
    """
    source = tree(world)
    for path in (f"{source}/file", f"{source}/inner/file"):
        open(path, "w").close()
        os.chown(path, 1000, 2000)
    extents = lambda host: [{"containerID": host, "hostID": 5000 + host, "size": 1}]
    box = world.container("stat -c %u:%g /mnt/file /mnt/inner/file").bind(
        source, "/mnt", name, uidMappings=extents(1000), gidMappings=extents(2000))
    deep = "6000:7000" if name == "ridmap" else "1000:2000"
    assert box.run().ok().lines == ["6000:7000", deep]
    assert os.stat(f"{source}/file").st_uid == 1000


def test_tmpcopyup(world):
    """config.md#linux-mount-options: tmpcopyup copies what lies at the mount point into a tmpfs."""
    box = world.container("cat /data/file; stat -c %a /data/file; echo new > /data/file; stat -f -c %T /data").mount("/data", options=["tmpcopyup"])
    os.mkdir(f"{box.rootfs}/data")
    with open(f"{box.rootfs}/data/file", "w") as file:
        file.write("old\n")
    os.chmod(f"{box.rootfs}/data/file", 0o640)
    assert box.run().ok().lines == ["old", "640", "tmpfs"]
    assert oci.read(f"{box.rootfs}/data/file") == "old\n"


# name: whether the source is shared, words of mountinfo's propagation fields that must be there and that must not
PROPAGATION = {
    "shared": (False, {"shared"}, {"master"}),
    "slave": (True, {"master"}, {"shared"}),
    "private": (True, set(), {"shared", "master", "unbindable"}),
    "unbindable": (True, {"unbindable"}, {"shared", "master"}),
}


@pytest.mark.parametrize("name", PROPAGATION)
def test_propagation(world, name):
    """config.md#linux-mount-options: the option MUST set the propagation of the mount."""
    shared, have, lack = PROPAGATION[name]
    source = world.folder("source")
    world.mount("tmpfs", source, "tmpfs")
    if shared:
        oci.mount("none", source, flags=MS_SHARED)
    box = world.container(["cat", "/proc/self/mountinfo"]).bind(source, "/mnt", name)
    words = oci.mounts(box.run().ok().out)["/mnt"].propagation
    assert have <= words and not lack & words, words


@pytest.mark.parametrize("name", PROPAGATION)
def test_recursive_propagation(world, name):
    """config.md#linux-mount-options: the r-option MUST set the propagation of the mount and of those below it."""
    shared, have, lack = PROPAGATION[name]
    source = tree(world)
    if shared:
        oci.mount("none", source, flags=MS_SHARED)
        oci.mount("none", f"{source}/inner", flags=MS_SHARED)
    box = world.container(["cat", "/proc/self/mountinfo"]).bind(source, "/mnt", "r" + name)
    inside = oci.mounts(box.run().ok().out)
    for point in ("/mnt", "/mnt/inner"):
        words = inside[point].propagation
        assert have <= words and not lack & words, (point, words)


@pytest.mark.parametrize("name, arrives", [("rshared", True), ("rslave", True), ("rprivate", False)])
def test_what_the_host_mounts_later(world, name, arrives):
    """config.md#linux-mount-options: a later mount of the host MUST reach shared and slave mounts, and no private one."""
    source = world.folder("source")
    world.mount("tmpfs", source, "tmpfs")
    oci.mount("none", source, flags=MS_SHARED)
    os.mkdir(f"{source}/later")
    box = world.container(["sleep", "600"]).bind(source, "/mnt", name).up()
    world.mount("tmpfs", f"{source}/later", "tmpfs")
    inside = oci.mounts(oci.read(f"/proc/{box.pid()}/mountinfo"))
    assert ("/mnt/later" in inside) == arrives, list(inside)


@pytest.mark.parametrize("name, arrives", [("rshared", True), ("rslave", False), ("rprivate", False)])
def test_what_the_container_mounts_later(world, name, arrives):
    """config.md#linux-mount-options: a later mount of the container MUST reach the host through a shared mount, and no other."""
    source = world.folder("source")
    world.mount("tmpfs", source, "tmpfs")
    oci.mount("none", source, flags=MS_SHARED)
    os.mkdir(f"{source}/later")
    box = world.container("mount -t tmpfs x /mnt/later && echo done; sleep 600").capabilities("CAP_SYS_ADMIN")
    box.patch({"linux": {"rootfsPropagation": "shared"}}).bind(source, "/mnt", name).up()
    oci.wait_for("the mount", lambda: "done" in box.said())
    assert os.path.ismount(f"{source}/later") == arrives


DATA = {
    "size": (["size=64k"], "stat -f -c '%b %S' /mnt", "16 4096"),
    "mode": (["mode=1711"], "stat -c %a /mnt", "1711"),
    "uid": (["uid=7"], "stat -c %u /mnt", "7"),
    "gid": (["gid=8"], "stat -c %g /mnt", "8"),
    "nr_inodes": (["nr_inodes=33"], "stat -f -c %c /mnt", "33"),
}


@pytest.mark.parametrize("name", DATA)
def test_options_of_the_file_system(world, name):
    """config.md#mounts: options that are the file system's own are handed to it."""
    options, script, answer = DATA[name]
    assert world.container(script).mount("/mnt", options=options).run().ok().line == answer


def test_an_option_of_no_file_system_is_an_error(world):
    """config.md#mounts: an option that neither the runtime nor the file system knows cannot be given and MUST be an error."""
    world.container().mount("/mnt", options=["nosuchoption"]).run().fails()

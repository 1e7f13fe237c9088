"""config.md#mounts."""

import os

import oci
import pytest


def test_the_listed_order(world):
    """config.md#mounts: the runtime MUST mount entries in the listed order."""
    box = world.container(["cat", "/proc/self/mountinfo"])
    names = ["/mnt/b", "/mnt/a", "/mnt/c"]
    for name in names:
        box.mount(name)
    points = [line.split()[4] for line in box.run().ok().lines]
    assert [point for point in points if point in names] == names


def test_a_later_mount_hides_an_earlier_one(world):
    """config.md#mounts: in the listed order, the later of two at one destination is the visible one."""
    box = world.container("stat -f -c %b /mnt").mount("/mnt", options=["size=4k"]).mount("/mnt", options=["size=8k"])
    assert box.run().ok().line == "2"


def test_a_mount_inside_an_earlier_one(world):
    """config.md#mounts: in the listed order, a mount may lie inside an earlier one."""
    source = world.folder("source")
    world.file("source/file", "inner")
    assert world.container("cat /mnt/inner/file").mount("/mnt").bind(source, "/mnt/inner").run().ok().line == "inner"


def test_a_relative_destination_is_relative_to_the_root(world):
    """config.md#mounts: a relative destination, which old tools write, MUST be taken as relative to /."""
    box = world.container("stat -f -c %T /mnt/relative").mount("mnt/relative")
    assert box.run().ok().line == "tmpfs"


def test_a_relative_source_is_relative_to_the_bundle(world):
    """config.md#mounts: the source of a bind mount is absolute or relative to the bundle."""
    box = world.container("cat /mnt/file").bind("data", "/mnt")
    os.mkdir(f"{box.bundle}/data")
    with open(f"{box.bundle}/data/file", "w") as file:
        file.write("of the bundle")
    assert box.run().ok().out == "of the bundle"


@pytest.mark.parametrize("kind", ["bind", "none", "", "nosuchfs", None])
def test_a_bind_mount_is_one_by_its_options(world, kind):
    """config.md#posix-platform-mounts: with bind or rbind in the options the type is a dummy."""
    source = world.file("source", "bound")
    box = world.container("cat /mnt/file")
    entry = {"destination": "/mnt/file", "source": source, "options": ["rbind"]}
    if kind is not None:
        entry["type"] = kind
    box.config["mounts"].append(entry)
    assert box.run().ok().out == "bound"


def test_a_file_is_bound_to_a_file(world):
    """config.md#mounts: the source of a bind mount may be a file."""
    box = world.container("cat /etc/passwd").bind(world.file("source", "bound"), "/etc/passwd")
    assert box.run().ok().out == "bound"
    assert oci.read(f"{box.rootfs}/etc/passwd").startswith("root")


def test_a_missing_mount_point_is_made(world):
    """config.md#mounts: the destination is a path in the container; where it is missing, the runtimes make it."""
    box = world.container("stat -f -c %T /a/b/c").mount("/a/b/c")
    assert box.run().ok().line == "tmpfs"


def test_a_bind_mount_shows_the_hosts_changes(world):
    """config.md#mounts: a bind mount shows the source itself, not a copy."""
    source = world.folder("source")
    box = world.container("while ! cat /mnt/late 2>/dev/null; do sleep 0.05; done").bind(source, "/mnt").up()
    world.file("source/late", "arrived")
    box.wait()
    assert box.said() == "arrived"


def test_a_bind_mount_can_be_written(world):
    """config.md#mounts: what the container writes into a bind mount is in the source."""
    source = world.folder("source")
    world.container("echo written > /mnt/file").bind(source, "/mnt").run().ok()
    assert oci.read(f"{source}/file") == "written\n"


def test_a_read_only_bind_mount_cannot_be_written(world):
    """config.md#mounts: ro forbids writing, also to root."""
    source = world.folder("source")
    out = world.container("echo x > /mnt/file || echo refused").capabilities("CAP_DAC_OVERRIDE").bind(source, "/mnt", "ro").run().ok()
    assert "refused" in out.out and os.listdir(source) == []


def test_noexec_is_kept(world):
    """config.md#mounts: noexec forbids executing."""
    assert "refused" in world.container("cp /bin/busybox /mnt/true && /mnt/true || echo refused").mount("/mnt", options=["noexec"]).run().out


def test_nodev_is_kept(world):
    """config.md#mounts: nodev makes device nodes unusable."""
    box = world.container("mknod /mnt/null c 1 3 && cat /mnt/null || echo refused").mount("/mnt", options=["nodev"])
    box.capabilities("CAP_MKNOD").linux["resources"] = {}
    assert "refused" in box.run().ok().out


TYPES = {
    "proc": ("/proc", "proc"), "sysfs": ("/sys", "sysfs"), "devpts": ("/dev/pts", "devpts"), "tmpfs": ("/dev/shm", "tmpfs"),
}


@pytest.mark.parametrize("kind", TYPES)
def test_default_file_systems_can_be_mounted(world, kind):
    """config-linux.md#default-filesystems: proc, sysfs, devpts and a tmpfs for shm SHOULD be made available in a container."""
    point, name = TYPES[kind]
    assert oci.mounts(world.output(["cat", "/proc/self/mountinfo"]))[point].type == name


def test_mqueue_can_be_mounted(world):
    """config.md#posix-platform-mounts: any type that the kernel supports can be mounted: mqueue."""
    box = world.container(["cat", "/proc/self/mountinfo"]).mount("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"])
    assert oci.mounts(box.run().ok().out)["/dev/mqueue"].type == "mqueue"


def test_a_ramfs_can_be_mounted(world):
    """config.md#posix-platform-mounts: any type that the kernel supports can be mounted: ramfs."""
    box = world.container(["cat", "/proc/self/mountinfo"]).mount("/mnt", "ramfs", "ramfs")
    assert oci.mounts(box.run().ok().out)["/mnt"].type == "ramfs"


def test_an_overlay_can_be_mounted(world):
    """config.md#posix-platform-mounts: any type that the kernel supports can be mounted: overlay, with its own options."""
    folders = [world.folder(name) for name in ("lower", "upper", "work")]
    world.file("lower/file", "from below")
    data = "lowerdir={},upperdir={},workdir={}".format(*folders)
    box = world.container("cat /mnt/file; echo up > /mnt/new").mount("/mnt", "overlay", "overlay", [data])
    if box.run().ok().out != "from below":
        raise AssertionError("the lower directory is not shown")
    assert oci.read(f"{folders[1]}/new") == "up\n"


def test_the_source_is_shown(world):
    """config.md#mounts: for a file system without a device, source is a dummy that is shown as it was given."""
    box = world.container(["cat", "/proc/self/mountinfo"]).mount("/mnt", source="dummy")
    assert oci.mounts(box.run().ok().out)["/mnt"].source == "dummy"


def test_mounts_are_optional(world):
    """config.md#mounts: mounts is optional.

    Kept: the property is OPTIONAL; runc needs a proc to close descriptors, crun refuses by name.
    """
    box = world.container(["echo", "bare"])
    del box.config["mounts"]
    assert box.run().ok().line == "bare"


def test_no_destination_is_an_error(world):
    """config.md#mounts: destination is REQUIRED."""
    box = world.container()
    box.config["mounts"].append({"type": "tmpfs", "source": "tmpfs"})
    box.run().fails()


def test_a_mount_never_leaves_the_root(world):
    """config.md#mounts: destination is a path inside the container, also through its symbolic links."""
    outside = world.folder("outside")
    box = world.container(["cat", "/proc/self/mountinfo"]).mount("/link/inner")
    os.symlink(outside, f"{box.rootfs}/link")
    box.run()
    assert os.listdir(outside) == []


def test_a_mount_through_a_link_inside_the_root(world):
    """config.md#mounts: a link in the container is followed inside the container."""
    box = world.container("stat -f -c %T /real/inner").mount("/link/inner")
    os.mkdir(f"{box.rootfs}/real")
    os.symlink("/real", f"{box.rootfs}/link")
    assert box.run().ok().line == "tmpfs"


def test_the_containers_mounts_do_not_reach_the_host(world):
    """config-linux.md#namespaces: with a mount namespace of its own the container's mounts are its alone."""
    before = oci.read("/proc/self/mountinfo")
    world.container(["sleep", "600"]).mount("/mnt").up()
    assert oci.read("/proc/self/mountinfo") == before


def test_the_hosts_mounts_are_not_seen(world):
    """config.md#root: the container sees its root and its mounts, nothing of the host's tree."""
    points = oci.mounts(world.output(["cat", "/proc/self/mountinfo"]))
    assert set(points) <= {"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/sys", "/dev/console"} | {
        f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx")}

"""config-linux.md: sysctl, rootfs propagation, masked and read-only paths, mount label."""

import os

import oci
import pytest

MS_SHARED = 1 << 20


SYSCTLS = {"net.ipv4.ip_forward": "1", "net.core.somaxconn": "333", "kernel.shmmax": "1000000", "kernel.msgmax": "5000",
           "fs.mqueue.msg_max": "11", "net.ipv4.ping_group_range": "0\t5", "kernel.sem": "10\t20\t30\t40", "kernel.domainname": "example.net"}


@pytest.mark.parametrize("name", SYSCTLS)
def test_sysctl(world, name):
    """config-linux.md#sysctl: the parameter is set in the container, and not on the host."""
    path = "/proc/sys/" + name.replace(".", "/")
    before = oci.read(path)
    box = world.container(["cat", path], {"linux": {"sysctl": {name: SYSCTLS[name]}}})
    assert box.run().ok().line == SYSCTLS[name]
    assert oci.read(path) == before


def test_a_sysctl_with_slashes(world):
    """config-linux.md#sysctl: names are those of sysctl(8), which takes slashes for dots."""
    assert world.output(["cat", "/proc/sys/net/core/somaxconn"], {"linux": {"sysctl": {"net/core/somaxconn": "222"}}}) == "222"


@pytest.mark.parametrize("name", ["vm.overcommit_memory", "kernel.panic", "kernel.nosuch", "net.nosuch.parameter", "nosuch", ""])
def test_a_sysctl_that_cannot_be_the_containers_is_an_error(world, name):
    """config-linux.md#sysctl: a parameter that is not of the container's namespaces cannot be set for it."""
    before = oci.read("/proc/sys/vm/overcommit_memory")
    world.container(patch={"linux": {"sysctl": {name: "1"}}}).run().fails()
    assert oci.read("/proc/sys/vm/overcommit_memory") == before


@pytest.mark.parametrize("name, kind", [("net.core.somaxconn", "network"), ("kernel.shmmax", "ipc"), ("kernel.domainname", "uts")])
def test_a_sysctl_without_its_namespace_is_an_error(world, name, kind):
    """config-linux.md#sysctl: without a namespace of the container's own the parameter is the host's and MUST NOT be set."""
    before = oci.read("/proc/sys/" + name.replace(".", "/"))
    box = world.container(patch={"linux": {"sysctl": {name: before.strip()}}}).without_namespace(kind)
    if kind == "uts":
        del box.config["hostname"]
    if kind == "network":
        box.unmount("/sys")
    box.run().fails()


@pytest.mark.parametrize("path", ["/proc/kcore", "/etc/passwd", "/proc/timer_list", "/dev/null", "/sys/kernel/notes"])
def test_a_masked_file(world, path):
    """config-linux.md#masked-paths: a masked path cannot be read: a file."""
    if not os.path.exists(path):
        pytest.skip(f"the host has no {path}")
    assert world.output(f"head -c 1 {path} 2>/dev/null | wc -c", {"linux": {"maskedPaths": [path]}}) == "0"


@pytest.mark.parametrize("path", ["/sys/kernel", "/etc", "/proc/bus", "/proc/sys/net"])
def test_a_masked_directory(world, path):
    """config-linux.md#masked-paths: a masked path cannot be read: a directory."""
    assert world.output(f"ls -A {path} | wc -l", {"linux": {"maskedPaths": [path]}}) == "0"


def test_a_masked_path_cannot_be_written(world):
    """config-linux.md#masked-paths: what is written to a masked path does not reach it."""
    box = world.container("echo x > /etc/passwd; echo y > /tmp/file; true", {"linux": {"maskedPaths": ["/etc/passwd", "/tmp"]}})
    box.run()
    assert oci.read(f"{box.rootfs}/etc/passwd").startswith("root") and os.listdir(f"{box.rootfs}/tmp") == []


def test_a_masked_path_that_does_not_exist(world):
    """config-linux.md#masked-paths: a path that is not there needs no mask."""
    box = world.container("ls /proc/nosuch /nosuch 2>/dev/null | wc -l", {"linux": {"maskedPaths": ["/proc/nosuch", "/nosuch"]}})
    assert box.run().ok().line == "0" and not os.path.exists(f"{box.rootfs}/nosuch")


@pytest.mark.parametrize("path", ["/proc/sys", "/etc", "/etc/passwd", "/tmp", "/proc/irq"])
def test_a_readonly_path(world, path):
    """config-linux.md#readonly-paths: a read-only path cannot be written to."""
    flags = oci.mounts(world.output(["cat", "/proc/self/mountinfo"], {"linux": {"readonlyPaths": [path]}}))[path].flags
    assert "ro" in flags


def test_a_readonly_path_can_be_read(world):
    """config-linux.md#readonly-paths: a read-only path shows what it showed."""
    assert world.output("cat /etc/passwd; echo x > /etc/passwd || echo refused", {"linux": {"readonlyPaths": ["/etc"]}}).split()[-1] == "refused"


def test_a_readonly_path_leaves_the_rest(world):
    """config-linux.md#readonly-paths: what is not listed is left as it is."""
    assert world.output("echo kept > /tmp/file; cat /tmp/file", {"linux": {"readonlyPaths": ["/etc"]}}) == "kept"


def test_a_readonly_path_keeps_its_other_flags(world):
    """config-linux.md#readonly-paths: a mount that is made read-only keeps its other flags."""
    box = world.container(["cat", "/proc/self/mountinfo"], {"linux": {"readonlyPaths": ["/mnt"]}}).mount("/mnt", options=["nosuid", "noexec", "nodev"])
    assert {"ro", "nosuid", "noexec", "nodev"} <= oci.mounts(box.run().ok().out)["/mnt"].flags


def test_a_readonly_path_that_does_not_exist(world):
    """config-linux.md#readonly-paths: a path that is not there needs nothing."""
    box = world.container(patch={"linux": {"readonlyPaths": ["/proc/nosuch", "/nosuch"]}})
    box.run().ok()
    assert not os.path.exists(f"{box.rootfs}/nosuch")


@pytest.mark.parametrize("name", ["maskedPaths", "readonlyPaths"])
def test_the_paths_are_absolute(world, name):
    """config-linux.md#masked-paths: the values of maskedPaths and readonlyPaths MUST be absolute.

    Kept: the words are plain; runc and crun take a relative one for what it is not.
    """
    world.container(patch={"linux": {name: ["etc/passwd"]}}).run().fails()


@pytest.mark.parametrize("name", ["maskedPaths", "readonlyPaths"])
def test_the_paths_are_the_containers(world, name):
    """config-linux.md#masked-paths: the values are paths in the container, also through its links."""
    outside = world.folder("outside")
    world.file("outside/file", "untouched")
    box = world.container(patch={"linux": {name: ["/link/file"]}})
    os.symlink(outside, f"{box.rootfs}/link")
    box.run()
    assert oci.read(f"{outside}/file") == "untouched"
    assert not [point for point in oci.mounts(oci.read("/proc/self/mountinfo")) if point.startswith(outside)]


PROPAGATION = {"shared": ({"shared"}, set()), "slave": ({"master"}, {"shared"}), "private": (set(), {"shared", "master"}),
               "unbindable": ({"unbindable"}, {"shared", "master"})}


@pytest.mark.parametrize("name", PROPAGATION)
def test_rootfs_propagation(world, name):
    """config-linux.md#rootfs-mount-propagation: the root's mount MUST have the propagation asked for.

    Kept: the property is tested on a root that is itself a shared mount; runc and crun make it private first.
    """
    have, lack = PROPAGATION[name]
    box = world.container(["cat", "/proc/self/mountinfo"], {"linux": {"rootfsPropagation": name}})
    world.mount(box.rootfs, box.rootfs, flags=4096)
    oci.mount("none", box.rootfs, flags=MS_SHARED)
    words = oci.mounts(box.run().ok().out)["/"].propagation
    assert have <= words and not lack & words, words


@pytest.mark.parametrize("name, arrives", [("slave", True), ("private", False)])
def test_rootfs_propagation_from_the_host(world, name, arrives):
    """config-linux.md#rootfs-mount-propagation: what the host mounts later on the root arrives in a slave and not in a private one.

    Kept: the words say that a slave root receives what the host mounts; runc and crun make the root private first.
    """
    box = world.container(["sleep", "600"], {"linux": {"rootfsPropagation": name}})
    world.mount(box.rootfs, box.rootfs, flags=4096)
    oci.mount("none", box.rootfs, flags=MS_SHARED)
    box.up()
    world.mount("tmpfs", f"{box.rootfs}/mnt", "tmpfs")
    inside = oci.mounts(oci.read(f"/proc/{box.pid()}/mountinfo"))
    assert ("/mnt" in inside) == arrives


def test_an_unknown_propagation_is_an_error(world):
    """config-linux.md#rootfs-mount-propagation: the value is shared, slave, private or unbindable."""
    world.container(patch={"linux": {"rootfsPropagation": "nosuch"}}).run().fails()


def test_a_mount_label_without_selinux(world):
    """config-linux.md#mount-label: a label that the host cannot give MUST be an error.

    Kept: a mount that is thought to be labelled and is not is the worst answer.
    """
    if os.path.exists("/sys/fs/selinux"):
        pytest.skip("the host has SELinux; only its absence is tested")
    world.container(patch={"linux": {"mountLabel": "system_u:object_r:conformance_t:s0"}}).run().fails()

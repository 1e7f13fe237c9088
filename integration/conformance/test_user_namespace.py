"""config-linux.md#user-namespace-mappings, and the mappings of config.md#mounts."""

import os

import oci
import pytest


def extents(*triples):
    return [{"containerID": inner, "hostID": outer, "size": size} for inner, outer, size in triples]


def test_the_mappings(world):
    """config-linux.md#user-namespace-mappings: uidMappings and gidMappings MUST be those of the user namespace."""
    box = world.container("cat /proc/self/uid_map /proc/self/gid_map").user_namespace(host=100000, size=1000)
    box.linux["gidMappings"] = extents((0, 100000, 2000))
    assert [line.split() for line in box.run().ok().lines] == [["0", "100000", "1000"], ["0", "100000", "2000"]]


def test_several_extents(world):
    """config-linux.md#user-namespace-mappings: each entry is an extent of the mapping."""
    box = world.container("cat /proc/self/uid_map").user_namespace()
    box.linux["uidMappings"] = extents((0, 100000, 10), (1000, 200000, 5), (2000, 300000, 1))
    assert [line.split() for line in box.run().ok().lines] == [["0", "100000", "10"], ["1000", "200000", "5"], ["2000", "300000", "1"]]


def test_root_inside_is_not_root_outside(world):
    """config-linux.md#user-namespace-mappings: containerID 0 is hostID outside."""
    box = world.container(["sleep", "600"]).user_namespace(host=100000).up()
    assert os.stat(f"/proc/{box.pid()}").st_uid == 100000


def test_the_user_is_of_the_container(world):
    """config.md#posix-platform-user: uid and gid are ids in the container's user namespace."""
    box = world.container(["sleep", "600"], {"process": {"user": {"uid": 7, "gid": 8}}}).user_namespace(host=100000).up()
    data = os.stat(f"/proc/{box.pid()}")
    assert (data.st_uid, data.st_gid) == (100007, 100008)


def test_files_belong_to_mapped_ids(world):
    """config-linux.md#user-namespace-mappings: what the container makes belongs to the mapped ids on the host."""
    box = world.container("echo > /tmp/file").user_namespace(host=100000)
    box.run().ok()
    data = os.stat(f"{box.rootfs}/tmp/file")
    assert (data.st_uid, data.st_gid) == (100000, 100000)


def test_unmapped_ids_are_nobody(world):
    """config-linux.md#user-namespace-mappings: an id that is not mapped is not known in the container."""
    source = world.folder("source")
    os.chown(source, 5, 5)
    assert world.container("stat -c %u:%g /mnt").user_namespace().bind(source, "/mnt").run().ok().line == "65534:65534"


def test_a_user_that_is_not_mapped_is_an_error(world):
    """config-linux.md#user-namespace-mappings: the process cannot have an id that is not mapped."""
    world.container(patch={"process": {"user": {"uid": 5000}}}).user_namespace(size=100).run().fails()


def test_ownership_is_not_changed(world):
    """config-linux.md#user-namespace-mappings: the runtime SHOULD NOT modify the ownership of referenced file systems."""
    source = world.folder("source")
    world.file("source/file")
    box = world.container(["sleep", "600"]).user_namespace().bind(source, "/mnt")
    before = {path: os.lstat(path).st_uid for path in (source, f"{source}/file", box.rootfs, f"{box.rootfs}/etc/passwd")}
    box.up()
    assert {path: os.lstat(path).st_uid for path in before} == before


def test_capabilities_are_of_the_namespace(world):
    """config.md#linux-process: capabilities in a user namespace are for what belongs to it: for mapped ids."""
    source = world.folder("source")
    world.file("source/file")
    box = world.container("chown 5 /etc/passwd; chown 5 /mnt/file || echo refused").user_namespace().capabilities("CAP_CHOWN")
    assert "refused" in box.bind(source, "/mnt").run().ok().out
    assert os.stat(f"{box.rootfs}/etc/passwd").st_uid == 100005 and os.stat(f"{source}/file").st_uid == 0


@pytest.mark.parametrize("side", ["uidMappings", "gidMappings"])
def test_mappings_without_a_namespace_are_an_error(world, side):
    """config-linux.md#user-namespace-mappings: the mappings are those of the user namespace, so without one they cannot be given.

    Kept: ids that are thought to be mapped and are not make a process of the host's root; runc and crun ignore the mappings.
    """
    world.container(patch={"linux": {side: extents((0, 100000, 10))}}).run().fails()


@pytest.mark.parametrize("bad", [extents((0, 100000, 0)), extents((0, 100000, 10), (5, 200000, 10)), [{"containerID": 0, "hostID": 100000}]],
                         ids=["empty", "overlap", "no size"])
def test_what_the_kernel_refuses_is_an_error(world, bad):
    """config-linux.md#user-namespace-mappings: mappings that the kernel does not take cannot be given and MUST be an error."""
    box = world.container().user_namespace()
    box.linux["uidMappings"] = bad
    box.run().fails()


@pytest.mark.parametrize("name", ["null", "zero", "full", "random", "urandom", "tty"])
def test_default_devices_in_a_user_namespace(world, name):
    """config-linux.md#default-devices: the default devices MUST be supplied, with a user namespace too."""
    assert world.container(f"test -c /dev/{name} && echo device").user_namespace().run().ok().line == "device"


@pytest.mark.parametrize("point, kind", [("/proc", "proc"), ("/sys", "sysfs"), ("/dev/pts", "devpts"), ("/dev/shm", "tmpfs")])
def test_default_file_systems_in_a_user_namespace(world, point, kind):
    """config-linux.md#default-filesystems: the file systems SHOULD be available, with a user namespace too."""
    assert oci.mounts(world.container(["cat", "/proc/self/mountinfo"]).user_namespace().run().ok().out)[point].type == kind


def test_limits_count_with_a_user_namespace(world):
    """config-linux.md#control-groups: limits count, with a user namespace too."""
    box = world.container(["sleep", "600"], {"linux": {"resources": {"pids": {"limit": 55}}}}).user_namespace().up()
    assert oci.read(f"{box.cgroup('pids')}/pids.max").strip() == "55"


def owners(world, options, mappings, namespace=True):
    source = world.folder("source")
    world.file("source/file")
    for path in (source, f"{source}/file"):
        os.chown(path, 1000, 1000)
    box = world.container("stat -c %u:%g /mnt/file; echo > /mnt/new").bind(source, "/mnt", *options, **mappings)
    if namespace:
        box.user_namespace(host=100000)
    line = box.run().ok().line
    made = os.stat(f"{source}/new")
    return line, (made.st_uid, made.st_gid)


def test_an_idmapped_mount(world):
    """config.md#posix-platform-mounts: uidMappings and gidMappings of a mount map the owners of its files (since 1.0.3).

    Kept: the version of runc here is older than the property.
    """
    mappings = {"uidMappings": extents((1000, 100000, 1)), "gidMappings": extents((1000, 100000, 1))}
    line, made = owners(world, ["idmap"], mappings)
    assert line == "0:0" and made == (1000, 1000)


def test_an_idmapped_mount_without_the_option(world):
    """config.md#posix-platform-mounts: where the mappings are given and neither idmap nor ridmap, the mount is mapped all the same.

    Kept: the words are plain ("if specified"); the versions of runc and crun here are older.
    """
    mappings = {"uidMappings": extents((1000, 100000, 1)), "gidMappings": extents((1000, 100000, 1))}
    assert owners(world, [], mappings)[0] == "0:0"


def test_an_idmapped_mount_without_a_user_namespace(world):
    """config.md#posix-platform-mounts: a mount may be mapped without a user namespace of the container.

    Kept: the words tie the mappings to the mount alone.
    """
    mappings = {"uidMappings": extents((1000, 0, 1)), "gidMappings": extents((1000, 0, 1))}
    line, made = owners(world, ["idmap"], mappings, namespace=False)
    assert line == "0:0" and made == (1000, 1000)


def test_idmap_without_mappings_takes_the_containers(world):
    """config.md#linux-mount-options: idmap without mappings of the mount takes those of the container's user namespace."""
    source = world.folder("source", 0o777)
    world.file("source/file")
    box = world.container("stat -c %u:%g /mnt/file").user_namespace(host=100000).bind(source, "/mnt", "idmap")
    assert box.run().ok().line == "0:0"


@pytest.mark.parametrize("side", ["uidMappings", "gidMappings"])
def test_one_side_of_the_mappings_of_a_mount(world, side):
    """config.md#posix-platform-mounts: if one of uidMappings and gidMappings is given, the other MUST be, too."""
    source = world.folder("source")
    world.container().bind(source, "/mnt", "idmap", **{side: extents((0, 100000, 1))}).run().fails()

"""config-linux.md#namespaces: new ones, joined ones, inherited ones."""

import os
import subprocess

import oci
import pytest

FILES = {"pid": "pid", "network": "net", "mount": "mnt", "ipc": "ipc", "uts": "uts", "user": "user", "cgroup": "cgroup", "time": "time"}


def inside(box, kind):
    """The identity of the running container's namespace."""
    return os.readlink(f"/proc/{box.pid()}/ns/{FILES[kind]}")


def mine(kind):
    return os.readlink(f"/proc/self/ns/{FILES[kind]}")


def needs(kind):
    if not oci.has_namespace(FILES[kind]):
        pytest.skip(f"this kernel has no {kind} namespace")


def asked(world, kind, path=None):
    box = world.container(["sleep", "600"])
    if kind == "user" and not path:
        return box.user_namespace()
    box.namespace(kind, path)
    if kind == "uts":
        del box.config["hostname"]
    return box


@pytest.mark.parametrize("kind", FILES)
def test_new(world, kind):
    """config-linux.md#namespaces: without a path, the runtime MUST create a new namespace of the type.

    Kept: the time namespace is in the specification since 1.1, after the versions of runc and crun here.
    """
    needs(kind)
    assert inside(asked(world, kind).up(), kind) != mine(kind)


@pytest.mark.parametrize("kind", FILES)
def test_each_container_has_its_own(world, kind):
    """config-linux.md#namespaces: a new namespace is the container's own, not shared with another one.

    Kept: the time namespace is in the specification since 1.1, after the versions of runc and crun here.
    """
    needs(kind)
    one, two = asked(world, kind).up(), asked(world, kind).up()
    assert len({inside(one, kind), inside(two, kind), mine(kind)}) == 3


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind not in ("mount", "user")])
def test_inherited(world, kind):
    """config-linux.md#namespaces: a type that is not listed MUST be inherited from the runtime namespace."""
    needs(kind)
    box = world.container(["sleep", "600"]).without_namespace(kind)
    if kind == "uts":
        del box.config["hostname"]
    if kind == "network":  # a sysfs belongs to a network namespace
        box.unmount("/sys")
    assert inside(box.up(), kind) == mine(kind)


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind not in ("mount", "user")])
def test_joined(world, kind):
    """config-linux.md#namespaces: with a path, the runtime MUST place the container in the namespace of that path.

    Kept: the time namespace is in the specification since 1.1, after the versions of runc and crun here.
    """
    needs(kind)
    owner = asked(world, kind).up()
    guest = asked(world, kind, f"/proc/{owner.pid()}/ns/{FILES[kind]}").up()
    assert inside(guest, kind) == inside(owner, kind) != mine(kind)


@pytest.mark.parametrize("kind", ["network", "ipc", "uts"])
def test_joined_through_a_bind_mount(world, kind):
    """config-linux.md#namespaces: path is any file that stands for the namespace, like one bound by ip-netns."""
    owner = asked(world, kind).up()
    path = world.file("namespace")
    world.mount(f"/proc/{owner.pid()}/ns/{FILES[kind]}", path, flags=4096)
    guest = asked(world, kind, path).up()
    assert inside(guest, kind) == inside(owner, kind)


def test_a_joined_user_namespace(world):
    """config-linux.md#namespaces: with a path, the runtime MUST place the container in that user namespace."""
    owner = world.container(["sleep", "600"]).user_namespace().up()
    guest = world.container(["sleep", "600"]).user_namespace()
    guest.namespace("user", f"/proc/{owner.pid()}/ns/user")
    del guest.linux["uidMappings"], guest.linux["gidMappings"]
    assert inside(guest.up(), "user") == inside(owner, "user")


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts", "cgroup"])
def test_the_runtimes_own_can_be_joined(world, kind):
    """config-linux.md#namespaces: path may be the runtime's own namespace."""
    box = asked(world, kind, f"/proc/{os.getpid()}/ns/{FILES[kind]}")
    if kind == "network":
        box.unmount("/sys")
    assert inside(box.up(), kind) == mine(kind)


@pytest.mark.parametrize("kind, other", [("network", "uts"), ("ipc", "net"), ("uts", "ipc"), ("pid", "net")])
def test_a_path_of_another_type_is_an_error(world, kind, other):
    """config-linux.md#namespaces: a path that is not a namespace of the type MUST be an error."""
    asked(world, kind, f"/proc/self/ns/{other}").run().fails()


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "pid", "user", "mount", "cgroup"])
def test_a_path_that_is_no_namespace_is_an_error(world, kind):
    """config-linux.md#namespaces: a path that is not a namespace of the type MUST be an error."""
    box = asked(world, kind, world.file("plain"))
    box.run().fails()


@pytest.mark.parametrize("kind", ["network", "ipc"])
def test_a_missing_path_is_an_error(world, kind):
    """config-linux.md#namespaces: the path MUST be that of a namespace."""
    asked(world, kind, "/nonexistent/ns").run().fails()


@pytest.mark.parametrize("path", ["proc/self/ns/net", "./net"])
def test_path_is_absolute(world, path):
    """config-linux.md#namespaces: path MUST be absolute."""
    asked(world, "network", path).run().fails()


@pytest.mark.parametrize("kind", ["pid", "network", "mount", "ipc", "uts"])
def test_a_type_given_twice_is_an_error(world, kind):
    """config-linux.md#namespaces: duplicated namespaces of one type MUST be an error."""
    box = world.container()
    box.linux["namespaces"].append({"type": kind})
    box.run().fails()


@pytest.mark.parametrize("kind", ["nosuch", "Network", "net", ""], ids=["unknown", "capital", "short", "empty"])
def test_an_unknown_type_is_an_error(world, kind):
    """config-linux.md#namespaces: type is one of those listed."""
    box = world.container()
    box.linux["namespaces"].append({"type": kind})
    box.run().fails()


def test_a_type_is_required(world):
    """config-linux.md#namespaces: type is REQUIRED."""
    box = world.container()
    box.linux["namespaces"].append({})
    box.run().fails()


def test_pid_shows_no_others(world):
    """config-linux.md#namespaces: in its pid namespace a container sees its own processes alone."""
    assert world.output("ls -d /proc/[0-9]* | wc -l") in ("1", "2", "3")


def test_network_has_its_own_stack(world):
    """config-linux.md#namespaces: with a network namespace the container has its own devices: the loopback device."""
    assert world.output("ls /sys/class/net") == "lo"


def test_ipc_is_its_own(world):
    """config-linux.md#namespaces: with an ipc namespace no queue of the host is seen."""
    made = subprocess.run(["ipcmk", "-Q"], capture_output=True, text=True, check=True, timeout=oci.PATIENCE)
    number = made.stdout.split()[-1]
    try:
        assert len(world.output(["cat", "/proc/sysvipc/msg"]).splitlines()) == 1
        assert len(world.container(["cat", "/proc/sysvipc/msg"]).without_namespace("ipc").run().ok().lines) > 1
    finally:
        subprocess.run(["ipcrm", "-q", number], check=True, timeout=oci.PATIENCE)


def test_cgroup_shows_its_own_root(world):
    """config-linux.md#namespaces: with a cgroup namespace the container sees its cgroup as the root."""
    lines = world.container(["cat", "/proc/self/cgroup"]).namespace("cgroup").run().ok().lines
    assert lines and all(line.endswith(":/") for line in lines if not line.startswith("0:") or oci.V2)


def test_a_shared_pid_namespace_shows_the_owners_processes(world):
    """config-linux.md#namespaces: in a joined pid namespace the container sees the processes that are in it."""
    owner = world.container(["sleep", "612"]).up()
    guest = world.container("cat /proc/1/cmdline | tr '\\0' ' '").namespace("pid", f"/proc/{owner.pid()}/ns/pid")
    assert guest.run().ok().line == "sleep 612"


OFFSETS = {"monotonic": 0, "boottime": 1}


@pytest.mark.parametrize("clock", OFFSETS)
def test_time_offset(world, clock):
    """config-linux.md#offset-for-time-namespace: timeOffsets sets the offset of the clock in the new time namespace (since 1.1).

    Kept: the versions of runc and crun here are older than the property.
    """
    needs("time")
    box = world.container(["probe", "clock"], {"linux": {"timeOffsets": {clock: {"secs": 1000000, "nanosecs": 500000000}}}}).namespace("time")
    inner = [float(word) for word in box.run().ok().line.split()]
    outer = [float(word) for word in world.command([f"{oci.tools()}/probe", "clock"]).line.split()]
    for name, index in OFFSETS.items():
        expected = 1000000.5 if name == clock else 0
        assert abs(inner[index] - outer[index] - expected) < 30, (inner, outer)


def test_a_negative_time_offset(world):
    """config-linux.md#offset-for-time-namespace: secs is signed (since 1.1).

    Kept: the versions of runc and crun here are older than the property.
    """
    needs("time")
    box = world.container(["probe", "clock"], {"linux": {"timeOffsets": {"boottime": {"secs": -100}}}}).namespace("time")
    inner = float(box.run().ok().line.split()[1])
    outer = float(world.command([f"{oci.tools()}/probe", "clock"]).line.split()[1])
    assert 60 < outer - inner < 101


def test_time_offsets_of_an_unknown_clock(world):
    """config-linux.md#offset-for-time-namespace: the key is a clock of the time namespace (since 1.1).

    Kept: the versions of runc and crun here are older than the property.
    """
    needs("time")
    world.container(patch={"linux": {"timeOffsets": {"realtime": {"secs": 1}}}}).namespace("time").run().fails()

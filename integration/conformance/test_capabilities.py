"""config.md#linux-process: capabilities."""

import os
import shutil

import pytest

NUMBERS = {"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_NET_BIND_SERVICE": 10, "CAP_MKNOD": 27}
ROWS = {"inheritable": "CapInh", "permitted": "CapPrm", "effective": "CapEff", "bounding": "CapBnd", "ambient": "CapAmb"}


def mask(*names):
    return sum(1 << NUMBERS[name] for name in names)


def sets(box):
    lines = [line.split() for line in box.patch({"process": {"args": ["grep", "^Cap", "/proc/self/status"]}}).run().ok().lines]
    return {name: int(value, 16) for name, value in lines for name in [name.rstrip(":")]}


@pytest.mark.parametrize("kind, others", [
    ("bounding", ()), ("permitted", ("bounding",)), ("effective", ("bounding", "permitted")),
    ("inheritable", ("bounding", "permitted")), ("ambient", ("bounding", "permitted", "inheritable"))])
def test_each_set(world, kind, others):
    """config.md#linux-process: each of the five sets has exactly the capabilities that are listed for it, for a user other than root."""
    names = ["CAP_CHOWN", "CAP_KILL"]
    box = world.container(patch={"process": {"user": {"uid": 1000, "gid": 1000}, "noNewPrivileges": False}})
    box.process["capabilities"] = {name: names for name in (kind, *others)}
    found = sets(box)
    if kind in ("bounding", "inheritable", "ambient"):
        assert found[ROWS[kind]] == mask(*names), found
    if kind == "ambient":
        assert found["CapEff"] == found["CapPrm"] == mask(*names), found
    if kind in ("permitted", "effective"):  # execve(2) of a user other than root drops them where they are not ambient
        assert found[ROWS[kind]] == 0, found


def test_root_gets_the_bounding_set(world):
    """config.md#linux-process: root's program has what the sets and execve(2) give: permitted and effective of the bounding set."""
    box = world.container()
    box.capabilities("CAP_CHOWN", "CAP_MKNOD")
    found = sets(box)
    assert found["CapPrm"] == found["CapEff"] == found["CapBnd"] == mask("CAP_CHOWN", "CAP_MKNOD")


def test_an_absent_set_is_empty(world):
    """config.md#linux-process: a set that is not given has no capabilities that are kept: inheritable and ambient."""
    found = sets(world.container().capabilities("CAP_KILL"))
    assert found["CapInh"] == 0 and found["CapAmb"] == 0


def test_absent_capabilities_are_none(world):
    """config.md#linux-process: capabilities lists those that are kept; with none listed, another user's process has none."""
    box = world.container(patch={"process": {"user": {"uid": 1000, "gid": 1000}, "capabilities": None}})
    found = sets(box)
    assert found["CapEff"] == found["CapPrm"] == found["CapAmb"] == found["CapInh"] == 0


def test_empty_sets_are_empty(world):
    """config.md#linux-process: an empty list keeps none, for root too."""
    box = world.container(patch={"process": {"capabilities": {kind: [] for kind in ROWS}}})
    assert set(sets(box).values()) == {0}


@pytest.mark.parametrize("name", ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETUID", "CAP_NET_BIND_SERVICE"])
def test_one_alone(world, name):
    """config.md#linux-process: a capability is kept by its name."""
    assert sets(world.container().capabilities(name))["CapEff"] == mask(name)


@pytest.mark.parametrize("have", [True, False], ids=["with", "without"])
def test_it_counts(world, have):
    """config.md#linux-process: the kernel lets the process do what the capability allows, and no more."""
    box = world.container("chown 5 /etc/passwd || echo refused").capabilities(*(["CAP_CHOWN"] if have else ["CAP_KILL"]))
    assert ("refused" in box.run().ok().out) == (not have)


def test_ambient_reaches_the_program_of_another_user(world):
    """config.md#linux-process: ambient capabilities survive execve(2) for a user other than root."""
    box = world.container("chown 5 /etc/passwd && stat -c %u /etc/passwd", {"process": {"user": {"uid": 1000, "gid": 1000}}})
    box.process["capabilities"] = {kind: ["CAP_CHOWN"] for kind in ROWS}
    assert box.run().ok().line == "5"


def test_an_unknown_capability_is_no_error(world):
    """config.md#linux-process: a name that the kernel does not know SHOULD be logged and ignored, not refused (since 1.0.3)."""
    box = world.container()
    box.process["capabilities"] = {kind: ["CAP_KILL", "CAP_NOSUCH"] for kind in ("bounding", "permitted", "effective")}
    assert sets(box)["CapEff"] == mask("CAP_KILL")


def test_set_user_id_programs_gain_no_more_than_the_bounding_set(world):
    """config.md#linux-process: bounding is the ceiling also for set-user-ID programs."""
    box = world.container(["/busybox", "grep", "^CapEff", "/proc/self/status"],
                          {"process": {"user": {"uid": 1000, "gid": 1000}, "noNewPrivileges": False}}).capabilities("CAP_KILL")
    shutil.copy(f"{box.rootfs}/bin/busybox", f"{box.rootfs}/busybox")
    os.chmod(f"{box.rootfs}/busybox", 0o4755)
    value = int(box.run().ok().line.split()[1], 16)
    assert value & ~mask("CAP_KILL") == 0

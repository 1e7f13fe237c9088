"""runtime.md#delete."""

import os
import subprocess

import oci
import pytest


def test_without_an_id(world):
    """runtime.md#delete: MUST generate an error if no id is given."""
    world.cli("delete").fails()


def test_of_no_container(world):
    """runtime.md#delete: MUST generate an error for a container that does not exist."""
    world.cli("delete", "none").fails()


def test_a_running_container_is_refused(world):
    """runtime.md#delete: a container that is not stopped MUST be refused, with no effect on it."""
    box = world.sleeper()
    pid = box.pid()
    box.delete().fails()
    assert box.status() == "running" and box.pid() == pid


@pytest.mark.deviation("containerd's shim deletes created containers without --force, so runc, crun and rustbox allow it")
def test_a_created_container_is_refused(box):
    """runtime.md#delete: a created container, which is not stopped, MUST be refused, with no effect on it."""
    box.create().ok()
    box.delete().fails()
    assert box.status() == "created"


def test_a_stopped_container_is_deleted(world):
    """runtime.md#delete: deleting MUST delete what create made."""
    box = world.sleeper().stop()
    box.delete().ok()
    box.query().fails()
    assert os.listdir(world.root) == []


def test_its_cgroups_are_removed(world):
    """runtime.md#delete: deleting MUST delete what create made: cgroups."""
    box = world.sleeper()
    assert oci.cgroups_named(box.id)
    box.stop().delete().ok()
    assert oci.cgroups_named(box.id) == []


def test_cgroups_made_inside_are_removed(world):
    """runtime.md#delete: deleting MUST delete the container's cgroups, with those that its processes made below."""
    box = world.sleeper()
    os.mkdir(f"{box.cgroup('pids')}/inner")
    box.stop().delete().ok()
    assert oci.cgroups_named(box.id) == []


def test_no_mount_remains(world):
    """runtime.md#delete: deleting MUST delete what create made: mounts."""
    before = oci.read("/proc/self/mountinfo")
    box = world.container(["sleep", "600"]).mount("/mnt").up()
    box.stop().delete().ok()
    assert oci.read("/proc/self/mountinfo") == before


def test_no_process_remains(world):
    """runtime.md#delete: deleting MUST delete what create made: processes."""
    box = world.container("sleep 603 & sleep 604 & wait").up()
    pid = box.pid()
    box.stop().delete().ok()
    assert not oci.alive(pid)
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, timeout=oci.PATIENCE).stdout
    assert "sleep 603" not in found and "sleep 604" not in found and box.id not in found


def test_a_process_outside_its_pid_namespace_does_not_remain(world):
    """runtime.md#delete: deleting MUST delete the container's processes, also without a pid namespace of its own."""
    box = world.container("sleep 600 & echo $!; wait").without_namespace("pid").up()
    child = int(oci.wait_for("the child's pid", lambda: box.said().strip()))
    box.kill("KILL").ok()
    box.wait()
    box.delete().ok()
    oci.wait_for("the child's end", lambda: not oci.alive(child))


def test_the_bundle_is_kept(world):
    """runtime.md#delete: what create did not make MUST NOT be deleted: the bundle."""
    box = world.sleeper().stop()
    box.delete().ok()
    assert os.path.exists(f"{box.bundle}/config.json") and os.path.exists(f"{box.rootfs}/bin/busybox")


def test_the_source_of_a_mount_is_kept(world):
    """runtime.md#delete: what create did not make MUST NOT be deleted: what was bound into the container."""
    source = world.folder("data")
    world.file("data/kept", "yes")
    box = world.container(["sleep", "600"]).bind(source, "/mnt").up()
    box.stop().delete().ok()
    assert oci.read(f"{source}/kept") == "yes"


def test_a_joined_namespace_is_kept(world):
    """runtime.md#delete: what create did not make MUST NOT be deleted: a namespace that was joined."""
    owner = world.sleeper()
    path = f"/proc/{owner.pid()}/ns/uts"
    guest = world.container(["sleep", "600"]).namespace("uts", path)
    guest.config.pop("hostname")
    guest.up().stop().delete().ok()
    assert owner.status() == "running" and os.path.exists(path)


def test_an_id_is_free_after_delete(world):
    """runtime.md#delete: once deleted, an id may be used again."""
    box = world.sleeper().stop()
    box.delete().ok()
    assert box.patch({"process": {"args": ["echo", "again"]}}).run().ok().line == "again"


def test_twice(world):
    """runtime.md#delete: a deleted container does not exist and MUST NOT be deleted again."""
    box = world.sleeper().stop()
    box.delete().ok()
    box.delete().fails()


@pytest.mark.parametrize("status", ["created", "running", "stopped", "paused"])
def test_force(world, status):
    """runtime.md#delete: --force, which the runtimes share, kills first; nothing remains."""
    box = world.container(["sleep", "600"])
    box.create().ok()
    if status != "created":
        box.start().ok()
    if status == "stopped":
        box.stop()
    if status == "paused":
        box.cli("pause", box.id).ok()
    box.delete("--force").ok()
    box.query().fails()
    assert oci.cgroups_named(box.id) == []


def test_only_the_container_named_is_deleted(world):
    """runtime.md#delete: other containers are not touched."""
    one, two = world.sleeper().stop(), world.sleeper()
    one.delete().ok()
    assert two.status() == "running"

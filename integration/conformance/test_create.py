"""runtime.md#create, and the errors of #errors."""

import os
import re
import shutil

import oci
import pytest


def test_without_an_id(box):
    """runtime.md#create: MUST generate an error if no id is given."""
    box.write()
    box.cli("create", "--bundle", box.bundle).fails()


def test_an_id_in_use_is_refused(world, box):
    """runtime.md#create: an id that is not unique MUST be refused and no new container created."""
    box.create().ok()
    before = box.state()
    other = world.container(["sleep", "600"])
    other.write()
    box.cli("create", "--bundle", other.bundle, box.id).fails()
    assert box.state() == before


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_an_id_in_use_is_refused_in_any_status(world, status):
    """runtime.md#create: an id that is not unique MUST be refused whatever its container is doing."""
    box = world.sleeper()
    if status == "stopped":
        box.stop()
    box.create().fails()
    assert box.status() == status


@pytest.mark.parametrize("name", ["../escape", "a/b", "/abs", "..", ".", ""], ids=["up", "slash", "absolute", "dotdot", "dot", "empty"])
def test_an_invalid_id_is_refused(world, box, name):
    """runtime.md#create: an id that is not valid MUST be refused and no container created."""
    box.write()
    before = sorted(os.listdir(world.dir))
    box.cli("create", "--bundle", box.bundle, name).fails()
    after = [entry for entry in sorted(os.listdir(world.dir)) if not entry.startswith(("command-", "state"))]
    assert after == [entry for entry in before if not entry.startswith(("command-", "state"))]


@pytest.mark.parametrize("suffix", ["A", "0", "_x", "-y", ".z", "+w"])
def test_a_usual_id_is_accepted(world, suffix):
    """runtime.md#create: letters, digits and the marks that engines use make a valid id."""
    box = world.container(["sleep", "600"])
    box.id += suffix
    box.create().ok()
    assert box.state()["id"] == box.id


def test_the_status_is_created(box):
    """runtime.md#create: upon success the status MUST be created."""
    box.create().ok()
    assert box.status() == "created"


def test_the_program_does_not_run_yet(world):
    """runtime.md#create: the program MUST NOT be run at this time."""
    box = world.container("echo ran > /ran")
    box.create().ok()
    assert not os.path.exists(f"{box.rootfs}/ran")
    box.start().ok()
    box.wait()
    assert os.path.exists(f"{box.rootfs}/ran")


def test_the_program_is_not_looked_at_by_the_container_in_advance(world):
    """runtime.md#lifecycle: a program that appears between create and start runs."""
    box = world.container(["/mnt/late"])
    late = world.folder("late")
    box.bind(late, "/mnt")
    shutil.copy(f"{box.rootfs}/bin/busybox", f"{late}/late")
    box.process["args"] = ["/mnt/late", "true"]
    os.rename(f"{late}/late", f"{late}/wait")
    out = box.create()
    if out.code != 0:
        pytest.skip("the runtime checks the program at create, which runtime.md#create allows")
    os.rename(f"{late}/wait", f"{late}/late")
    box.start().ok()


def test_later_changes_of_the_configuration_have_no_effect(world):
    """runtime.md#create: changes made to config.json after create MUST NOT affect the container."""
    box = world.container(["echo", "first"])
    box.create().ok()
    box.process["args"] = ["echo", "second"]
    box.write()
    box.start().ok()
    box.wait()
    assert box.said().strip() == "first"


def test_a_removed_configuration_has_no_effect(world):
    """runtime.md#create: after create config.json is not needed any more."""
    box = world.container(["echo", "first"])
    box.create().ok()
    os.unlink(f"{box.bundle}/config.json")
    box.start().ok()
    box.wait()
    assert box.said().strip() == "first"
    box.delete().ok()


@pytest.mark.parametrize("kind", ["pid", "net", "ipc", "uts", "mnt"])
def test_namespaces_exist_before_start(box, kind):
    """runtime.md#create: the environment MUST be there before the program runs: namespaces."""
    box.create().ok()
    assert os.readlink(f"/proc/{box.pid()}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")


def test_mounts_exist_before_start(world):
    """runtime.md#create: the environment MUST be there before the program runs: mounts."""
    box = world.container().mount("/mnt/early", options=["size=4k"])
    box.create().ok()
    assert re.search(r" /mnt/early ", oci.read(f"/proc/{box.pid()}/mountinfo"))


def test_the_cgroup_exists_before_start(box):
    """runtime.md#create: the environment MUST be there before the program runs: the cgroup with its limits."""
    box.linux["resources"]["pids"] = {"limit": 77}
    box.create().ok()
    assert oci.read(f"{box.cgroup('pids')}/pids.max").strip() == "77"
    assert str(box.pid()) in oci.read(f"{box.cgroup('pids')}/cgroup.procs").split()


FAULTS = {
    "no root filesystem": {"root": {"path": "none"}},
    "unknown filesystem type": {"mounts": [{"destination": "/mnt", "type": "nosuchfs", "source": "x"}]},
    "no source of a bind mount": {"mounts": [{"destination": "/mnt", "source": "/nonexistent/x", "options": ["bind"]}]},
    "unknown namespace type": {"linux": {"namespaces": [{"type": "mount"}, {"type": "nosuch"}]}},
    "no namespace at the path": {"linux": {"namespaces": [{"type": "mount"}, {"type": "network", "path": "/nonexistent/net"}]}},
    "unknown rlimit": {"process": {"rlimits": [{"type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1}]}},
    "foreign sysctl": {"linux": {"sysctl": {"vm.swappiness": "1"}}},
    "unknown seccomp action": {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_NOSUCH"}}},
    "failing hook": {"hooks": {"createRuntime": [{"path": "/bin/false"}]}},
    "missing hook": {"hooks": {"createRuntime": [{"path": "/nonexistent/hook"}]}},
    "unknown propagation": {"linux": {"rootfsPropagation": "nosuch"}},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_created_is_an_error(world, fault):
    """runtime.md#lifecycle: if the environment cannot be created, the runtime MUST generate an error."""
    box = world.container(["sleep", "600"], FAULTS[fault])
    box.create().fails()


@pytest.mark.parametrize("fault", ["no root filesystem", "unknown filesystem type", "no source of a bind mount", "failing hook",
                                   "missing hook", "no namespace at the path"])
def test_an_error_leaves_nothing(world, fault):
    """runtime.md#errors: an error MUST leave the environment as if create had never been tried."""
    box = world.container(["sleep", "600"], FAULTS[fault])
    box.create().fails()
    box.query().fails()
    assert oci.cgroups_named(box.id) == []
    assert box.id not in world.cli("list", "--quiet").out.split()


def test_an_id_is_free_again_after_an_error(world):
    """runtime.md#errors: after a failed create the id can be used."""
    box = world.container(["echo", "second"], {"root": {"path": "none"}})
    box.create().fails()
    box.patch({"root": {"path": "rootfs"}})
    assert box.run().ok().line == "second"


def test_a_process_is_not_needed_before_start(box):
    """config.md#process: process is REQUIRED only when start is called.

    Kept: the words are plain, and a container that only holds namespaces can be made no other way. runc and crun ask for it.
    """
    del box.config["process"]
    box.create().ok()
    assert box.status() == "created"
    box.start().fails()


def test_two_at_once_do_not_share_an_id(world):
    """runtime.md#create: of two creates of one id exactly one succeeds."""
    box = world.container(["sleep", "600"])
    box.write()
    box.touched = True
    argv = [world.runtime.path, "--root", world.root, "create", "--bundle", box.bundle, box.id]
    codes = [world.finish(child).code for child in [world.spawn(argv) for _ in range(4)]]
    assert codes.count(0) == 1, codes
    assert box.status() == "created"

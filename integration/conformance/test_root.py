"""config.md#root."""

import os

import oci
import pytest


def test_an_absolute_path(world):
    """config.md#root: path is absolute or relative to the bundle: absolute."""
    box = world.container(["cat", "/mark"])
    os.rename(box.rootfs, world.path("elsewhere"))
    world.file("elsewhere/mark", "absolute")
    assert box.patch({"root": {"path": world.path("elsewhere")}}).run().ok().out == "absolute"


def test_a_relative_path(world):
    """config.md#root: path is absolute or relative to the bundle: relative, wherever the caller stands."""
    box = world.container(["echo", "relative"], {"root": {"path": "a/b"}})
    os.mkdir(f"{box.bundle}/a")
    os.rename(box.rootfs, f"{box.bundle}/a/b")
    box.write()
    assert box.cli("run", "--bundle", box.bundle, box.id, cwd="/").ok().line == "relative"


def test_a_directory_must_exist(world):
    """config.md#root: a directory MUST exist at path."""
    world.container(patch={"root": {"path": "none"}}).run().fails()


def test_a_file_is_no_directory(world):
    """config.md#root: a directory, not a file, MUST exist at path."""
    world.container(patch={"root": {"path": "config.json"}}).run().fails()


def test_it_is_required(box):
    """config.md#root: root is REQUIRED on Linux."""
    del box.config["root"]
    box.run().fails()


def test_its_path_is_required(box):
    """config.md#root: path is REQUIRED."""
    del box.config["root"]["path"]
    box.run().fails()


def test_readonly(world):
    """config.md#root: with readonly the root filesystem MUST be read-only inside the container."""
    box = world.container("echo x > /file || echo refused", {"root": {"readonly": True}}).capabilities("CAP_DAC_OVERRIDE")
    assert box.run().ok().line.endswith("refused")
    assert not os.path.exists(f"{box.rootfs}/file")


def test_readonly_is_for_the_root_alone(world):
    """config.md#root: readonly does not reach the mounts."""
    assert world.container("echo kept > /mnt/file; cat /mnt/file", {"root": {"readonly": True}}).mount("/mnt").run().ok().line == "kept"


def test_readonly_is_for_the_container_alone(world):
    """config.md#root: the root is read-only inside the container; outside it stays as it is."""
    box = world.sleeper({"root": {"readonly": True}})
    with open(f"{box.rootfs}/outside", "w") as file:
        file.write("x")
    assert os.path.exists(f"{box.rootfs}/outside")


@pytest.mark.parametrize("patch", [{"readonly": False}, {"readonly": None}], ids=["false", "absent"])
def test_writable(world, patch):
    """config.md#root: readonly defaults to false."""
    box = world.container("echo kept > /file", {"root": patch})
    box.run().ok()
    assert oci.read(f"{box.rootfs}/file") == "kept\n"


def test_it_is_the_root(world):
    """config.md#root: the container has exactly this root filesystem, and no way above it."""
    box = world.container("ls -d /../bin/busybox; ls /.. | sort | tr '\\n' ' '")
    assert box.run().ok().lines == ["/../bin/busybox", "bin dev etc mnt proc sys tmp "]


def test_a_mount_may_be_the_root(world):
    """config.md#root: path may be a mount of its own."""
    box = world.container(["echo", "mounted"])
    world.mount(box.rootfs, box.rootfs, flags=4096)
    assert box.run().ok().line == "mounted"


def test_two_containers_may_share_it(world):
    """config.md#root: a root filesystem may serve several containers."""
    one = world.container(["sleep", "600"]).up()
    two = world.container(["cat", "/shared"], {"root": {"path": one.rootfs}})
    with open(f"{one.rootfs}/shared", "w") as file:
        file.write("both")
    assert two.run().ok().out == "both"

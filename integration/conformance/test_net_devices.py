"""config-linux.md#network-devices and #intelrdt."""

import os
import subprocess

import oci
import pytest


def ip(*args):
    return subprocess.run(["ip", *args], capture_output=True, text=True, timeout=oci.PATIENCE, check=False)


@pytest.fixture
def device(world):
    """The name of a new network device of the host, which goes with the test."""
    name = f"cd{os.getpid() % 100000}x"
    for kind in (["type", "dummy"], ["type", "veth", "peer", "name", name + "p"]):
        if ip("link", "add", name, *kind).returncode == 0:
            break
    else:
        pytest.skip("the host cannot make a dummy or a veth device")
    world.undo.callback(ip, "link", "del", name + "p")
    world.undo.callback(ip, "link", "del", name)
    return name


def moved(world, devices, program="ls /sys/class/net"):
    box = world.container(program)
    box.linux["netDevices"] = devices
    return box


def test_it_is_moved(world, device):
    """config-linux.md#network-devices: a network device listed MUST be made available in the container (since 1.3).

    Kept: the versions of runc and crun here are older than the property.
    """
    assert device in moved(world, {device: {}}).run().ok().out.split()


def test_it_is_renamed(world, device):
    """config-linux.md#network-devices: name is the device's name in the container (since 1.3).

    Kept: the versions of runc and crun here are older than the property.
    """
    names = moved(world, {device: {"name": "eth7"}}).run().ok().out.split()
    assert "eth7" in names and device not in names


def test_its_addresses_go_with_it(world, device):
    """config-linux.md#network-devices: the runtime MUST preserve the permanent addresses of the device, and set it up (since 1.3).

    Kept: the versions of runc and crun here are older than the property.
    """
    ip("addr", "add", "192.0.2.7/24", "dev", device)
    out = moved(world, {device: {}}, f"ip addr show {device}").run().ok().out
    assert "192.0.2.7/24" in out and "UP" in out


def test_a_missing_device_is_an_error(world):
    """config-linux.md#network-devices: a device that cannot be moved MUST be an error (since 1.3).

    Kept: the versions of runc and crun here are older than the property.
    """
    moved(world, {"nosuchdevice0": {}}).run().fails()


def test_a_name_that_is_taken_is_an_error(world, device):
    """config-linux.md#network-devices: a name that exists in the container's namespace MUST be an error (since 1.3).

    Kept: the versions of runc and crun here are older than the property.
    """
    moved(world, {device: {"name": "lo"}}).run().fails()
    assert ip("link", "show", device).returncode == 0


def test_intel_rdt_without_resctrl_is_an_error(world):
    """config-linux.md#intelrdt: if intelRdt is set and no resctrl is mounted, the runtime MUST generate an error.

    Kept: the words are a MUST; a class of service that is silently not given is the worst answer.
    """
    if "resctrl" in oci.read("/proc/self/mountinfo"):
        pytest.skip("the host has resctrl mounted; only its absence is tested")
    world.container(patch={"linux": {"intelRdt": {"closID": "conformance"}}}).run().fails()


def resctrl():
    if "resctrl" not in oci.read("/proc/self/mountinfo"):
        pytest.skip("no resctrl file system is mounted on the host")
    return next(mount.point for mount in oci.mounts(oci.read("/proc/self/mountinfo")).values() if mount.type == "resctrl")


def test_intel_rdt_puts_the_process_into_its_class(world):
    """config-linux.md#intelrdt: the runtime MUST write the container's process id to tasks of the class."""
    top = resctrl()
    box = world.container(["sleep", "600"])
    box.linux["intelRdt"] = {"l3CacheSchema": next(line.strip() for line in open(f"{top}/schemata") if "L3:" in line)}
    box.up()
    assert str(box.pid()) in oci.read(f"{top}/{box.id}/tasks").split()

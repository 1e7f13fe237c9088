"""config-linux.md#devices and #default-devices."""

import os
import stat

import oci
import pytest

DEFAULT = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
RANDOM = {"path": "/dev/device", "type": "c", "major": 1, "minor": 8}


@pytest.mark.parametrize("name", DEFAULT)
def test_default_device(world, name):
    """config-linux.md#default-devices: the runtime MUST supply the device."""
    major, minor = DEFAULT[name]
    assert world.output(["stat", "-c", "%F %t:%T", f"/dev/{name}"]) == f"character special file {major:x}:{minor:x}"


@pytest.mark.parametrize("name", DEFAULT)
def test_a_default_device_is_for_all(world, name):
    """config-linux.md#default-devices: the default devices are there to be used, by any user."""
    if name == "tty":
        expected = "ENXIO"  # there is no controlling terminal
    else:
        expected = "3"
    assert world.output(["probe", "devopen", f"/dev/{name}", "rw"], {"process": {"user": {"uid": 1000, "gid": 1000}}}) == expected


def test_ptmx(world):
    """config-linux.md#default-devices: /dev/ptmx is a link to or a bind mount of the container's own /dev/pts/ptmx."""
    assert world.output("stat -Lc %t:%T /dev/ptmx; stat -Lc %i /dev/ptmx; stat -c %i /dev/pts/ptmx").split() == ["5:2", "2", "2"]


def test_ptmx_opens_terminals_of_the_container(world):
    """config-linux.md#default-devices: what /dev/ptmx opens is a terminal of the container's own devpts."""
    assert world.output("exec 3<>/dev/ptmx; ls /dev/pts").split() == ["0", "ptmx"]


def test_console_without_a_terminal(world):
    """config-linux.md#default-devices: /dev/console is set up if terminal is enabled, so not of the host without one."""
    assert world.output("test -e /dev/console && stat -c %t:%T /dev/console || echo none") in ("none", "0:0")


def device(world, script, **members):
    box = world.container(script)
    box.linux["devices"] = [{**RANDOM, **members}]
    return box


@pytest.mark.parametrize("kind, word", [("c", "character special file"), ("u", "character special file"), ("b", "block special file"), ("p", "fifo")])
def test_type(world, kind, word):
    """config-linux.md#devices: type is c, b, u or p, and the device MUST be available in the container."""
    box = device(world, ["stat", "-c", "%F", "/dev/device"], type=kind)
    if kind == "p":
        del box.linux["devices"][0]["major"], box.linux["devices"][0]["minor"]
    assert box.run().ok().line == word


def test_numbers(world):
    """config-linux.md#devices: major and minor are the device's."""
    assert device(world, ["stat", "-c", "%t:%T", "/dev/device"], major=10, minor=229).run().ok().line == "a:e5"


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o640, 0o444])
def test_file_mode(world, mode):
    """config-linux.md#devices: fileMode is the mode of the device, whatever the umask."""
    assert device(world, ["stat", "-c", "%a", "/dev/device"], fileMode=mode).run().ok().line == f"{mode:o}"


def test_owner(world):
    """config-linux.md#devices: uid and gid own the device."""
    assert device(world, ["stat", "-c", "%u:%g", "/dev/device"], uid=12, gid=34).run().ok().line == "12:34"


def test_owner_in_a_user_namespace(world):
    """config-linux.md#devices: uid and gid are ids in the container."""
    box = device(world, ["stat", "-c", "%u:%g", "/dev/null"]).user_namespace()
    del box.linux["devices"]
    assert box.run().ok().line in ("0:0", "65534:65534")


@pytest.mark.parametrize("path", ["/device", "/a/b/device", "/dev/sub/device", "/tmp/device"])
def test_path_is_anywhere(world, path):
    """config-linux.md#devices: path MAY be anywhere in the container's file system."""
    assert device(world, ["stat", "-c", "%t:%T", path], path=path).run().ok().line == "1:8"


def test_it_works(world):
    """config-linux.md#devices: the device MUST be available, so reading it works where the cgroup allows."""
    box = device(world, "head -c 4 /dev/device | wc -c", fileMode=0o666)
    box.linux["resources"]["devices"].append({"allow": True, "type": "c", "major": 1, "minor": 8, "access": "r"})
    assert box.run().ok().line == "4"


def test_a_file_in_the_way_is_an_error(world):
    """config-linux.md#devices: a file at path that does not match the device MUST be an error.

    Kept: the words are a MUST; runc and crun bind the device over whatever lies there.
    """
    box = device(world, ["true"], path="/taken")
    with open(f"{box.rootfs}/taken", "w") as file:
        file.write("a file")
    box.run().fails()
    assert oci.read(f"{box.rootfs}/taken") == "a file"


def test_the_same_device_in_the_way(world):
    """config-linux.md#devices: a file at path that is the requested device is no error."""
    box = device(world, ["stat", "-c", "%t:%T", "/taken"], path="/taken")
    os.mknod(f"{box.rootfs}/taken", 0o666 | stat.S_IFCHR, os.makedev(1, 8))
    assert box.run().ok().line == "1:8"


@pytest.mark.parametrize("kind", ["x", "", None], ids=["unknown", "empty", "absent"])
def test_an_unknown_type_is_an_error(world, kind):
    """config-linux.md#devices: type is REQUIRED and one of c, b, u and p."""
    box = device(world, ["true"], type=kind)
    if kind is None:
        del box.linux["devices"][0]["type"]
    box.run().fails()


def test_path_is_required(world):
    """config-linux.md#devices: path is REQUIRED."""
    box = device(world, ["true"])
    del box.linux["devices"][0]["path"]
    box.run().fails()


def test_several(world):
    """config-linux.md#devices: every entry MUST be available."""
    box = device(world, "ls /dev | grep '^many' | wc -l")
    box.linux["devices"] = [{"path": f"/dev/many{i}", "type": "c", "major": 10, "minor": i} for i in range(20)]
    assert box.run().ok().line == "20"


ALLOW_ALL = {"allow": True, "access": "rwm"}
DENY_ALL = {"allow": False, "access": "rwm"}
# name: the list of rules, what is tried, what comes of it
RULES = {
    "nothing is allowed by default": ([DENY_ALL], ["probe", "devopen", "/dev/device", "r"], "EPERM"),
    "default devices are allowed all the same": ([DENY_ALL], ["probe", "devopen", "/dev/null", "rw"], "3"),
    "read": ([DENY_ALL, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"}], ["probe", "devopen", "/dev/device", "r"], "opened"),
    "read is not write": ([DENY_ALL, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"}],
                          ["probe", "devopen", "/dev/device", "w"], "EPERM"),
    "write is not read": ([DENY_ALL, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "w"}],
                          ["probe", "devopen", "/dev/device", "r"], "EPERM"),
    "any minor": ([DENY_ALL, {"allow": True, "type": "c", "major": 10, "access": "rw"}], ["probe", "devopen", "/dev/device", "rw"], "opened"),
    "any device of a type": ([DENY_ALL, {"allow": True, "type": "c", "access": "rw"}], ["probe", "devopen", "/dev/device", "rw"], "opened"),
    "another type": ([DENY_ALL, {"allow": True, "type": "b", "major": 10, "minor": 229, "access": "rw"}],
                     ["probe", "devopen", "/dev/device", "rw"], "EPERM"),
    "another minor": ([DENY_ALL, {"allow": True, "type": "c", "major": 10, "minor": 1, "access": "rw"}],
                      ["probe", "devopen", "/dev/device", "rw"], "EPERM"),
    "the later rule wins: allow": ([DENY_ALL, {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rw"},
                                    {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}],
                                   ["probe", "devopen", "/dev/device", "rw"], "opened"),
    "the later rule wins: deny": ([DENY_ALL, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
                                   {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rw"}],
                                  ["probe", "devopen", "/dev/device", "rw"], "EPERM"),
    "all is allowed": ([ALLOW_ALL], ["probe", "devopen", "/dev/device", "rw"], "opened"),
    "mknod is allowed": ([DENY_ALL, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "m"}],
                         ["sh", "-c", "mknod /tmp/d c 10 229 2>/dev/null && echo made || echo EPERM"], "made"),
}


@pytest.mark.parametrize("name", RULES)
def test_allowed_devices(world, name):
    """config-linux.md#allowed-device-list: the entries MUST be applied in the listed order: what is denied gives EPERM, what is allowed does not."""
    rules, argv, answer = RULES[name]
    box = device(world, argv, major=10, minor=229, fileMode=0o666).capabilities("CAP_MKNOD")
    box.linux["resources"]["devices"] = rules
    word = box.run().ok().line
    if answer == "opened":
        assert word != "EPERM"  # the host need not have such a device
    else:
        assert word == answer


@pytest.mark.deviation("runc, crun and rustbox allow mknod of any device, as Docker does; the node cannot be opened")
def test_mknod_is_denied_by_its_rule(world):
    """config-linux.md#allowed-device-list: an access that no rule allows is denied: m."""
    box = world.container("mknod /tmp/d c 10 229 2>/dev/null && echo made || echo refused").capabilities("CAP_MKNOD")
    assert box.run().ok().line == "refused"


def test_allow_is_required(world):
    """config-linux.md#allowed-device-list: allow is REQUIRED."""
    box = world.container()
    box.linux["resources"]["devices"] = [{"type": "c", "access": "rwm"}]
    box.run().fails()

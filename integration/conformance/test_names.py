"""config.md: specification version, hostname, domainname and annotations."""

import os

import pytest


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2", "1.0.2-dev", "1.0.1+build"])
def test_a_supported_version(world, version):
    """config.md#specification-version: a configuration of a version with the runtime's major MUST be understood."""
    world.container(patch={"ociVersion": version}).run().ok()


@pytest.mark.parametrize("version", ["", "1", "x.y.z", "2.0.0", None, 1], ids=["empty", "short", "letters", "next major", "absent", "number"])
def test_an_unsupported_version(world, version):
    """config.md#specification-version: ociVersion is REQUIRED, MUST be a semantic version, and another major is not compatible.

    Kept: the words are plain; runc and crun hardly look at it.
    """
    world.container(patch={"ociVersion": version}).run().fails()


def test_state_tells_the_version(world):
    """runtime.md#state: ociVersion is a version of the specification."""
    box = world.container(["sleep", "600"])
    box.create().ok()
    assert box.state()["ociVersion"].startswith("1.")


@pytest.mark.parametrize("name", ["box", "a.b.c", "x" * 64], ids=["short", "dots", "64"])
def test_hostname(world, name):
    """config.md#hostname: hostname is what processes in the container see."""
    assert world.output(["hostname"], {"hostname": name}) == name


def test_hostname_is_the_containers_alone(world):
    """config.md#hostname: the name of the host does not change."""
    before = os.uname().nodename
    world.sleeper({"hostname": "elsewhere"})
    assert os.uname().nodename == before != "elsewhere"


def test_no_hostname_leaves_the_hosts(world):
    """config.md#hostname: hostname is optional; a new UTS namespace begins with the runtime's name."""
    assert world.output(["hostname"], {"hostname": None}) == os.uname().nodename


def test_a_hostname_without_a_namespace_does_not_name_the_host(world):
    """config.md#hostname: without a UTS namespace of the container's own there is none that could be named."""
    before = os.uname().nodename
    world.container(patch={"hostname": "elsewhere"}).without_namespace("uts").run().fails()
    assert os.uname().nodename == before


@pytest.mark.parametrize("name", ["example.org", "(none)x"])
def test_domainname(world, name):
    """config.md#domainname: domainname is what processes in the container see (since 1.1).

    Kept: the version of runc here is older than the property.
    """
    assert world.output(["cat", "/proc/sys/kernel/domainname"], {"domainname": name}) == name


def test_domainname_is_the_containers_alone(world):
    """config.md#domainname: the name of the host does not change (since 1.1)."""
    before = open("/proc/sys/kernel/domainname").read()
    world.sleeper({"domainname": "elsewhere.org"})
    assert open("/proc/sys/kernel/domainname").read() == before


@pytest.mark.parametrize("key, value", [("org.example.plain", "value"), ("org.example.empty", ""), ("org.example.json", '{"a": [1, "\\n"]}'),
                                        ("com.example.gr\xfc\xdfe", "\u4f60\u597d")], ids=["plain", "empty", "json", "unicode"])
def test_annotation(world, key, value):
    """config.md#annotations: keys and values are strings, kept as they are; values MAY be empty."""
    box = world.container(["sleep", "600"], {"annotations": {key: value}})
    box.create().ok()
    assert box.state()["annotations"][key] == value


def test_an_unknown_annotation_is_ignored(world):
    """config.md#annotations: implementations MUST NOT generate an error for an unknown annotation key."""
    assert world.output(["echo", "fine"], {"annotations": {"org.nobody.knows": "this"}}) == "fine"


@pytest.mark.parametrize("value", [1, True, [], {}], ids=["number", "bool", "list", "object"])
def test_an_annotation_is_a_string(world, value):
    """config.md#annotations: values MUST be strings."""
    box = world.container()
    box.config["annotations"] = {"org.example.key": value}
    box.run().fails()


def test_annotations_are_optional(world):
    """config.md#annotations: annotations may be absent or empty."""
    assert world.output(["echo", "fine"], {"annotations": {}}) == "fine"


def test_the_pid_file(world):
    """runtime.md#state: --pid-file, which the runtimes share, holds the pid that state tells, as a bare number."""
    box = world.container(["sleep", "600"])
    path = world.path("pid")
    box.create("--pid-file", path).ok()
    assert open(path).read() == str(box.pid())


def test_a_pid_file_that_cannot_be_written_is_an_error(world):
    """runtime.md#errors: what create was asked for and cannot do is an error, and leaves nothing."""
    box = world.container(["sleep", "600"])
    box.create("--pid-file", world.path("none/pid")).fails()
    box.query().fails()


def test_run_with_a_pid_file(world):
    """runtime.md#state: run --detach --pid-file tells the pid as create does."""
    box = world.container(["sleep", "600"])
    path = world.path("pid")
    box.run("--detach", "--pid-file", path).ok()
    assert open(path).read() == str(box.pid())

"""runtime.md#state and #query-state."""

import os

import oci
import pytest
import schema


@pytest.fixture
def created(box):
    box.process["args"] = ["sleep", "600"]
    box.create().ok()
    return box


@pytest.fixture
def running(created):
    created.start().ok()
    return created


@pytest.fixture
def stopped(running):
    return running.stop()


def test_oci_version_is_that_of_the_specification_used(created):
    """runtime.md#state: ociVersion MUST be there, a semantic version."""
    major, minor, patch = created.state()["ociVersion"].split("-")[0].split(".")
    assert major == "1" and minor.isdigit() and patch.isdigit()


def test_id_is_the_containers(created):
    """runtime.md#state: id MUST be the container's id."""
    assert created.state()["id"] == created.id


@pytest.mark.parametrize("status", ["created", "running", "stopped"])
def test_status(request, status):
    """runtime.md#state: status MUST name where the container is in its life."""
    assert request.getfixturevalue(status).status() == status


@pytest.mark.parametrize("status", ["created", "running"])
def test_pid_is_there_while_there_is_a_process(request, status):
    """runtime.md#state: pid is REQUIRED when the status is created or running."""
    pid = request.getfixturevalue(status).pid()
    assert isinstance(pid, int) and os.path.exists(f"/proc/{pid}")


def test_pid_is_the_hosts_number_of_the_containers_process(running):
    """runtime.md#state: for process operations from outside, pid MUST be that of the container process as the runtime sees it."""
    status = oci.read(f"/proc/{running.pid()}/status")
    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
    assert numbers[0] == str(running.pid()) and numbers[-1] == "1"


def test_pid_is_the_same_before_and_after_start(created):
    """runtime.md#start: start runs the program in the container's own process."""
    before = created.pid()
    created.start().ok()
    assert created.pid() == before


def test_no_living_pid_when_stopped(stopped):
    """runtime.md#state: in stopped there is no process that pid could name."""
    assert not stopped.state().get("pid")


@pytest.mark.parametrize("status", ["created", "running", "stopped"])
def test_bundle_is_absolute(request, status):
    """runtime.md#state: bundle MUST be the absolute path of the bundle."""
    box = request.getfixturevalue(status)
    assert box.state()["bundle"] == box.bundle


def test_bundle_is_absolute_when_given_relative(world):
    """runtime.md#state: bundle MUST be absolute whatever create was told."""
    box = world.container()
    box.write()
    box.cli("create", "--bundle", os.path.basename(box.bundle), box.id).ok()
    assert box.state()["bundle"] == box.bundle


def test_annotations_are_those_of_the_configuration(world):
    """runtime.md#state: annotations has the annotations associated with the container."""
    box = world.container(["sleep", "600"], {"annotations": {"org.example.a": "1", "org.example.b": "two words"}})
    box.create().ok()
    kept = box.state()["annotations"]
    assert kept["org.example.a"] == "1" and kept["org.example.b"] == "two words"


def test_annotations_may_be_absent_or_empty(created):
    """runtime.md#state: without annotations the property is absent or an empty map."""
    assert not created.state().get("annotations")


@pytest.mark.parametrize("status", ["created", "running", "stopped"])
def test_state_is_valid_by_the_schema(request, status):
    """runtime.md#state: serialized in JSON, the state MUST have the published form."""
    schema.check("state", request.getfixturevalue(status).state())


def test_without_an_id(world):
    """runtime.md#query-state: MUST generate an error if no id is given."""
    world.cli("state").fails()


def test_of_no_container(world):
    """runtime.md#query-state: MUST generate an error for a container that does not exist."""
    world.cli("state", "none").fails()


def test_of_a_deleted_container(stopped):
    """runtime.md#query-state: a deleted container does not exist."""
    stopped.delete().ok()
    stopped.query().fails()


def test_two_containers_have_their_own(world):
    """runtime.md#state: the state is that of the container asked for."""
    one, two = world.sleeper(), world.sleeper()
    assert one.state()["id"] == one.id and two.state()["id"] == two.id
    assert one.pid() != two.pid()


def test_asking_changes_nothing(running):
    """runtime.md#query-state: asking for the state leaves it as it is."""
    assert running.state() == running.state()
    assert running.status() == "running"


def test_a_program_that_ends_by_itself_is_stopped(world):
    """runtime.md#state: stopped when the program has exited, by whatever cause."""
    box = world.container(["true"]).up()
    box.wait("stopped")

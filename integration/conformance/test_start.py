"""runtime.md#start."""

import pytest


def test_without_an_id(world):
    """runtime.md#start: MUST generate an error if no id is given."""
    world.cli("start").fails()


def test_of_no_container(world):
    """runtime.md#start: MUST generate an error for a container that does not exist."""
    world.cli("start", "none").fails()


def test_the_program_runs(world):
    """runtime.md#start: MUST run the program that process names."""
    box = world.container(["echo", "started"]).up()
    box.wait()
    assert box.said().strip() == "started"


def test_the_status_is_running(world):
    """runtime.md#start: the status MUST be running once the program runs."""
    assert world.sleeper().status() == "running"


def test_a_running_container_is_refused(world):
    """runtime.md#start: a container that is not created MUST be refused, with no effect on it."""
    box = world.sleeper()
    pid = box.pid()
    box.start().fails()
    assert box.status() == "running" and box.pid() == pid


def test_a_stopped_container_is_refused(world):
    """runtime.md#start: a container that is not created MUST be refused, with no effect on it."""
    box = world.container(["echo", "once"]).up()
    box.wait()
    box.start().fails()
    assert box.status() == "stopped" and box.said().split() == ["once"]


def test_a_program_is_started_once(world):
    """runtime.md#start: of two starts exactly one succeeds."""
    box = world.container("echo once; sleep 600")
    box.create().ok()
    argv = [world.runtime.path, "--root", world.root, "start", box.id]
    codes = [world.finish(child).code for child in [world.spawn(argv) for _ in range(3)]]
    assert codes.count(0) == 1, codes
    assert box.status() == "running"


@pytest.mark.parametrize("program", ["/none", "none", "/etc/passwd", "/etc"], ids=["absent", "not on PATH", "not executable", "directory"])
def test_a_program_that_cannot_be_executed_is_an_error(world, program):
    """runtime.md#start: where the program cannot be run, create or start MUST generate an error."""
    box = world.container([program])
    if box.create().code == 0:
        box.start().fails()


def test_a_killed_created_container_cannot_be_started(box):
    """runtime.md#start: a container that was stopped before its start MUST be refused."""
    box.create().ok()
    box.kill("KILL").ok()
    box.wait()
    box.start().fails()


def test_output_is_that_of_create(world):
    """config.md#process: without a terminal the program's streams are those that create was given."""
    box = world.container("echo out; echo err >&2").up()
    box.wait()
    assert box.said() == "out\n"
    assert "err\n" in open(box.output.removesuffix(".out") + ".err").read()


def test_start_returns_while_the_program_runs(world):
    """runtime.md#start: start does not wait for the program's end."""
    box = world.container("sleep 600")
    box.create().ok()
    out = world.finish(world.spawn([world.runtime.path, "--root", world.root, "start", box.id]), timeout=10)
    assert out.code == 0 and box.status() == "running"

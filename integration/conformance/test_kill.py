"""runtime.md#kill."""

import signal

import oci
import pytest

TRAP = "trap 'echo got {0}; exit 0' {0}; echo ready; while :; do sleep 0.05; done"


def trapping(world, name):
    box = world.container(TRAP.format(name)).up()
    oci.wait_for("the trap", lambda: "ready" in box.said())
    return box


def test_without_an_id(world):
    """runtime.md#kill: MUST generate an error if no id is given."""
    world.cli("kill").fails()


def test_of_no_container(world):
    """runtime.md#kill: MUST generate an error for a container that does not exist."""
    world.cli("kill", "none", "KILL").fails()


def test_a_stopped_container_is_refused(world):
    """runtime.md#kill: a container that is neither created nor running MUST be refused, with no effect on it."""
    box = world.sleeper().stop()
    box.kill("KILL").fails()
    assert box.status() == "stopped"


SIGNALS = [str(getattr(signal, "SIG" + name).value) for name in ("HUP", "QUIT", "USR2", "WINCH")]
SIGNALS += ["INT", "USR1", "TERM", "CONT", "SIGINT", "SIGUSR1", "SIGTERM", "SIGCHLD"]


@pytest.mark.parametrize("word", SIGNALS)
def test_the_signal_named_arrives(world, word):
    """runtime.md#kill: MUST send the signal named, by number or by name, to the container process."""
    name = signal.Signals(int(word)).name if word.isdigit() else word
    name = name.removeprefix("SIG")
    box = trapping(world, name)
    box.kill(word).ok()
    box.wait()
    assert f"got {name}" in box.said()


def test_a_real_time_signal_arrives(world):
    """runtime.md#kill: MUST send the signal named, a real-time one too."""
    box = trapping(world, "40")
    box.kill("40").ok()
    box.wait()
    assert "got 40" in box.said()


def test_sigterm_is_the_default(world):
    """runtime.md#kill: with no signal named, the command lines of all runtimes send SIGTERM."""
    box = trapping(world, "TERM")
    box.kill().ok()
    box.wait()
    assert "got TERM" in box.said()


def test_sigkill_ends_it(world):
    """runtime.md#kill: the status MUST become stopped when the process has been stopped by kill."""
    box = world.sleeper()
    box.kill("KILL").ok()
    box.wait("stopped")


def test_a_created_container_can_be_killed(box):
    """runtime.md#kill: a created container takes signals."""
    box.create().ok()
    box.kill("KILL").ok()
    box.wait("stopped")


@pytest.mark.parametrize("word", ["NOSUCH", "SIGNOSUCH", "99", "-1", "9x"])
def test_an_unknown_signal_is_refused(world, word):
    """runtime.md#kill: what names no signal MUST have no effect and be an error."""
    box = world.sleeper()
    box.kill(*(["--"] if word.startswith("-") else []), word).fails()
    assert box.status() == "running"


def test_only_the_container_named_is_hit(world):
    """runtime.md#kill: the signal goes to the container named and to no other."""
    one, two = world.sleeper(), world.sleeper()
    one.kill("KILL").ok()
    one.wait("stopped")
    assert two.status() == "running"


def test_a_signal_goes_to_the_container_process_alone(world):
    """runtime.md#kill: the signal is sent to the container process, not to its children."""
    box = world.container("trap 'echo parent' USR1; (trap 'echo child' USR1; echo ready; while :; do sleep 0.05; done) & while :; do sleep 0.05; done").up()
    oci.wait_for("the traps", lambda: "ready" in box.said())
    box.kill("USR1").ok()
    oci.wait_for("the parent's word", lambda: "parent" in box.said())
    assert "child" not in box.said()


def test_the_end_of_init_ends_all_of_its_pid_namespace(world):
    """runtime.md#kill: with the container process its pid namespace ends."""
    box = world.container("sleep 601 & sleep 602 & echo ready; wait").up()
    oci.wait_for("the children", lambda: "ready" in box.said())
    procs = f"{box.cgroup('pids')}/cgroup.procs"
    assert len(oci.read(procs).split()) == 3
    box.kill("KILL").ok()
    oci.wait_for("an empty cgroup", lambda: not oci.read(procs).split())

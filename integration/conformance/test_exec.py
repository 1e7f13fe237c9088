"""runtime.md#operations beyond the five: exec, ps, list and run as the command lines of the runtimes share them; their process document is config.md#process."""

import json
import os

import oci
import pytest


@pytest.fixture
def running(world):
    return world.sleeper()


def document(world, running, members, *args):
    """exec --process with a document."""
    process = {"cwd": "/", "args": ["true"], "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, **members}
    return running.exec(*args, "--process", world.file("process.json", json.dumps(process)), running.id)


def test_it_runs_in_the_container(running):
    """config-linux.md#namespaces: an exec'ed process is in the container's namespaces."""
    for kind in ("pid", "net", "ipc", "uts", "mnt"):
        inside = os.readlink(f"/proc/{running.pid()}/ns/{kind}")
        assert running.exec(running.id, "readlink", f"/proc/self/ns/{kind}").ok().line == inside


def test_it_is_in_the_containers_cgroup(running):
    """config-linux.md#control-groups: an exec'ed process is in the container's cgroups."""
    path = running.exec(running.id, "cat", "/proc/self/cgroup").ok().out
    for line in oci.read(f"/proc/{running.pid()}/cgroup").splitlines():
        if "pids" in line or "memory" in line or oci.V2:
            assert line in path.splitlines()


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_its_status_is_execs(running, code):
    """runtime.md#operations: exec ends with the status of the process."""
    assert running.exec(running.id, "sh", "-c", f"exit {code}").code == code


def test_its_status_after_a_signal(running):
    """runtime.md#operations: exec ends with 128 and the signal that killed the process."""
    assert running.exec(running.id, "sh", "-c", "kill -KILL $$").code == 137


def test_its_streams_are_the_callers(world, running):
    """config.md#process: without a terminal the process's streams are those of the caller."""
    argv = ["sh", "-c", "echo in | \"$@\"", "sh", world.runtime.path, "--root", world.root, "exec", running.id, "sh", "-c", "cat; echo err >&2"]
    out = world.command(argv).ok()
    assert out.out == "in\n" and "err" in out.err


def test_the_environment_is_the_containers(world):
    """config.md#process: exec with a command takes over the container's environment."""
    box = world.sleeper({"process": {"env": ["PATH=/bin", "MARK=kept"]}})
    assert "MARK=kept" in box.exec(box.id, "env").ok().lines


@pytest.mark.parametrize("status", ["stopped", "none", "paused"])
def test_only_in_a_running_container(world, status):
    """runtime.md#operations: there is nothing to run in where the container does not run."""
    box = world.container(["sleep", "600"])
    box.up()
    if status == "stopped":
        box.stop()
    if status == "paused":
        box.cli("pause", box.id).ok()
    box.exec("none" if status == "none" else box.id, "true").fails()


def test_a_program_that_is_not_there(running):
    """config.md#process: a program that cannot be executed is an error, and the container runs on."""
    running.exec(running.id, "/none").fails()
    assert running.status() == "running"


def test_the_container_lives_on(running):
    """runtime.md#lifecycle: the end of an exec'ed process is not the container's."""
    running.exec(running.id, "true").ok()
    assert running.status() == "running"


def test_document_args_and_env(world, running):
    """config.md#process: the document's args and env are the process's."""
    out = document(world, running, {"args": ["sh", "-c", "echo $A $0", "zeroth"], "env": ["PATH=/bin", "A=b"]}).ok()
    assert out.line == "b zeroth"


def test_document_env_is_the_whole(world):
    """config.md#process: the document's env is the whole environment."""
    box = world.sleeper({"process": {"env": ["PATH=/bin", "MARK=kept"]}})
    assert "MARK" not in document(world, box, {"args": ["env"]}).ok().out


def test_document_cwd(world, running):
    """config.md#process: the document's cwd is the process's."""
    assert document(world, running, {"args": ["pwd"], "cwd": "/tmp"}).ok().line == "/tmp"


def test_document_user(world, running):
    """config.md#user: the document's user is the process's, with its groups and its umask."""
    script = "grep -E '^(Uid|Gid|Groups):' /proc/self/status; umask"
    out = document(world, running, {"args": ["sh", "-c", script], "user": {"uid": 12, "gid": 34, "additionalGids": [56], "umask": 63}}).ok()
    words = out.out.split()
    assert words[1] == "12" and words[6] == "34" and "56" in words and int(words[-1], 8) == 0o77


def test_document_capabilities(world, running):
    """config.md#linux-process: the document's capabilities are the process's."""
    sets = {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")}
    out = document(world, running, {"args": ["grep", "^CapEff", "/proc/self/status"], "capabilities": sets}).ok()
    assert int(out.line.split()[1], 16) == 1 << 5


def test_document_rlimits(world, running):
    """config.md#posix-process: the document's rlimits are the process's."""
    out = document(world, running, {"args": ["sh", "-c", "ulimit -n"], "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]}).ok()
    assert out.line == "77"


def test_document_no_new_privileges(world, running):
    """config.md#linux-process: the document's noNewPrivileges is the process's."""
    out = document(world, running, {"args": ["grep", "^NoNewPrivs", "/proc/self/status"], "noNewPrivileges": True}).ok()
    assert out.line.split()[1] == "1"


def test_document_oom_score_adj(world, running):
    """config.md#linux-process: the document's oomScoreAdj is the process's.

    Kept: exec takes a process document, and oomScoreAdj is a member of it; runc and crun leave it out.
    """
    if int(oci.read("/proc/self/oom_score_adj")) > 444:
        pytest.skip("lowering the score needs CAP_SYS_RESOURCE")
    assert document(world, running, {"args": ["cat", "/proc/self/oom_score_adj"], "oomScoreAdj": 444}).ok().line == "444"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"args": ["true"]}'], ids=["empty", "cut", "list", "no cwd"])
def test_a_bad_document_is_an_error(world, running, text):
    """config.md#process: what is no process document is an error."""
    running.exec("--process", world.file("process.json", text), running.id).fails()


def test_options_of_the_command_line(running):
    """config.md#process: --env, --cwd and --user, which the runtimes share, stand for the document's members."""
    out = running.exec("--env", "A=b", "--cwd", "/tmp", "--user", "12:34", running.id, "sh", "-c", "echo $A $(pwd) $(id -u):$(id -g)").ok()
    assert out.line == "b /tmp 12:34"


def test_detached(world, running):
    """runtime.md#operations: --detach returns while the process runs; --pid-file tells its pid."""
    path = world.path("pid")
    running.exec("--detach", "--pid-file", path, running.id, "sleep", "605").ok()
    pid = int(oci.read(path))
    assert oci.read(f"/proc/{pid}/cmdline").split("\0")[:2] == ["sleep", "605"]
    assert str(pid) in oci.read(f"{running.cgroup('pids')}/cgroup.procs").split()


def test_an_execed_process_is_gone_with_the_container(world, running):
    """runtime.md#delete: with the container its exec'ed processes are gone."""
    path = world.path("pid")
    running.exec("--detach", "--pid-file", path, running.id, "sleep", "606").ok()
    pid = int(oci.read(path))
    running.delete("--force").ok()
    oci.wait_for("the end", lambda: not oci.alive(pid))


def test_no_descriptor_leaks(running):
    """config.md#process: an exec'ed process gets its three streams and no other descriptor."""
    assert running.exec(running.id, "probe", "fds").ok().line == ""


def test_ps(running):
    """runtime.md#operations: ps --format json lists the pids of the container's processes as the host sees them."""
    out = running.cli("ps", "--format", "json", running.id).ok()
    assert out.json() == [running.pid()]


def test_list(world):
    """runtime.md#operations: list tells of every container below the state root, with id, pid, status and bundle."""
    one, two = world.sleeper(), world.container(["sleep", "600"])
    two.create().ok()
    rows = {row["id"]: row for row in world.cli("list", "--format", "json").ok().json()}
    assert set(rows) == {one.id, two.id}
    assert rows[one.id]["status"] == "running" and rows[two.id]["status"] == "created"
    assert rows[one.id]["pid"] == one.pid() and rows[one.id]["bundle"] == one.bundle


def test_list_quiet(world):
    """runtime.md#operations: list --quiet prints ids alone."""
    boxes = [world.sleeper(), world.sleeper()]
    assert sorted(world.cli("list", "--quiet").ok().out.split()) == sorted(box.id for box in boxes)


def test_run_leaves_nothing(world):
    """runtime.md#delete: run is the whole life: nothing remains after it."""
    box = world.container(["true"])
    box.run().ok()
    box.query().fails()
    assert oci.cgroups_named(box.id) == []


def test_run_detached(world):
    """runtime.md#start: run --detach returns once the program runs."""
    box = world.container(["sleep", "600"])
    box.run("--detach").ok()
    assert box.status() == "running"


def test_an_unknown_command_is_an_error(world):
    """runtime.md#operations: what is no operation is an error."""
    world.cli("nosuch").fails()

"""config.md#posix-platform-hooks and their places in runtime.md#lifecycle."""

import json
import os
import time

import oci
import pytest
import schema

POINTS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
BEFORE_CREATED = ["prestart", "createRuntime", "createContainer"]
INSIDE = ["createContainer", "startContainer"]  # the first runs in the container's mount namespace but with the host's root
HOST = [point for point in POINTS if point != "startContainer"]


@pytest.fixture
def notes(world):
    """A directory that hooks can write to, at the same path inside the container's root."""
    return world.folder("notes", 0o777)


def hooked(world, notes, *points, script="echo {point} >> {notes}/log", program="echo program >> {notes}/log"):
    """A container with one hook at each point that leaves its name in a log, as does its program."""
    box = world.container(program.format(notes=notes)).bind(notes, notes)
    for point in points:
        box.hook(point, script.format(point=point, notes=notes))
    return box


def log(notes):
    path = f"{notes}/log"
    return oci.read(path).split() if os.path.exists(path) else []


def live(box):
    """The whole life of a container whose program ends by itself."""
    box.up().wait()
    box.delete().ok()
    return box


@pytest.mark.parametrize("point", POINTS)
def test_it_is_called(world, notes, point):
    """config.md#posix-platform-hooks: the hooks of each point MUST be called."""
    live(hooked(world, notes, point))
    assert log(notes).count(point) == 1


def test_the_order_of_the_points(world, notes):
    """config.md#summary: prestart, createRuntime, createContainer, startContainer, the program, poststart, poststop."""
    live(hooked(world, notes, *POINTS, program="sleep 0.3; echo program >> {notes}/log"))
    order = log(notes)
    assert [word for word in order if word != "program"] == POINTS and order.index("program") > order.index("startContainer")


@pytest.mark.parametrize("point", POINTS)
def test_the_listed_order(world, notes, point):
    """config.md#posix-platform-hooks: the hooks of a point MUST be called in the listed order."""
    box = hooked(world, notes)
    for number in range(4):
        box.hook(point, f"sleep 0.0{4 - number}; echo {number} >> {notes}/log")
    live(box)
    assert [word for word in log(notes) if word != "program"] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("point", POINTS)
def test_when_it_is_called(world, notes, point):
    """runtime.md#lifecycle: the hooks of create have run when create returns, the others have not; startContainer and poststart by start, poststop by delete."""
    box = hooked(world, notes, point)
    box.create().ok()
    seen = [point in log(notes)]
    box.start().ok()
    seen.append(point in log(notes))
    box.wait()
    seen.append(point in log(notes))
    box.delete().ok()
    seen.append(point in log(notes))
    first = 0 if point in BEFORE_CREATED else 3 if point == "poststop" else 1
    assert seen == [False] * first + [True] * (4 - first)


def test_start_container_runs_before_the_program(world, notes):
    """config.md#startcontainer-hooks: startContainer MUST be called before the program is executed, as part of start."""
    live(hooked(world, notes, "startContainer"))
    assert log(notes) == ["startContainer", "program"]


def test_poststart_runs_after_the_program_was_started(world, notes):
    """config.md#poststart: poststart MUST be called after the program is executed but before start returns."""
    box = hooked(world, notes, script="sleep 0.3; echo poststart >> {notes}/log", program="echo program >> {notes}/log; sleep 600")
    box.hook("poststart", f"for i in $(seq 50); do grep -q program {notes}/log && break; sleep 0.1; done; echo poststart >> {notes}/log").up()
    assert log(notes) == ["program", "poststart"]


@pytest.mark.parametrize("point", POINTS)
def test_stdin_is_the_state(world, notes, point):
    """config.md#posix-platform-hooks: the state of the container MUST be passed to hooks over stdin."""
    box = live(hooked(world, notes, point, script="cat > {notes}/{point}"))
    state = json.loads(oci.read(f"{notes}/{point}"))
    assert state["id"] == box.id and state["bundle"] == box.bundle
    schema.check("state", state)


STATUS = {"prestart": {"creating", "created"}, "createRuntime": {"creating", "created"}, "createContainer": {"creating", "created"},
          "startContainer": {"created", "starting"}, "poststart": {"running"}, "poststop": {"stopped"}}


@pytest.mark.parametrize("point", POINTS)
def test_the_status_on_stdin(world, notes, point):
    """runtime.md#state: the status that a hook is told is that of its point in the lifecycle."""
    box = hooked(world, notes, point, script="cat > {notes}/{point}", program="sleep 600").up()
    box.stop().delete().ok()
    assert json.loads(oci.read(f"{notes}/{point}"))["status"] in STATUS[point]


@pytest.mark.parametrize("point", ["prestart", "createRuntime", "poststart"])
def test_the_pid_on_stdin(world, notes, point):
    """runtime.md#state: the pid that a hook of the runtime namespace is told is the container process's."""
    box = hooked(world, notes, point, script="cat > {notes}/{point}", program="sleep 600").up()
    assert json.loads(oci.read(f"{notes}/{point}"))["pid"] == box.pid()


def test_annotations_on_stdin(world, notes):
    """runtime.md#state: the state that a hook is told has the annotations."""
    live(hooked(world, notes, "createRuntime", script="cat > {notes}/{point}").patch({"annotations": {"org.example.key": "value"}}))
    assert json.loads(oci.read(f"{notes}/createRuntime"))["annotations"]["org.example.key"] == "value"


@pytest.mark.parametrize("point", POINTS)
def test_args(world, notes, point):
    """config.md#posix-platform-hooks: args has the semantics of execv's argv."""
    box = hooked(world, notes).hook(
        point, path="/bin/sh", args=["sh", "-c", f"for a in \"$0\" \"$@\"; do echo \"$a\"; done > {notes}/args", "first", "", "two words"])
    live(box)
    assert oci.read(f"{notes}/args") == "first\n\ntwo words\n"


@pytest.mark.parametrize("point", POINTS)
def test_env(world, notes, point):
    """config.md#posix-platform-hooks: env has the semantics of environ: what is listed, and nothing of the caller's."""
    script = f"if [ -e /proc/self/environ ]; then tr '\\0' '\\n' < /proc/self/environ; else env; fi > {notes}/env"
    live(hooked(world, notes).hook(point, script, env=["A=1", "B=two words"]))
    lines = oci.read(f"{notes}/env").splitlines()
    assert [line for line in lines if not line.startswith(("PWD=", "_="))] == ["A=1", "B=two words"]  # the shell's own


@pytest.mark.parametrize("point", ["createRuntime", "startContainer"])
def test_no_env(world, notes, point):
    """config.md#posix-platform-hooks: without env the environment is empty.

    Kept: a hook that sees its caller's environment may do another thing under another caller; runc and crun hand it on.
    """
    box = hooked(world, notes).hook(point, f"/bin/busybox env > {notes}/env")
    box.create(env={"CALLERS": "yes"}).ok()
    box.start().ok()
    box.wait()
    assert "CALLERS" not in oci.read(f"{notes}/env")


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("kind", ["mnt", "pid", "uts", "ipc", "net"])
def test_namespace(world, notes, point, kind):
    """config.md#posix-platform-hooks: hooks run in the runtime namespace, but createContainer and startContainer in the container's."""
    if point == "createContainer" and kind == "pid":
        pytest.skip("who executes createContainer inside is the runtime's choice, and so is what it sees of process ids")
    box = hooked(world, notes, point, script=f"readlink /proc/self/ns/{kind} > {{notes}}/{{point}}", program="sleep 600").up()
    theirs = os.readlink(f"/proc/{box.pid()}/ns/{kind}")
    box.stop().delete().ok()
    found = oci.read(f"{notes}/{point}").strip()
    assert found == (theirs if point in INSIDE else os.readlink(f"/proc/self/ns/{kind}"))


@pytest.mark.parametrize("point", HOST)
def test_its_path_is_the_hosts(world, notes, point):
    """config.md#posix-platform-hooks: the path of a hook MUST resolve in the runtime namespace."""
    script = world.file("hook", f"#!/bin/sh\necho host > {notes}/ran\n", 0o755)
    live(hooked(world, notes).hook(point, path=script))
    assert oci.read(f"{notes}/ran") == "host\n"


def test_start_containers_path_is_the_containers(world, notes):
    """config.md#startcontainer-hooks: the path of startContainer MUST resolve in the container namespace."""
    box = hooked(world, notes).hook("startContainer", path="/hook")
    with open(f"{box.rootfs}/hook", "w") as file:
        file.write(f"#!/bin/sh\necho container > {notes}/ran\n")
    os.chmod(f"{box.rootfs}/hook", 0o755)
    live(box)
    assert oci.read(f"{notes}/ran") == "container\n"


def test_create_runtime_finds_the_namespaces(world, notes):
    """config.md#createruntime-hooks: createRuntime MUST be called after the namespaces were made, so that it can set up a network."""
    script = world.file("hook", f"""#!/usr/bin/python3
import json, os, sys
os.symlink(os.readlink("/proc/%d/ns/net" % json.load(sys.stdin)["pid"]), "{notes}/found")
""", 0o755)
    box = hooked(world, notes).hook("createRuntime", path=script)
    box.create().ok()
    assert os.readlink(f"{notes}/found") == os.readlink(f"/proc/{box.pid()}/ns/net") != os.readlink("/proc/self/ns/net")


@pytest.mark.parametrize("point", BEFORE_CREATED)
def test_a_failure_before_created(world, notes, point):
    """runtime.md#lifecycle: if the hook fails, the runtime MUST generate an error, stop the container and go on with its destruction."""
    box = hooked(world, notes, "poststop").hook(point, "exit 7")
    box.create().fails()
    box.query().fails()
    assert oci.cgroups_named(box.id) == [] and "program" not in log(notes)


@pytest.mark.parametrize("point", BEFORE_CREATED)
def test_poststop_runs_after_a_failure_before_created(world, notes, point):
    """runtime.md#lifecycle: after a failed hook the lifecycle goes on with step 12, so poststop hooks MUST be called.

    Kept: step 12 leads to step 13, poststop; what earlier hooks made is undone by it. A runtime that skips it leaks.
    """
    box = hooked(world, notes, "poststop").hook(point, "exit 7")
    box.create().fails()
    assert log(notes) == ["poststop"]


def test_a_failure_of_start_container(world, notes):
    """runtime.md#lifecycle: if startContainer fails, the runtime MUST generate an error and stop the container.

    Kept: the words are a MUST; runc and crun tell start nothing of what fails in the container after it was let go.
    """
    box = hooked(world, notes).hook("startContainer", "exit 7")
    box.create().ok()
    box.start().fails()
    if box.query().code == 0:
        box.wait("stopped")
    assert "program" not in log(notes)


def test_a_failure_of_poststart(world, notes):
    """runtime.md#lifecycle: if poststart fails, the runtime MUST generate an error and stop the container (since 1.2; before, only a warning).

    Kept: it is the sentence since 1.2; runc and crun here follow 1.0, where a failure only warns.
    """
    box = hooked(world, notes, program="sleep 600").hook("poststart", "exit 7")
    box.create().ok()
    box.start().fails()
    if box.query().code == 0:
        box.wait("stopped")


def test_a_failure_of_poststop(world, notes):
    """runtime.md#lifecycle: if poststop fails, the runtime MUST log a warning, and the others and the lifecycle go on."""
    box = hooked(world, notes).hook("poststop", "exit 7").hook("poststop", f"echo second >> {notes}/log")
    box.up().wait()
    box.delete()
    assert "second" in log(notes)
    box.query().fails()


@pytest.mark.parametrize("point", BEFORE_CREATED)
def test_a_failure_ends_the_list(world, notes, point):
    """runtime.md#lifecycle: after a failed hook the later ones of its point are not called."""
    box = hooked(world, notes).hook(point, "exit 7").hook(point, f"echo later >> {notes}/log")
    box.create().fails()
    assert "later" not in log(notes)


@pytest.mark.parametrize("point", BEFORE_CREATED)
def test_a_hook_that_cannot_be_executed(world, notes, point):
    """config.md#posix-platform-hooks: a path that is no program is a hook that fails."""
    hooked(world, notes).hook(point, path="/nonexistent/hook").create().fails()


@pytest.mark.parametrize("point", BEFORE_CREATED + ["startContainer"])
def test_timeout(world, notes, point):
    """config.md#posix-platform-hooks: timeout is the number of seconds before the hook is aborted.

    Kept: without the abort a stuck hook holds up the engine for ever.
    """
    box = hooked(world, notes).hook(point, f"sleep 8; echo late >> {notes}/log", timeout=1)
    begin = time.monotonic()
    out = box.create()
    if point == "startContainer":
        out.ok()
        out = box.start()
    out.fails()
    assert time.monotonic() - begin < 6 and "late" not in log(notes)


def test_no_timeout_before_its_time(world, notes):
    """config.md#posix-platform-hooks: a hook that ends within its timeout is no failure."""
    live(hooked(world, notes).hook("createRuntime", f"sleep 0.2; echo done >> {notes}/log", timeout=10))
    assert "done" in log(notes)


@pytest.mark.parametrize("value", [0, -1])
def test_timeout_is_above_zero(world, notes, value):
    """config.md#posix-platform-hooks: if set, timeout MUST be greater than zero.

    Kept: the words are plain.
    """
    hooked(world, notes).hook("createRuntime", "exit 0", timeout=value).create().fails()


@pytest.mark.parametrize("path", ["hook", "./hook", None], ids=["name", "relative", "absent"])
def test_path_is_absolute(world, notes, path):
    """config.md#posix-platform-hooks: path is REQUIRED and MUST be absolute.

    Kept: the words are a MUST; runc and crun take a relative path from wherever they stand.
    """
    box = hooked(world, notes).hook("createRuntime", path=path)
    with open(f"{box.bundle}/hook", "w") as file:
        file.write("#!/bin/sh\n")
    os.chmod(f"{box.bundle}/hook", 0o755)
    if path is None:
        del box.config["hooks"]["createRuntime"][0]["path"]
    box.create(cwd=box.bundle).fails()


def test_poststop_runs_on_forced_delete(world, notes):
    """config.md#poststop: poststop MUST be called after the container is deleted, however that came."""
    box = hooked(world, notes, "poststop", program="sleep 600").up()
    box.delete("--force").ok()
    assert log(notes) == ["poststop"]


def test_poststop_runs_after_run(world, notes):
    """config.md#poststop: poststop MUST be called also where one command is the whole life."""
    hooked(world, notes, *POINTS).run().ok()
    assert [word for word in log(notes) if word != "program"] == POINTS


def test_a_hook_that_closes_stdin(world, notes):
    """config.md#posix-platform-hooks: a hook need not read the state."""
    live(hooked(world, notes).hook("createRuntime", f"exec <&-; echo done >> {notes}/log").patch({"annotations": {"big": "x" * 200000}}))
    assert "done" in log(notes)

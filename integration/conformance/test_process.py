"""config.md#process: args, cwd and env."""

import os

import pytest


def test_args_are_the_programs(world):
    """config.md#process: args has the semantics of execvp's argv."""
    box = world.container(["sh", "-c", "for a; do echo \"<$a>\"; done", "name", "", "two words", "*", "-x", "\\", "\"", "\t"])
    assert box.run().ok().lines == ["<>", "<two words>", "<*>", "<-x>", "<\\>", "<\">", "<\t>"]


@pytest.mark.parametrize("patch", [{"args": None}, {"args": []}, {"args": [""]}], ids=["absent", "empty", "empty word"])
def test_args_has_at_least_one_entry(world, patch):
    """config.md#process: at least one entry is REQUIRED in args."""
    world.container(patch={"process": patch}).run().fails()


def test_the_program_is_looked_for_in_path(world):
    """config.md#process: as with execvp, a name without a slash is looked for in PATH, in its order."""
    box = world.container(["tool"], {"process": {"env": ["PATH=/one:/two"]}})
    for name in ("one", "two"):
        os.mkdir(f"{box.rootfs}/{name}")
        with open(f"{box.rootfs}/{name}/tool", "w") as file:
            file.write(f"#!/bin/busybox sh\necho {name}\n")
        os.chmod(f"{box.rootfs}/{name}/tool", 0o755)
    assert box.run().ok().line == "one"


def test_the_path_is_that_of_the_configuration(world):
    """config.md#process: the PATH searched is that of process.env, not of the caller."""
    box = world.container(["true"], {"process": {"env": ["PATH=/nowhere"]}})
    box.run().fails()


@pytest.mark.parametrize("name", ["/bin/echo", "bin/echo", "./bin/echo"], ids=["absolute", "relative", "dot"])
def test_a_path_is_not_looked_for(world, name):
    """config.md#process: as with execvp, a name with a slash is a path, relative to cwd."""
    assert world.output([name, "found"], {"process": {"env": []}}) == "found"


def test_a_relative_program_is_relative_to_cwd(world):
    """config.md#process: a relative program is looked for from cwd."""
    assert world.output(["./echo", "found"], {"process": {"cwd": "/bin"}}) == "found"


def test_a_script_runs_by_its_first_line(world):
    """config.md#process: what the kernel executes is executed: a script with an interpreter."""
    box = world.container(["/script", "argument"])
    with open(f"{box.rootfs}/script", "w") as file:
        file.write("#!/bin/busybox sh\necho $0 $1\n")
    os.chmod(f"{box.rootfs}/script", 0o755)
    assert box.run().ok().line == "/script argument"


@pytest.mark.parametrize("folder", ["/", "/tmp", "/dev/shm"])
def test_cwd(world, folder):
    """config.md#process: cwd is the working directory of the program."""
    assert world.output(["readlink", "/proc/self/cwd"], {"process": {"cwd": folder}}) == folder


def test_cwd_in_a_mount(world):
    """config.md#process: cwd is looked up in the container, with its mounts."""
    source = world.folder("source")
    os.mkdir(f"{source}/inner")
    assert world.container(["pwd"], {"process": {"cwd": "/mnt/inner"}}).bind(source, "/mnt").run().ok().line == "/mnt/inner"


@pytest.mark.parametrize("folder", ["tmp", ".", "./tmp", ""], ids=["tmp", "dot", "dot-tmp", "empty"])
def test_cwd_is_absolute(world, folder):
    """config.md#process: cwd MUST be an absolute path."""
    world.container(patch={"process": {"cwd": folder}}).run().fails()


def test_cwd_is_required(box):
    """config.md#process: cwd is REQUIRED."""
    del box.process["cwd"]
    box.run().fails()


def test_cwd_that_is_a_file(world):
    """config.md#process: what is no directory cannot be the working directory."""
    world.container(patch={"process": {"cwd": "/etc/passwd"}}).run().fails()


def test_env_is_the_environment(world):
    """config.md#process: env has the semantics of environ."""
    lines = world.output(["env"], {"process": {"env": ["PATH=/bin", "A=1", "B=two words", "C=x=y", "_D=", "e=\xfc"]}}).splitlines()
    assert {"A=1", "B=two words", "C=x=y", "_D=", "e=\xfc"} <= set(lines)


def test_env_is_not_the_callers(world):
    """config.md#process: the environment is that of the configuration; nothing of the caller's is in it."""
    box = world.container(["env"])
    box.write()
    out = box.cli("run", "--bundle", box.bundle, box.id, env={"LEAKED": "yes", "LD_PRELOAD": ""}).ok()
    assert "LEAKED" not in out.out and "LD_PRELOAD" not in out.out


def test_env_is_optional(world):
    """config.md#process: env is optional."""
    box = world.container(["/bin/env"])
    del box.process["env"]
    assert "TERM=" not in box.run().ok().out


def test_a_value_may_have_a_line_break(world):
    """config.md#process: any string without a NUL byte may be a value."""
    assert world.output(["sh", "-c", "printf %s \"$LINES_\""], {"process": {"env": ["PATH=/bin", "LINES_=a\nb\tc"]}}) == "a\nb\tc"


def test_a_long_environment(world):
    """config.md#process: the environment is bounded by the kernel alone."""
    env = ["PATH=/bin", *(f"V{i}={'x' * 1000}" for i in range(64))]
    assert world.output(["sh", "-c", "echo ${#V0} ${#V63}"], {"process": {"env": env}}) == "1000 1000"


def test_the_exit_status_is_runs(world):
    """runtime.md#lifecycle: the command line's run ends with the status of the program, as all runtimes do."""
    assert world.container(["sh", "-c", "exit 42"]).run().code == 42


def test_the_exit_status_after_a_signal(world):
    """runtime.md#lifecycle: the command line's run ends with 128 and the signal that killed the program, as all runtimes do."""
    assert world.container("sleep 600").patch({"process": {"args": ["sh", "-c", "kill -KILL $$"]}}).without_namespace("pid").run().code == 137


def test_the_program_is_the_first_process(world):
    """config-linux.md#namespaces: in a new pid namespace the program is process 1."""
    assert world.output("echo $$") == "1"


def test_stdin_is_the_callers(world):
    """config.md#process: without a terminal the program's streams are those of the caller."""
    box = world.container(["cat"])
    box.write()
    box.touched = True
    with open(world.file("input", "from the caller")) as file:
        child = world.spawn([world.runtime.path, "--root", world.root, "run", "--bundle", box.bundle, box.id], stdin=file)
    assert world.finish(child).ok().out == "from the caller"


def test_no_descriptor_leaks(world):
    """config.md#process: the program gets its three streams and no other descriptor of the caller or the runtime."""
    assert world.output(["probe", "fds"]) == ""


def test_no_descriptor_of_the_caller_leaks(world):
    """config.md#process: the program gets its three streams and no other descriptor of the caller or the runtime."""
    box = world.container(["probe", "fds"])
    box.write()
    box.touched = True
    argv = ["sh", "-c", "exec 5</; exec \"$@\"", "sh", world.runtime.path, "--root", world.root, "run", "--bundle", box.bundle, box.id]
    assert world.command(argv).ok().line == ""


def test_preserve_fds(world):
    """config.md#process: --preserve-fds, which the runtimes share, hands on exactly so many descriptors from 3 on."""
    box = world.container(["sh", "-c", "cat <&3; probe fds"])
    box.write()
    box.touched = True
    path = world.file("three", "third\n")
    argv = ["bash", "-c", f"exec 3<{path} 4</; exec \"$@\"", "sh", world.runtime.path, "--root", world.root, "run", "--preserve-fds", "1",
            "--bundle", box.bundle, box.id]
    assert world.command(argv).ok().lines == ["third", "3 "]


@pytest.mark.parametrize("value", [True, False, None], ids=["true", "false", "absent"])
def test_no_new_privileges(world, value):
    """config.md#linux-process: noNewPrivileges true keeps the process from gaining privileges; it is false by default."""
    text = world.output(["grep", "NoNewPrivs", "/proc/self/status"], {"process": {"noNewPrivileges": value}})
    assert text.split() == ["NoNewPrivs:", "1" if value else "0"]


def test_signals_are_not_blocked_or_ignored(world):
    """config.md#process: the program starts with no signal blocked or ignored but what the caller ignores."""
    lines = world.output(["grep", "Sig[BI]", "/proc/self/status"]).split()
    # GNU make, for one, has its children ignore the two signals that glibc keeps for itself.
    with open("/proc/self/status") as status:
        ignored = next(int(line.split()[1], 16) for line in status if line.startswith("SigIgn"))
    assert int(lines[1], 16) == 0 and int(lines[3], 16) & ~ignored == 0

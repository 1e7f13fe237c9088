"""config.md#linux-process: oomScoreAdj, scheduler, ioPriority, execCPUAffinity and labels; config-linux.md#personality and #memory-policy."""

import os
import platform

import oci
import pytest


@pytest.mark.parametrize("value", [0, 1, 500, 1000])
def test_oom_score_adj(world, value):
    """config.md#linux-process: if oomScoreAdj is set, the runtime MUST set oom_score_adj to it."""
    mine = int(oci.read("/proc/self/oom_score_adj"))
    if value < mine:
        pytest.skip("lowering the score needs CAP_SYS_RESOURCE")
    assert world.output(["cat", "/proc/self/oom_score_adj"], {"process": {"oomScoreAdj": value}}) == str(value)


def test_oom_score_adj_is_left_alone(world):
    """config.md#linux-process: if oomScoreAdj is not set, the runtime MUST NOT change oom_score_adj."""
    box = world.container(["cat", "/proc/self/oom_score_adj"])
    box.write()
    box.touched = True
    argv = ["sh", "-c", "echo 321 > /proc/self/oom_score_adj; exec \"$@\"", "sh", world.runtime.path, "--root", world.root, "run",
            "--bundle", box.bundle, box.id]
    assert world.command(argv).ok().line == "321"


@pytest.mark.parametrize("value", [1001, -1001])
def test_oom_score_adj_out_of_range(world, value):
    """config.md#linux-process: a score that the kernel does not take cannot be set and MUST be an error."""
    world.container(patch={"process": {"oomScoreAdj": value}}).run().fails()


# policy: its number, extra members, nice value and priority; sched_setattr(2) takes no nice value for SCHED_IDLE
POLICIES = {
    "SCHED_OTHER": (0, {"nice": 5}, 5, 0),
    "SCHED_BATCH": (3, {"nice": 7}, 7, 0),
    "SCHED_IDLE": (5, {}, None, 0),
    "SCHED_FIFO": (1, {"priority": 10}, 0, 10),
    "SCHED_RR": (2, {"priority": 20}, 0, 20),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_scheduler(world, policy):
    """config.md#linux-process: scheduler sets the policy, nice value and priority of the process (since 1.1).

    Kept: runc knows it since 1.2, crun since 1.9; the versions here are older.
    """
    number, members, nice, priority = POLICIES[policy]
    box = world.container(["probe", "sched"], {"process": {"scheduler": {"policy": policy, **members}}})
    if policy in ("SCHED_FIFO", "SCHED_RR"):
        give_real_time(box)
    found = box.run().ok().line.split()
    assert found[0] == str(number) and found[2] == str(priority)
    assert nice is None or found[1] == str(nice)


def give_real_time(box):
    """Lets the container's cgroup have real-time run time, where cgroup v1 shares it out: enough for the program's start, which
    otherwise goes on in the next period, and the one after that."""
    if os.path.exists(f"{oci.CGROUP}/cpu/cpu.rt_runtime_us"):
        box.linux["resources"]["cpu"] = {"realtimeRuntime": 50000, "realtimePeriod": 1000000}


def test_scheduler_deadline(world):
    """config.md#linux-process: SCHED_DEADLINE takes runtime, deadline and period in nanoseconds (since 1.1).

    Kept: runc knows it since 1.2, crun since 1.9; the versions here are older.
    """
    patch = {"process": {"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 1000000, "deadline": 5000000, "period": 10000000}}}
    box = world.container(["probe", "sched"], patch)
    out = box.run()
    if out.code and "EBUSY" in out.err + out.out or "not permitted" in out.err.lower() or "busy" in out.err.lower():
        pytest.skip("the kernel admits no deadline task here")
    assert out.ok().line.split()[0] == "6" and out.line.split()[3:6] == ["1000000", "5000000", "10000000"]


def test_scheduler_flags(world):
    """config.md#linux-process: flags are given to sched_setattr(2): reset on fork (since 1.1).

    Kept: runc knows it since 1.2, crun since 1.9; the versions here are older.
    """
    patch = {"process": {"scheduler": {"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}}}
    assert world.output(["probe", "sched"], patch).split()[6] == "1"


def test_an_unknown_policy_is_an_error(world):
    """config.md#linux-process: policy is one of those listed (since 1.1).

    Kept: the versions of runc and crun here are older than the property.
    """
    world.container(patch={"process": {"scheduler": {"policy": "SCHED_NOSUCH"}}}).run().fails()


CLASSES = {"IOPRIO_CLASS_RT": (1, 2), "IOPRIO_CLASS_BE": (2, 6), "IOPRIO_CLASS_IDLE": (3, 7)}


@pytest.mark.parametrize("name", CLASSES)
def test_io_priority(world, name):
    """config.md#linux-process: ioPriority sets class and priority (since 1.1).

    Kept: runc knows it since 1.2, crun since 1.9; the versions here are older.
    """
    number, priority = CLASSES[name]
    value = int(world.output(["probe", "call", "ioprio_get", "1", "0"], {"process": {"ioPriority": {"class": name, "priority": priority}}}))
    assert value >> 13 == number and value & 7 == priority


@pytest.mark.parametrize("patch", [{"class": "IOPRIO_CLASS_NOSUCH", "priority": 1}, {"class": "IOPRIO_CLASS_BE", "priority": 8}], ids=["class", "priority"])
def test_a_bad_io_priority_is_an_error(world, patch):
    """config.md#linux-process: class is one of three and priority goes from 0 to 7 (since 1.1).

    Kept: the versions of runc and crun here are older than the property.
    """
    world.container(patch={"process": {"ioPriority": patch}}).run().fails()


def test_exec_cpu_affinity(world):
    """config.md#linux-process: execCPUAffinity.final is the affinity of an exec'ed process, not of the first one (since 1.2.1).

    Kept: the versions of runc and crun here are older than the property.
    """
    if os.cpu_count() < 2:
        pytest.skip("one processor only")
    box = world.sleeper({"process": {"execCPUAffinity": {"initial": "0", "final": "1"}}})
    line = "grep Cpus_allowed_list /proc/{}/status"
    assert box.exec(box.id, "sh", "-c", line.format("self")).ok().line.split()[1] == "1"
    assert box.exec(box.id, "sh", "-c", line.format("1")).ok().line.split()[1] != "1"


@pytest.mark.parametrize("domain, machine", [("LINUX", platform.machine()), ("LINUX32", "i686")])
def test_personality(world, domain, machine):
    """config-linux.md#personality: domain is the execution domain, which uname(2) shows.

    Kept: runc knows it since 1.2.
    """
    if platform.machine() != "x86_64":
        pytest.skip("i686 is the 32-bit name of x86_64")
    assert world.output(["uname", "-m"], {"linux": {"personality": {"domain": domain}}}) == machine


def test_an_unknown_personality_is_an_error(world):
    """config-linux.md#personality: domain is LINUX or LINUX32.

    Kept: the words are plain; runc ignores the property until 1.2.
    """
    world.container(patch={"linux": {"personality": {"domain": "LINUX64"}}}).run().fails()


MODES = {
    "MPOL_DEFAULT": (0, None), "MPOL_BIND": (2, "0"), "MPOL_INTERLEAVE": (3, "0"), "MPOL_PREFERRED": (1, "0"), "MPOL_LOCAL": (4, None),
    "MPOL_PREFERRED_MANY": (5, "0"),
}


@pytest.mark.parametrize("mode", MODES)
def test_memory_policy(world, mode):
    """config-linux.md#memory-policy: mode and nodes are those of set_mempolicy(2) (since 1.3).

    Kept: the versions of runc and crun here are older than the property.
    """
    number, nodes = MODES[mode]
    policy = {"mode": mode, **({"nodes": nodes} if nodes else {})}
    found = world.output(["probe", "mempolicy"], {"linux": {"memoryPolicy": policy}}).split()
    if found == ["ENOSYS"]:
        pytest.skip("this kernel has no NUMA")
    assert int(found[0], 16) == number and (nodes is None or found[1] == "1"), found


def test_memory_policy_flags(world):
    """config-linux.md#memory-policy: flags go with the mode (since 1.3).

    Kept: the versions of runc and crun here are older than the property.
    """
    policy = {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}
    assert int(world.output(["probe", "mempolicy"], {"linux": {"memoryPolicy": policy}}).split()[0], 16) == 2 | 1 << 15


@pytest.mark.parametrize("policy", [{"mode": "MPOL_NOSUCH"}, {"mode": "MPOL_BIND", "nodes": "x"}, {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NOSUCH"]}],
                         ids=["mode", "nodes", "flag"])
def test_a_bad_memory_policy_is_an_error(world, policy):
    """config-linux.md#memory-policy: what is not in the lists cannot be set and MUST be an error (since 1.3).

    Kept: the versions of runc and crun here are older than the property.
    """
    world.container(patch={"linux": {"memoryPolicy": policy}}).run().fails()


@pytest.mark.parametrize("name, present", [("apparmorProfile", "/sys/kernel/security/apparmor"), ("selinuxLabel", "/sys/fs/selinux")])
def test_a_label_without_its_module_is_an_error(world, name, present):
    """config.md#linux-process: a label for a security module that the host does not run cannot be applied and MUST be an error.

    Kept: a container that is thought to be confined and is not is the worst answer.
    """
    if os.path.exists(present):
        pytest.skip("the host has the module; only its absence is tested")
    world.container(patch={"process": {name: "conformance_t:conformance_r:conformance_t:s0" if "selinux" in name else "conformance"}}).run().fails()

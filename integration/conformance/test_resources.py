"""config-linux.md#control-groups: every limit of linux.resources, in the files of the host's cgroup version."""

import json
import os
import time

import oci
import pytest

VERSIONS = ["v1", "v2"]
MiB = 1 << 20

# name: resources, then for each version the controller, the file and what it must say; None where the version has none of it
LIMITS = {
    "memory.limit": ({"memory": {"limit": 64 * MiB}}, ("memory", "memory.limit_in_bytes", str(64 * MiB)), ("memory", "memory.max", str(64 * MiB))),
    "memory.limit -1": ({"memory": {"limit": -1}}, ("memory", "memory.limit_in_bytes", "9223372036854771712"), ("memory", "memory.max", "max")),
    "memory.reservation": ({"memory": {"reservation": 32 * MiB}}, ("memory", "memory.soft_limit_in_bytes", str(32 * MiB)), ("memory", "memory.low", str(32 * MiB))),
    "memory.swap": ({"memory": {"limit": 64 * MiB, "swap": 96 * MiB}}, ("memory", "memory.memsw.limit_in_bytes", str(96 * MiB)),
                    ("memory", "memory.swap.max", str(32 * MiB))),
    "memory.swappiness": ({"memory": {"swappiness": 7}}, ("memory", "memory.swappiness", "7"), None),
    "memory.disableOOMKiller": ({"memory": {"disableOOMKiller": True}}, ("memory", "memory.oom_control", "oom_kill_disable 1"), None),
    "memory.useHierarchy": ({"memory": {"useHierarchy": True}}, ("memory", "memory.use_hierarchy", "1"), None),
    "cpu.shares": ({"cpu": {"shares": 512}}, ("cpu", "cpu.shares", "512"), ("cpu", "cpu.weight", "20")),
    "cpu.quota": ({"cpu": {"quota": 50000, "period": 100000}}, ("cpu", "cpu.cfs_quota_us", "50000"), ("cpu", "cpu.max", "50000 100000")),
    "cpu.quota -1": ({"cpu": {"quota": -1}}, ("cpu", "cpu.cfs_quota_us", "-1"), ("cpu", "cpu.max", "max 100000")),
    "cpu.period": ({"cpu": {"quota": 20000, "period": 200000}}, ("cpu", "cpu.cfs_period_us", "200000"), ("cpu", "cpu.max", "20000 200000")),
    "cpu.burst": ({"cpu": {"quota": 50000, "period": 100000, "burst": 10000}}, ("cpu", "cpu.cfs_burst_us", "10000"), ("cpu", "cpu.max.burst", "10000")),
    "cpu.idle": ({"cpu": {"idle": 1}}, ("cpu", "cpu.idle", "1"), ("cpu", "cpu.idle", "1")),
    "cpu.realtimeRuntime": ({"cpu": {"realtimeRuntime": 1000, "realtimePeriod": 500000}}, ("cpu", "cpu.rt_runtime_us", "1000"), None),
    "cpu.realtimePeriod": ({"cpu": {"realtimeRuntime": 1000, "realtimePeriod": 500000}}, ("cpu", "cpu.rt_period_us", "500000"), None),
    "cpu.cpus": ({"cpu": {"cpus": "0"}}, ("cpuset", "cpuset.cpus", "0"), ("cpuset", "cpuset.cpus", "0")),
    "cpu.mems": ({"cpu": {"mems": "0"}}, ("cpuset", "cpuset.mems", "0"), ("cpuset", "cpuset.mems", "0")),
    "pids.limit": ({"pids": {"limit": 42}}, ("pids", "pids.max", "42"), ("pids", "pids.max", "42")),
    "pids.limit -1": ({"pids": {"limit": -1}}, ("pids", "pids.max", "max"), ("pids", "pids.max", "max")),
    "blockIO.weight": ({"blockIO": {"weight": 300}}, ("blkio", "blkio.bfq.weight", "300"), ("io", "io.bfq.weight", "default 300")),
    "rdma": ({"rdma": {"mlx5_0": {"hcaHandles": 3}}}, ("rdma", "rdma.max", "hca_handle=3"), ("rdma", "rdma.max", "hca_handle=3")),
    "hugepageLimits": ({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MiB}]}, ("hugetlb", "hugetlb.2MB.limit_in_bytes", str(4 * MiB)),
                       ("hugetlb", "hugetlb.2MB.max", str(4 * MiB))),
    "network.classID": ({"network": {"classID": 1048577}}, ("net_cls", "net_cls.classid", "1048577"), None),
    "network.priorities": ({"network": {"priorities": [{"name": "lo", "priority": 5}]}}, ("net_prio", "net_prio.ifpriomap", "lo 5"), None),
    "unified": ({"unified": {"memory.high": str(50 * MiB)}}, None, ("memory", "memory.high", str(50 * MiB))),
}


def of_version(version):
    if (version == "v2") != oci.V2:
        pytest.skip(f"the host's controllers are in cgroup {'v2' if oci.V2 else 'v1'}")


def place(version, name):
    """The controller, the file and its content, or a skip where this host has none."""
    of_version(version)
    found = LIMITS[name][1 + VERSIONS.index(version)]
    if found is None:
        pytest.skip(f"cgroup {version} has nothing for it")
    controller, file, text = found
    if oci.V2:
        if controller not in oci.read(f"{oci.CGROUP}/cgroup.controllers").split():
            pytest.skip(f"the host has no {controller} controller")
    elif not os.path.isdir(f"{oci.CGROUP}/{controller}"):
        pytest.skip(f"the host has no {controller} controller in cgroup v1")
    return controller, file, text


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", LIMITS)
def test_limit(world, name, version):
    """config-linux.md#control-groups: the limit asked for MUST be that of the container's cgroup.

    Kept: burst is in the specification since 1.1, cpu.idle since 1.0.3: later than the versions of runc and crun here.
    """
    controller, file, text = place(version, name)
    box = world.container(["sleep", "600"], {"linux": {"resources": LIMITS[name][0]}})
    probe = f"{oci.CGROUP}/{controller}/{box.id}-probe"
    if not oci.V2:
        os.mkdir(probe)
        has, writable = os.path.exists(f"{probe}/{file}"), True
        if has and file == "memory.oom_control":
            with open(f"{probe}/{file}", "w") as control:
                try:
                    control.write("1")
                    control.flush()
                except OSError:
                    writable = False
        os.rmdir(probe)
        if not has or not writable:
            pytest.skip(f"this kernel has no {file}")
    box.up()
    assert text in oci.read(f"{box.cgroup(controller)}/{file}").splitlines()


IO = {"throttleReadBpsDevice": ("read_bps", "rbps"), "throttleWriteBpsDevice": ("write_bps", "wbps"),
      "throttleReadIOPSDevice": ("read_iops", "riops"), "throttleWriteIOPSDevice": ("write_iops", "wiops")}


def disk():
    """The numbers of a disk of the host."""
    for name in sorted(os.listdir("/sys/block")):
        if not name.startswith(("loop", "ram", "zram")):
            return oci.read(f"/sys/block/{name}/dev").strip()
    pytest.skip("the host has no disk")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", IO)
def test_block_io(world, name, version):
    """config-linux.md#block-io: the rate asked for MUST be that of the container's cgroup for the device."""
    of_version(version)
    number = disk()
    major, minor = map(int, number.split(":"))
    box = world.container(["sleep", "600"], {"linux": {"resources": {"blockIO": {name: [{"major": major, "minor": minor, "rate": 4194304}]}}}}).up()
    if oci.V2:
        assert f"{IO[name][1]}=4194304" in oci.read(f"{box.cgroup()}/io.max")
    else:
        assert f"{number} 4194304" in oci.read(f"{box.cgroup('blkio')}/blkio.throttle.{IO[name][0]}_device").splitlines()


def test_a_controller_that_the_host_lacks_is_an_error(world):
    """config-linux.md#unified: a configuration for a controller that is not present MUST be an error."""
    resources = {"unified": {"nosuch.max": "1"}}
    world.container(patch={"linux": {"resources": resources}}).run().fails()


def test_v1_limits_that_cannot_be_given_are_an_error(world):
    """runtime.md#lifecycle: what the configuration asks for and the host cannot give MUST be an error: a controller that is not there.

    Kept: a limit that is thought to hold and does not is the worst answer.
    """
    if oci.V2 or os.path.isdir(f"{oci.CGROUP}/net_cls"):
        pytest.skip("the host has the net_cls controller, or cgroup v2")
    world.container(patch={"linux": {"resources": {"network": {"classID": 1048577}}}}).run().fails()


def test_memory_is_enforced(world):
    """config-linux.md#memory: limit bounds the memory of the container: the OOM killer ends what goes beyond."""
    resources = {"memory": {"limit": 32 * MiB, "swap": 32 * MiB}}
    out = world.container(["probe", "memory", "96"], {"linux": {"resources": resources}}).run()
    assert out.code == 137 and "touched" not in out.out


def test_memory_below_the_limit_is_free(world):
    """config-linux.md#memory: what stays below the limit is not touched."""
    assert world.output(["probe", "memory", "16"], {"linux": {"resources": {"memory": {"limit": 64 * MiB}}}}) == "touched"


def test_pids_are_enforced(world):
    """config-linux.md#pids: limit is the maximum number of tasks in the cgroup."""
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; echo all"
    out = world.container(script, {"linux": {"resources": {"pids": {"limit": 8}}}}).run()
    assert "all" not in out.out or "fork" in out.err


def test_cpus_are_enforced(world):
    """config-linux.md#cpu: cpus is the list of CPUs that the container runs on."""
    assert world.output(["grep", "Cpus_allowed_list", "/proc/self/status"], {"linux": {"resources": {"cpu": {"cpus": "0"}}}}).split()[1] == "0"


def test_quota_is_enforced(world):
    """config-linux.md#cpu: quota is the run time of all tasks in a period."""
    box = world.container("i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done", {"linux": {"resources": {"cpu": {"quota": 2000, "period": 20000}}}})
    box.create().ok()
    stat = f"{box.cgroup('cpu')}/cpu.stat"
    box.start().ok()
    oci.wait_for("a throttled period", lambda: any(
        line.startswith("nr_throttled") and int(line.split()[1]) > 0 for line in oci.read(stat).splitlines()), seconds=15)


BAD = {
    "memory.limit": {"memory": {"limit": "64m"}},
    "memory.swap below limit": {"memory": {"limit": 64 * MiB, "swap": 32 * MiB}},
    "cpu.cpus": {"cpu": {"cpus": "nosuch"}},
    "cpu.cpus that the host lacks": {"cpu": {"cpus": "4000"}},
    "cpu.mems that the host lacks": {"cpu": {"mems": "900"}},
    "cpu.period": {"cpu": {"quota": 1000, "period": 1}},
    "pids.limit": {"pids": {"limit": "many"}},
    "blockIO device": {"blockIO": {"throttleReadBpsDevice": [{"rate": "fast"}]}},
}


@pytest.mark.parametrize("name", BAD)
def test_what_the_kernel_refuses_is_an_error(world, name):
    """runtime.md#lifecycle: a limit that cannot be given MUST be an error."""
    box = world.container(patch={"linux": {"resources": BAD[name]}})
    box.create().fails()
    assert oci.cgroups_named(box.id) == []


def test_an_absolute_path_is_below_the_mount_point(world):
    """config-linux.md#cgroups-path: an absolute path MUST be taken relative to the cgroup mount point."""
    box = world.container(["sleep", "600"])
    box.linux["cgroupsPath"] = f"/{box.id}/nested/deep"
    box.up()
    assert str(box.pid()) in oci.read(f"{box.cgroup('pids')}/cgroup.procs").split()


@pytest.mark.parametrize("controller", ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"])
def test_the_container_is_in_every_controller(world, controller):
    """config-linux.md#cgroups-path: the container process is attached at that place in the hierarchies of all its controllers."""
    if oci.V2 or not os.path.isdir(f"{oci.CGROUP}/{controller}"):
        pytest.skip(f"the host has no hierarchy of its own for {controller}")
    box = world.sleeper()
    assert str(box.pid()) in oci.read(f"{box.cgroup(controller)}/cgroup.procs").split()


def test_the_same_path_is_the_same_place(world):
    """config-linux.md#cgroups-path: the runtime MUST consistently attach to the same place for the same value."""
    for _ in range(2):
        box = world.container(["sleep", "600"], {"linux": {"cgroupsPath": f"/{world.tag}-same"}}).up()
        assert str(box.pid()) in oci.read(f"{box.cgroup('pids')}/cgroup.procs").split()
        box.stop().delete().ok()


def test_a_relative_path(world):
    """config-linux.md#cgroups-path: a relative path is a place that the runtime determines; the container is in it."""
    box = world.container(["sleep", "600"], {"linux": {"cgroupsPath": f"{world.tag}-relative"}}).up()
    assert any(line.endswith(f"{world.tag}-relative") for line in oci.read(f"/proc/{box.pid()}/cgroup").splitlines())


def test_no_path(world):
    """config-linux.md#cgroups-path: without a path the runtime MAY define one: limits hold all the same."""
    box = world.container(["sleep", "600"], {"linux": {"resources": {"pids": {"limit": 33}}}}, cgroup=False).up()
    line = next(line for line in oci.read(f"/proc/{box.pid()}/cgroup").splitlines() if oci.V2 or ":pids:" in line)
    base = oci.CGROUP if oci.V2 else f"{oci.CGROUP}/pids"
    assert oci.read(f"{base}{line.split(':')[2]}/pids.max").strip() == "33"


def test_an_existing_cgroup_is_kept(world):
    """runtime.md#delete: resources that the container did not create MUST NOT be deleted: the cgroup above its own."""
    base = oci.CGROUP if oci.V2 else f"{oci.CGROUP}/pids"
    os.mkdir(f"{base}/{world.tag}-parent")
    box = world.container(["sleep", "600"], {"linux": {"cgroupsPath": f"/{world.tag}-parent/child"}}).up()
    box.stop().delete().ok()
    assert os.path.isdir(f"{base}/{world.tag}-parent") and not os.path.exists(f"{base}/{world.tag}-parent/child")


def test_the_container_sees_its_cgroup(world):
    """config.md#mounts: a mount of the type cgroup shows the container its own cgroups, read-only where it says so."""
    box = world.container("cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; echo 1 > /sys/fs/cgroup/pids/pids.max || echo refused",
                          {"linux": {"resources": {"pids": {"limit": 66}}}}).namespace("cgroup")
    box.mount("/sys/fs/cgroup", "cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "ro"])
    out = box.run().ok().out
    assert "66" in out.split() and "refused" in out


@pytest.mark.parametrize("name, patch, controller, files", [
    ("memory", {"memory": {"limit": 48 * MiB}}, "memory", {"v1": ("memory.limit_in_bytes", str(48 * MiB)), "v2": ("memory.max", str(48 * MiB))}),
    ("pids", {"pids": {"limit": 99}}, "pids", {"v1": ("pids.max", "99"), "v2": ("pids.max", "99")}),
    ("cpu", {"cpu": {"shares": 256}}, "cpu", {"v1": ("cpu.shares", "256"), "v2": ("cpu.weight", "10")}),
    ("cpuset", {"cpu": {"cpus": "0"}}, "cpuset", {"v1": ("cpuset.cpus", "0"), "v2": ("cpuset.cpus", "0")}),
], ids=["memory", "pids", "cpu", "cpuset"])
def test_update(world, name, patch, controller, files):
    """config-linux.md#control-groups: update --resources, which the runtimes share, takes the same object for a running container."""
    box = world.sleeper()
    path = world.file("resources", json.dumps(patch))
    box.cli("update", "--resources", path, box.id).ok()
    file, text = files["v2" if oci.V2 else "v1"]
    assert oci.read(f"{box.cgroup(controller)}/{file}").strip() == text


def test_pause_and_resume(world):
    """config-linux.md#control-groups: pause freezes all processes of the cgroup and resume thaws them."""
    box = world.container("while :; do echo x; sleep 0.02; done").up()
    oci.wait_for("the first word", lambda: box.said())
    box.cli("pause", box.id).ok()
    assert box.status() == "paused"
    before = box.said()
    time.sleep(0.3)
    assert box.said() == before
    box.cli("resume", box.id).ok()
    assert box.status() == "running"
    oci.wait_for("another word", lambda: len(box.said()) > len(before))

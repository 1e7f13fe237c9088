"""The game days: each with its fault, what detects it, and the runbook whose blocks are run."""

import json
import os

from world import CGROUPS, PLACE, ROOT, STATE, Failed, Skip, eventually, run, say

ALL = {}


def game_day(cls):
    ALL[cls.name] = cls()
    return cls


class GameDay:
    """A condition of a runbook. `alert` fires by `samples`: sample of a metric -> its value, or "grows"."""

    alert, samples = None, {}

    def prepare(self, worker):
        """The worker before the fault: checked once, as by the timer."""
        run("rustbox", "health", "--check")

    def fault(self, worker):
        """Brings the condition about; returns the log line that tells of it, where one does."""

    def finish(self, worker):
        """What the game day itself has to end after the runbook."""


@game_day
class Healthy(GameDay):
    name, book = "healthy", "README.md"
    what = "a healthy worker with a container on it"

    def fault(self, worker):
        worker.up("box", ["sleep", "600"])

    def finish(self, worker):
        run("rustbox", "delete", "--force", "box")


class HeldMount(GameDay):
    """A mount of a hook's below the root file system, which another process holds: it cannot be unmounted."""

    pid_namespace = True

    def hold(self, worker):
        data = f"{PLACE}/box/rootfs/data"
        hooks = {"createRuntime": f"mount -t tmpfs tmpfs {data}", "poststop": f"umount {data}"}
        worker.up("box", ["sleep", "600"], hooks=hooks)
        # In the runtime's mount namespace, as an operator's forgotten shell is.
        worker.spawn("sleep", "600", cwd=data)
        worker.stop("box")

    def fail(self):
        log = run("rustbox", "delete", "box", status=1).stderr
        if "not proved: mount `tmpfs` on" not in log:
            raise Failed(f"the delete says {log!r}")
        return log.strip().splitlines()[-1]


@game_day
class Unmount(HeldMount):
    name, book = "unmount", "cleanup-failure.md"
    what = "an unmount that fails: a process holds the mount"
    alert, samples = "RustboxCleanupFailure", {"rustbox_consecutive_cleanup_failures": 1}

    def fault(self, worker):
        self.hold(worker)
        return self.fail()


@game_day
class Quarantine(HeldMount):
    name, book = "quarantine", "worker-quarantine.md"
    what = "three failed cleanups in a row, to quarantine and back"
    alert, samples = "RustboxWorkerQuarantined", {'rustbox_worker_health{status="quarantined"}': 1}

    def fault(self, worker):
        self.hold(worker)
        self.fail()
        self.fail()
        self.fail()
        return run("rustbox", "run", "--code", "true", status=4).stderr


@game_day
class Operator(GameDay):
    name, book = "operator", "worker-quarantine.md"
    what = "an operator takes a worker out of service and puts it back"


@game_day
class Orphan(GameDay):
    name, book = "orphan", "orphan-process.md"
    what = "a process that was moved out of its container's cgroups"
    alert, samples = "RustboxOrphanProcess", {"rustbox_orphan_processes_total": "grows"}

    def fault(self, worker):
        if json.loads(run("rustbox", "health", "--json").stdout)["backends"]["orphans"] == "none":
            raise Skip("this kernel numbers no mount namespaces (Linux 6.11): it cannot tell whose an orphan is")
        worker.up("box", ["sh", "-c", "sleep 600 & exec sleep 600"], pid_namespace=False)
        init = worker.pid("box")
        children = f"/proc/{init}/task/{init}/children"
        orphan = eventually(lambda: open(children).read().split(), "the container's second process")[0]
        for hierarchy in os.listdir(CGROUPS):
            try:
                with open(f"{CGROUPS}/{hierarchy}/cgroup.procs", "w") as file:
                    file.write(orphan)
            except OSError:
                pass  # not a hierarchy
        worker.stop("box")
        log = run("rustbox", "delete", "box", status=1).stderr
        if f"orphan process {orphan} `sleep`" not in log:
            raise Failed(f"the delete says {log!r}")
        return log


@game_day
class OrphanByHand(Orphan):
    name = "orphan-by-hand"
    what = "the same, recovered by hand"


@game_day
class DiskFull(GameDay):
    name, book = "disk-full", "worker-quarantine.md"
    what = "a full disk below the state directory, a small tmpfs"
    alert, samples = "RustboxWorkerQuarantined", {'rustbox_worker_health{status="quarantined"}': 1}

    def prepare(self, worker):
        os.makedirs(STATE)
        run("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", STATE)
        super().prepare(worker)
        run("rustbox", "run", "--code", "true")

    def fault(self, worker):
        with open(f"{STATE}/core.4711", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                say("fault", error)
        # As the timer does.
        run("rustbox", "health", "--check", status=2)
        return run("rustbox", "run", "--code", "true", status=4).stderr


@game_day
class Backend(GameDay):
    name, book = "backend", "backend-mismatch.md"
    what = "a cgroup back end that is gone, and runs that go without it"
    alert, samples = "RustboxBackendMismatch", {"rustbox_backend_changes": 1}

    def fault(self, worker):
        if not os.path.ismount(f"{CGROUPS}/pids"):
            raise Skip("the pids controller is in the one v2 hierarchy, which cannot be unmounted alone")
        # This mount namespace's own; the machine keeps its.
        run("umount", f"{CGROUPS}/pids")
        return run("rustbox", "run", "--code", "true", status=4).stderr


@game_day
class Permissive(Backend):
    name = "permissive"
    what = "the same, and somebody runs degraded"
    alert, samples = "RustboxControlDegraded", {'rustbox_control_degraded_total{control="pids"}': "grows"}

    def fault(self, worker):
        log = super().fault(worker)
        run("rustbox", "run", "--permissive", "--code", "true")
        return log


@game_day
class Supervisor(GameDay):
    name, book = "supervisor", "stale-state.md"
    what = "a supervisor that was killed in the middle of a run"
    alert = "RustboxStaleState"

    def fault(self, worker):
        supervisor = worker.spawn("rustbox", "run", "--wall-time", "60", "--code", "while :; do sleep 1; done", "judged")
        eventually(lambda: os.path.exists(f"{ROOT}/judged/init") and os.path.getsize(f"{ROOT}/judged/init"), "the run")
        supervisor.kill()
        supervisor.wait()

    @property
    def samples(self):
        left = json.loads(run("rustbox", "health", "--verify-clean", "--json", status=1).stdout)["leftovers"]
        return {"rustbox_stale_objects": len(left)}


@game_day
class SupervisorByHand(Supervisor):
    name = "supervisor-by-hand"
    what = "the same, recovered by hand"


@game_day
class OtherBoot(Supervisor):
    name = "other-boot"
    what = "state and locks from another boot, on a root directory that outlives one"

    def fault(self, worker):
        worker.up("box", ["sleep", "600"])
        worker.stop("box")
        file = f"{ROOT}/box/state.json"
        record = json.load(open(file))
        record["boot_id"] = "00000000-0000-0000-0000-000000000000"
        json.dump(record, open(file, "w"))
        # A half-made container, whose maker held its lock, and a lease of ids.
        os.makedirs(f"{ROOT}/.new-4194303-17")
        os.makedirs(f"{ROOT}/.ids", exist_ok=True)
        os.symlink("judged 4194303 17", f"{ROOT}/.ids/7")


@game_day
class Unreadable(Supervisor):
    name = "unreadable"
    what = "a container whose record cannot be read"

    def fault(self, worker):
        worker.up("box", ["sleep", "600"])
        with open(f"{ROOT}/box/state.json", "w") as file:
            file.write("{")

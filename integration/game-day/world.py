"""One game day's world: a worker at /run/rustbox and /var/lib/rustbox that nobody else sees, and the steps of a game day."""

import json
import os
import re
import subprocess
import time
import traceback

import blocks

INSIDE = "--inside"
SKIPPED = 77
HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.join(HERE, "../..")
CGROUPS = "/sys/fs/cgroup"
ROOT, STATE, PLACE = "/run/rustbox", "/var/lib/rustbox", "/run/game-day"


class Failed(Exception):
    """Something is not as the runbook says."""


class Skip(Exception):
    """Why this machine cannot have the fault."""


def say(what, text):
    for line in str(text).rstrip().splitlines() or [""]:
        print(f"  {what:<10}{line}", flush=True)
        what = ""


def run(*argv, status=0, **options):
    """A command to its end; `status` is what it must end with, or None."""
    # Files, because a container may keep a pipe open.
    with open(f"{PLACE}/out", "w+") as out, open(f"{PLACE}/err", "w+") as err:
        done = subprocess.run([str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=60, **options)
        out.seek(0)
        err.seek(0)
        done.stdout, done.stderr = out.read(), err.read()
    if status is not None and done.returncode != status:
        raise Failed(f"`{' '.join(map(str, argv))}` ended with {done.returncode} instead of {status}: {done.stdout}{done.stderr}")
    return done


def eventually(question, what, seconds=15):
    end = time.monotonic() + seconds
    while not (answer := question()):
        if time.monotonic() > end:
            raise Failed(f"not within {seconds} s: {what}")
        time.sleep(0.02)
    return answer


def metrics():
    """Every sample of the worker's metrics."""
    samples = {}
    for line in run("rustbox", "metrics").stdout.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            samples[name] = float(value)
    return samples


def alerts():
    """The alerts that there are, with the runbook of each."""
    with open(os.path.join(TOP, "integration/prometheus/alerts.yml")) as file:
        text = file.read()
    found = {}
    for part in text.split("- alert: ")[1:]:
        book = re.search(r"runbook: runbooks/(\S+)", part)
        found[part.split()[0]] = (part, book and book[1])
    return found


class Worker:
    """The worker of a game day, and the containers that are put on it."""

    def __init__(self, name):
        self.name = name
        self.tag = f"rustbox-game-day-{os.environ['RUSTBOX_GAME_DAY']}"
        self.children = []

    def bundle(self, name, args, pid_namespace=True, hooks=None):
        """A bundle of busybox."""
        bundle = f"{PLACE}/{name}"
        os.makedirs(f"{bundle}/rootfs/bin")
        for directory in ("proc", "dev", "sys", "data", "tmp"):
            os.makedirs(f"{bundle}/rootfs/{directory}")
        run("cp", "/bin/busybox", f"{bundle}/rootfs/bin/busybox")
        for link in ("sh", "sleep", "true"):
            os.symlink("busybox", f"{bundle}/rootfs/bin/{link}")
        run("rustbox", "spec", cwd=bundle)
        with open(f"{bundle}/config.json") as file:
            config = json.load(file)
        config["process"].update(terminal=False, args=args)
        config["linux"]["cgroupsPath"] = f"/{self.tag}/{name}"
        if not pid_namespace:
            config["linux"]["namespaces"] = [it for it in config["linux"]["namespaces"] if it["type"] != "pid"]
        if hooks:
            shell = lambda script: [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}]
            config["hooks"] = {kind: shell(script) for kind, script in hooks.items()}
        with open(f"{bundle}/config.json", "w") as file:
            json.dump(config, file)
        return bundle

    def up(self, name, *rest, **options):
        bundle = self.bundle(name, *rest, **options)
        run("rustbox", "create", "--bundle", bundle, name)
        run("rustbox", "start", name)
        return bundle

    def pid(self, name):
        return json.loads(run("rustbox", "state", name).stdout)["pid"]

    def stop(self, name):
        run("rustbox", "kill", name, "KILL")
        eventually(lambda: json.loads(run("rustbox", "state", name).stdout)["status"] == "stopped", f"{name} to stop")

    def spawn(self, *argv, **options):
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
        self.children.append(child)
        return child

    def end(self):
        """Ends what the game day itself has started."""
        for child in self.children:
            child.kill()
            child.wait()

    def cgroups(self):
        found = []
        for hierarchy in os.listdir(CGROUPS):
            for directory, _, _ in os.walk(f"{CGROUPS}/{hierarchy}/{self.tag}", topdown=False):
                found.append(directory)
        return found


def fires(alert, book, before, now, expectations):
    """That the alert is there, names this runbook, asks for these metrics, and that they say what it waits for."""
    there = alerts()
    if alert not in there:
        raise Failed(f"integration/prometheus/alerts.yml has no alert {alert}")
    text, names = there[alert]
    if names != book:
        raise Failed(f"the alert {alert} names the runbook {names}, not {book}")
    for sample, wanted in expectations.items():
        metric = sample.partition("{")[0]
        if metric not in text and "rustbox:" not in text:
            raise Failed(f"the alert {alert} does not ask for {metric}")
        was, value = before.get(sample, 0), now.get(sample)
        good = value is not None and (value > was if wanted == "grows" else value == wanted)
        if not good:
            raise Failed(f"{sample} is {value}, and was {was}; the alert {alert} waits for {wanted}")
        say("detected", f"alert {alert}: {sample} {was:g} -> {value:g}")


def step(block):
    """Runs one block as an operator would."""
    done = run("bash", "-euo", "pipefail", "-c", block.text, status=None)
    first = next((line for line in block.text.splitlines() if line and not line.startswith("#")), "")
    say("ran", f"{block.key} ({done.returncode}) {first}")
    if done.returncode != block.exit:
        raise Failed(f"{block.key} ended with {done.returncode} instead of {block.exit}:\n{done.stdout}{done.stderr}")
    print(f"{blocks.RAN}{block.key}", flush=True)


def proof(worker):
    """That the worker is healthy, and nothing is left."""
    run("rustbox", "health", "--check")
    run("rustbox", "health", "--verify-clean")
    if (value := metrics().get('rustbox_worker_health{status="healthy"}')) != 1:
        raise Failed(f'rustbox_worker_health{{status="healthy"}} is {value}')
    containers = run("rustbox", "list", "--quiet").stdout.split()
    mounts = [line.split()[4] for line in open("/proc/self/mountinfo")]
    mounts = [place for place in mounts if place.startswith((f"{ROOT}/", f"{PLACE}/"))]
    processes = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid() and alive(pid)]
    cgroups = [place for place in worker.cgroups() if not place.endswith(worker.tag)]
    left = [f"containers {containers}"] * bool(containers) + [f"mounts {mounts}"] * bool(mounts)
    left += [f"processes {processes}"] * bool(processes) + [f"cgroups {cgroups}"] * bool(cgroups)
    if left:
        raise Failed(f"left behind: {'; '.join(left)}")
    say("proof", "health 0, every canary passed; no container, process, cgroup or mount is left")


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def inside(scenario):
    """A game day, as process 1 of its own namespaces."""
    print(f"\n== {scenario.name}: {scenario.what} (runbooks/{scenario.book})", flush=True)
    for place in ("/run", "/var/lib"):
        run_quietly("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", place)
    os.makedirs(PLACE)
    binary = os.path.abspath(os.environ["RUSTBOX_BIN"])
    os.makedirs(f"{PLACE}/programs")
    os.symlink(binary, f"{PLACE}/programs/rustbox")
    for name in [name for name in os.environ if name.startswith("RUSTBOX_") and name != "RUSTBOX_GAME_DAY"]:
        del os.environ[name]
    os.environ["PATH"] = f"{PLACE}/programs:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    worker = Worker(scenario.name)
    try:
        book = blocks.load(os.path.join(TOP, "runbooks"))[scenario.book]
        mine = [block for block in book if scenario.name in block.conditions]
        if not mine:
            raise Failed(f"runbooks/{scenario.book} has no block for {scenario.name}")
        scenario.prepare(worker)
        before = metrics()
        log = scenario.fault(worker)
        if log:
            say("log", log)
        if scenario.alert:
            fires(scenario.alert, scenario.book, before, metrics(), scenario.samples)
        for block in mine:
            step(block)
        scenario.finish(worker)
        worker.end()
        proof(worker)
        return 0
    except Skip as reason:
        say("skipped", reason)
        return SKIPPED
    except Exception as error:
        say("FAIL", error if isinstance(error, Failed) else traceback.format_exc())
        return 1
    finally:
        worker.end()
        clear(worker)


def run_quietly(*argv):
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def clear(worker):
    """Kills whatever is still in this pid namespace, and removes its cgroups."""
    for pid in os.listdir("/proc"):
        if pid.isdigit() and int(pid) != os.getpid():
            try:
                os.kill(int(pid), 9)
            except OSError:
                pass
    end = time.monotonic() + 5
    while (left := worker.cgroups()) and time.monotonic() < end:
        for place in left:
            try:
                os.rmdir(place)
            except OSError:
                time.sleep(0.01)

"""podman with storage, configuration and state of its own."""

import os
import re

from engine import Failed, command, eventually


class Podman:
    """One podman with its own storage, for one user and one runtime (`--runtime` is for others)."""

    def __init__(self, work, image, name, runtime, uid=0):
        self.uid = uid
        self.runtime = runtime
        self.work = f"{work}/{name}-{uid}"
        os.makedirs(self.work)
        self.run = f"/run/podman-{name}-{uid}"  # podman takes no runroot of more than 50 characters
        os.makedirs(self.run, mode=0o700)
        config = f"{self.work}/containers.conf"
        with open(config, "w") as file:
            file.write(
                "[containers]\n"
                "default_ulimits = []\n"  # podman's own are above what a root without CAP_SYS_RESOURCE may set
                "[engine]\n"
                'cgroup_manager = "cgroupfs"\n'
                'events_logger = "file"\n'
                f'runtime = "{name}"\n'
                'runtime_supports_json = ["rustbox", "runc"]\n'
                "[engine.runtimes]\n"
                f'{name} = ["{runtime}"]\n'
                "[network]\n"
                f'network_config_dir = "{self.work}/net.d"\n'
            )
        environment = {
            "CONTAINERS_CONF": config,
            "HOME": self.work,
            "XDG_RUNTIME_DIR": self.run,
            "PATH": os.environ["PATH"],
            "TERM": "xterm",
        }
        self.prefix = ["env", "-i", *[f"{key}={value}" for key, value in environment.items()]]
        if uid:
            command(["chown", "-R", f"{uid}:{uid}", self.work, self.run])
            self.prefix = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *self.prefix]
        # As options, not as a storage.conf: podman hands them on to the cleanup process that conmon starts.
        self.options = ["--root", f"{self.work}/storage", "--runroot", f"{self.run}/storage", "--tmpdir", f"{self.run}/libpod"]
        self.environment = self.prefix
        self.prefix = [*self.prefix, "podman", *self.options]
        self("import", "--change", "ENV PATH=/bin", "--change", 'CMD ["sh"]', image, "busybox")
        self.count = 0

    def argv(self, *words):
        return [*self.prefix, *[str(word) for word in words]]

    def __call__(self, *words, **options):
        return command(self.argv(*words), cwd=self.work, **options)

    def sh(self, script, *options, network="none", **more):
        """The output of a shell script in a new container."""
        return self("run", "--rm", "--network", network, *options, "busybox", "sh", "-c", script, **more).out.strip()

    def start(self, *words, options=()):
        """Starts a container in the background and returns its name."""
        self.count += 1
        name = f"c{self.count}"
        self("run", "-d", "--name", name, "--network", "none", *options, "busybox", *(words or ("sleep", "600")))
        return name

    def inspect(self, name, template):
        return self("inspect", "--format", template, name).out.strip()

    def pid(self, name):
        return int(self.inspect(name, "{{.State.Pid}}"))

    def remove(self, *names):
        # podman 4.3.1 unmounts a container's /dev/shm either in `rm` or in the cleanup that conmon starts; where these meet,
        # in 3 of 40 tries with runc as well, `rm` fails once and has forgotten the container then.
        done = self("rm", "--force", "--time", "0", *names, status=None)
        words = [line for line in done.err.splitlines() if line.strip() and not line.startswith("Error: removing container")]
        if done.status and not (words and all("userdata/shm: device or resource busy" in line for line in words)):
            raise Failed(f"{done} instead of 0")
        left = set(names) & set(self("ps", "--all", "--format", "{{.Names}}").out.split())
        if left:
            raise Failed(f"podman rm: {left} are still there")

    def logs(self, name, pattern):
        eventually(lambda: re.search(pattern, self("logs", name).out), f"{name} logs {pattern}")

"""containerd with root, state, socket and networks of its own, called by ctr."""

import json
import os

from engine import Daemon, Failed, command

NAMESPACE = "rustbox-engine"  # ctr makes it the cgroups' parent
IMAGE = "docker.io/library/busybox:latest"

CONFIG = """\
version = 2
root = "{work}/root"
state = "/run/containerd"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{work}/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "{name}"
"""

# One for each runtime.
HANDLER = """\
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}.options]
      BinaryName = "{runtime}"
"""

NETWORK = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "rbpods0",
            "isGateway": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.78.0.0/24"}]]},
        }
    ],
}


class Containerd:
    """One containerd with its own root and state, for one runtime; `handlers`: names and paths of others for CRI."""

    def __init__(self, work, image, name, runtime, handlers=None):
        self.name, self.runtime = name, runtime
        self.work = f"{work}/{name}"
        self.socket = f"/run/{name}.sock"
        os.makedirs(f"{self.work}/net.d")
        with open(f"{self.work}/net.d/10-pods.conflist", "w") as file:
            json.dump(NETWORK, file)
        with open(f"{self.work}/config.toml", "w") as file:
            file.write(CONFIG.format(work=self.work, socket=self.socket, image=IMAGE, name=name))
            for handler, path in {**(handlers or {}), name: runtime}.items():
                file.write(HANDLER.format(name=handler, runtime=path))
        self.daemon = Daemon(
            ["containerd", "--config", f"{self.work}/config.toml"],
            f"{self.work}/log",
            lambda: os.path.exists(self.socket) and command([*self.argv("version")], status=None).status == 0,
        )
        for namespace in (NAMESPACE, "k8s.io"):
            command(["ctr", "--address", self.socket, "--namespace", namespace, "images", "import", image])
        self.count = 0

    def argv(self, *words):
        return ["ctr", "--address", self.socket, "--namespace", NAMESPACE, *[str(word) for word in words]]

    def __call__(self, *words, **options):
        return command(self.argv(*words), **options)

    def new(self):
        self.count += 1
        return f"c{self.count}"

    def run_argv(self, options, script, name=None, runtime=None):
        return ["run", "--runc-binary", runtime or self.runtime, *options, IMAGE, name or self.new(), *(["sh", "-c", script] if isinstance(script, str) else script)]

    def sh(self, script, *options, **more):
        return self(*self.run_argv(["--rm", *options], script), **more).out.strip()

    def start(self, *options, script="exec sleep 600"):
        name = self.new()
        self(*self.run_argv(["--detach", "--null-io", *options], script, name))
        return name

    def pid(self, name):
        for line in self("tasks", "list").out.splitlines()[1:]:
            fields = line.split()
            if fields[0] == name:
                return int(fields[1])
        raise Failed(f"{name} is not listed")

    def exec(self, name, *words, **options):
        self.count += 1
        return self("tasks", "exec", "--exec-id", f"e{self.count}", name, *words, **options)

    def end(self, name):
        self("tasks", "delete", "--force", name, status=None)
        self("containers", "delete", name)

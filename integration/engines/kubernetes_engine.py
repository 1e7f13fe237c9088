"""A cluster of one node with everything private: etcd, API server, controllers, kubelet and containerd."""

import base64
import json
import os
import time
import urllib.request

from containerd_engine import IMAGE, Containerd
from engine import Daemon, Failed, command, eventually

NODE = "node"
ADDRESS = "10.80.0.1"
TOKEN = "of-the-test"
PARENT = "rustbox-kubernetes"  # the cgroup of all pods

KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "cgroupDriver": "cgroupfs",
    "cgroupRoot": f"/{PARENT}",
    # No cgroups above the pods', no packet filter, and no score of its own: what a machine of CI does not let it have.
    "cgroupsPerQOS": False,
    "enforceNodeAllocatable": [],
    "makeIPTablesUtilChains": False,
    "oomScoreAdj": 0,
    "failSwapOn": False,
    "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
    "imageGCHighThresholdPercent": 100,
    "resolvConf": "",
    "registryPullQPS": 0,
    "syncFrequency": "1s",
    "allowedUnsafeSysctls": ["net.core.somaxconn"],
}


# What a kubelet sets for the whole machine.
SETTINGS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes")


class Kubernetes:
    """`runtimes`: name → path; each is a RuntimeClass of that name."""

    def __init__(self, work, image, runtimes, programs):
        self.work = f"{work}/cluster"
        self.programs = programs
        self.daemons = []
        self.environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": self.work}
        self.settings = {name: setting(name) for name in SETTINGS}
        os.makedirs(self.work)
        # The kubelet and what writes for it have fixed places.
        for place in ("/var/log", "/var/lib"):
            os.makedirs(f"{self.work}/cover{place}")
            command(["mount", "--bind", f"{self.work}/cover{place}", place])
        command(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"])
        self.config = self.write("kubeconfig", {
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": f"https://{ADDRESS}:6443", "insecure-skip-tls-verify": True}}],
            "users": [{"name": "it", "user": {"token": TOKEN}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        })
        names = list(runtimes)
        try:
            self.containerd = Containerd(self.work, image, names[0], runtimes[names[0]], runtimes)
            self.daemons.append(self.containerd.daemon)
            self.start_control()
            self.start_kubelet()
        except BaseException:
            self.stop()
            raise
        for name in runtimes:
            kind = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": name}
            self.apply(kind)

    def write(self, name, document):
        with open(f"{self.work}/{name}", "w") as file:
            json.dump(document, file)  # which is YAML too
        return f"{self.work}/{name}"

    def daemon(self, name, *words, ready):
        program = f"{self.programs}/{name}"
        argv = [program if os.path.exists(program) else name, *words]
        try:
            daemon = Daemon(argv, f"{self.work}/{name}.log", ready, seconds=90, env=self.environment, cwd=self.work)
        except Failed as failed:
            raise Failed(f"{name}: {failed}") from None
        self.daemons.append(daemon)

    def start_control(self):
        etcd = ["http://127.0.0.1:2379", "http://127.0.0.1:2380"]
        self.daemon("etcd", "--data-dir", "/run/etcd", "--listen-client-urls", etcd[0], "--advertise-client-urls", etcd[0],
                    "--listen-peer-urls", etcd[1], "--initial-advertise-peer-urls", etcd[1], "--initial-cluster", f"default={etcd[1]}",
                    ready=lambda: answers(f"{etcd[0]}/health"))
        command(["openssl", "genrsa", "-out", f"{self.work}/accounts.key", "2048"])
        with open(f"{self.work}/tokens.csv", "w") as file:
            file.write(f"{TOKEN},it,1,system:masters\n")
        self.daemon("kube-apiserver", "--etcd-servers", etcd[0], "--bind-address", ADDRESS, "--advertise-address", ADDRESS, "--secure-port", "6443",
                    "--cert-dir", f"{self.work}/certificates", "--service-cluster-ip-range", "10.81.0.0/24",
                    "--service-account-issuer", "https://rustbox.invalid", "--service-account-key-file", f"{self.work}/accounts.key",
                    "--service-account-signing-key-file", f"{self.work}/accounts.key", "--token-auth-file", f"{self.work}/tokens.csv",
                    "--authorization-mode", "AlwaysAllow", "--allow-privileged", "--disable-admission-plugins", "ServiceAccount",
                    "--kubelet-preferred-address-types", "InternalIP", "--endpoint-reconciler-type", "none",
                    ready=lambda: self("get", "--raw", "/readyz", status=None).out == "ok")
        eventually(lambda: self("get", "namespace", "default", status=None).status == 0, "the namespace is there", 60)
        self.daemon("kube-controller-manager", "--kubeconfig", self.config, "--controllers", "job,garbagecollector,podgc", "--leader-elect=false",
                    "--cert-dir", f"{self.work}/certificates", "--concurrent-gc-syncs", "2", ready=lambda: True)

    def start_kubelet(self):
        self.daemon("kubelet", "--config", self.write("kubelet.yaml", KUBELET), "--kubeconfig", self.config, "--hostname-override", NODE,
                    "--node-ip", ADDRESS, "--root-dir", f"{self.work}/kubelet", "--cert-dir", f"{self.work}/certificates",
                    "--container-runtime", "remote", "--container-runtime-endpoint", f"unix://{self.containerd.socket}",
                    ready=lambda: "True" in self("get", "node", NODE, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}", status=None).out)

    def stop(self):
        for daemon in reversed(self.daemons):
            daemon.stop()
        for name, value in self.settings.items():
            if setting(name) != value:
                with open(f"/proc/sys/{name}", "w") as file:
                    file.write(value)

    def __call__(self, *words, **options):
        return command(self.argv(*words), env=self.environment, **options)

    def argv(self, *words):
        return [f"{self.programs}/kubectl", "--kubeconfig", self.config, "--cache-dir", f"{self.work}/cache", *[str(word) for word in words]]

    # --- objects ---

    def apply(self, *documents):
        self("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}))

    def get(self, kind, name):
        return json.loads(self("get", kind, name, "-o", "json").out)

    def phase(self, name):
        return self("get", "pod", name, "-o", "jsonpath={.status.phase}").out

    def wait(self, name, *phases, seconds=60):
        return eventually(lambda: (lambda it: it if it in phases else None)(self.phase(name)), f"{name} is {' or '.join(phases)}", seconds)

    def ready(self, name, seconds=60):
        show = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
        eventually(lambda: self("get", "pod", name, "-o", show).out == "True", f"{name} is ready", seconds)

    def status(self, name, index=0):
        return self.get("pod", name)["status"]["containerStatuses"][index]

    def pid(self, name, index=0):
        """The host's pid of a container's first process."""
        ident = self.status(name, index)["containerID"].split("://")[1]
        for line in command(["ctr", "--address", self.containerd.socket, "--namespace", "k8s.io", "tasks", "list"]).out.splitlines():
            if line.startswith(ident):
                return int(line.split()[1])
        raise Failed(f"no task of {name}")

    def delete(self, *names, grace=0, kind="pod", seconds=60):
        self("delete", kind, *names, f"--grace-period={grace}", "--wait=true", f"--timeout={seconds}s", *(["--force"] if grace == 0 and kind == "pod" else []), timeout=seconds + 5)


def setting(name):
    with open(f"/proc/sys/{name}") as file:
        return file.read()


def pod(name, runtime, script, restart="Never", spec=None, **container):
    """A pod of one container with a shell script; `container` and `spec` add to these."""
    main = {"name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script] if isinstance(script, str) else script, **container}
    body = {"runtimeClassName": runtime, "nodeName": NODE, "restartPolicy": restart, "terminationGracePeriodSeconds": 1,
            "enableServiceLinks": False, "containers": [main], **(spec or {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}


def secret(name, **values):
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError:
        return False


def seconds_of(function):
    begin = time.monotonic()
    function()
    return time.monotonic() - begin

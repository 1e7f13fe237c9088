"""schema/: the published schemas and sample documents, for config.json, state and features."""

import glob
import json
import os

import oci
import pytest
import schema


def features(world):
    out = world.command([world.runtime.path, "features"])
    if out.code != 0:
        pytest.skip("the runtime has no features command, which features.md does not demand")
    return out.json()


def test_our_configuration_is_valid():
    """config-schema.json: what these tests give to the runtimes is itself a valid configuration."""
    schema.check("config", oci.default_config())


def test_what_spec_writes_is_valid(world):
    """config-schema.json: the configuration that the runtime's own spec command writes MUST be valid."""
    world.cli("spec", cwd=world.folder("spec")).ok()
    schema.check("config", json.loads(oci.read(world.path("spec/config.json"))))


def test_what_spec_writes_runs(world):
    """config.md: the configuration that the runtime's own spec command writes is one that it runs."""
    box = world.container()
    box.cli("spec", cwd=box.bundle).ok()
    box.config = json.loads(oci.read(f"{box.bundle}/config.json"))
    box.patch({"process": {"terminal": False, "args": ["echo", "fine"], "env": ["PATH=/bin"]}, "linux": {"cgroupsPath": f"/{box.id}"}})
    assert box.run().ok().line == "fine"


@pytest.mark.parametrize("name", ["minimal-for-start.json", "minimal.json", "linux-netdevice.json", "linux-rdma.json"])
def test_a_good_sample(world, name):
    """config-schema.json: a sample that the specification calls good is not refused for its form.

    Kept: the sample is published with the specification, and minimal.json has no process, which create does not need.
    """
    sample = schema.sample(f"config/good/{name}")
    box = world.container(rootfs=False)
    oci.make_rootfs(f"{box.bundle}/{sample['root']['path']}")
    for part in ("netDevices", "resources"):
        sample.get("linux", {}).pop(part, None)  # a device that this host lacks
    sample["ociVersion"] = "1.0.2"
    box.config = sample
    box.config.setdefault("linux", {})["cgroupsPath"] = f"/{box.id}"
    if "namespaces" not in box.config["linux"]:
        box.config["linux"]["namespaces"] = [{"type": "mount"}, {"type": "pid"}]
    if "process" in sample:
        sample["process"]["args"] = ["true"]
    box.create().ok()


@pytest.mark.parametrize("name", ["invalid-json.json", "linux-hugepage.json", "linux-netdevice.json", "linux-rdma.json"])
def test_a_bad_sample(world, name):
    """config-schema.json: a sample that the specification calls bad MUST be refused.

    Kept: the sample is published with the specification as one that no validator may accept.
    """
    box = world.container()
    text = oci.read(f"{schema.folder()}/test/config/bad/{name}")
    try:
        sample = json.loads(text)
        sample["ociVersion"] = "1.0.2"
        sample["root"] = {"path": "rootfs"}
        sample["process"] = box.config["process"]
        sample.setdefault("linux", {}).update(cgroupsPath=f"/{box.id}", namespaces=[{"type": "mount"}, {"type": "pid"}, {"type": "network"}])
        text = json.dumps(sample)
    except ValueError:
        pass
    with open(f"{box.bundle}/config.json", "w") as file:
        file.write(text)
    box.create_again().fails()


def test_features_is_valid(world):
    """features-schema.json: what features prints MUST have the published form."""
    schema.check("features", features(world))


def test_the_samples_of_features():
    """features-schema.json: the validator that the tests use tells the good samples from the bad."""
    for path in glob.glob(f"{schema.folder()}/test/features/good/*.json"):
        schema.check("features", schema.sample(f"features/good/{os.path.basename(path)}"))
    with pytest.raises(AssertionError):
        schema.check("features", schema.sample("features/bad/missing-ociVersionMax.json"))


@pytest.mark.parametrize("name", ["ociVersionMin", "ociVersionMax"])
def test_features_versions(world, name):
    """features.md#specification-version: ociVersionMin and ociVersionMax are REQUIRED, the first not above the second."""
    found = features(world)
    number = lambda text: [int(part) for part in text.split("-")[0].split(".")]
    assert found[name] and number(found["ociVersionMin"]) <= number(found["ociVersionMax"])


def test_features_hooks(world):
    """features.md#hooks: hooks names the points that the runtime calls; the six of the specification are tested here."""
    assert set(features(world)["hooks"]) >= {"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}


def test_features_mount_options(world):
    """features.md#mount-options: each option named MUST be recognised: as the tests of mount options do."""
    assert {"ro", "rw", "bind", "rbind", "nosuid", "noexec", "nodev", "rprivate", "rslave", "remount"} <= set(features(world)["mountOptions"])


@pytest.mark.parametrize("name", ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"])
def test_features_namespaces(world, name):
    """features-linux.md#namespaces: each type named MUST be recognised."""
    assert name in features(world)["linux"]["namespaces"]


def test_features_capabilities(world):
    """features-linux.md#capabilities: each name MUST be recognised; all that the kernel knows are there."""
    names = features(world)["linux"]["capabilities"]
    assert len(names) >= 38 and all(name.startswith("CAP_") for name in names)


def test_features_cgroup(world):
    """features-linux.md#cgroup: what it says of cgroup versions covers this host's."""
    assert features(world)["linux"]["cgroup"]["v2" if oci.V2 else "v1"] is True


def test_features_seccomp(world):
    """features-linux.md#seccomp: each action and operator named MUST be recognised; those tested here are there."""
    found = features(world)["linux"]["seccomp"]
    assert found["enabled"] and {"SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY"} <= set(found["actions"]) and len(found["operators"]) == 7


def test_features_of_an_option_is_kept(world):
    """features.md#mount-options: an option that features names is one that a mount takes."""
    known = set(features(world)["mountOptions"])
    for name in sorted(known & {"nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow", "relatime", "strictatime", "lazytime", "sync"}):
        world.container().mount("/mnt", options=[name]).run().ok()

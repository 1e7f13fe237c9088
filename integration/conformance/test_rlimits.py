"""config.md#posix-process: rlimits."""

import resource

import pytest

# name: its words in /proc/PID/limits, a soft and a hard limit below what a host gives
LIMITS = {
    "RLIMIT_AS": ("Max address space", 1 << 30, 1 << 31),
    "RLIMIT_CORE": ("Max core file size", 0, 4096),
    "RLIMIT_CPU": ("Max cpu time", 100, 200),
    "RLIMIT_DATA": ("Max data size", 1 << 28, 1 << 29),
    "RLIMIT_FSIZE": ("Max file size", 1 << 20, 1 << 21),
    "RLIMIT_LOCKS": ("Max file locks", 10, 20),
    "RLIMIT_MEMLOCK": ("Max locked memory", 4096, 8192),
    "RLIMIT_MSGQUEUE": ("Max msgqueue size", 1024, 2048),
    "RLIMIT_NICE": ("Max nice priority", 0, 0),
    "RLIMIT_NOFILE": ("Max open files", 100, 200),
    "RLIMIT_NPROC": ("Max processes", 1000, 2000),
    "RLIMIT_RSS": ("Max resident set", 1 << 28, 1 << 29),
    "RLIMIT_RTPRIO": ("Max realtime priority", 0, 0),
    "RLIMIT_RTTIME": ("Max realtime timeout", 1000, 2000),
    "RLIMIT_SIGPENDING": ("Max pending signals", 100, 200),
    "RLIMIT_STACK": ("Max stack size", 1 << 20, 1 << 22),
}


def limit(text, words):
    line = next(line for line in text.splitlines() if line.startswith(words))
    return line.removeprefix(words).split()[:2]


@pytest.mark.parametrize("name", LIMITS)
def test_soft_and_hard(world, name):
    """config.md#posix-process: rlim_cur and rlim_max of the process MUST be soft and hard."""
    words, soft, hard = LIMITS[name]
    text = world.output(["cat", "/proc/self/limits"], {"process": {"rlimits": [{"type": name, "soft": soft, "hard": hard}]}})
    assert limit(text, words) == [str(soft), str(hard)]


def test_it_is_enforced(world):
    """config.md#posix-process: soft is the limit enforced."""
    patch = {"process": {"rlimits": [{"type": "RLIMIT_FSIZE", "soft": 4096, "hard": 4096}]}}
    out = world.container("trap '' XFSZ; dd if=/dev/zero of=/tmp/f bs=1024 count=8 2>/dev/null; stat -c %s /tmp/f", patch).run()
    assert out.line == "4096"


def test_unlimited(world):
    """config.md#posix-process: the largest number means no limit."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    if hard != resource.RLIM_INFINITY:
        pytest.skip("the host's own hard limit of RLIMIT_CPU is finite")
    patch = {"process": {"rlimits": [{"type": "RLIMIT_CPU", "soft": (1 << 64) - 1, "hard": (1 << 64) - 1}]}}
    assert limit(world.output(["cat", "/proc/self/limits"], patch), "Max cpu time") == ["unlimited", "unlimited"]


def test_several(world):
    """config.md#posix-process: each entry counts."""
    entries = [{"type": name, "soft": LIMITS[name][1], "hard": LIMITS[name][2]} for name in ("RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_STACK")]
    text = world.output(["cat", "/proc/self/limits"], {"process": {"rlimits": entries}})
    for entry in entries:
        assert limit(text, LIMITS[entry["type"]][0]) == [str(entry["soft"]), str(entry["hard"])]


@pytest.mark.parametrize("name", ["RLIMIT_NOSUCH", "NOFILE", "rlimit_nofile", ""], ids=["unknown", "short", "lower", "empty"])
def test_an_unknown_type_is_an_error(world, name):
    """config.md#posix-process: a type that maps to no interface of the kernel MUST be an error."""
    world.container(patch={"process": {"rlimits": [{"type": name, "soft": 1, "hard": 1}]}}).run().fails()


def test_a_type_given_twice_is_an_error(world):
    """config.md#posix-process: duplicated entries of one type MUST be an error.

    Kept: the words are a MUST; runc and crun let the last one count.
    """
    entry = {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}
    world.container(patch={"process": {"rlimits": [entry, entry]}}).run().fails()


def test_soft_above_hard_is_an_error(world):
    """config.md#posix-process: hard is the ceiling of soft, so a soft limit above it cannot be given."""
    world.container(patch={"process": {"rlimits": [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]}}).run().fails()


@pytest.mark.parametrize("name", ["type", "soft", "hard"])
def test_its_members_are_required(world, name):
    """config.md#posix-process: type, soft and hard are REQUIRED.

    Kept: the members are REQUIRED; runc and crun read an absent one as 0, which is a limit that no one asked for.
    """
    entry = {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}
    del entry[name]
    if name == "soft":
        entry["hard"] = 1
    world.container(patch={"process": {"rlimits": [entry]}}).run().fails()


def test_absent_limits_are_the_callers(world):
    """config.md#posix-process: without an entry the limit of the caller is left as it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    text = world.output(["cat", "/proc/self/limits"])
    expected = ["unlimited" if value == resource.RLIM_INFINITY else str(value) for value in (soft, hard)]
    assert limit(text, "Max file size") == expected

"""
Runs the tests against the runtime that RUNTIME names (a name on PATH, `rustbox`, or a path), each in a world of its own,
and writes what came of each to the file that CONFORMANCE_RESULTS names.

The docstring of a test is its claim: `document.md#anchor: what the specification asks`, then, where the runtimes known to us
disagree with it, a paragraph that begins with "Kept:" and says why the test stays. The mark `deviation(reason)` is for a
sentence that runtimes break on purpose: the test runs, and its failure counts as skipped.
"""

import inspect
import itertools
import json
import os
import re

import pytest

import oci

results = {}
numbers = itertools.count()


def pytest_configure(config):
    if os.geteuid() != 0:
        pytest.exit("the conformance suite makes containers, mounts and cgroups: it needs root", returncode=2)
    config.addinivalue_line("markers", "deviation(reason): a sentence that runtimes break on purpose")
    oci.reap()
    runtime = oci.Runtime(os.environ.get("RUNTIME", "rustbox"))
    oci.isolate(without_unified=runtime.name == "crun" and not oci.V2)  # crun refuses hybrid mode
    os.umask(0o022)
    config.runtime = runtime


def pytest_collection_modifyitems(items):
    for item in items:
        claim = inspect.getdoc(item.function) or ""
        if not re.match(r"[a-z-]+\.(md|json)(#\S+)?: ", claim):
            pytest.exit(f"{item.nodeid}: its docstring does not begin with the anchor of its claim", returncode=2)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    claim, _, kept = (inspect.getdoc(item.function) or "").partition("\n\nKept: ")
    entry = results.setdefault(item.nodeid.split("/")[-1], {
        "section": item.path.stem.removeprefix("test_"), "claim": " ".join(claim.split()), "kept": " ".join(kept.split()),
        "outcome": "passed", "reason": ""})
    deviation = item.get_closest_marker("deviation")
    if report.failed and report.when == "call" and deviation:
        entry.update(outcome="skipped", reason=f"deviation: {deviation.args[0]}")
        report.outcome, report.wasxfail = "skipped", deviation.args[0]
    elif report.skipped:
        entry.update(outcome="skipped", reason=report.longrepr[2].removeprefix("Skipped: "))
    elif report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        entry.update(outcome="failed", reason=crash.message if crash else str(report.longrepr))


def pytest_sessionfinish():
    oci.remove_tools()
    path = os.environ.get("CONFORMANCE_RESULTS")
    if path:
        with open(path, "w") as file:
            json.dump(results, file)


@pytest.fixture(scope="session")
def runtime(request):
    return request.config.runtime


@pytest.fixture
def world(runtime):
    """A directory, a state root and ids of the test's own; everything is gone when it ends."""
    world = oci.World(runtime, f"conf{os.getpid()}x{next(numbers)}")
    yield world
    world.close()


@pytest.fixture
def box(world):
    """A container whose program ends at once, to be edited."""
    return world.container()

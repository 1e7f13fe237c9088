"""The two suites: which tests they have, how one test is run, and what came of it."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CAP = 40  # seconds for one test
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Runc:
    """runc's: tests/integration/*.bats."""

    name = "runc"

    def __init__(self, source):
        self.directory = f"{source}/runc/tests/integration"

    def tests(self):
        for file in sorted(os.listdir(self.directory)):
            if file.endswith(".bats"):
                with open(f"{self.directory}/{file}") as text:
                    for name in re.findall(r'^@test "(.*)" \{$', text.read(), re.MULTILINE):
                        yield f"{file.removesuffix('.bats')}: {name}"

    def furnish(self, place):
        """What a test finds in its directory: nothing."""

    def command(self, test, runtime):
        file, _, name = test.partition(": ")
        name = re.sub(r'\\(["$`\\])', r"\1", name)  # as the shell reads it between quotes
        pattern = "^" + re.sub(r"[^\w ]", r"[\g<0>]", name) + "$"
        return ["bats", "--tap", "--filter", pattern, f"{self.directory}/{file}.bats"], {"RUNC": runtime.path}


class Crun:
    """crun's: tests/test_*.py."""

    name = "crun"

    def __init__(self, source):
        self.directory = f"{source}/crun/tests"
        self.init = f"{os.path.dirname(source)}/init"

    def tests(self):
        for file in sorted(os.listdir(self.directory)):
            if re.fullmatch(r"test_\w+\.py", file):
                with open(f"{self.directory}/{file}") as text:
                    for name in re.findall(r'^\s*"([^"]+)"\s*:\s*test_', text.read(), re.MULTILINE):
                        yield f"{file.removeprefix('test_').removesuffix('.py')}: {name}"

    def furnish(self, place):
        """What a test finds in its directory: the program for containers, as where crun is built."""
        os.mkdir(f"{place}/tests")
        os.symlink(self.init, f"{place}/tests/init")

    def command(self, test, runtime):
        file, _, name = test.partition(": ")
        wrapped = f"{HERE}/as-crun" if runtime.name == "runc" else runtime.path
        environment = {"OCI_RUNTIME": wrapped, "PEERS_RUNTIME": runtime.path, "INIT": self.init, "RUN_TESTS": name,
                       "PYTHONPATH": f"{HERE}/modules", "PYTHONDONTWRITEBYTECODE": "1"}
        return ["/usr/bin/python3", f"{self.directory}/test_{file}.py"], environment


def run(suite, test, runtime, directory, criu=None):
    """
    The outcome of one test (`pass`, `fail` or `skip`), and its output. It runs as process 1 of a pid namespace, so that nothing
    of it survives, on a terminal, with a standard input that stays open, and finds the given CRIU.
    """
    argv, environment = suite.command(test, runtime)
    with tempfile.TemporaryDirectory(dir=directory) as place:
        os.chmod(place, 0o755)  # tests in user namespaces walk through it
        path = f"{os.path.dirname(criu)}:{PATH}" if criu else PATH
        environment |= {"PATH": path, "HOME": place, "TMPDIR": place, "LANG": "C.UTF-8", "TERM": "xterm"}
        suite.furnish(place)
        # The shell stays as process 1 and buries what processes leave behind. Pids look like those of a machine that has been
        # up for a while: a test wants five digits.
        inner = f"echo 20000 >/proc/sys/kernel/ns_last_pid; script -qefc {shlex.quote(shlex.join(argv))} /dev/null; exit $?"
        outer = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "bash", "-c", inner]
        with open(f"{place}/output", "w+", errors="replace") as output:
            process = subprocess.Popen(outer, cwd=place, env=environment, stdin=subprocess.PIPE, stdout=output,
                                       stderr=subprocess.STDOUT, start_new_session=True)
            try:
                process.wait(CAP)
                late = ""
            except subprocess.TimeoutExpired:
                late = f"\nended after {CAP} s\n"
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            process.stdin.close()
            output.seek(0)
            text = output.read().replace("\r", "") + late
    if not late and re.search(r"^ok \d+ .*# ?skip", text, re.MULTILINE | re.IGNORECASE):
        return "skip", text
    if not late and re.search(r"^ok \d+ ", text, re.MULTILINE) and not re.search(r"^not ok ", text, re.MULTILINE):
        return "pass", text
    return "fail", text

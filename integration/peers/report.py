"""What is printed and written of the results: a row per test, the totals, and a line for every failure of the judged one."""

import collections

OUTCOMES = ("pass", "fail", "skip")


def line(cells, widths, right=()):
    cells = [cell.rjust(width) if i in right else cell.ljust(width) for i, (cell, width) in enumerate(zip(cells, widths))]
    return "| " + " | ".join(cells) + " |"


def table(head, body, right=()):
    body = [[cell.replace("|", "\\|") for cell in row] for row in body]
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    rule = ["-" * (width + 1) + (":" if i in right else "-") for i, width in enumerate(widths)]
    return [line(head, widths, right), "|" + "|".join(rule) + "|", *(line(row, widths, right) for row in body)]


def rows(results):
    first = next(iter(results.values()))
    body = [[suite, name, *(outcomes[suite, name][0] for outcomes in results.values())] for suite, name in first]
    return table(["suite", "test", *results], body)


def totals(results):
    first = next(iter(results.values()))
    body = []
    for suite in dict.fromkeys(suite for suite, _ in first):
        for name, outcomes in results.items():
            count = collections.Counter(outcome for (of, _), (outcome, _) in outcomes.items() if of == suite)
            body.append([f"{suite}'s", name, *(str(count[outcome]) for outcome in OUTCOMES)])
    return table(["suite", "runtime", *OUTCOMES], body, right=(2, 3, 4))


def document(runtimes, results, reasons):
    """The published table: what of it is the machine's, and what a runtime's, the reasons say."""
    judged, *peers = results
    lines = ["# The peers' own tests", "",
             "Written by `make conformance-peers-docs`. The integration tests of runc and crun, as Debian's source packages have",
             "them, run against rustbox, runc and crun: each test by itself in mount, pid and cgroup namespaces of its own, on a",
             "terminal. Nothing of them is part of this repository; how they are run is in `integration/peers`. `skip` is the",
             "test's own word: it asks for another machine (cgroup v2, systemd, a caller that is not root).", ""]
    lines += [f"- {runtime.name}: {runtime.version()}" for runtime in runtimes]
    lines += ["", "## Totals", "", *totals(results), "", f"## What {judged} fails, and why", ""]
    failed = [key for key, (outcome, _) in results[judged].items() if outcome == "fail"]
    for suite, name in failed:
        others = [peer for peer in peers if results[peer][suite, name][0] == "fail"]
        beside = f" ({' and '.join(others)} too)" if others else ""
        lines.append(f"- {suite}'s `{name}`{beside}: {reasons.get((suite, name), '?')}")
    lines += [] if failed else ["Nothing."]
    lines += ["", "## Tests", "", *rows(results)]
    return "\n".join(lines) + "\n"

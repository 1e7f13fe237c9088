"""What a suite has found, kept as JSON until `report` prints all of it."""

import json
import os
import pathlib
import subprocess
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent


def describe():
    words = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip() or "unknown"


# As it is when a suite begins.
COMMIT = describe()


def keep(path, suite, seconds, failed, counts, tables):
    """counts: what is counted → how many. tables: (title, heads, rows)."""
    file = pathlib.Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({
        "suite": suite, "commit": COMMIT, "date": time.strftime("%Y-%m-%d", time.gmtime()), "seconds": round(seconds),
        "kernel": os.uname().release, "processors": os.cpu_count(), "failed": failed, "counts": counts, "tables": tables,
    }))

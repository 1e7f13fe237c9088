"""The command blocks of the runbooks."""

import os
import re
import shlex
from dataclasses import dataclass

RAN = "RAN "
OUTPUT = {"text", "json"}


@dataclass
class Block:
    """A fenced block of commands, and under which conditions it is run with which outcome."""

    book: str
    line: int
    text: str
    conditions: list
    exit: int
    not_run: str
    mistake: str

    @property
    def key(self):
        return f"{self.book}:{self.line}"


def load(directory):
    """Every command block of every runbook, by file name, in order."""
    books = {}
    for name in sorted(os.listdir(directory)):
        if name.endswith(".md"):
            with open(os.path.join(directory, name)) as file:
                books[name] = list(read(name, file.read()))
    return books


def read(book, text):
    fence, info, lines, begun = None, "", [], 0
    for number, line in enumerate(text.splitlines(), 1):
        found = re.match(r"^(```+)(.*)$", line)
        if fence is None and found:
            fence, info, lines, begun = found[1], found[2].strip(), [], number
        elif fence is not None and line.strip() == fence:
            if info not in OUTPUT:
                yield block(book, begun, info, "\n".join(lines))
            fence = None
        elif fence is not None:
            lines.append(line)


def block(book, line, info, text):
    language, *words = shlex.split(info) or [""]
    pairs = dict(word.partition("=")[::2] for word in words)
    unknown = set(pairs) - {"condition", "exit", "not-run"}
    mistake = ""
    if language != "sh":
        mistake = f"is of language {language!r}: commands are sh, output is text or json"
    elif unknown:
        mistake = f"has unknown words: {' '.join(sorted(unknown))}"
    elif ("condition" in pairs) == ("not-run" in pairs):
        mistake = "must have a condition, or a reason for not being run"
    return Block(
        book=book,
        line=line,
        text=text,
        conditions=[name for name in pairs.get("condition", "").split(",") if name],
        exit=int(pairs.get("exit", 0)),
        not_run=pairs.get("not-run", ""),
        mistake=mistake,
    )


def mistakes(books, known):
    """What is wrong with the blocks themselves."""
    wrong = []
    for block in (block for book in books.values() for block in book):
        if block.mistake:
            wrong.append(f"{block.key} {block.mistake}")
        wrong += [f"{block.key} is for {name}, which is no game day" for name in block.conditions if name not in known]
    return wrong

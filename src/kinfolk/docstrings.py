"""The sections of a NumPy docstring."""

from __future__ import annotations

import itertools
import re


def sections(text: str) -> dict[str, list[str]]:
    """The lines of a NumPy docstring by section; those before the first section by ""."""
    found: dict[str, list[str]] = {"": []}
    lines = text.splitlines()
    current = ""
    for line, following in itertools.zip_longest(lines, lines[1:], fillvalue=""):
        if line and set(following.strip()) == {"-"}:
            current = line.strip()
            found[current] = []
        elif set(line.strip()) != {"-"}:
            found[current].append(line.rstrip())
    return found


def definitions(lines: list[str]) -> dict[str, str]:
    """Descriptions by name, from lines such as ``width : int`` or ``a, b`` with indented lines under them."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if line and not line.startswith(" "):
            names = [name.strip() for name in line.partition(":")[0].split(",")]
        for name in names if line.startswith(" ") else ():
            found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return found


def first_reference(found: dict[str, list[str]]) -> str:
    """The first reference among the sections, without its mark; "" where there is none."""
    lines = itertools.takewhile(bool, found.get("References", []))
    text = " ".join(line.strip() for line in lines).split(" .. [")[0]
    return re.sub(r"^\.\. \[\w+\] ", "", text)

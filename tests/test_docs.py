"""What README and docs tell a user to do: Python is run, commands are checked against the command line itself."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from kinfolk import signatures
from kinfolk.catalogue import STUDIES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[Any]:
    """The code blocks of all pages in a language, each a parameter that names its page and line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            if match[1] == language:
                line = text.count("\n", 0, match.start()) + 2
                # Empty lines before the code make a traceback name the line of the page.
                found.append(pytest.param("\n" * (line - 1) + match[2], page, id=f"{page.relative_to(ROOT)}:{line}"))
    return found


def commands(program: str) -> list[Any]:
    """Every shell command of all pages that starts a program, as the arguments after its name."""
    found = []
    for block in blocks("bash"):
        for line in str(block.values[0]).replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and Path(words[0]).name == program:
                found.append(pytest.param(words[1:], id=f"{block.id}: {' '.join(words)[:60]}"))
    return found


@pytest.mark.parametrize(("code", "page"), blocks("python"))
def test_python_runs(code: str, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(page), "exec"), {"__name__": "__docs__"})


@pytest.mark.parametrize("words", commands("kinfolk"))
def test_commands_exist(words: list[str]) -> None:
    """Subcommand, options and values are accepted by the command line's own parser; nothing is run."""
    cli = pytest.importorskip("kinfolk.cli")
    typer_main = pytest.importorskip("typer.main")
    group = typer_main.get_command(cli.app)
    name, *arguments = words
    assert name in group.commands, f"kinfolk {name}: there are {', '.join(group.commands)}"
    given = group.commands[name].make_context(name, arguments).params
    if name == "study":
        options = signatures.parameters(STUDIES.get(given["name"].replace("-", "_")))
        assert {text.partition("=")[0] for text in given["options"] or ()} <= set(options)


@pytest.mark.parametrize("words", commands("make"))
def test_targets_exist(words: list[str]) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert words[0] in targets


def test_there_is_something_to_check() -> None:
    assert len(blocks("python")) >= 4
    assert {word.values[0][0] for word in commands("kinfolk")} >= {"fit", "predict", "report"}
    assert {word.values[0][0] for word in commands("make")} == {"demo", "test"}


def test_links_of_the_readme_lead_somewhere() -> None:
    """Links between pages of the documentation are checked by ``mkdocs build --strict``."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing
    assert "docs/index.md" in links


def test_options_in_the_text_exist() -> None:
    """``--option`` in running text is an option of some command (or one of another program, named here)."""
    cli = pytest.importorskip("kinfolk.cli")
    group = pytest.importorskip("typer.main").get_command(cli.app)
    known = {flag for command in group.commands.values() for option in command.params for flag in option.opts}
    for page in PAGES:
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        for option in re.findall(r"`(--[a-z-]+)", text):
            assert option in known, f"{page.relative_to(ROOT)}: {option}"

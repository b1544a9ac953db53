"""`kinfolk list`: the methods and studies there are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from kinfolk.catalogue import Method


def list_methods(
    name: Annotated[
        str | None,
        typer.Argument(help="trunks, sharing, balancing, studies ..., or one method or study; default: all."),
    ] = None,
) -> None:
    """List the methods there are, as they are written in an arm, and the studies."""
    from kinfolk.catalogue import CATALOGUES, STUDIES
    from kinfolk.exceptions import unknown
    from kinfolk.screen import console_of_output

    console = console_of_output()
    if name is None or name in CATALOGUES or name == STUDIES.title:
        for title in [*CATALOGUES, STUDIES.title] if name is None else [name]:
            _catalogue(console, title)
        return
    every = [method for one in (STUDIES, *CATALOGUES.values()) for method in one.describe()]
    wanted = [method for method in every if name in (method.name, _shown(method))]
    if not wanted:
        raise unknown("catalogue, study or method", name, [*CATALOGUES, STUDIES.title, *map(_shown, every)])
    for method in wanted:
        _detail(console, method)


def _shown(method: Method) -> str:
    """A method as it is written; a study as its command is called."""
    return method.name.replace("_", "-") if method.catalogue == "studies" else method.name


def _catalogue(console: Console, title: str) -> None:
    from rich.text import Text

    from kinfolk.catalogue import CATALOGUES, STUDIES

    studies = title == STUDIES.title
    methods = (STUDIES if studies else CATALOGUES[title]).describe()
    if methods:
        console.print(Text(title, "bold"))
    for method in methods:
        _print(console, _shown(method) if studies else method.signature, "cyan", 2)
        _print(console, STUDIES.get(method.name).title if studies else method.summary, "", 6)
        _print(console, STUDIES.get(method.name).paper if studies else method.reference, "dim", 6)


def _detail(console: Console, method: Method) -> None:
    """What there is to know about one: options, and how it is called."""
    from kinfolk.catalogue import STUDIES

    study = method.catalogue == STUDIES.title
    _print(console, f"{_shown(method)} ({'study' if study else method.catalogue})", "bold", 0)
    for text in (method.summary, STUDIES.get(method.name).paper if study else method.reference):
        _print(console, text, "", 2)
    if study:
        _print(console, f"kinfolk study {_shown(method)} [--quick] [--set OPTION=VALUE]", "cyan", 2)
    for parameter in method.parameters:
        default = "" if parameter.default is None else f"={parameter.default}"
        _print(console, f"{parameter.name}{default}", "cyan", 2)
        _print(console, parameter.description, "", 6)


def _print(console: Console, text: str, style: str, left: int) -> None:
    from rich.padding import Padding
    from rich.text import Text

    told = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text).replace("`", "")  # marks of docstrings
    if told:
        console.print(Padding(Text(told, style), (0, 0, 0, left), expand=False))

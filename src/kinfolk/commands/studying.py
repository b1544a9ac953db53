"""`kinfolk study`: a published experiment, run again."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kinfolk.exceptions import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from kinfolk.studies.base import Study
    from kinfolk.studies.results import Result
    from kinfolk.workers import Workers


def study(
    name: Annotated[str, typer.Argument(help="As `kinfolk list studies` names it.", show_default=False)],
    quick: Annotated[bool, typer.Option("--quick", help="The same on little: does everything run?")] = False,
    seeds: Annotated[int | None, typer.Option(help="How many. Default: the study's own number.")] = None,
    workers: Annotated[
        str | None, typer.Option(help="Trials at the same time, or 'ray'. Default: one per core.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for everything that is written. Default: runs/study-NAME.")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="OPTION=VALUE: what the paper leaves open, otherwise.", metavar="OPTION=VALUE"),
    ] = None,
) -> None:
    """Rerun a published experiment, and set its numbers beside the published ones."""
    made = _make(name, options or [])
    if seeds is not None and seeds < 1:
        raise InputError(f"--seeds must be at least 1. Got {seeds}.")
    place = out or Path("runs") / f"study-{_dashed(name)}{'-quick' if quick else ''}"
    processes = _workers(workers)
    _show(_run(made, place, seeds=seeds, quick=quick, processes=processes, resume=resume))


def _make(name: str, given: list[str]) -> Study:
    """The study of this name with these options."""
    from kinfolk import signatures
    from kinfolk.catalogue import STUDIES, Term
    from kinfolk.exceptions import unknown

    names = {_dashed(known): known for known in STUDIES.names()}
    if _dashed(name) not in names:
        raise unknown("study", name, names)
    known = names[_dashed(name)]
    method = STUDIES.get(known)
    open_ = list(signatures.parameters(method))
    arguments: dict[str, Any] = {}
    for text in given:
        option, sign, value = text.partition("=")
        option = option.strip().replace("-", "_")
        if not sign:
            raise InputError(f"--set must be OPTION=VALUE. Got '{text}'.{_options(name, open_)}")
        if option not in open_:
            raise InputError(f"{unknown('option', option, open_)}{_options(name, open_)}")
        if option in arguments:
            raise InputError(f"--set gives '{option}' twice.")
        arguments[option] = _value(value, signatures.is_text(method, option))
    return STUDIES.make(Term(known, tuple(arguments.items())))


def _value(given: str, is_text: bool) -> Any:
    """A literal or a bare word; for an option that is a text whatever stands there, such as a path."""
    from kinfolk.terms import read

    literal = given.strip() == "None" or given.strip()[:1] in ("'", '"')
    return given if is_text and not literal else read(given)


def _options(name: str, known: list[str]) -> str:
    return f" Options of {name}: {', '.join(known)}." if known else f" {name} has no options."


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _workers(given: str | None) -> Workers:
    from kinfolk.workers import available_cores

    if given is None:
        return available_cores()
    if given == "ray":
        return "ray"
    if not given.isdecimal() or int(given) < 1:
        raise InputError(f"--workers must be a number of at least 1, or 'ray'. Got '{given}'.")
    return int(given)


def _run(made: Study, out: Path, **how: Any) -> Result:
    """Runs it, with words before; meanwhile a bar, or a line for each trial where there is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from kinfolk.studies import running

    share, last = TextColumn("{task.percentage:>3.0f}%"), TextColumn("{task.description}", markup=False)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    bar = Progress(BarColumn(), share, TimeElapsedColumn(), last, console=console, transient=True)
    line = bar.add_task("", total=1.0)
    with ExitStack() as shown:

        def announce(text: str) -> None:
            console.print(f"{made.title}\n{text}")
            if console.is_terminal:
                shown.enter_context(bar)

        def progress(part: float, trial: str) -> None:
            bar.update(line, completed=part, description=trial[:60])
            if not console.is_terminal:
                console.print(f"{100 * part:3.0f}% {trial}")

        try:
            return running.run(made, out, announce=announce, progress=progress, **how)
        except KeyboardInterrupt:
            shown.close()
            kept = f"What is finished is kept in {out}: the same command goes on with --resume."
            typer.echo(f"Stopped. {kept if (out / 'config.json').exists() else 'Nothing was written.'}", err=True)
            raise typer.Exit(130) from None


def _show(result: Result) -> None:
    from kinfolk.screen import console_of_output, findings_table

    console: Console = console_of_output()
    console.print(findings_table(result.table(), console.width))
    for sentence in (result.summary(), *result.remarks):
        if sentence:
            console.print(f"\n{sentence}", markup=False, highlight=False)
    console.print(f"\nPage: {result.path / 'study.html'}", markup=False, highlight=False, soft_wrap=True)

"""The command line. Heavy parts are imported by the commands that use them."""

from __future__ import annotations

import os
import re
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from kinfolk.commands.listing import list_methods
from kinfolk.commands.studying import study
from kinfolk.exceptions import InputError
from kinfolk.screen import console_of_output, verdict_table

COLUMNS, TRIED, JUDGED, MACHINE = "Columns", "What is tried", "What judges", "The run"  # groups of options


class Commands(TyperGroup):
    """Ends with exit code 130 on Ctrl-C, wherever it comes."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("Stopped.", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Learn related tasks together, with evidence: does it help, which tasks, and how?",
)


def main() -> None:
    """Runs a command. A user's mistake is one line on stderr and exit code 2; Ctrl-C is exit code 130."""
    try:
        app()
    except InputError as error:
        typer.echo(f"kinfolk: {' '.join(str(error).split())}", err=True)  # names of columns may break lines
        sys.exit(2)


@app.command()
def fit(
    table: Annotated[Path, typer.Argument(help="CSV or Parquet file.", show_default=False)],
    target: Annotated[
        list[str], typer.Option(help="Column to learn, NAME or NAME:KIND.", show_default=False, rich_help_panel=COLUMNS)
    ],
    out: Annotated[Path, typer.Option(help="Folder for everything that is written.", rich_help_panel=MACHINE)] = Path(
        "runs/fit"
    ),
    auxiliary: Annotated[
        list[str] | None, typer.Option(help="Column that only helps training.", rich_help_panel=COLUMNS)
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Column to leave out.", rich_help_panel=COLUMNS)] = None,
    group: Annotated[
        str | None, typer.Option(help="Column whose rows of one value stay in one fold.", rich_help_panel=COLUMNS)
    ] = None,
    weight: Annotated[str | None, typer.Option(help="Column of row weights.", rich_help_panel=COLUMNS)] = None,
    test: Annotated[Path | None, typer.Option(help="File of test rows.", rich_help_panel=JUDGED)] = None,
    split: Annotated[str | None, typer.Option(help="Column that marks test rows.", rich_help_panel=JUDGED)] = None,
    unlabelled: Annotated[
        Path | None, typer.Option(help="File of rows without labels, that help training.", rich_help_panel=TRIED)
    ] = None,
    error: Annotated[
        list[str] | None, typer.Option(help="TASK=NAME: judge a target by another error.", rich_help_panel=JUDGED)
    ] = None,
    missing: Annotated[
        list[str] | None, typer.Option(help="Text that also means a missing cell.", rich_help_panel=COLUMNS)
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(help="Arm to compare instead of the default ones; '+TEXT' adds one.", rich_help_panel=TRIED),
    ] = None,
    splits: Annotated[
        str | None, typer.Option(help="Outer splits, REPEATSxFOLDS, as 3x5.", rich_help_panel=JUDGED)
    ] = None,
    inner: Annotated[int | None, typer.Option(help="Inner folds.", rich_help_panel=TRIED)] = None,
    settings: Annotated[
        int | None, typer.Option(help="Settings that each arm may choose from.", rich_help_panel=TRIED)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything.", rich_help_panel=MACHINE)] = 0,
    workers: Annotated[
        int | None, typer.Option(help="Arms fitted at the same time. Default: one per core.", rich_help_panel=MACHINE)
    ] = None,
    device: Annotated[str, typer.Option(help="Of networks: cpu, cuda, cuda:1 ...", rich_help_panel=MACHINE)] = "cpu",
    devices: Annotated[
        int | None,
        typer.Option(
            help="How many GPUs, or processes of a CPU, the workers share: one each, or several that train a network "
            "together where workers are fewer.",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Time, as 90s, 10m or 2h: the best answer by then.", rich_help_panel=MACHINE)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out.", rich_help_panel=MACHINE)
    ] = False,
    one_network: Annotated[
        bool, typer.Option("--one-network", help="Hand over a single network.", rich_help_panel=TRIED)
    ] = False,
) -> None:
    """Compare ways to learn several targets of a table, and hand over a model."""
    from kinfolk.fitted import Options

    repeats, folds = _splits(splits)
    devices = _devices(devices)
    add = tuple(text.removeprefix("+").strip() for text in arm or () if text.startswith("+"))
    replacing = tuple(text for text in arm or () if not text.startswith("+"))
    options = Options(replacing, add, repeats, folds, inner, settings, seed, device, one_network)
    _run(
        table=table, targets=target, auxiliary=auxiliary or (), ignore=ignore or (), group=group, weight=weight,
        split=split, test=test, unlabelled=unlabelled, errors=_errors(error), missing=missing or (),
        options=options, out=out, resume=resume, budget=_seconds(budget), devices=devices,
        processes=_processes(1 if workers is None and devices > 1 and device == "cpu" else workers),
    )  # fmt: skip


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that is written.")] = Path("runs/demo"),
    workers: Annotated[int | None, typer.Option(help="Processes. Default: one per core.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
) -> None:
    """Do the same on data that comes along: digits, as ten tasks with few labels. About a minute."""
    from kinfolk.datasets import digits
    from kinfolk.fitted import Options

    options = Options(repeats=1, folds=5, inner=2, settings=1)
    targets = [f"is_{i}" for i in range(10)]
    _run(
        table=digits(), targets=targets, errors=dict.fromkeys(targets, "brier"), options=options, out=out,
        resume=resume, processes=_processes(workers),
    )  # fmt: skip


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Model folder, as runs/NAME/model.", show_default=False)],
    table: Annotated[Path, typer.Argument(help="CSV or Parquet file.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="CSV or Parquet file to write; default: standard output.")] = None,
    proba: Annotated[bool, typer.Option("--proba", help="Class probabilities instead of classes.")] = False,
    missing: Annotated[list[str] | None, typer.Option(help="Text that also means a missing cell.")] = None,
) -> None:
    """Predict the targets for the rows of a table."""
    from kinfolk.data.tables import read
    from kinfolk.model import load

    predictions, notes = load(model).predict_with_notes(read(table, missing or ()), proba)
    for note in notes:
        typer.echo(f"Note: {note}", err=True)
    if out is None:
        typer.echo(predictions.to_csv(index=False), nl=False)
        return
    _write(predictions, out)
    typer.echo(f"{len(predictions)} rows written to {out}", err=True)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Model folder, as runs/NAME/model.", show_default=False)],
    onnx: Annotated[Path, typer.Option(help="File to write, with FILE.json beside it.", show_default=False)],
) -> None:
    """Export the networks of a model to ONNX: from encoded inputs to predictions."""
    from kinfolk.model import load

    load(model).export(onnx)
    typer.echo(f"{onnx} written, and checked in onnxruntime; {onnx}.json describes inputs and outputs", err=True)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run folder of a finished fit.", show_default=False)],
    error: Annotated[list[str] | None, typer.Option(help="TASK=NAME: judge a target by another error.")] = None,
) -> None:
    """Write verdict and report of a run again. Nothing is trained."""
    from kinfolk.conclusion import conclude

    _show(conclude(run, _errors(error)), run)


app.command()(study)
app.command("list")(list_methods)


def _run(**given: Any) -> None:
    """Fits with words before, a bar meanwhile and the verdict after."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from kinfolk.fitted import fit as kinfolk_fit

    columns = (BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    line = bar.add_task("fit", total=1.0)
    with ExitStack() as shown:

        def announce(lines: list[str]) -> None:
            bar.console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
            shown.enter_context(bar)  # not before: where it is no terminal, a bar ends in an empty line

        try:
            fitted = kinfolk_fit(**given, announce=announce, progress=lambda share: bar.update(line, completed=share))
        except KeyboardInterrupt:
            bar.stop()
            begun = (given["out"] / "plan.json").exists()
            kept = f"What is finished is kept in {given['out']}: the same command goes on with --resume."
            typer.echo(f"Stopped. {kept if begun else 'Nothing was written.'}", err=True)
            raise typer.Exit(130) from None
    _show(fitted.verdict, fitted.path)


def _show(verdict: Any, path: Path) -> None:
    console = console_of_output()
    console.print(verdict_table(verdict.rows(), console.width))
    console.print(f"\n{verdict.sentence()}\n", markup=False, highlight=False)
    for note in (*verdict.not_tried, *verdict.warnings):
        console.print(f"Note: {note}", markup=False, highlight=False)
    for what, name in (("Report:", "report.html"), ("Model: ", "model")):
        console.print(f"{what} {path / name}", markup=False, highlight=False, soft_wrap=True)


def _splits(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    found = re.fullmatch(r"(?:(\d+)[xX])?(\d+)", text.strip())
    if found is None:
        raise InputError(f"--splits must be REPEATSxFOLDS, as 3x5. Got '{text}'.")
    return int(found[1] or 1), int(found[2])


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|)", text.strip())
    if found is None or float(found[1]) <= 0:
        raise InputError(f"--budget must be a time, as 90s, 10m or 2h. Got '{text}'.")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def _errors(given: list[str] | None) -> dict[str, str]:
    pairs = [text.rpartition("=") for text in given or ()]
    for (name, _, error), text in zip(pairs, given or (), strict=True):
        if not name or not error:
            raise InputError(f"--error must be TASK=NAME, as price=mae. Got '{text}'.")
    return {name: error for name, _, error in pairs}


def _processes(given: int | None) -> int:
    from kinfolk.workers import available_cores

    if given is not None and given < 1:
        raise InputError(f"--workers must be at least 1. Got {given}.")
    return given or available_cores()


def _devices(given: int | None) -> int:
    """How many devices: what was asked for, or as many as torchrun has started processes."""
    if "RANK" not in os.environ or (world := int(os.environ.get("WORLD_SIZE", 1))) == 1:
        return 1 if given is None else given
    if int(os.environ.get("LOCAL_WORLD_SIZE", world)) != world:
        raise InputError(f"The devices must be those of one machine. torchrun started {world} processes on several.")
    if int(os.environ["RANK"]):
        raise typer.Exit  # the first one starts processes of its own, watches them, and writes
    return world if given is None else given


def _write(frame: Any, path: Path) -> None:
    """Writes a table whole or not at all."""
    from kinfolk.runs import Folder

    folder, name = Folder(path.parent), path.name
    if path.suffix in (".parquet", ".pq"):
        folder.write_frame(name, frame)
    else:
        folder.write_bytes(name, frame.to_csv(index=False).encode())

"""The figures of a report: which there are, and what each says to readers who do not see it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kinfolk import learned as quantities
from kinfolk import plots
from kinfolk.numerals import number, percent

if TYPE_CHECKING:
    import pandas

PANELS = 12  # how many tasks (or quantities) are drawn one by one; the tables hold all of them
ROWS = 30  # how many tasks one figure with a row per task holds, so that it fits on a printed page


def overviews(
    tasks: Mapping[str, Any], arms: Mapping[str, plots.Mark], splits: Mapping[str, Sequence[float]]
) -> Iterator[tuple[str, str]]:
    """Pairs of figures with a row per task: differences with intervals, and all arms."""
    names = [name for name, entry in tasks.items() if entry.get("single_task") and entry.get("hand_over") is not None]
    for start in range(0, len(names), ROWS):
        part = {name: tasks[name] for name in names[start : start + ROWS]}
        which = f"tasks {start + 1} to {start + len(part)}" if len(names) > ROWS else "all tasks"
        gains = [f"{name} {percent(plots.percent(e, 'difference')[0])}, {e['verdict']}" for name, e in part.items()]
        told = f"Difference of sharing to single-task with its interval, {which}: {'; '.join(gains)}."
        both = f"Error of every arm relative to single-task, {which}. The numbers are in the table."
        yield plots.svg(plots.differences(part, splits), told), plots.svg(plots.errors(part, arms, legend=False), both)


def predictions(
    tasks: Mapping[str, Mapping[str, Any]], predictions: pandas.DataFrame | None
) -> Iterator[tuple[str, str, str]]:
    """Task, what is drawn, and figure, for the first tasks: what the hand-over predicted for rows it had not seen."""
    if predictions is None or not len(predictions):
        return
    rows = predictions[predictions["arm"] == "hand-over"]
    places = rows.groupby("task", sort=False).indices
    for name, entry in list(tasks.items())[:PANELS]:
        if name in places:
            part = rows.iloc[places[name]]
            values = np.stack([np.asarray(value, float) for value in part["prediction"]])
            target, weight = (np.asarray(part[key], float) for key in ("target", "weight"))
            if entry["kind"] == "regression":
                figure, what = plots.predicted(target, values[:, 0]), "Predicted against true values"
            elif entry["kind"] == "ranking":
                figure, what = plots.lowest(target, values[:, 0], weight), "Mean label of rows with the lowest scores"
            elif entry["kind"] == "binary":
                figure, what = (
                    plots.calibration(target, values[:, 0], weight),
                    f"How often “{entry['classes'][1]}” came true",
                )
            else:
                figure, what = plots.confusion(target, values, entry["classes"]), "Which classes are taken for which"
            yield name, what, plots.svg(figure, f"{what}, task {name}.")


def curves(
    tasks: Mapping[str, Any], history: pandas.DataFrame | None, arms: Mapping[str, plots.Mark], value: str
) -> Iterator[tuple[str, str]]:
    """Task and figure, for the first tasks: the loss on the stopping rows, or the task's weight, against the update."""
    if history is None or not len(history):
        return
    known = history.loc[history["stop_loss"].notna() & history[value].notna()]
    places = known.groupby("task", sort=False).indices
    what = {"stop_loss": "Learning curves", "weight": "Task weight"}[value]
    for name in list(tasks)[:PANELS]:
        if name in places:
            figure = plots.learning(known.iloc[places[name]], arms, value, legend=False)
            yield name, plots.svg(figure, f"{what}, task {name}.")


@dataclass(frozen=True)
class Drawn:
    """A learned quantity of an arm: name, range in words, heat map, lines (or none).

    ``wide``: the heat map does not fit on a phone. ``parts``: its lines or columns are no tasks.
    """

    name: str
    note: str
    heat: str
    lines: str
    wide: bool
    parts: bool


def learned(
    tasks: Iterable[str], frame: pandas.DataFrame | None, history: pandas.DataFrame | None
) -> dict[str, tuple[int, list[Drawn]]]:
    """Of each arm, in its best setting: how many quantities it learned beside weights, and the first ones drawn."""
    if frame is None or not len(frame):
        return {}
    result, known = {}, frame.loc[np.isfinite(frame["value"])]
    for arm, part in quantities.best(known, history).items():
        places = part.groupby("quantity", sort=False).indices
        drawn = [_drawn(arm, str(name), part.iloc[at], {*tasks}) for name, at in list(places.items())[:PANELS]]
        result[arm] = len(places), drawn
    return result


def _drawn(arm: str, name: str, rows: pandas.DataFrame, tasks: set[str]) -> Drawn:
    table = quantities.final(rows)
    shown, what = quantities.shown(table), f"{name}, learned by {arm}"
    low, high = (number(float(end(table.to_numpy()))) for end in (np.nanmin, np.nanmax))
    note = f"{low} everywhere" if low == high else f"from {low} to {high}"
    values, few = f"{note}. All numbers are in learned.parquet", table.size <= quantities.FEW
    if few:
        cells = ((line, column, table.loc[line, column]) for line in table.index for column in table.columns)
        values = "; ".join(f"{line}, {column}: {number(value)}" for line, column, value in cells)
    heat = plots.svg(quantities.heat(shown), f"{what}, at the end: {values}.")
    lines = ""
    if few and len(rows["update"].unique()) > 1:
        lines = plots.svg(quantities.lines(rows), f"{what}, against the update. At the end: {values}.")
    if shown.shape != table.shape:
        note += f"; shown are the first {shown.shape[0]} x {shown.shape[1]} of {table.shape[0]} x {table.shape[1]}"
    wide = shown.shape[1] > quantities.ROOMY
    parts = any(len(side) > 1 and not tasks.issuperset(side) for side in (table.index, table.columns))
    return Drawn(name, note, heat, lines, wide, parts)

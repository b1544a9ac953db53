"""Every figure, once: plain frames and dicts in, a matplotlib figure out.

:func:`svg` turns a figure into text that can stand inside a page; how all of them look is in :mod:`kinfolk.drawing`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kinfolk.drawing import BLUE, GREY, HAND_OVER, INK, VERDICT_COLOURS, Mark, label, marks, style, svg, tinted

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import pandas

__all__ = ["Mark", "calibration", "confusion", "differences", "errors", "learning", "marks", "predicted", "svg"]


def _figure(width: float, height: float) -> tuple[matplotlib.figure.Figure, matplotlib.axes.Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _task_rows(names: Sequence[str], signs: tuple[str, str]) -> tuple[matplotlib.figure.Figure, matplotlib.axes.Axes]:
    """A figure with a row per task, the first on top, a line at zero and what its two sides mean."""
    height = 0.42 if len(names) <= 12 else 0.27
    figure, axes = _figure(4.2, 0.75 + height * max(len(names), 2))
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.hlines(range(len(names)), 0, 1, transform=axes.get_yaxis_transform(), color=INK, alpha=0.12, lw=0.5, zorder=0)
    axes.axvline(0, color=INK, lw=0.9, zorder=1)
    place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    for sign, side, x in zip(signs, ("right", "left"), (-5, 5), strict=True):
        axes.annotate(sign, (0, 1), (x, 4), **place, ha=side, va="bottom", fontweight="bold")
    axes.set_xlabel("lower error than single-task, % of its error")
    return figure, axes


def _limits(values: Sequence[float], centres: Sequence[float]) -> tuple[float, float]:
    """Axis limits around zero that a few very wide values cannot blow up: at least a third lies on either side."""
    known = np.array([value for value in values if math.isfinite(value)])
    if not len(known):
        return -1.0, 1.0
    most = max((abs(centre) for centre in centres if math.isfinite(centre)), default=0.0)
    bound = max(4 * float(np.median(np.abs(known))), 1.2 * most)
    kept = np.clip(known, -bound, bound)
    low, high = min(kept.min(), 0.0), max(kept.max(), 0.0)
    low, high = min(low, -high / 2), max(high, -low / 2)
    pad = 0.06 * (high - low) or 1.0
    return float(low - pad), float(high + pad)


def percent(entry: Mapping[str, Any], key: str) -> list[float]:
    """A difference or interval of a task of the verdict in percent of its single-task error (NaN where undefined)."""
    single, value = entry.get("single_task"), entry.get(key)
    parts = [math.nan, math.nan] if value is None else list(value) if isinstance(value, Sequence) else [value]
    return [math.nan if part is None or not single else 100 * float(part) / float(single) for part in parts]


@style()
def differences(
    tasks: Mapping[str, Mapping[str, Any]], splits: Mapping[str, Sequence[float]] | None = None
) -> matplotlib.figure.Figure:
    """Draw each task's difference to single-task learning with its interval, in percent of the single-task error.

    Parameters
    ----------
    tasks
        The tasks of a verdict, in the order of drawing: sharing in the verdict's colour, below it the hand-over.
    splits
        The differences of the single outer splits, in percent, drawn as small dots.
    """
    figure, axes = _task_rows(list(tasks), ("sharing worse", "sharing better"))
    keys = ("difference", "interval", "hand_over_difference", "hand_over_interval")
    found = [[percent(entry, key) for key in keys] for entry in tasks.values()]
    centres = [row[at][0] for row in found for at in (0, 2)]
    axes.set_xlim(*_limits([v for row in found for part in row for v in part], centres))
    for y, (name, row) in enumerate(zip(tasks, found, strict=True)):
        dots = np.asarray((splits or {}).get(name, ()), float)
        axes.plot(dots, np.full(len(dots), y - 0.36), ".", ms=3.5, color=INK, alpha=0.35, mew=0)
        colour = VERDICT_COLOURS.get(str(tasks[name].get("verdict")), GREY)
        _interval(axes, y - 0.12, row[0][0], row[1], Mark(colour, "o", "●"))
        _interval(axes, y + 0.2, row[2][0], row[3], HAND_OVER)
    return figure


def _interval(axes: matplotlib.axes.Axes, y: float, centre: float, ends: Sequence[float], mark: Mark) -> None:
    """A point with its interval; an arrow head where the interval leaves the axis."""
    if not math.isfinite(centre):
        return
    left, right = axes.get_xlim()
    width, size, fill = (1.0, 4, "none") if mark == HAND_OVER else (2.4, 6, mark.colour)
    axes.plot(np.clip(ends, left, right), [y, y], color=mark.colour, lw=width, solid_capstyle="butt")
    axes.plot(np.clip(centre, left, right), y, mark.marker, clip_on=False, ms=size, mfc=fill, color=mark.colour)
    for beyond, edge, head in ((ends[0] < left, left, "<"), (ends[1] > right, right, ">")):
        if beyond:
            axes.plot(edge, y, head, ms=4, color=mark.colour, clip_on=False)


def split_differences(comparison: pandas.DataFrame | None) -> dict[str, list[float]]:
    """Per task the difference of every outer split, in percent of the mean single-task error."""
    rows = comparison[comparison["role"] == "procedure"] if comparison is not None else None
    if rows is None or not {"single-task", "sharing"} <= set(rows["arm"]):
        return {}
    wide = rows.pivot_table(index=["task", "repeat", "fold"], columns="arm", values="error")
    mean = wide["single-task"].groupby(level="task").transform("mean")
    shown = (100 * (wide["single-task"] - wide["sharing"]) / mean).dropna()
    return {str(name): list(part) for name, part in shown.groupby(level="task") if len(part) > 1}


@style()
def errors(
    tasks: Mapping[str, Mapping[str, Any]], arms: Mapping[str, Mark], legend: bool = True
) -> matplotlib.figure.Figure:
    """Draw every arm's error of every task against the single-task error, in percent; to the right is better.

    Parameters
    ----------
    tasks
        The tasks of a verdict (``single_task``, ``arms``, ``opponents``, ``hand_over``), in the order of drawing.
    arms
        The mark of each arm, see :func:`marks`.
    legend
        Whether the figure explains its marks itself.
    """
    figure, axes = _task_rows(list(tasks), ("worse", "better"))
    found = [_against_single(entry, arms) for entry in tasks.values()]
    axes.set_xlim(*_limits([v for row in found for v in row.values()], [row.get("hand-over", 0.0) for row in found]))
    left, right = axes.get_xlim()
    named = set()
    for y, row in enumerate(found):
        for arm, value in row.items():
            mark = arms.get(arm, HAND_OVER)
            size, edge, fill = (8, 0.9, "none") if mark == HAND_OVER else (5, 0, mark.colour)
            shape = mark.marker if left <= value <= right else "<" if value < left else ">"
            (dot,) = axes.plot(np.clip(value, left, right), y + mark.lane, shape, color=mark.colour, clip_on=False)
            dot.set(markersize=size, markeredgewidth=edge, markerfacecolor=fill)
            dot.set_label("" if arm in named else label(arm, 60))
            named.add(arm)
    if legend and axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower left", ncols=1)
    return figure


def _against_single(entry: Mapping[str, Any], arms: Mapping[str, Mark]) -> dict[str, float]:
    values = {**(entry.get("arms") or {}), **(entry.get("opponents") or {})}
    values = {arm: values[arm] for arm in arms if arm in values} | {"hand-over": entry.get("hand_over")}
    shown = {arm: 100 - percent({**entry, "error": value}, "error")[0] for arm, value in values.items()}
    return {arm: value for arm, value in shown.items() if math.isfinite(value)}


@style()
def predicted(target: np.ndarray, prediction: np.ndarray, most: int = 2000) -> matplotlib.figure.Figure:
    """Draw predicted against true values of regression; of more than `most` rows an even sample by true value."""
    order = np.argsort(target, kind="stable")
    order = order[np.unique(np.linspace(0, len(order) - 1, min(most, len(order))).astype(int))]
    figure, axes = _figure(3.1, 2.9)
    x, y = target[order], prediction[order]
    dots = {"s": 30 if len(x) < 100 else 12, "alpha": 0.65 if len(x) < 300 else 0.4, "lw": 0}
    axes.scatter(x, y, color=BLUE, rasterized=len(x) > 300, **dots)
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    axes.plot([low, high], [low, high], color=INK, lw=0.8, ls=(0, (4, 3)))
    axes.set(xlabel="true", ylabel="predicted", box_aspect=1)
    return figure


@style()
def lowest(target: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> matplotlib.figure.Figure:
    """Draw the mean label of the rows with the lowest scores against their share of all rows; dashed: of all rows."""
    order = np.argsort(score, kind="stable")
    counts = np.ones(len(target)) if weight is None else weight[order]
    share = np.cumsum(counts) / counts.sum()
    mean = np.cumsum(counts * target[order]) / np.maximum(np.cumsum(counts), np.finfo(float).tiny)
    shown = np.unique(np.linspace(0, len(order) - 1, min(200, len(order))).astype(int))
    figure, axes = _figure(3.1, 2.9)
    axes.axhline(mean[-1], color=INK, lw=0.8, ls=(0, (4, 3)))
    axes.plot(share[shown], mean[shown], color=BLUE)
    axes.set(xlabel="share of the rows, lowest scores first", ylabel="mean label", xlim=(0, 1), box_aspect=1)
    return figure


@style()
def calibration(
    target: np.ndarray, prediction: np.ndarray, weight: np.ndarray | None = None, bins: int = 10
) -> matplotlib.figure.Figure:
    """Draw how often a binary task's predicted probabilities come true, in `bins` groups of equally many rows.

    The bars are Wilson's 95 % interval (1927); the strip at the bottom shows how the predictions are spread.
    """
    weight = np.ones(len(target)) if weight is None else weight
    parts = np.array_split(np.argsort(prediction, kind="stable"), max(1, min(bins, len(target) // 15)))
    parts = [part for part in parts if weight[part].sum() > 0]
    said = np.array([np.average(prediction[part], weights=weight[part]) for part in parts])
    came = np.array([np.average(target[part], weights=weight[part]) for part in parts])
    count = np.array([weight[part].sum() ** 2 / (weight[part] ** 2).sum() for part in parts])
    centre = (came + 1.92 / count) / (1 + 3.84 / count)
    half = 1.96 * np.sqrt(came * (1 - came) / count + 0.96 / count**2) / (1 + 3.84 / count)
    figure, axes = _figure(3.1, 2.9)
    axes.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=(0, (4, 3)))
    axes.vlines(said, centre - half, centre + half, color=BLUE, lw=1.2)
    axes.plot(said, came, "o-", color=BLUE, lw=1.2, ms=4)
    share, edges = np.histogram(prediction, bins=25, range=(0, 1), weights=weight)
    axes.bar(edges[:-1], 0.15 * share / share.max(), 0.04, align="edge", color=INK, alpha=0.22, lw=0)
    axes.set(xlabel="predicted probability", ylabel="share that came true", box_aspect=1, xlim=(0, 1), ylim=(0, 1))
    return figure


@style()
def confusion(
    target: np.ndarray, prediction: np.ndarray, classes: Sequence[object], most: int = 8
) -> matplotlib.figure.Figure:
    """Draw which classes are taken for which, in percent of each true class; beyond the `most` frequent ones, as one.

    Parameters
    ----------
    target, prediction
        Class codes ``[row]`` and probabilities ``[row, class]``.
    """
    counts = np.bincount(target.astype(int), minlength=len(classes))
    kept = sorted(np.argsort(-counts, kind="stable")[:most]) if len(classes) > most else list(range(len(classes)))
    place = np.full(len(classes), len(kept))
    place[kept] = range(len(kept))
    names = [label(classes[at], 11) for at in kept] + ["others"] * (len(classes) > len(kept))
    table = np.zeros((len(names), len(names)))
    np.add.at(table, (place[target.astype(int)], place[prediction.argmax(1)]), 1)
    table = 100 * table / np.maximum(table.sum(1, keepdims=True), 1)
    figure, axes = _figure(3.1, 2.9)
    axes.imshow(tinted(table / 100), aspect="equal", interpolation="nearest")
    for (row, column), value in np.ndenumerate(table):
        if value >= 0.5:
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8 if len(names) < 7 else 6.5)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted, % of the true class", ylabel="true")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def best_settings(history: pandas.DataFrame) -> dict[str, pandas.DataFrame]:
    """Each arm's lines of the history of one task, in the setting that had the lowest loss on the stopping rows."""
    found: dict[str, tuple[float, pandas.DataFrame]] = {}
    for at in history.groupby(["arm", "setting"], sort=False).indices.values():
        line = history.iloc[at].sort_values(by="update", kind="stable")
        arm, losses = str(line["arm"].iloc[0]), line["stop_loss"].to_numpy(float)
        lowest = float(np.min(losses[np.isfinite(losses)], initial=math.inf))
        if lowest < found.get(arm, (math.inf,))[0]:
            found[arm] = lowest, line
    return {arm: line for arm, (_, line) in found.items()}


def moving(history: pandas.DataFrame | None) -> pandas.DataFrame | None:
    """The history of those arms whose task weights change."""
    if history is None or not len(history):
        return None
    weights = history.groupby(["arm", "setting", "task"])["weight"]
    low, high = (np.asarray(weights.transform(end), float) for end in ("min", "max"))
    return history.loc[history["arm"].isin(history.loc[high - low > 1e-6 * np.abs(high), "arm"].unique())]


@style()
def learning(
    history: pandas.DataFrame, arms: Mapping[str, Mark], value: str = "stop_loss", legend: bool = True
) -> matplotlib.figure.Figure:
    """Draw, for one task, `value` (``"stop_loss"`` or ``"weight"``) against the update, a line per arm.

    Parameters
    ----------
    history
        Rows of one task: ``arm``, ``setting``, ``update`` and `value`; of each arm the best setting is drawn.
    """
    figure, axes = _figure(3.1, 2.2)
    axes.set(xlabel="update", ylabel="loss on stopping rows" if value == "stop_loss" else "task weight")
    settled = []
    for arm, line in best_settings(history).items():
        mark, x, y = arms.get(arm, HAND_OVER), line["update"].to_numpy(float), line[value].to_numpy(float)
        axes.plot(x, y, ls=mark.line, color=mark.colour, lw=1.3, label=label(arm, 40))
        settled += [*y[(x >= 0.1 * x.max()) & np.isfinite(y)]]
        if value == "stop_loss":
            axes.plot(x[np.nanargmin(y)], np.nanmin(y), mark.marker, ms=4.5, color=mark.colour, mew=0)
    if value == "stop_loss" and settled:  # the first steps fall so far that they would hide the rest
        low, high = min(settled), float(np.quantile(settled, 0.99))
        axes.set_ylim(low - 0.08 * (high - low), high + 0.25 * (high - low) or 1.0)
    if legend and axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper left", ncols=1)
    return figure

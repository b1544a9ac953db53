"""What methods learned beside weights, drawn: a table's last values as a heat map, and how a small one came there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kinfolk.drawing import COLOURS, INK, label, style, tinted

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import pandas

FEW = 12  # numbers: so many lines can be told apart
MOST = 40  # lines and columns that a heat map shows
ROOMY, WRITTEN = 12, 7  # columns up to which a heat map fits on a phone, and up to which it shows numbers
LETTER = 0.062  # inches that a letter takes


def best(learned: pandas.DataFrame, history: pandas.DataFrame | None) -> dict[str, pandas.DataFrame]:
    """Each arm's rows in its best setting: the lowest loss on the stopping rows, a mean over tasks."""
    losses: dict[tuple[str, str], float] = {}
    if history is not None and len(history):
        lowest = history.pivot_table(index=["arm", "setting"], columns="task", values="stop_loss", aggfunc="min")
        whose = zip(*(map(str, lowest.index.get_level_values(level)) for level in (0, 1)), strict=True)
        losses = dict(zip(whose, lowest.mean(axis=1).fillna(math.inf), strict=True))
    found = {}
    for at in learned.groupby("arm", sort=False).indices.values():
        rows = learned.iloc[at]
        arm = str(rows["arm"].iloc[0])
        setting = min(rows["setting"].unique(), key=lambda one: losses.get((arm, str(one)), math.inf))
        found[arm] = rows[rows["setting"] == setting]
    return found


def final(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The last values of one quantity as a table, lines and columns in their order."""
    last = rows.sort_values(by="update", kind="stable").drop_duplicates(["line", "column"], keep="last")
    return last.pivot(index="line", columns="column", values="value").reindex(
        index=rows["line"].unique(), columns=rows["column"].unique()
    )


def shown(table: pandas.DataFrame) -> pandas.DataFrame:
    """The part of a table that a heat map can show: its first lines and columns."""
    return table.iloc[:MOST, :MOST]


@style()
def heat(table: pandas.DataFrame) -> matplotlib.figure.Figure:
    """Draw a table of numbers as cells: blue above zero and red below, the deeper the further from it.

    Up to :data:`ROOMY` columns it is as narrow as a phone; beyond, its letters stay as large and it grows.
    """
    from matplotlib.figure import Figure

    values = table.to_numpy(float)
    rows, columns = values.shape
    roomy = columns <= ROOMY
    wide = min(0.42, 2.3 / columns) if roomy else 0.17
    high = min(wide, 0.42 if rows <= ROOMY else 0.2)
    names = [[label(name, 14) for name in side] for side in (table.index, table.columns)]
    left, below = (0.2 + LETTER * max(map(len, side)) for side in names)
    figure = Figure(figsize=(left + wide * columns, (0.8 if roomy else 1) * below + high * rows), layout="constrained")
    axes = figure.add_subplot()
    known = np.abs(values[np.isfinite(values)])
    most = float(known.max(initial=0.0)) or 1.0
    axes.imshow(tinted(np.clip(np.nan_to_num(values) / most, -1, 1)), aspect="auto", interpolation="nearest")
    if columns <= WRITTEN and 1e-3 <= most < 1e4:
        _write(axes, values, max(0, (2 if most >= 1 else 1) - math.floor(math.log10(most))))
    size = 8 if max(rows, columns) <= ROOMY else 7
    turned: dict[str, Any] = {"rotation": 45} if roomy else {"rotation": 90, "va": "center"}
    axes.set_xticks(range(columns), names[1], fontsize=size, ha="right", rotation_mode="anchor", **turned)
    axes.set_yticks(range(rows), names[0], fontsize=size)
    _rule(axes, values.shape)
    return figure


def _write(axes: matplotlib.axes.Axes, values: np.ndarray, digits: int) -> None:
    size = 7.5 if values.shape[1] <= 5 else 6.5
    for (line, column), value in np.ndenumerate(values):
        text = f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−") if math.isfinite(value) else "–"
        axes.text(column, line, text, ha="center", va="center", fontsize=size)


def _rule(axes: matplotlib.axes.Axes, shape: tuple[int, ...]) -> None:
    """Thin rules between cells, so that those near zero are seen too."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    rules = {"color": INK, "alpha": 0.15, "lw": 0.5, "clip_on": False}
    axes.hlines(np.arange(shape[0] + 1) - 0.5, -0.5, shape[1] - 0.5, **rules)
    axes.vlines(np.arange(shape[1] + 1) - 0.5, -0.5, shape[0] - 0.5, **rules)


@style()
def lines(rows: pandas.DataFrame) -> matplotlib.figure.Figure:
    """Draw each number of a small quantity against the update."""
    from matplotlib.figure import Figure

    places = rows.groupby(["line", "column"], sort=False).indices.values()
    parts = [rows.iloc[at].sort_values(by="update", kind="stable") for at in places]
    names = _names([(str(part["line"].iloc[0]), str(part["column"].iloc[0])) for part in parts])
    across = max(1, min(4, 44 // (7 + max(map(len, names)))))
    figure = Figure(figsize=(3.1, 1.9 + 0.16 * math.ceil(len(names) / across)), layout="constrained")
    axes = figure.add_subplot()
    colours = COLOURS["sharing"]
    for i, (name, part) in enumerate(zip(names, parts, strict=True)):
        dashes = ("-", "--", ":")[i // len(colours) % 3]
        axes.plot(part["update"], part["value"], color=colours[i % len(colours)], ls=dashes, lw=1.3, label=name)
    axes.set(xlabel="update")
    figure.legend(loc="outside lower left", ncols=across, columnspacing=1.0, handlelength=1.6)
    return figure


def _names(cells: Sequence[tuple[str, str]]) -> list[str]:
    """Cells by line and column; by one of them where the other is always the same."""
    lines, columns = ({cell[side] for cell in cells} for side in (0, 1))
    if len(lines) > 1 and len(columns) > 1:
        return [f"{label(line, 11)}, {label(column, 11)}" for line, column in cells]
    return [label(line if len(lines) > 1 else column, 24) for line, column in cells]

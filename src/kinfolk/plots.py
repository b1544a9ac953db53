"""Every figure, once: plain frames and dicts in, a matplotlib figure out.

Figures are drawn without pyplot's global state, on a transparent ground, in mid-tones that are legible on
white and on black. :func:`svg` turns one into text that can stand inside a page: lines and letters take the
colour of the text around them, names stay text, and the same figure always gives the same characters.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # a colour that nobody draws with: svg() makes it the colour of the surrounding text
FONT = "DejaVu Sans"  # comes with matplotlib, so that layout is the same everywhere; svg() then names the reader's font
GREEN, RED, GREY = "#2a9d74", "#d9622b", "#7f8894"
VERDICT_COLOURS = {"helped": GREEN, "hurt": RED}
SHARING_COLOURS = ("#3a80c9", "#9467c8", "#2796a8", "#c9588f", "#5f8f2f", "#5a6fd0")
OPPONENT_COLOURS = ("#b98a1d", "#d9622b", "#a8674a", "#c9588f")
STYLE = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "axes.labelsize", "legend.fontsize", "font.size"), 8),
    "font.family": FONT,
    "svg.fonttype": "none",
    "axes.formatter.useoffset": False,
}


@dataclass(frozen=True)
class Mark:
    """How one arm is drawn, in every figure: colour, marker, the same marker as a character, and line style."""

    colour: str
    marker: str
    sign: str
    line: str = "-"


HAND_OVER = Mark(INK, "o", "○")
SHAPES = {"sharing": (("o", "●"),), "single-task": (("d", "♦"),), "opponent": (("s", "■"), ("^", "▲"), ("v", "▼"))}


def marks(roles: Mapping[str, str]) -> dict[str, Mark]:
    """Give every arm its mark, by role (``single-task``, ``sharing``, ``opponent``) and by order within the role."""
    colours = {"sharing": SHARING_COLOURS, "single-task": (GREY, "#a8742c"), "opponent": OPPONENT_COLOURS}
    seen = dict.fromkeys(SHAPES, 0)
    result = {}
    for arm, role in roles.items():
        shape, count = SHAPES[role][seen[role] % len(SHAPES[role])], seen[role]
        line = "--" if role == "single-task" else ("-", "-.", ":")[count // len(colours[role]) % 3]
        result[arm] = Mark(colours[role][count % len(colours[role])], *shape, line=line)
        seen[role] += 1
    return result


def label(text: object, width: int = 18) -> str:
    """Make a user's name safe to draw: one line, no control characters, no mathtext, at most `width` characters.

    >>> label("cost ($)")
    'cost (\\\\$)'
    >>> label("a name that goes on and on", 10)
    'a name th…'
    """
    words = " ".join(str(text).encode("utf-8", "replace").decode().split())
    shown = "".join(c if c.isprintable() else "�" for c in words)
    shown = shown if len(shown) <= width else shown[: width - 1] + "…"
    return shown.replace("$", r"\$")


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures, whatever the user's own matplotlib settings are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _task_rows(names: Sequence[str], signs: tuple[str, str]) -> tuple[Figure, Axes]:
    """A figure with a row per task, the first on top, a line at zero and what its two sides mean."""
    height = 0.42 if len(names) <= 12 else 0.27
    figure, axes = _figure(4.2, 0.75 + height * max(len(names), 2))
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.hlines(range(len(names)), 0, 1, transform=axes.get_yaxis_transform(), color=INK, alpha=0.12, lw=0.5, zorder=0)
    axes.axvline(0, color=INK, lw=0.9, zorder=1)
    for sign, side, x in zip(signs, ("right", "left"), (-5, 5), strict=True):
        axes.annotate(
            sign, (0, 1), (x, 4), ("data", "axes fraction"), "offset points", ha=side, va="bottom", fontweight="bold"
        )
    return figure, axes


def _limits(values: Sequence[float], centres: Sequence[float]) -> tuple[float, float]:
    """Axis limits around zero that a few very wide values cannot blow up: at least a quarter lies on either side."""
    wide = np.abs(np.asarray(values, float))
    wide, most = wide[np.isfinite(wide)], np.nanmax(np.abs(centres), initial=0.0)
    if not len(wide):
        return -1.0, 1.0
    bound = min(wide.max(), max(4 * float(np.median(wide)), 1.2 * most))
    kept = np.clip(np.asarray(values, float), -bound, bound)
    low, high = min(np.nanmin(kept), 0.0), max(np.nanmax(kept), 0.0)
    low, high = min(low, -high / 2), max(high, -low / 2)
    pad = 0.06 * (high - low) or 1.0
    return float(low - pad), float(high + pad)


def percent(entry: Mapping[str, Any], key: str) -> list[float]:
    """A difference or interval of a task of the verdict in percent of its single-task error (NaN where undefined)."""
    single, value = entry.get("single_task"), entry.get(key)
    parts = [math.nan, math.nan] if value is None else list(value) if isinstance(value, Sequence) else [value]
    return [math.nan if part is None or not single else 100 * float(part) / float(single) for part in parts]


@style()
def differences(tasks: Mapping[str, Mapping[str, Any]], splits: Mapping[str, Sequence[float]] | None = None) -> Figure:
    """Draw the difference to single-task learning with its interval, task by task, in percent of the single-task error.

    Parameters
    ----------
    tasks
        The tasks of a verdict, in the order in which they are drawn. Two rows each: the sharing arm in the colour of
        the verdict, the hand-over as a ring.
    splits
        The differences of the single outer splits, in percent, drawn as small dots.
    """
    figure, axes = _task_rows(list(tasks), ("sharing worse", "sharing better"))
    found = [[percent(e, k) for k in ("difference", "interval", "hand_over_difference", "hand_over_interval")]
             for e in tasks.values()]  # fmt: skip
    centres = [row[at][0] for row in found for at in (0, 2)]
    axes.set_xlim(*_limits([v for row in found for part in row for v in part], centres))
    for y, (entry, name, row) in enumerate(zip(tasks.values(), tasks, found, strict=True)):
        dots = np.asarray((splits or {}).get(name, ()), float)
        axes.plot(dots, np.full(len(dots), y - 0.14), ".", ms=2.5, color=INK, alpha=0.3, mew=0)
        colour = VERDICT_COLOURS.get(str(entry.get("verdict")), GREY)
        _interval(axes, y - 0.14, row[0][0], row[1], Mark(colour, "o", "●"), 2.4)
        _interval(axes, y + 0.2, row[2][0], row[3], HAND_OVER, 1.0)
    axes.set_xlabel("lower error than single-task, % of its error")
    return figure


def _interval(axes: Axes, y: float, centre: float, interval: Sequence[float], mark: Mark, width: float) -> None:
    """A point with its interval; an arrow head where the interval leaves the axis."""
    left, right = axes.get_xlim()
    if not math.isfinite(centre):
        return
    axes.plot(np.clip(interval, left, right), [y, y], color=mark.colour, lw=width, solid_capstyle="butt")
    hollow = mark == HAND_OVER
    shape = {"ms": 4 if hollow else 6, "mfc": "none" if hollow else mark.colour, "color": mark.colour}
    axes.plot(np.clip(centre, left, right), y, mark.marker, clip_on=False, **shape)
    for beyond, edge, head in ((interval[0] < left, left, "<"), (interval[1] > right, right, ">")):
        if beyond:
            axes.plot(edge, y, head, ms=4, color=mark.colour, clip_on=False)


@style()
def errors(tasks: Mapping[str, Mapping[str, Any]], arms: Mapping[str, Mark], legend: bool = True) -> Figure:
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
    lanes = {"o": -0.16, "d": 0.0}  # opponents lie below
    for y, row in enumerate(found):
        for arm, value in row.items():
            mark = arms.get(arm, HAND_OVER)
            hollow, lane = mark == HAND_OVER, 0.0 if mark == HAND_OVER else lanes.get(mark.marker, 0.16)
            shape = mark.marker if left <= value <= right else "<" if value < left else ">"
            fill = {"ms": 9 if hollow else 5, "mfc": "none" if hollow else mark.colour, "color": mark.colour}
            fill |= {"mew": 0.9 if hollow else 0, "clip_on": False, "label": "" if y else label(arm, 60)}
            axes.plot(np.clip(value, left, right), y + lane, shape, ls="none", **fill)
    axes.set_xlabel("lower error than single-task, % of its error")
    if legend:
        figure.legend(loc="outside lower left", ncols=1)
    return figure


def _against_single(entry: Mapping[str, Any], arms: Mapping[str, Mark]) -> dict[str, float]:
    values = {**(entry.get("arms") or {}), **(entry.get("opponents") or {})}
    values = {arm: values[arm] for arm in arms if arm in values} | {"hand-over": entry.get("hand_over")}
    single = entry.get("single_task")
    if not single or not math.isfinite(single):
        return {}
    shown = {arm: 100 * (single - value) / single for arm, value in values.items() if value is not None}
    return {arm: value for arm, value in shown.items() if math.isfinite(value)}


@style()
def predicted(target: np.ndarray, prediction: np.ndarray, most: int = 2000) -> Figure:
    """Draw predicted against true values of a regression task; of more than `most` rows an even sample by true value."""
    order = np.argsort(target, kind="stable")
    order = order[np.unique(np.linspace(0, len(order) - 1, min(most, len(order))).astype(int))]
    figure, axes = _figure(3.1, 2.9)
    x, y = target[order], prediction[order]
    dots = {"s": 30 if len(x) < 100 else 12, "alpha": 0.65 if len(x) < 300 else 0.4, "lw": 0}
    axes.scatter(x, y, color=SHARING_COLOURS[0], rasterized=len(x) > 300, **dots)
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    axes.plot([low, high], [low, high], color=INK, lw=0.8, ls=(0, (4, 3)))
    axes.set(xlabel="true", ylabel="predicted", box_aspect=1)
    return figure


@style()
def calibration(target: np.ndarray, prediction: np.ndarray, weight: np.ndarray | None = None, bins: int = 10) -> Figure:
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
    axes.vlines(said, centre - half, centre + half, color=SHARING_COLOURS[0], lw=1.2)
    axes.plot(said, came, "o-", color=SHARING_COLOURS[0], lw=1.2, ms=4)
    share, edges = np.histogram(prediction, bins=25, range=(0, 1), weights=weight)
    axes.bar(edges[:-1], 0.15 * share / share.max(), 0.04, align="edge", color=INK, alpha=0.22, lw=0)
    axes.set(xlabel="predicted probability", ylabel="share that came true", box_aspect=1, xlim=(0, 1), ylim=(0, 1))
    return figure


@style()
def confusion(target: np.ndarray, prediction: np.ndarray, classes: Sequence[object], most: int = 8) -> Figure:
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
    # the colour is one mid-tone, more or less of it: darker than white in light mode, lighter than black in dark mode
    paint = np.zeros((*table.shape, 4)) + (*(int(SHARING_COLOURS[0][at : at + 2], 16) / 255 for at in (1, 3, 5)), 0)
    paint[..., 3] = 0.7 * table / 100
    axes.imshow(paint, aspect="equal", interpolation="nearest")
    for (row, column), value in np.ndenumerate(table):
        if value >= 0.5:
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8 if len(names) < 7 else 6.5)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted, % of the true class", ylabel="true")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def best_settings(history: pd.DataFrame) -> pd.DataFrame:
    """Keep, of the history of one task, each arm's setting that reached the lowest loss on the stopping rows."""
    lowest = history.groupby(["arm", "setting"], sort=False)["stop_loss"].min().dropna()
    kept = lowest.loc[lowest.groupby(level="arm", sort=False).idxmin()].index
    return history[history.set_index(["arm", "setting"]).index.isin(kept)].sort_values("update", kind="stable")


@style()
def learning(history: pd.DataFrame, arms: Mapping[str, Mark], value: str = "stop_loss", legend: bool = True) -> Figure:
    """Draw, for one task, `value` (``"stop_loss"`` or ``"weight"``) against the update, a line per arm.

    Parameters
    ----------
    history
        Rows of one task: ``arm``, ``setting``, ``update`` and `value`; of each arm the best setting is drawn.
    """
    figure, axes = _figure(3.1, 2.2)
    rows = best_settings(history)
    for arm, line in rows.groupby("arm", sort=False):
        mark = arms.get(str(arm), HAND_OVER)
        axes.plot(line["update"], line[value], ls=mark.line, color=mark.colour, lw=1.3, label=label(arm, 40))
        if value == "stop_loss" and line[value].notna().any():
            best = line.loc[line[value].idxmin()]
            axes.plot(best["update"], best[value], mark.marker, ms=4.5, color=mark.colour)
    if value == "stop_loss":  # the first steps fall so far that they would hide the rest
        later = rows.loc[rows["update"] >= 0.1 * rows["update"].max(), value]
        low, high = rows[value].min(), later.quantile(0.99)
        axes.set_ylim(low - 0.08 * (high - low), high + 0.25 * (high - low)) if high > low else None
    axes.set(xlabel="update", ylabel="loss on stopping rows" if value == "stop_loss" else "task weight")
    if legend:
        figure.legend(loc="outside upper left", ncols=1)
    return figure


SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"


def svg(figure: Figure, description: str = "") -> str:
    """Write a figure as SVG text that can stand inside an HTML page, without any reference to elsewhere.

    Parameters
    ----------
    description
        What the figure says, for readers who do not see it (``aria-label``). Figures of one page need different
        descriptions, so that the names inside them differ too.
    """
    import matplotlib

    text = io.StringIO()
    with style(), warnings.catch_warnings():
        # a name in another script: matplotlib's font lacks its letters, but the reader's browser has them
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        matplotlib.rcParams["svg.hashsalt"] = description
        figure.savefig(text, format="svg", dpi=180, metadata={"Date": None})
    root = ElementTree.fromstring(text.getvalue())
    _clean(root)
    root.attrib |= {"role": "img", "aria-label": description, "style": "stroke-linejoin: round"}
    return ElementTree.tostring(root, encoding="unicode")


def _clean(root: ElementTree.Element) -> None:
    """Drop what is only for stand-alone files (its style sheet would change the page), and take the page's colour."""
    for element in list(root.iter()):
        element.tag = element.tag.removeprefix(SVG)
        if element.tag == "g":
            element.attrib.pop("id", None)
        if LINK in element.attrib:
            element.attrib["href"] = element.attrib.pop(LINK)
        for key, value in element.attrib.items():
            element.attrib[key] = value.replace(INK, "currentColor").replace(f"'{FONT}'", "system-ui, sans-serif")
        for child in [c for c in element if c.tag in (f"{SVG}metadata", f"{SVG}style")]:
            element.remove(child)

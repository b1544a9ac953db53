"""The arms of the study of evolving weights, the published table, and its figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from kinfolk.studies.base import Finding, finite

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas


@dataclass(frozen=True)
class Arm:
    """How the weight of reconstruction falls; ``share`` where it is constant."""

    schedule: str
    share: float = 0.0


SOURCE = "Belharbi et al. 2016, table 1"
NETWORKS = {"NN1": [50], "NN2": [60, 50], "NN3": [70, 60, 50], "NN4": [80, 70, 60, 50]}
PADDED = "padded"
ALONE = "stairs100 alone"
ARMS = {
    "baseline": Arm("constant"),
    PADDED: Arm("constant"),
    "pretraining": Arm("constant", 1.0),
    "exp40": Arm("exponential"),
    "lin100": Arm("abridged_linear"),
    "stairs100": Arm("stairs"),
    "lin": Arm("linear"),
}
"""What is trained in one piece. "stairs100 alone" is two of them: pre-training, then the baseline from there."""
WITH_DATA = (PADDED, "exp40", "lin100", "stairs100", ALONE, "lin")
"""The arms that see unlabelled images, the quickest first."""

BASELINES = {
    ("NN1", 100): 31.0,
    ("NN1", 1000): 12.85,
    ("NN1", 10_000): 9.08,
    ("NN2", 100): 31.48,
    ("NN2", 1000): 12.32,
    ("NN2", 10_000): 5.62,
    ("NN3", 100): 33.58,
    ("NN3", 1000): 11.96,
    ("NN3", 10_000): 5.69,
    ("NN4", 100): 30.53,
    ("NN4", 1000): 12.54,
    ("NN4", 10_000): 5.5,
}
"""(network, labelled images) -> test error in %."""

_LABELLED = (100, 1000, 10_000)
_UNLABELLED = (0, 1000, 2000, 5000, 10_000, 20_000, 40_000, 50_000)  # the last: all that are left
_NN1 = {
    "stairs100": (
        (0.03, -0.1, -0.17, -0.16, -0.28, -0.28, -0.46, -0.19),
        (0.03, 0.09, 0.009, 0.05, 0.0, -0.02, -0.049, -0.06),
        (0.03, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01, 0.01),
    ),
    "lin100": (
        (0.03, -0.87, -1.35, -1.69, -2.21, -1.82, -2.39, -1.89),
        (0.0, -0.71, -0.98, -1.43, -1.6, -1.83, -1.63, -1.68),
        (0.01, -0.08, -0.2, -0.26, -0.5, -0.63, -0.63, -0.63),
    ),
    "lin": (
        (1.32, -0.19, -1.03, -1.78, -2.03, -2.26, -2.62, -2.03),
        (1.5, 0.33, -0.23, -0.95, -1.12, -1.46, -1.37, -1.56),
        (0.95, 0.85, 0.74, 0.31, -0.1, -0.44, -0.63, -0.63),
    ),
    "exp40": (
        (0.03, -0.85, -1.46, -1.91, -2.21, -2.42, -2.44, -2.44),
        (0.05, -0.73, -0.95, -1.44, -1.44, -1.78, -1.7, -1.75),
        (-0.04, -0.08, -0.21, -0.3, -0.51, -0.75, -0.56, -0.56),
    ),
}
_DEEP = {
    "NN2": (
        (0.01, -1.05, -2.03, -2.32, -2.26, -2.4, -2.12, -1.99),
        (0.02, -0.55, -0.78, -1.15, -1.14, -1.25, -1.08, -1.23),
        (-0.11, -0.2, -0.4, -0.54, -0.75, -0.81, -0.81, -0.81),
    ),
    "NN3": (
        (-0.01, -0.83, -1.35, -1.71, -1.29, -0.78, -1.17, -1.23),
        (-0.08, -0.58, -0.77, -1.23, -1.29, -1.48, -1.3, -1.3),
        (-0.03, -0.07, -0.01, -0.18, -0.22, -0.41, -0.42, -0.42),
    ),
    "NN4": (
        (0.03, -0.92, -1.17, -1.31, -0.72, -0.82, -1.65, -0.88),
        (-0.03, -0.8, -1.18, -1.56, -1.76, -1.88, -1.92, -1.85),
        (0.08, 0.12, 0.04, -0.04, -0.24, -0.08, -0.55, -0.55),
    ),
}


def _published() -> dict[tuple[str, int, int, str], float]:
    tables = {("NN1", arm): table for arm, table in _NN1.items()} | {(n, "exp40"): t for n, t in _DEEP.items()}
    found = {
        (network, labelled, min(unlabelled, 50_000 - labelled), arm): value
        for (network, arm), table in tables.items()
        for labelled, line in zip(_LABELLED, table, strict=True)
        for unlabelled, value in zip(_UNLABELLED, line, strict=True)
    }
    # Pre-training, whichever way its second part runs, has one published number.
    alone = {cell: value for cell, value in found.items() if cell[3] == "stairs100"}
    return found | {(*cell[:3], ALONE): value for cell, value in alone.items()}


PUBLISHED = _published()
"""(network, labelled, unlabelled images, arm) -> test error minus that of the baseline, in points."""


def compare(rows: pandas.DataFrame) -> list[Finding]:
    """The published table from test errors, and the same differences from the padded baseline."""
    known: dict[tuple[str, int, int, str], pandas.Series] = {
        cast(Any, cell): cast("pandas.Series", group.set_index("seed")["value"])
        for cell, group in rows.groupby(["network", "labelled", "unlabelled", "arm"], sort=False)
    }
    found: list[Finding | None] = []
    for net, few in dict.fromkeys((net, few) for net, few, _, _ in known):
        baseline = known.get((net, few, 0, "baseline"))
        if baseline is not None:
            published = BASELINES.get((net, few))
            found.append(Finding(f"{net}, l={few}: baseline", published, finite(baseline), "%", source=SOURCE))
        for many in sorted({cell[2] for cell in known if cell[:2] == (net, few)}):
            here = {arm: known[net, few, many, arm] for arm in WITH_DATA if (net, few, many, arm) in known}
            where = f"{net}, l={few}, u={many}"
            found += [_against(where, arm, here[arm], "baseline", baseline, (net, few, many)) for arm in here]
            found += [
                _against(where, arm, here[arm], "padded", here[PADDED], None)
                for arm in here
                if PADDED in here and arm != PADDED
            ]
    return [one for one in found if one is not None]


def _against(
    where: str,
    arm: str,
    values: pandas.Series,
    other: str,
    others: pandas.Series | None,
    cell: tuple[str, int, int] | None,
) -> Finding | None:
    """An arm's error minus that of a baseline with the same seeds."""
    if others is None:
        return None
    published = None if cell is None else PUBLISHED.get((*cell, arm))
    claim = "" if published is None or abs(published) < 0.1 else "negative" if published < 0 else "positive"
    source = SOURCE if published is not None else "our control" if PADDED in (arm, other) else ""
    return Finding(f"{where}: {arm} - {other}", published, finite(values - others), "points", claim, source)


def draw(findings: Sequence[Finding]) -> matplotlib.figure.Figure:
    """Differences from the baseline, and from the padded one: ours with intervals, the published ones hollow."""
    from matplotlib.figure import Figure

    from kinfolk.drawing import COLOURS, INK, style

    colours = {True: COLOURS["single-task"][0], False: COLOURS["sharing"][0]}
    with style():
        differences = [one for one in findings if one.unit == "points"]
        cells = list(dict.fromkeys(one.what.partition(":")[0] for one in differences))
        figure = Figure(figsize=(5.2, 0.6 + 0.24 * len(differences) + 0.45 * len(cells)), layout="constrained")
        sizes = [sum(one.what.startswith(f"{cell}:") for one in differences) for cell in cells]
        panels = figure.subplots(len(cells), 1, sharex=True, squeeze=False, height_ratios=sizes)[:, 0]
        for panel, cell in zip(panels, cells, strict=True):
            own = [one for one in differences if one.what.startswith(f"{cell}:")]
            panel.axvline(0, color=INK, linewidth=0.6)
            for place, one in enumerate(reversed(own)):
                control = one.what.endswith("- padded")
                panel.plot([one.low, one.high], [place, place], color=colours[control], linewidth=1.2)
                panel.plot(one.ours, place, "o", color=colours[control], markersize=4)
                if one.published is not None:
                    panel.plot(one.published, place, "o", markerfacecolor="none", color=INK, markersize=5)
            panel.set_yticks(range(len(own)), [one.what.partition(": ")[2] for one in reversed(own)])
            panel.set_title(cell, loc="left")
        panels[-1].set_xlabel("test error, difference in points (hollow: published)")
    return figure

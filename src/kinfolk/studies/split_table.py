"""What the study of splits tells: the order of arms beside that of the papers, all errors, and the figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kinfolk.studies.base import Finding, finite

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

DIGIT, GARMENT, RARE, FREQUENT = "digit", "garment", "rare classes", "frequent classes"
ONE, ENSEMBLE, SHARED, WIDE = "one-task", "ensemble of two", "all shared", "all shared, as many parameters"
STITCH, SCRATCH, NDDR = "cross-stitch", "cross-stitch, all at once", "NDDR"
STAGES = 4  # units stand after each of them: after pooling and the dense layer, as in the paper
SPLITS = tuple(f"split after {i}" for i in range(1, STAGES))
ARMS = (ONE, *SPLITS, SHARED, WIDE, STITCH, SCRATCH, NDDR)
PAPER = "Misra et al. 2016"


def findings(rows: pandas.DataFrame) -> list[Finding]:
    """What the paper says of the order, then all errors."""
    table: Any = rows.pivot(index="seed", columns=["arm", "measure"], values="value").sort_index()
    both = {arm: (table[arm][DIGIT] + table[arm][GARMENT]) / 2 for arm in (*ARMS, ENSEMBLE)}
    best = _best(both)
    gain = table[STITCH] - table[ONE]
    told = "mean error of both tasks"
    found = [
        _difference(f"{STITCH} against the best split ({best}), {told}", both[STITCH] - both[best], "negative",
                    "mIoU 19.3 / 19.2, attributes 63.0 / 61.0"),
        _difference(f"best split ({best}) against {SHARED}, {told}", both[best] - both[SHARED], "negative",
                    "mIoU 19.2 / 16.6, attributes 61.0 / 54.1"),
        _difference(f"{SHARED} against {ONE}, {told}", both[SHARED] - both[ONE], "positive",
                    "mIoU 16.6 / 18.4, attributes 54.1 / 60.9"),
        *(_difference(f"{STITCH} against {ONE}, {name}", gain[name], "negative",
                      "mIoU 19.3 / 18.4, detection 45.2 / 44.9, attributes 63.0 / 60.9")
          for name in (DIGIT, GARMENT)),
        _difference(f"{STITCH} against {ONE}, {RARE}", gain[RARE], "negative", "+4.6 mAP on the 10 rarest"),
        _difference(f"{STITCH} against {ONE}, {RARE} less {FREQUENT}", gain[RARE] - gain[FREQUENT], "negative",
                    "gains lie in starved classes"),
        _difference(f"{STITCH} against {ENSEMBLE}, {told}", both[STITCH] - both[ENSEMBLE], "negative",
                    "mIoU 19.3 / 18.9, attributes 63.0 / 61.1; but detection 45.2 / 46.1"),
        _difference(f"{STITCH} against {SCRATCH}, {told}", both[STITCH] - both[SCRATCH], "negative",
                    "from one-task networks 19.3, from ImageNet's 17.7 mIoU"),
        Finding(f"{NDDR} against {STITCH}, {told}", None, finite(both[NDDR] - both[STITCH]), "points", "negative",
                "Gao et al. 2019: mIoU 36.2 / 34.8"),
        _difference(f"{STITCH} against {WIDE}, {told}", both[STITCH] - both[WIDE]),
    ]  # fmt: skip
    measures = (DIGIT, GARMENT, RARE, FREQUENT)
    return found + [
        Finding(f"{arm}, error, {name}", None, finite(table[arm][name]), "%")
        for arm in (ONE, ENSEMBLE, *ARMS[1:])
        for name in measures
    ]


def draw(rows: pandas.DataFrame) -> matplotlib.figure.Figure:
    """Errors by the stage after which the trunk splits; lines are the arms that do not split."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.4), layout="constrained")
    means: Any = rows.pivot_table("value", "measure", "arm", dropna=False)
    for axes, name in zip(figure.subplots(2, 2).flat, (DIGIT, GARMENT, RARE, FREQUENT), strict=True):
        axes.plot(range(STAGES + 1), list(means.loc[name, [ONE, *SPLITS, SHARED]]), marker="o", color="grey")
        for i, arm in enumerate((STITCH, NDDR, ENSEMBLE)):
            axes.axhline(means.loc[name, arm], color=f"C{i}", label=arm)
        axes.set(title=name, xlabel="shared stages", ylabel="test error, %", xticks=range(STAGES + 1))
    figure.axes[0].legend(frameon=False)
    return figure


def _best(both: dict[str, Any]) -> str:
    """The split with the lowest mean."""
    return min(SPLITS, key=lambda arm: float(both[arm].mean()))


def _difference(what: str, series: Any, claim: str = "", said: str = "") -> Finding:
    return Finding(what, None, finite(series), "points", claim, f"{PAPER}: {said}" if said else "")

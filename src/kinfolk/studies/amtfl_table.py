"""What the study of Deep-AMTFL tells, data set by data set: the table beside the published numbers, and the figure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kinfolk.studies.base import Finding, finite
from kinfolk.studies.classes import AWA2, CUB, FOLDER, MNIST

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

ERROR, CORRECTED, BALANCED = "test error", "test error less log odds", "test error, mean over classes"
VALIDATION, OF_CLASS = "validation error", "test error of class "
PUBLISHED = {"CNN": 8.13, "MT-CNN": 8.72, "Deep-AMTL": 8.52, "Deep-AMTFL": 5.82}
STUDENTS = {"MT-CNN": 9.74, "Deep-AMTFL": 6.99}
COMPARED = (("Deep-AMTFL", "MT-CNN"), ("Deep-AMTFL", "CNN"), ("Deep-AMTL", "MT-CNN"), ("MT-CNN", "CNN"))
SOFTMAX = ("CNN, A = 0", "CNN, L1")
"""Controls that stand beside CNN too; all stand beside MT-CNN and Deep-AMTFL."""
PAPER = "Lee, Yang, Hwang 2018, MNIST-Imbalanced"
DEEP2REPRODUCE = "Deep2Reproduce, University of Virginia"
FURTHER = {
    AWA2: "AWA2: a dense layer of 500 units learns from the features of a pretrained network. A quarter of each class "
    "tests, drawn once. The paper has another set, AWA-C, so no published numbers stand beside.",
    CUB: "CUB-200: the network for digits, with a third convolution, learns from 64 x 64 pixels alone, in the "
    "published split. The paper's errors (CNN 46.18 %, MT-CNN 43.92 %, Deep-AMTL 45.26 %, Deep-AMTFL 43.75 %) are "
    "those of a large pretrained network: they are not compared.",
    FOLDER: "Image folder: the network for digits, with a third convolution, learns from 64 x 64 pixels alone. A "
    "quarter of each class tests, drawn once.",
}
"""What is to be known of further data sets."""
NAMED = 20  # classes at most that have their names in the figure


def by_set(rows: pandas.DataFrame) -> dict[str, pandas.DataFrame]:
    """The rows of each data set; those that do not say of which are MNIST-Imbalanced's."""
    if "data" not in rows:
        return {MNIST: rows}
    return {str(name): own for name, own in rows.groupby(rows["data"].fillna(MNIST), sort=False)}


def findings(rows: pandas.DataFrame) -> list[Finding]:
    """Errors of the arms, and differences seed by seed, for each data set."""
    found: list[Finding] = []
    for name, own in by_set(rows).items():
        last = own[(own["measure"] == ERROR) & (own["update"] == own["update"].max())]
        errors = _table(last)
        found += _published(errors) if name == MNIST else _further(f"{name}, ", errors)
        found += _controlled("" if name == MNIST else f"{name}, ", own, errors)
    return found


def _published(errors: pandas.DataFrame) -> Iterator[Finding]:
    """What the paper tells of MNIST-Imbalanced, and who repeated it."""
    for arm, value in PUBLISHED.items():
        yield Finding(f"{arm}, {ERROR}", value, _of(errors, arm), "%", source=PAPER)
    for arm, value in STUDENTS.items():
        yield Finding(f"{arm}, {ERROR}, students' reproduction", value, _of(errors, arm), "%", source=DEEP2REPRODUCE)
    for one, other in COMPARED:
        published = PUBLISHED[one] - PUBLISHED[other]
        claim = "negative" if published < 0 else "positive"
        what = f"{one} against {other}"
        yield Finding(what, round(published, 2), _of(errors, one, other), "points", claim, PAPER)


def _further(prefix: str, errors: pandas.DataFrame) -> Iterator[Finding]:
    """The same of a data set, or a network, of which the paper tells nothing."""
    for arm in PUBLISHED:
        yield Finding(f"{prefix}{arm}, {ERROR}", None, _of(errors, arm), "%")
    for one, other in COMPARED:
        yield Finding(f"{prefix}{one} against {other}", None, _of(errors, one, other), "points")


def _controlled(prefix: str, rows: pandas.DataFrame, errors: pandas.DataFrame) -> Iterator[Finding]:
    """What no paper tells: differences to controls, and the errors that were measured in other ways."""
    measured = {measure: _table(rows[rows["measure"] == measure]) for measure in (CORRECTED, BALANCED, VALIDATION)}
    for control in (arm for arm in errors if arm not in PUBLISHED):
        yield Finding(f"{prefix}{control}, {ERROR}", None, _of(errors, control), "%")
        pairs = [(control, "MT-CNN"), *([(control, "CNN")] if control in SOFTMAX else []), ("Deep-AMTFL", control)]
        for one, other in pairs:
            yield Finding(f"{prefix}{one} against {other}", None, _of(errors, one, other), "points")
        what = f"{prefix}Deep-AMTFL against {control}, {CORRECTED}"
        yield Finding(what, None, _of(measured[CORRECTED], "Deep-AMTFL", control), "points")
    for measure, others in measured.items():
        for arm in others:
            yield Finding(f"{prefix}{arm}, {measure}", None, _of(others, arm), "%")


def figure(rows: pandas.DataFrame) -> matplotlib.figure.Figure:
    """Test errors while training, and those of each class after it; a line for each data set."""
    from matplotlib.figure import Figure

    sets = by_set(rows)
    drawn = Figure(figsize=(9, 3.6 * len(sets)), layout="constrained")
    for (name, own), (course, classes) in zip(sets.items(), drawn.subplots(len(sets), 2, squeeze=False), strict=True):
        for arm in PUBLISHED:
            _draw(arm, own[own["arm"] == arm], course, classes)
        course.set(xlabel="updates", ylabel="test error, %", yscale="log", title=name if len(sets) > 1 else "")
        classes.set(xlabel="class, from frequent to rare", ylabel="test error, %")
        course.legend(frameon=False)
    return drawn


def _draw(arm: str, rows: Any, course: Any, classes: Any) -> None:
    on_the_way = _means(rows[rows["measure"] == ERROR], "update")
    course.plot(list(on_the_way), list(on_the_way.values()), label=arm)
    each = _means(rows[[OF_CLASS in measure for measure in rows["measure"]]], "measure")
    names = [name.removeprefix(OF_CLASS) for name in each]
    at = names if len(names) <= NAMED else range(len(names))
    classes.plot(at, list(each.values()), marker="o", label=arm)


def _table(rows: Any) -> pandas.DataFrame:
    """``[seed, arm]``, arms in the order in which they stand."""
    arms = list(dict.fromkeys(rows["arm"]))
    return rows.pivot(index="seed", columns="arm", values="value").sort_index()[arms]


def _means(rows: Any, by: str) -> dict[Any, float]:
    """Mean values over seeds, in the order in which they stand."""
    return rows.groupby(by, sort=False)["value"].mean().to_dict()


def _of(errors: Any, arm: str, other: str | None = None) -> tuple[float, ...]:
    """One number per seed, less those of the other arm; seeds that are not there for both are left out."""
    values = errors[arm] if other is None else errors[arm] - errors[other]
    return finite(values)

"""AMTFL with one hidden layer, on schools, digits and a synthetic problem with easy and hard tasks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, ClassVar

from kinfolk.balancing import Fixed
from kinfolk.penalties import DeepAmtfl
from kinfolk.runs import Folder
from kinfolk.sharing import Hard
from kinfolk.studies import shallow
from kinfolk.studies.base import Finding, Study, Trial, at_least, finite, positive, train
from kinfolk.studies.classes import check_folder
from kinfolk.studies.shallow import BACK, FORTH, HARD_TASKS, TEST, VALIDATION, Shallow
from kinfolk.training.loop import Training
from kinfolk.training.network import Parts, Replica
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import Mlp

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

ARMS = ("NN", "MT-NN", "AMTFL", "AMTFL, alpha = 0")
PUBLISHED = {  # the mean, and half of its 95 % interval
    "School": {"NN": (9.89, 0.03), "MT-NN": (9.91, 0.04), "AMTFL": (9.89, 0.09)},
    "MNIST": {"NN": (8.96, 0.9), "MT-NN": (8.76, 1.0), "AMTFL": (8.68, 0.9)},
}
TABLES = ("School", "MNIST", "Synthetic")
UNITS_OF = (*TABLES, "AWA2")
SQUARES = {  # strengths that NN chooses from, and those of arms that also have absolute values
    "School": (10.0, 1.0, 0.1),
    "MNIST": (0.01, 0.001, 0.0001),
    "Synthetic": (10.0, 1.0, 0.1),
    "AWA2": (0.01, 0.001, 0.0001),
}
ABSOLUTE = {"School": (0.1, 0.01), "MNIST": (0.001, 0.0001), "Synthetic": (0.1, 0.01), "AWA2": (0.001, 0.0001)}
GAMMAS = {"School": (1.0, 0.1), "MNIST": (0.001, 0.0001), "Synthetic": (0.1, 0.01), "AWA2": (0.001, 0.0001)}
RATES = {"School": (0.003,), "MNIST": (0.01, 0.001), "Synthetic": (0.01, 0.001), "AWA2": (0.01, 0.001)}
PAPER = "Lee, Yang, Hwang 2018, table 1"
COMPARED = (("AMTFL", "MT-NN"), ("AMTFL", "NN"), ("MT-NN", "NN"), ("AMTFL", "AMTFL, alpha = 0"))


class AmtflShallow(Study):
    """AMTFL with one hidden layer: features reconstructed from task outputs, on School, MNIST and synthetic tasks.

    The paper's table 1 compares a network with one hidden layer of rectified units (NN), the same with task losses
    balanced by the root of the tasks' sizes and absolute values of the last layer's weights in the loss (MT-NN), and
    AMTFL. Its other columns are no networks. School: 139 tasks, the first five standard splits, root mean squared
    error over all test rows. MNIST: a task for each class, 64 principal components, five random parts of 1000, 500 and
    500 rows, the share of test rows given a wrong class. All settings are trained; for each split and arm the one with
    the least error on validation rows is reported.

    The paper leaves open, and here is chosen: NN has the squares of all trunk weights in its loss and tasks weigh as
    they have rows; the squares of the trunk's weights and the absolute values of the heads' have one strength; grids
    have one to three values; training is by Adam for a fixed number of updates, the learning rate falling along a
    cosine. School has no validation rows: a fifth of the training rows chooses, and the chosen setting is trained on
    all of them. The feedback's price is on each task's mean loss. AMTFL with ``alpha=0``, the same without a price, is
    a control that the paper does not have.

    The synthetic problem has 12 linear tasks of 20 features from six bases: six tasks with noise 1 from bases 1 to 4,
    six with noise 2 from 3 to 6, 30 training rows each. Transfer from task t to s is ``sum_j |A_tj| |S_js|``, its
    feedback to a feature times the weight of that feature.

    Parameters
    ----------
    tables
        Which of "School", "MNIST", "Synthetic".
    awa2
        The folder of AWA2's features (:func:`kinfolk.datasets.awa2`), for a further column. None: without.
    kang
        Digits are the one published split of Kang, Grauman and Sha (2011), with other first weights for each seed.
    hidden
        Units of the hidden layer, four numbers: of School (10 to 15 in the paper), MNIST, synthetic, AWA2.
    rates, strengths, gammas
        Learning rates, strengths of squares and absolute values, and those of the reconstruction, to choose from.
        Empty: values near the least errors on validation rows, which differ from data set to data set.
    alphas
        Of :class:`~kinfolk.penalties.DeepAmtfl`. In these lists, and in ``tables``, what is given twice counts once.

    Raises
    ------
    InputError
        For a folder that is not there, or not AWA2's.

    References
    ----------
    H. B. Lee, E. Yang, S. J. Hwang (2018). Deep asymmetric multi-task feature learning. ICML.
    """

    title: ClassVar[str] = "AMTFL with one hidden layer: School, MNIST, easy and hard tasks"
    paper: ClassVar[str] = "H. B. Lee, E. Yang, S. J. Hwang (2018). Deep asymmetric multi-task feature learning. ICML."
    seeds: ClassVar[int] = 5

    def __init__(
        self,
        *,
        tables: Sequence[str] = TABLES,
        awa2: str | None = None,
        kang: bool = False,
        hidden: Sequence[int] = (12, 500, 12, 1000),
        rates: Sequence[float] = (),
        strengths: Sequence[float] = (),
        alphas: Sequence[float] = (1.0, 0.1),
        gammas: Sequence[float] = (),
    ) -> None:
        self.tables, self.awa2, self.kang, self.hidden = tuple(dict.fromkeys(tables)), awa2, kang, tuple(hidden)
        self.rates, self.strengths, self.alphas, self.gammas = (
            tuple(dict.fromkeys(each)) for each in (rates, strengths, alphas, gammas)
        )
        if strange := set(tables) - set(TABLES):
            raise ValueError(f"`tables` must be of {', '.join(TABLES)}. Got {', '.join(sorted(strange))}.")
        if len(self.hidden) != len(UNITS_OF):
            raise ValueError(f"`hidden` must be {len(UNITS_OF)} numbers, of {', '.join(UNITS_OF)}. Got {hidden}.")
        if not self.alphas:
            raise ValueError("`alphas` must have one at least. Got none.")
        at_least(1, hidden=self.hidden)
        at_least(0, strengths=self.strengths, alphas=self.alphas, gammas=self.gammas)
        positive(rates=self.rates)
        check_folder("awa2", awa2)
        if not (self.tables or awa2):
            raise ValueError("`tables` must have one at least where `awa2` is not given. Got none.")

    def trials(self, seeds: int, quick: bool) -> list[Trial]:
        """A trial for each data set, arm and setting: all splits and learning rates side by side."""
        found = []
        for name in (*self.tables, *(["AWA2"] if self.awa2 else [])):
            for arm in ARMS:
                for setting in itertools.islice(self._settings(name, arm), 1 if quick else None):
                    said = ", ".join(f"{k} {v:g}" for k, v in setting.items())
                    asked = {"data": name, "arm": arm, "setting": setting, "seeds": seeds, "quick": quick}
                    found.append(Trial(f"{name}, {arm}, {said}", asked))
        return found

    def _settings(self, name: str, arm: str) -> Iterator[dict[str, float]]:
        for strength in self.strengths or (SQUARES if arm == "NN" else ABSOLUTE)[name]:
            if not arm.startswith("AMTFL"):
                yield {"strength": strength}
            else:
                alphas, gammas = self.alphas if arm == "AMTFL" else (0.0,), self.gammas or GAMMAS[name]
                for alpha, gamma in itertools.product(alphas, gammas):
                    yield {"strength": strength, "alpha": alpha, "gamma": gamma}

    def run(self, trial: Trial, folder: Folder) -> list[dict[str, Any]]:
        """Errors of every split and learning rate."""
        asked, made = trial.arguments, self._made(trial)
        training = self._training(trial, made, made.updates)
        train(training, folder, "training")
        rates = self._rates(asked["data"])
        same = {"data": asked["data"], "arm": asked["arm"], "setting": ", ".join(map(str, asked["setting"].values()))}
        found = []
        for at, number in enumerate(training.network.number.tolist()):
            fit, rate = made.fits[number // len(rates)], rates[number % len(rates)]
            for measure, value in shallow.measured(training, made, fit, at, asked["data"] == "Synthetic"):
                found.append(same | {"rate": rate, "seed": fit.seed, "measure": measure, "value": value})
        return found

    def seconds(self, trial: Trial) -> float:
        """From ten updates."""
        made = self._made(trial)
        training = self._training(trial, made, 12)
        training.run(until=1)
        start = time.perf_counter()
        training.run()
        return (time.perf_counter() - start) / (12 - 2) * made.updates

    def _rates(self, name: str) -> tuple[float, ...]:
        return self.rates or RATES[name]

    def _made(self, trial: Trial) -> Shallow:
        asked = trial.arguments
        return _made(asked["data"], asked["seeds"], asked["quick"], self.hidden, self.awa2 or "", self.kang)

    def _training(self, trial: Trial, made: Shallow, updates: int) -> Training:
        tasks = tuple(range(len(made.problem.tasks)))
        rates = self._rates(trial.arguments["data"])
        members = [Replica(fit.train, fit.train[:2], tasks, fit.seed, rate, 0.0) for fit in made.fits for rate in rates]
        parts = partial(_parts, made, trial.arguments["arm"], trial.arguments["setting"])
        every = min(updates // 2, 50)
        return Training(made.problem, parts, members, Schedule(updates, every, made.batch, updates, 0), per="expected")

    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """Test errors of the settings that validation rows chose, and differences split by split."""
        best, found = chosen(rows), []
        for name in dict.fromkeys(best["data"]):
            errors = _table(best, name, TEST)
            unit = "" if name in ("School", "Synthetic") else "%"
            published = PUBLISHED.get(name, {})
            for arm in errors:
                value, half = published.get(arm, (None, None))
                source = "" if value is None else f"{PAPER}, {value} ± {half}"
                found.append(Finding(f"{name}, {arm}, {TEST}", value, _of(errors, arm), unit, source=source))
            for one, other in COMPARED:
                if name != "Synthetic" and {one, other} <= set(errors):
                    found.append(_difference(name, one, other, errors, unit))
        return found + (_synthetic(best) if "Synthetic" in set(best["data"]) else [])

    def figure(self, rows: pandas.DataFrame) -> matplotlib.figure.Figure:
        """Test errors by data set and arm, with the published ones; each split a point."""
        from matplotlib.figure import Figure

        best = chosen(rows)
        names = list(dict.fromkeys(best["data"]))
        figure = Figure(figsize=(3 * len(names), 3.4), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            errors = _table(best, name, TEST)
            for at, arm in enumerate(errors):
                axes.plot([at] * len(errors), errors[arm], "o", alpha=0.5)
                value, half = PUBLISHED.get(name, {}).get(arm, (None, None))
                if value is not None:
                    axes.errorbar(at + 0.2, value, half, fmt="_", color="black", capsize=3)
            axes.set_xticks(range(len(errors.columns)), [arm.replace(", ", "\n") for arm in errors])
            axes.set(title=name, ylabel="RMSE" if name in ("School", "Synthetic") else "test error, %")
        return figure

    def remarks(self, rows: pandas.DataFrame) -> list[str]:
        """What was chosen."""
        return [
            "Each arm chooses its setting on validation rows, AMTFL from more of them than NN and MT-NN. The paper's "
            "grid has five values of each number; ours has one to three, near the least validation errors.",
            "The paper's intervals (after ±) are wider than most of its differences.",
            "Sizes and noise of the synthetic problem are as far as they are known; units of the hidden layer are "
            "rectified, where the tasks are linear.",
        ]


@lru_cache(maxsize=4)  # trials of all data sets are computed in one process
def _made(name: str, seeds: int, quick: bool, hidden: tuple[int, ...], path: str, kang: bool) -> Shallow:
    digits = shallow.kang if kang else shallow.mnist
    make = {"School": shallow.school, "MNIST": digits, "Synthetic": shallow.synthetic}
    units = hidden[UNITS_OF.index(name)]
    return shallow.awa2(path, seeds, quick, units) if name == "AWA2" else make[name](seeds, quick, units)


def _parts(made: Shallow, arm: str, setting: Mapping[str, float]) -> Parts:
    strength = setting["strength"]
    shrink = DeepAmtfl(
        setting.get("alpha", 0.0), setting.get("gamma", 0.0), 0.0 if arm == "NN" else strength, strength, 0.0
    )
    weights = _weights(made, 1.0 if arm == "NN" else 0.5)
    return Parts(Mlp(made.hidden, 1, "relu"), Hard(), Fixed(weights), (shrink,))


def _weights(made: Shallow, power: float) -> dict[str, float]:
    """Of tasks by a power of their number of rows: 1 on average. Tasks with the same rows weigh alike."""
    sizes = made.problem.observed.sum(0).double() ** power
    names = [task.name for task in made.problem.tasks]
    return dict(zip(names, (sizes / sizes.mean()).tolist(), strict=True))


def chosen(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The rows of the settings with the least error on validation rows, for each data set, arm and split."""
    keys = ["data", "arm", "seed"]
    judged = rows[(rows["measure"] == VALIDATION) & rows["value"].notna()]
    best = judged.loc[judged.groupby(keys)["value"].idxmin(), [*keys, "setting", "rate"]]
    kept = rows.merge(best, on=[*keys, "setting", "rate"])
    kept["arm"] = kept["arm"].astype("category").cat.set_categories(ARMS)
    order = {name: i for i, name in enumerate(dict.fromkeys(rows["data"]))}
    return kept.sort_values(["data", "arm", "seed"], key=lambda c: c.map(order) if c.name == "data" else c)


def _table(best: pandas.DataFrame, name: str, measure: str) -> pandas.DataFrame:
    """``[seed, arm]``."""
    own = best[(best["data"] == name) & (best["measure"] == measure)]
    found = own.pivot(index="seed", columns="arm", values="value").sort_index()
    return found.reindex(columns=[arm for arm in ARMS if arm in found])


def _of(errors: pandas.DataFrame, arm: str, other: str | None = None) -> tuple[float, ...]:
    values = errors[arm] if other is None else errors[arm] - errors[other]
    return finite(values)


def _difference(name: str, one: str, other: str, errors: pandas.DataFrame, unit: str) -> Finding:
    published = PUBLISHED.get(name, {})
    what, unit = f"{name}, {one} less {other}", "points" if unit == "%" else unit
    if not {one, other} <= set(published):
        return Finding(what, None, _of(errors, one, other), unit)
    value = round(published[one][0] - published[other][0], 2)
    claim = "negative" if value < 0 else "positive" if value > 0 else ""
    return Finding(what, value, _of(errors, one, other), unit, claim, PAPER)


def _synthetic(best: pandas.DataFrame) -> list[Finding]:
    """Transfer from easy to hard tasks, none in reverse."""
    forth, back, hard = (_table(best, "Synthetic", measure) for measure in (FORTH, BACK, HARD_TASKS))
    source = "Lee, Yang, Hwang 2018, synthetic tasks"
    found = [
        Finding(f"Synthetic, AMTFL, {FORTH}", None, _of(forth, "AMTFL")),
        Finding(f"Synthetic, AMTFL, {BACK}", None, _of(back, "AMTFL")),
    ]
    more = tuple((forth["AMTFL"] - back["AMTFL"]).dropna().tolist())
    found.append(Finding("Synthetic, AMTFL, more transfer from easy to hard", None, more, "", "positive", source))
    for one, other in COMPARED:
        claim, said = ("negative", source) if (one, other) == ("AMTFL", "MT-NN") else ("", "")
        found.append(
            Finding(f"Synthetic, {HARD_TASKS}, {one} less {other}", None, _of(hard, one, other), "", claim, said)
        )
    return found

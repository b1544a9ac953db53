"""Deep-AMTFL on imbalanced digits, with the controls that tell what its gain is made of."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from kinfolk.balancing import Fixed
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.penalties import DeepAmtfl, DeepAmtl
from kinfolk.penalties.base import Penalty
from kinfolk.runs import Folder
from kinfolk.sharing import Hard
from kinfolk.studies.base import Finding, Study, Trial
from kinfolk.studies.classes import CLASSES, Classes
from kinfolk.training.loop import Training
from kinfolk.training.network import Parts, Replica
from kinfolk.training.schedule import Schedule

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

BATCH, LOOKS = 100, 10
ERROR, CORRECTED, BALANCED = "test error", "test error less log odds", "test error, mean over classes"
VALIDATION, OF_CLASS = "validation error", "test error of class "
PUBLISHED = {"CNN": 8.13, "MT-CNN": 8.72, "Deep-AMTL": 8.52, "Deep-AMTFL": 5.82}
STUDENTS = {"MT-CNN": 9.74, "Deep-AMTFL": 6.99}
COMPARED = (("Deep-AMTFL", "MT-CNN"), ("Deep-AMTFL", "CNN"), ("Deep-AMTL", "MT-CNN"), ("MT-CNN", "CNN"))
CONTROLS = (
    ("Deep-AMTFL, A = 0", "MT-CNN"),
    ("Deep-AMTFL", "Deep-AMTFL, A = 0"),
    ("Deep-AMTFL", "Deep-AMTFL, alpha = 0"),
    ("Deep-AMTFL", "Deep-AMTFL, no proxy"),
    ("CNN, A = 0", "CNN"),
    ("Deep-AMTFL", "CNN, A = 0"),
    ("MT-CNN, balanced", "MT-CNN"),
    ("CNN, L1", "CNN"),
    ("MT-CNN", "MT-CNN, no L1"),
)
PAPER = "Lee, Yang, Hwang 2018, MNIST-Imbalanced"
DEEP2REPRODUCE = "Deep2Reproduce, University of Virginia"


@dataclass(frozen=True)
class Arm:
    """What is compared: one softmax or a task per class, its penalties, and weights of tasks by rarity."""

    softmax: bool
    penalties: tuple[Penalty, ...]
    balanced: bool = False


class AmtflDeep(Study):
    """Deep-AMTFL: features reconstructed from task outputs, a class a task, on imbalanced digits.

    The paper compares a CNN with softmax, MT-CNN (a task per class, absolute values of the last layer's weights in
    the loss), Deep-AMTL and Deep-AMTFL. Of class k the first 20 (10 - k) images train: 1,100 rows, 200 of the digit 0
    and 20 of the digit 9. 1,000 epochs of 11 updates by Adam, the learning rate 1e-4 and from the half on 1e-5.
    Predicted is the class with the largest output, after the last update. Numbers that the paper leaves open are
    those of the authors' code; it does not tell those of Deep-AMTL.

    Controls say where a gain comes from: a softmax with all else equal, tasks weighed by the root of their size, no
    price of feedback (``alpha=0``), no feedback at all (features are only held down), no proxy term. For every arm
    errors are also given with outputs less the log odds that each class had in training, which shows how much of a
    difference lies in the outputs' offsets alone, and as a mean over classes.

    Parameters
    ----------
    data
        "mnist".
    epochs
        Passes over the training rows.
    alpha, gamma, mu, decay, proxy
        Of :class:`~kinfolk.penalties.DeepAmtfl`. MT-CNN has ``mu`` and ``decay``, CNN and Deep-AMTL ``decay`` alone.
    price, pull
        ``mu`` and ``strength`` of :class:`~kinfolk.penalties.DeepAmtl`.
    controls
        Whether the arms that the paper does not have are trained as well.

    References
    ----------
    H. B. Lee, E. Yang, S. J. Hwang (2018). Deep asymmetric multi-task feature learning. ICML.
    """

    title: ClassVar[str] = "Deep-AMTFL on imbalanced digits, and what its gain is made of"
    paper: ClassVar[str] = "H. B. Lee, E. Yang, S. J. Hwang (2018). Deep asymmetric multi-task feature learning. ICML."

    def __init__(
        self,
        data: str = "mnist",
        epochs: int = 1000,
        alpha: float | int = 0.1,
        gamma: float | int = 0.01,
        mu: float | int = 1e-4,
        decay: float | int = 1e-4,
        proxy: float | int = 1e-3,
        price: float | int = 0.1,
        pull: float | int = 0.01,
        controls: bool = True,
    ) -> None:
        if data not in CLASSES:
            raise ValueError(f"`data` must be one of {', '.join(CLASSES)}. Got {data!r}.")
        if epochs < 1:
            raise ValueError(f"`epochs` must be at least 1. Got {epochs}.")
        self.data, self.epochs, self.controls = data, epochs, controls
        self.alpha, self.gamma, self.mu, self.decay, self.proxy = alpha, gamma, mu, decay, proxy
        self.price, self.pull = price, pull

    def arms(self) -> dict[str, Arm]:
        """All arms by name, with penalties as new: the published ones, then controls."""
        given, mu, decay = (self.alpha, self.gamma, self.mu, self.decay, self.proxy), self.mu, self.decay
        held = {"feedback": False}
        return {
            "CNN": Arm(True, (DeepAmtfl(0, 0, 0, decay),)),
            "MT-CNN": Arm(False, (DeepAmtfl(0, 0, mu, decay),)),
            "Deep-AMTL": Arm(False, (DeepAmtfl(0, 0, 0, decay), DeepAmtl(self.price, self.pull))),
            "Deep-AMTFL": Arm(False, (DeepAmtfl(*given),)),
            "Deep-AMTFL, A = 0": Arm(False, (DeepAmtfl(*given, **held),)),
            "Deep-AMTFL, alpha = 0": Arm(False, (DeepAmtfl(0, *given[1:]),)),
            "CNN, A = 0": Arm(True, (DeepAmtfl(0, self.gamma, 0, decay, **held),)),
            "MT-CNN, balanced": Arm(False, (DeepAmtfl(0, 0, mu, decay),), balanced=True),
            "Deep-AMTFL, no proxy": Arm(False, (DeepAmtfl(*given[:4], 0),)),
            "CNN, L1": Arm(True, (DeepAmtfl(0, 0, mu, decay),)),
            "MT-CNN, no L1": Arm(False, (DeepAmtfl(0, 0, 0, decay),)),
        }

    def trials(self, seeds: int, quick: bool) -> list[Trial]:
        """An arm and a seed each: side by side, convolutions on a CPU take more time than one after the other."""
        arms = list(self.arms())[: None if self.controls else len(PUBLISHED)]
        asked = [{"arm": arm, "seed": seed, "quick": quick} for arm in arms for seed in range(seeds)]
        return [Trial(f"{one['arm']}, seed {one['seed']}", one) for one in asked]

    def run(self, trial: Trial, folder: Folder) -> list[dict[str, Any]]:
        """Errors ten times on the way, and more of them after the last update."""
        asked, classes = trial.arguments, self._classes(trial)
        updates, rows, outputs = self._updates(trial, classes), [], torch.empty(0)
        training = self._training(trial, classes, updates, -(-updates // LOOKS))
        while not training.done:
            training.run(until=training.updates + 1)  # to the next look
            outputs = _outputs(training, classes.test[0])
            rows.append({"measure": ERROR, "update": training.updates, "value": _error(outputs, classes.test[1])})
        rows += _last(outputs, classes, self.arms()[asked["arm"]].softmax)
        valid = _error(_outputs(training, classes.validation[0]), classes.validation[1])
        rows.append({"measure": VALIDATION, "value": valid})
        same = {"arm": asked["arm"], "seed": asked["seed"]}
        return [same | {"update": updates} | row for row in rows]

    def seconds(self, trial: Trial) -> float:
        """From a few updates."""
        classes = self._classes(trial)
        training = self._training(trial, classes, 16, 8)
        training.run(until=1)
        start = time.perf_counter()
        training.run()
        return (time.perf_counter() - start) / 8 * self._updates(trial, classes)

    def _classes(self, trial: Trial) -> Classes:
        classes = CLASSES[self.data]()
        if not trial.arguments["quick"]:
            return classes
        few = lambda part: tuple(x[:200] for x in part)  # noqa: E731
        return replace(classes, validation=few(classes.validation), test=few(classes.test))

    def _training(self, trial: Trial, classes: Classes, updates: int, every: int) -> Training:
        arm = self.arms()[trial.arguments["arm"]]
        problem = _problem(classes, arm.softmax)
        rows, tasks = len(classes.train[1]), tuple(range(len(problem.tasks)))
        stop = torch.arange(rows, len(problem.inputs))
        member = Replica(torch.arange(rows), stop, tasks, trial.arguments["seed"], 1e-4, 0.0)
        weights = _weights(classes) if arm.balanced else None
        batch = BATCH // 5 if trial.arguments["quick"] else BATCH
        schedule = Schedule(updates, every, batch, updates + 1, 0, shape="constant", steps=((updates // 2, 0.1),))
        parts = lambda: Parts(classes.trunk, Hard(spread=0.01), Fixed(weights), arm.penalties)  # noqa: E731
        return Training(problem, parts, [member], schedule)

    def _updates(self, trial: Trial, classes: Classes) -> int:
        return 4 if trial.arguments["quick"] else self.epochs * (len(classes.train[1]) // BATCH)

    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """Errors of the arms, and differences seed by seed."""
        last = rows[(rows["measure"] == ERROR) & (rows["update"] == rows["update"].max())]
        errors = last.pivot(index="seed", columns="arm", values="value").sort_index()
        found = [
            Finding(f"{arm}, {ERROR}", value, _of(errors, arm), "%", source=PAPER) for arm, value in PUBLISHED.items()
        ]
        found += [
            Finding(f"{arm}, {ERROR}, students' reproduction", value, _of(errors, arm), "%", source=DEEP2REPRODUCE)
            for arm, value in STUDENTS.items()
        ]
        for one, other in COMPARED:
            published = PUBLISHED[one] - PUBLISHED[other]
            claim = "negative" if published < 0 else "positive"
            what = f"{one} against {other}"
            found.append(Finding(what, round(published, 2), _of(errors, one, other), "points", claim, PAPER))
        return found + self._controlled(rows, errors)

    def _controlled(self, rows: pandas.DataFrame, errors: pandas.DataFrame) -> list[Finding]:
        """What no paper tells: differences to controls, and the errors that were measured in other ways."""
        found = [
            Finding(f"{one} against {other}", None, _of(errors, one, other), "points")
            for one, other in CONTROLS
            if {one, other} <= set(errors)
        ]
        for measure in (CORRECTED, BALANCED, VALIDATION):
            other = rows[rows["measure"] == measure].pivot(index="seed", columns="arm", values="value").sort_index()
            found += [Finding(f"{arm}, {measure}", None, _of(other, arm), "%") for arm in self.arms() if arm in other]
        return found

    def figure(self, rows: pandas.DataFrame) -> matplotlib.figure.Figure:
        """Test errors while training, and those of each class after it."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.6), layout="constrained")
        course, classes = figure.subplots(1, 2)
        for arm, own in ((arm, rows[rows["arm"] == arm]) for arm in PUBLISHED):
            on_the_way = _means(own[own["measure"] == ERROR], "update")
            course.plot(list(on_the_way), list(on_the_way.values()), label=arm)
            each = _means(own[[OF_CLASS in measure for measure in own["measure"]]], "measure")
            classes.plot([name.removeprefix(OF_CLASS) for name in each], list(each.values()), marker="o", label=arm)
        course.set(xlabel="updates", ylabel="test error, %", yscale="log")
        classes.set(xlabel="class, from frequent to rare", ylabel="test error, %")
        course.legend(frameon=False)
        return figure

    def remarks(self, rows: pandas.DataFrame) -> list[str]:
        """What was chosen, and what is not told."""
        return [
            "Errors are those after the last update. Nothing was chosen by them, and nothing by the validation rows.",
            f"The paper does not tell Deep-AMTL's constants: its price is {self.price} and its pull {self.pull} here.",
            'Lines "less log odds" take from each output the log odds that its class had in training.',
        ]


def _problem(classes: Classes, softmax: bool) -> Problem:
    """The training rows, then a hundred others that are looked at and decide nothing."""
    labels = torch.cat([classes.train[1], classes.validation[1][:100]])
    inputs = torch.cat([classes.train[0], classes.validation[0][:100]])
    names = [str(k) for k in range(len(classes.counts))]
    if softmax:
        return Problem.from_arrays(inputs, labels[:, None].numpy(), [Task("class", "multiclass", tuple(names))])
    tasks = [Task(name, "binary", ("other", name)) for name in names]
    return Problem.from_arrays(inputs, (labels[:, None] == torch.arange(len(names))).numpy(), tasks)


def _weights(classes: Classes) -> dict[str, float]:
    """Of tasks, by the root of their size: 1 on average."""
    rarity = classes.counts.double().rsqrt()
    return {str(k): weight for k, weight in enumerate((rarity / rarity.mean()).tolist())}


@torch.no_grad()
def _outputs(training: Training, inputs: Tensor) -> Float[Tensor, "row class"]:
    """One number per class: the outputs of all tasks side by side."""
    model = training.network.model.eval()
    found = torch.cat([torch.cat(list(model(x.unsqueeze(0)).tasks), -1)[0] for x in inputs.split(500)])
    model.train()
    return found


def _error(outputs: Tensor, labels: Tensor) -> float:
    """In per cent."""
    return 100 * float((outputs.argmax(-1) != labels).double().mean())


def _last(outputs: Tensor, classes: Classes, softmax: bool) -> list[dict[str, Any]]:
    """What else the outputs for the test rows say after the last update."""
    labels, prior = classes.test[1], classes.counts / classes.counts.sum()
    level = outputs - (prior.log() if softmax else prior.logit())
    each = [_error(outputs[labels == k], labels[labels == k]) for k in range(len(prior))]
    found = {CORRECTED: _error(level, labels), BALANCED: sum(each) / len(each)}
    found |= {f"{OF_CLASS}{k}": error for k, error in enumerate(each)}
    return [{"measure": measure, "value": value} for measure, value in found.items()]


def _means(rows: Any, by: str) -> dict[Any, float]:
    """Mean values over seeds, in the order in which they stand."""
    return rows.groupby(by, sort=False)["value"].mean().to_dict()


def _of(errors: Any, arm: str, other: str | None = None) -> tuple[float, ...]:
    """One number per seed, less those of the other arm; seeds that are not there for both are left out."""
    values = errors[arm] if other is None else errors[arm] - errors[other]
    return tuple(values.dropna().tolist())

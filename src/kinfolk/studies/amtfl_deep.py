"""Deep-AMTFL on imbalanced digits, with the controls that tell what its gain is made of."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
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
from kinfolk.studies import amtfl_table
from kinfolk.studies.amtfl_table import BALANCED, CORRECTED, ERROR, FURTHER, OF_CLASS, PUBLISHED, VALIDATION, by_set
from kinfolk.studies.base import Finding, Study, Trial, at_least
from kinfolk.studies.classes import AWA2, CUB, FOLDER, MNIST, Classes, check_folder, read
from kinfolk.training.loop import Training
from kinfolk.training.network import Parts, Replica
from kinfolk.training.schedule import Schedule

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

BATCH, LOOKS = 100, 10
UPDATES = 11_000  # that the networks of MNIST-Imbalanced make


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

    AWA2's features, CUB-200-2011 and a folder of pictures are further data sets, for users who have them. All rows that
    do not test train there: CUB's split is the published one, of the others a quarter of each class tests, drawn once.
    The paper's networks for pictures are large and pretrained. Here a dense layer learns from AWA2's features, and from
    pictures of 64 x 64 pixels the network for digits with a third convolution: nothing published stands beside.

    Parameters
    ----------
    data
        "mnist"; None leaves it out.
    epochs
        Passes over the training rows of MNIST-Imbalanced.
    alpha, gamma, mu, decay, proxy
        Of :class:`~kinfolk.penalties.DeepAmtfl`. MT-CNN has ``mu`` and ``decay``, CNN and Deep-AMTL ``decay`` alone.
    price, pull
        ``mu`` and ``strength`` of :class:`~kinfolk.penalties.DeepAmtl`.
    controls
        Whether the arms that the paper does not have are trained as well.
    awa2, cub, folder
        Folders of further data sets: :func:`kinfolk.datasets.awa2`, :func:`~kinfolk.datasets.cub` and
        :func:`~kinfolk.datasets.image_folder`. None: without.
    updates
        Of networks on further data sets. None: 11,000, as on MNIST-Imbalanced.

    Raises
    ------
    InputError
        For a folder that is not there, or not the one that is meant.

    References
    ----------
    H. B. Lee, E. Yang, S. J. Hwang (2018). Deep asymmetric multi-task feature learning. ICML.
    """

    title: ClassVar[str] = "Deep-AMTFL on imbalanced digits, and what its gain is made of"
    paper: ClassVar[str] = "H. B. Lee, E. Yang, S. J. Hwang (2018). Deep asymmetric multi-task feature learning. ICML."

    def __init__(
        self,
        data: str | None = "mnist",
        epochs: int = 1000,
        alpha: float | int = 0.1,
        gamma: float | int = 0.01,
        mu: float | int = 1e-4,
        decay: float | int = 1e-4,
        proxy: float | int = 1e-3,
        price: float | int = 0.1,
        pull: float | int = 0.01,
        controls: bool = True,
        awa2: str | None = None,
        cub: str | None = None,
        folder: str | None = None,
        updates: int | None = None,
    ) -> None:
        if data not in ("mnist", None):
            raise ValueError(f"`data` must be mnist, or None to leave it out. Got {data!r}.")
        at_least(1, epochs=epochs, updates=UPDATES if updates is None else updates)
        at_least(0, price=price, pull=pull)
        for name, path in (("awa2", awa2), ("cub", cub), ("folder", folder)):
            check_folder(name, path)
        self.awa2, self.cub, self.folder, self.updates = awa2, cub, folder, updates
        self.data, self.epochs, self.controls = data, epochs, controls
        self.alpha, self.gamma, self.mu, self.decay, self.proxy = alpha, gamma, mu, decay, proxy
        self.price, self.pull = price, pull
        self.arms()  # penalties judge their own numbers
        if not self._paths():
            raise ValueError("`data` must be mnist where no other data set is given. Got None: name a folder.")

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
        """A data set, an arm and a seed each: side by side, convolutions take more time than one after the other."""
        arms, found = list(self.arms())[: None if self.controls else len(PUBLISHED)], []
        for name, arm, seed in itertools.product(self._paths(), arms, range(seeds)):
            asked = {"arm": arm, "seed": seed, "quick": quick}
            further = name != MNIST
            said = f"{name}, " if further else ""
            found.append(Trial(f"{said}{arm}, seed {seed}", asked | ({"data": name} if further else {})))
        return found

    def _paths(self) -> dict[str, str]:
        """The folders of the data sets that are asked for."""
        given = {MNIST: "" if self.data else None, AWA2: self.awa2, CUB: self.cub, FOLDER: self.folder}
        return {name: path for name, path in given.items() if path is not None}

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
        if classes.validation is not None:
            valid = _error(_outputs(training, classes.validation[0]), classes.validation[1])
            rows.append({"measure": VALIDATION, "value": valid})
        same = {"data": asked.get("data", MNIST), "arm": asked["arm"], "seed": asked["seed"]}
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
        name = trial.arguments.get("data", MNIST)
        return read(name, self._paths()[name], trial.arguments["quick"])

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
        if trial.arguments["quick"]:
            return 4
        if "data" in trial.arguments:
            return self.updates or UPDATES
        return self.epochs * (len(classes.train[1]) // BATCH)

    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """Errors of the arms, and differences seed by seed, for each data set."""
        return amtfl_table.findings(rows)

    def figure(self, rows: pandas.DataFrame) -> matplotlib.figure.Figure:
        """Test errors while training, and those of each class after it."""
        return amtfl_table.figure(rows)

    def remarks(self, rows: pandas.DataFrame) -> list[str]:
        """What was chosen, and what is not told."""
        said = [
            "Errors are those after the last update. Nothing was chosen by them, and nothing by the validation rows.",
            f"The paper does not tell Deep-AMTL's constants: its price is {self.price} and its pull {self.pull} here.",
            'Lines "less log odds" take from each output the log odds that its class had in training.',
        ]
        return said + [FURTHER[name] for name in by_set(rows) if name in FURTHER]


def _problem(classes: Classes, softmax: bool) -> Problem:
    """The training rows, then those that are looked at and decide nothing."""
    inputs, labels = (torch.cat(parts) for parts in zip(classes.train, classes.watched, strict=True))
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
    frequent = classes.counts.argsort(descending=True, stable=True).tolist()
    found |= {f"{OF_CLASS}{classes.names[k]}": each[k] for k in frequent}
    return [{"measure": measure, "value": value} for measure, value in found.items()]

"""Where should a trunk split? Every split point against units that learn how much to share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kinfolk import datasets
from kinfolk.balancing import Fixed
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.datasets.base import Images
from kinfolk.exceptions import InputError
from kinfolk.runs import Folder
from kinfolk.sharing import CrossStitch, Hard, Nddr
from kinfolk.sharing.base import Sharing
from kinfolk.studies import split_table
from kinfolk.studies.base import Finding, Study, Trial, at_least, of_each, positive, train
from kinfolk.studies.split_table import (
    ARMS,
    DIGIT,
    ENSEMBLE,
    FREQUENT,
    GARMENT,
    NDDR,
    ONE,
    RARE,
    SCRATCH,
    SHARED,
    SPLITS,
    STITCH,
    WIDE,
)
from kinfolk.training.loop import Training
from kinfolk.training.network import Parts, Replica
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import LeNet

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

CHANNELS, HIDDEN, BATCH, STOP, TEST = (8, 16, 32), 64, 64, 300, 5000


@dataclass(frozen=True)
class Pictures:
    """Pictures of a digit and a garment each, with both labels.

    Attributes
    ----------
    inputs
        ``[row, 1, height, width]``, in [0, 1].
    labels
        Numbers of the classes of digit and garment, ``[row, 2]``.
    """

    inputs: Float[np.ndarray, "row 1 height width"]
    labels: np.ndarray


def pictures(digits: np.ndarray, garments: np.ndarray, canvas: str) -> np.ndarray:
    """Images of 28 x 28 in pairs: laid over each other (the mean of both) or side by side, at half the resolution."""
    pooled = [images.reshape(-1, 14, 2, 14, 2).mean((2, 4)) / 255 for images in (digits, garments)]
    both = np.concatenate(pooled, 2) if canvas == "beside" else (pooled[0] + pooled[1]) / 2
    return both[:, None]


def chosen(labels: np.ndarray, counts: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Rows in random order, as many of each class as asked.

    Raises
    ------
    InputError
        When a class has fewer.
    """
    there = np.bincount(labels, minlength=len(counts))
    if lacking := [k for k, count in enumerate(counts) if count > there[k]]:
        k = lacking[0]
        raise InputError(
            f"`few` and `many` ask for {counts[k]} images of class {k}, with those that end a first phase, and there "
            f"are {there[k]} to train. Give smaller ones."
        )
    order = random.permutation(len(labels))
    rows = [order[labels[order] == k][:count] for k, count in enumerate(counts)]
    return random.permutation(np.concatenate(rows))


class CrossStitchSplit(Study):
    """Where to split a trunk of two tasks, and whether learned mixtures make the question superfluous.

    The paper compares networks that split after each stage with cross-stitch units, on segmentation and surface
    normals (NYUv2) and on detection and attributes (PASCAL). It reports that the best split depends on the tasks, that
    cross-stitch is at least as good, and that gains lie in classes with few labels.

    Its data are not here. A picture shows a digit of MNIST and a garment of Fashion-MNIST, and one task is to tell
    each. Of one task's classes half are rare. All arms have the same trunk (three convolutions with pooling, and a
    dense layer), the same pictures and as many updates. Cross-stitch and NDDR spend half of these on networks of one
    task each, as the paper starts from such. Controls are ensembles of two one-task networks (as many parameters per
    task as cross-stitch), a wider shared trunk, and cross-stitch without the first phase.

    Parameters
    ----------
    canvas
        "blend": digit and garment lie over each other. "beside": side by side.
    starved
        The task with rare classes (1, 3, 5, 7, 9), "garment" or "digit".
    few, many
        Training rows of a rare class and of others.
    same, other
        What a task takes of its own and of the other's features at the start. 0.9 and 0.1 were best in the paper.
    factor
        Of the learning rate of stitches and fusions. The paper's best was 100 to 1000 under SGD; AdamW scales steps.
    updates, rate, decay
        Of AdamW with a cosine, in both phases together.

    References
    ----------
    I. Misra, A. Shrivastava, A. Gupta, M. Hebert (2016). Cross-stitch networks for multi-task learning. CVPR,
    3994-4003.

    Y. Gao, J. Ma, M. Zhao, W. Liu, A. L. Yuille (2019). NDDR-CNN: layerwise feature fusing in multi-task CNNs by neural
    discriminative dimensionality reduction. CVPR, 3205-3214.
    """

    title: ClassVar[str] = "Where to split a trunk: every split against cross-stitch and NDDR"
    paper: ClassVar[str] = (
        "I. Misra, A. Shrivastava, A. Gupta, M. Hebert (2016). Cross-stitch networks for multi-task learning. CVPR."
    )
    seeds: ClassVar[int] = 5

    def __init__(
        self,
        canvas: str = "blend",
        starved: str = GARMENT,
        few: int = 20,
        many: int = 400,
        same: float | int = 0.9,
        other: float | int = 0.1,
        factor: float | int = 10,
        updates: int = 1200,
        rate: float | int = 0.003,
        decay: float | int = 0.01,
    ) -> None:
        for name, value, known in (("canvas", canvas, ("blend", "beside")), ("starved", starved, (GARMENT, DIGIT))):
            if value not in known:
                raise ValueError(f"`{name}` must be {' or '.join(map(repr, known))}. Got {value!r}.")
        at_least(1, few=few, many=many)
        at_least(2, updates=updates)
        at_least(0, factor=factor, decay=decay)
        positive(rate=rate)
        self.canvas, self.starved, self.few, self.many = canvas, starved, few, many
        self.same, self.other, self.factor = same, other, factor
        self.updates, self.rate, self.decay = updates, rate, decay

    def trials(self, seeds: int, quick: bool) -> list[Trial]:
        """An arm with all its seeds side by side: on pictures this small, a third of the time."""
        return [Trial(arm, {"arm": arm, "seeds": seeds, "quick": quick}) for arm in ARMS]

    def run(self, trial: Trial, folder: Folder) -> list[dict[str, Any]]:
        """Errors on test pictures after the last update."""
        arm, test = trial.arguments["arm"], self._test(trial)
        training = self._training(trial, self._updates(trial))
        train(training, folder, "training")
        failed = (torch.full((len(test.labels), 10), torch.nan),) * 2
        found: list[tuple[str, int, tuple[Tensor, ...]]] = []
        for number, shares in enumerate(of_each(training, partial(_shares, training, test.inputs), failed)):
            seed, again = divmod(number, self._copies(arm))
            if again:
                both = tuple((a + b) / 2 for a, b in zip(found[-1][2], shares, strict=True))
                found.append((ENSEMBLE, seed, both))
            else:
                found.append((arm, seed, shares))
        return [
            {"arm": name, "seed": seed, "measure": measure, "value": value}
            for name, seed, shares in found
            for measure, value in self._errors(shares, test.labels).items()
        ]

    def seconds(self, trial: Trial) -> float:
        """From a few updates: the second half, in which trunks that were apart are joined."""
        training = self._training(trial, 16, looks=2)
        training.run(until=8)
        start = time.perf_counter()
        training.run()
        return (time.perf_counter() - start) / 8 * self._updates(trial)

    def _copies(self, arm: str) -> int:
        """Networks per seed: two where there is an ensemble."""
        return 2 if arm == ONE else 1

    def _updates(self, trial: Trial) -> int:
        return min(self.updates, 12) if trial.arguments["quick"] else self.updates

    def _sharing(self, arm: str) -> Sharing:
        """An arm's network, as new."""
        given: dict[str, Any] = {"same": self.same, "other": self.other, "rate": self.factor}
        made: dict[str, Callable[[], Sharing]] = {
            SHARED: Hard,
            WIDE: Hard,
            STITCH: lambda: CrossStitch(start="independent", **given),
            SCRATCH: lambda: CrossStitch(**given),
            NDDR: lambda: Nddr(relu=True, start="independent", **given),
        }
        return made[arm]() if arm in made else Hard(split=(ONE, *SPLITS).index(arm))

    def _training(self, trial: Trial, updates: int, looks: int = 10) -> Training:
        """The networks of all seeds; those of an ensemble see the same rows in another order."""
        arm, copies = trial.arguments["arm"], self._copies(trial.arguments["arm"])
        given = [self._train_rows(seed, trial.arguments["quick"]) for seed in range(trial.arguments["seeds"])]
        tasks = [Task(name, "multiclass", tuple(map(str, range(10)))) for name in (DIGIT, GARMENT)]
        inputs, labels = (
            np.concatenate(each) for each in zip(*((one.inputs, one.labels) for one in given), strict=True)
        )
        problem = Problem.from_arrays(torch.from_numpy(inputs), labels, tasks)
        own = [rows for rows in torch.arange(len(labels)).split(len(given[0].labels)) for _ in range(copies)]
        members = [Replica(r[:-STOP], r[-STOP:], (0, 1), i, self.rate, self.decay) for i, r in enumerate(own)]
        length = updates // self._sharing(arm).phases
        schedule = Schedule(length, max(1, length // looks), BATCH, updates + 1, min(50, length // 4))
        return Training(problem, lambda: Parts(_trunk(arm == WIDE), self._sharing(arm), Fixed()), members, schedule)

    def _train_rows(self, seed: int, quick: bool) -> Pictures:
        """Pictures that train, then some of the same law, by which the end of a first phase is chosen."""
        few, many = (min(self.few, 5), min(self.many, 60)) if quick else (self.few, self.many)
        starved = np.where(np.arange(10) % 2, few, many)
        total = int(starved.sum())
        even = np.full(10, -(-(total + STOP) // 10))
        share = np.ceil(starved * (1 + STOP / total)).astype(int)
        counts = (even, share) if self.starved == GARMENT else (share, even)
        images, random = (datasets.mnist(), datasets.fashion_mnist()), np.random.default_rng([seed, 1])
        rows = [chosen(one.labels, count, random)[: total + STOP] for one, count in zip(images, counts, strict=True)]
        return self._pictures(images, rows, False)

    def _test(self, trial: Trial) -> Pictures:
        """Test images of all classes alike, paired at random; the same for all arms and seeds."""
        random, count = np.random.default_rng(0), 500 if trial.arguments["quick"] else TEST
        images = datasets.mnist(), datasets.fashion_mnist()
        return self._pictures(images, [random.permutation(len(one.test_labels))[:count] for one in images], True)

    def _pictures(self, images: tuple[Images, Images], rows: list[np.ndarray], test: bool) -> Pictures:
        pixels = [(one.test_inputs if test else one.inputs)[at] for one, at in zip(images, rows, strict=True)]
        labels = [(one.test_labels if test else one.labels)[at] for one, at in zip(images, rows, strict=True)]
        return Pictures(pictures(pixels[0], pixels[1], self.canvas), np.stack(labels, 1))

    def _errors(self, shares: Sequence[Tensor], labels: np.ndarray) -> dict[str, float]:
        """In per cent, of both tasks, and of the starved task's rare and frequent classes; NaN without shares."""
        wrong = {
            name: np.where(share.isnan().any(-1), np.nan, share.argmax(-1).numpy() != truth)
            for name, share, truth in zip((DIGIT, GARMENT), shares, labels.T, strict=True)
        }
        rare = labels[:, (DIGIT, GARMENT).index(self.starved)] % 2 == 1
        wrong |= {RARE: wrong[self.starved][rare], FREQUENT: wrong[self.starved][~rare]}
        return {name: 100 * float(each.mean()) for name, each in wrong.items()}

    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """What the paper says of the order, then all errors."""
        return split_table.findings(rows)

    def figure(self, rows: pandas.DataFrame) -> matplotlib.figure.Figure:
        """Errors by the stage after which the trunk splits; lines are the arms that do not split."""
        return split_table.draw(rows)

    def remarks(self, rows: pandas.DataFrame) -> list[str]:
        """What was chosen."""
        return [
            "The data are not the paper's: its numbers tell the direction alone.",
            f"Of {self.starved} classes 1, 3, 5, 7, 9 have {self.few} training rows each, others {self.many}. Test "
            "classes are alike frequent.",
            "The best split is the one with the lowest mean test error, as in the paper: this favours splits.",
            f"Every arm makes {self.updates} updates, {STITCH} and {NDDR} half of them as networks of one task. The "
            "learning rate and its factor were not tuned.",
        ]


def _trunk(wide: bool) -> LeNet:
    """Three convolutions with pooling and a dense layer; wide: about as many parameters as two such."""
    *channels, hidden = (round(2**0.5 * n) if wide else n for n in (*CHANNELS, HIDDEN))
    return LeNet(channels, kernel=3, hidden=hidden, padding=1)


@torch.no_grad()
def _shares(training: Training, inputs: np.ndarray) -> list[tuple[Tensor, ...]]:
    """The probabilities of all classes by each network, ``[row, class]`` for each task."""
    model, networks = training.network.model.eval(), len(training.network.number)
    x = torch.from_numpy(inputs).to(training.problem.inputs)
    parts = [model(rows.expand(networks, *rows.shape)).tasks for rows in x.split(500)]
    of_tasks = [torch.cat(list(of_task), 1).softmax(-1) for of_task in zip(*parts, strict=True)]
    return list(zip(*of_tasks, strict=True))

"""Evolving weights on MNIST: from reconstruction to classification, epoch by epoch, and against extra steps alone."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kinfolk import datasets
from kinfolk.auxiliary import Reconstruction
from kinfolk.auxiliary.base import WithAuxiliary, with_tasks
from kinfolk.balancing import Evolving
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.datasets.base import Images
from kinfolk.replicas import key, tensors
from kinfolk.runs import Folder
from kinfolk.sharing import Hard
from kinfolk.studies.base import Finding, Study, Trial, at_least, of_each, positive, train
from kinfolk.studies.evolving_table import ALONE, ARMS, NETWORKS, PADDED, WITH_DATA, compare, draw
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.optim import Sgd
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import Mlp

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

POOL = 50_000  # of the 60,000 training images; the others would be for validation
DIGIT = Task("digit", "multiclass", tuple(range(10)))


class EvolvingWeights(Study):
    """Unlabelled images that are reconstructed, against the extra steps that come with them.

    Classification of few labelled digits and reconstruction of many unlabelled ones train one network, first mostly
    the one, then mostly the other (:class:`~kinfolk.balancing.Evolving`, :class:`~kinfolk.auxiliary.Reconstruction`).
    Labelled and unlabelled images are shuffled together, and every batch that holds a labelled image makes a step
    toward classification: the more unlabelled images there are, the more such steps an epoch has. The paper compares
    with a network that saw the labelled images alone, one or two steps per epoch. Here stands beside it the network
    that makes all these steps and no step toward reconstruction, on the same batches: "padded".

    Parameters
    ----------
    networks
        Of NN1 (50 hidden units), NN2 (60-50), NN3 (70-60-50), NN4 (80-70-60-50).
    labelled, unlabelled
        Numbers of images; together at most the 50,000 that the paper trained on.
    rest
        Also all 50,000 images with the fewest labelled ones, for exp40 and the padded baseline, two seeds.
    arms
        What is trained with unlabelled images. "stairs100" takes the steps of the other arms; "stairs100 alone" is
        pre-training on all images and then training on the labelled ones alone, as the published numbers suggest.
    per
        What the loss of the labelled images in a batch is divided by: "batch", their number, or "expected", the number
        to be expected. The paper does not say.
    corruption
        Share of a layer's inputs that are set to 0. The paper names no number.
    tied, cost, reduction, stop_gradient
        Of the auto-encoders, see :class:`~kinfolk.auxiliary.Reconstruction`. The paper says nothing; these are usual
        in tutorials of its time.
    activation, init
        Of the networks. The paper does not say; these come near its baselines, others do not.
    epochs, tail
        How many, and over how many at the end the learning rate falls linearly to 0. The paper names 5000 and 500.
    rate, pretraining
        Learning rates; the second in the first 100 epochs of "stairs100 alone", which the paper tuned.
    batch
        Images per update.
    cutoff
        A weight of reconstruction below it counts as 0, which spares most of the time of exp40.

    References
    ----------
    S. Belharbi, R. Herault, C. Chatelain, S. Adam (2016). Deep multi-task learning with evolving weights. ESANN,
    141-146.
    """

    title = "Evolving weights on MNIST: unlabelled images against extra steps"
    paper = (
        "S. Belharbi, R. Herault, C. Chatelain, S. Adam (2016). Deep multi-task learning with evolving weights. "
        "ESANN, 141-146."
    )
    seeds = 3

    def __init__(
        self,
        *,
        networks: Sequence[str] = ("NN1",),
        labelled: Sequence[int] = (100, 1000),
        unlabelled: Sequence[int] = (0, 10_000),
        rest: bool = True,
        arms: Sequence[str] = tuple(WITH_DATA),
        per: str = "batch",
        corruption: float = 0.3,
        tied: bool = True,
        cost: str = "cross_entropy",
        reduction: str = "sum",
        stop_gradient: bool = True,
        activation: str = "sigmoid",
        init: str = "glorot_sigmoid",
        epochs: int = 5000,
        tail: int = 500,
        rate: float = 0.01,
        pretraining: float = 0.01,
        batch: int = 600,
        cutoff: float = 1e-4,
    ) -> None:
        for name, given, known in (("networks", networks, NETWORKS), ("arms", arms, WITH_DATA)):
            if not given:
                raise ValueError(f"`{name}` must not be empty; there are {', '.join(known)}.")
            if unknown := set(given) - set(known):
                raise ValueError(f"`{name}` must be of {', '.join(known)}. Got {', '.join(sorted(unknown))}.")
        if not labelled or min(labelled) < 10 or min(unlabelled, default=0) < 0 or max(labelled) > POOL:
            raise ValueError(f"`labelled` must be in [10, {POOL}], `unlabelled` not negative.")
        at_least(2, epochs=epochs)
        at_least(1, batch=batch)
        at_least(0, tail=tail)
        positive(rate=rate, pretraining=pretraining)
        if per not in ("batch", "expected"):
            raise ValueError(f"`per` must be batch or expected. Got {per!r}.")
        self.networks, self.labelled, self.unlabelled, self.rest = networks, labelled, unlabelled, rest
        self.arms, self.per, self.corruption, self.tied, self.cost = arms, per, corruption, tied, cost
        self.reduction, self.stop_gradient, self.activation, self.init = reduction, stop_gradient, activation, init
        self.epochs, self.tail, self.rate, self.pretraining = epochs, tail, rate, pretraining
        self.batch, self.cutoff = batch, cutoff
        for network, arm in itertools.product(networks, (PADDED, *(arm for arm in arms if arm != ALONE))):
            parts = self._parts({"network": network, "t1": 1, "sigma": 1.0, "epochs": epochs}, arm)  # they judge it
            parts.sharing.setup(parts.trunk, (DIGIT, self._reconstruction().task), torch.Size([784]))

    # ---- what is computed

    def trials(self, seeds: int, quick: bool) -> list[Trial]:
        """A setting with all its seeds side by side; the most telling ones first, the longest last."""
        if quick:
            cells = [(self.networks[-1], 20, 100)]
            size = {"epochs": 12, "tail": 2, "batch": 40, "t1": 4, "sigma": 2.0}
        else:
            cells = [
                (net, few, min(many, POOL - few))
                for net in self.networks
                for many in sorted(set(self.unlabelled), reverse=True)
                for few in self.labelled
            ]
            size = {"epochs": self.epochs, "tail": self.tail, "batch": self.batch}
            size |= {"t1": max(1, round(self.epochs / 50)), "sigma": 40 * self.epochs / 5000}
        found = [(*cell, arm, seeds) for cell in dict.fromkeys(cells) for arm in self._of(cell[2])]
        found += [(net, few, 0, "baseline", seeds) for net, few in dict.fromkeys(cell[:2] for cell in cells)]
        if self.rest and not quick:
            least = min(self.labelled)
            whole = [(net, least, POOL - least) for net in self.networks]
            found += [(*cell, arm, min(seeds, 2)) for cell in whole if cell not in cells for arm in (PADDED, "exp40")]
        found = sorted(dict.fromkeys(found), key=lambda one: (one[3] == "lin" and one[2] > 0, one[3] != "baseline"))
        return [
            Trial(
                f"{net}, l={few}, u={many}, {arm}, {count} seeds",
                {"network": net, "labelled": few, "unlabelled": many, "arm": arm, "seeds": list(range(count)), **size},
            )
            for net, few, many, arm, count in found
        ]

    def _of(self, unlabelled: int) -> list[str]:
        """The arms that are trained with so many unlabelled images; without any, some are the same."""
        return [arm for arm in self.arms if unlabelled or arm not in (PADDED, ALONE)]

    def run(self, trial: Trial, folder: Folder) -> list[dict[str, Any]]:
        """The test error of every seed after the last epoch."""
        one = trial.arguments
        problem = self._problem(one)
        if one["arm"] == ALONE:
            training = self._after_pretraining(problem, one, folder)
        else:
            training = self._training(problem, one, one["arm"], one["epochs"])
        train(training, folder, "training")
        errors = of_each(training, lambda: _errors(training), math.nan)
        columns = {name: one[name] for name in ("network", "labelled", "unlabelled", "arm")}
        return [
            columns | {"seed": seed, "measure": "test error", "value": error}
            for seed, error in zip(one["seeds"], errors, strict=True)
        ]

    def _after_pretraining(self, problem: Problem, one: Mapping[str, Any], folder: Folder) -> Training:
        """A training on the labelled images alone, from the weights that reconstruction of all of them has left."""
        first = self._training(problem, one, "pretraining", one["t1"])
        train(first, folder, "pretraining")
        training = self._training(problem, one, "baseline", one["epochs"] - one["t1"])
        for (_, after), (_, before) in zip(tensors(training.network.model), tensors(first.network.model), strict=True):
            after.data.copy_(before.data)
        return training

    def _problem(self, one: Mapping[str, Any]) -> Problem:
        """The images of all seeds, one after the other: labelled ones, then unlabelled ones."""
        images = pool()
        size = one["labelled"] + one["unlabelled"]
        there = min(POOL, len(images.labels))
        orders = [np.random.default_rng([seed, 2016]).permutation(there)[:size] for seed in one["seeds"]]
        chosen = np.concatenate(orders)
        labels = images.labels[chosen].astype(np.float64)
        labels[np.arange(len(chosen)) % size >= one["labelled"]] = np.nan
        pixels = images.inputs[chosen].reshape(len(chosen), -1).astype(np.float32) / 255
        return with_tasks(Problem.from_arrays(pixels, labels[:, None], [DIGIT]), [self._reconstruction().task])

    def _training(self, problem: Problem, one: Mapping[str, Any], arm: str, epochs: int) -> Training:
        """All seeds as replicas."""
        size = one["labelled"] + one["unlabelled"]
        used = one["labelled"] if arm == "baseline" else size
        rows = torch.arange(used)
        rate = self.pretraining if arm == "pretraining" else self.rate
        members = [
            Replica(i * size + rows, i * size + rows[:10], (0, 1), key(seed, 2016) % 2**31, rate, 0.0)
            for i, seed in enumerate(one["seeds"])
        ]
        every = -(-used // one["batch"])
        tail = 0 if arm == "pretraining" else min(one["tail"], epochs) * every
        batch = min(one["batch"], used)
        schedule = Schedule(
            epochs * every, every, batch, epochs * every + 1, 0, shape="constant", tail=tail, look=min(50, epochs)
        )
        return Training(problem, partial(self._parts, one, arm), members, schedule, per=self.per)

    def _parts(self, one: Mapping[str, Any], arm: str) -> Parts:
        trunk = Mlp(width=NETWORKS[one["network"]], activation=self.activation, init=self.init)
        evolving = Evolving(
            schedule=ARMS[arm].schedule, share=ARMS[arm].share, t1=one["t1"],
            sigma=one["sigma"], epochs=one["epochs"], alternate=True, cutoff=self.cutoff,
        )  # fmt: skip
        return Parts(trunk, WithAuxiliary(Hard(), [self._reconstruction()]), evolving, optimizer=Sgd)

    def _reconstruction(self) -> Reconstruction:
        return Reconstruction(True, self.corruption, self.tied, self.cost, self.reduction, self.stop_gradient)

    def seconds(self, trial: Trial) -> float:
        """From a few timed updates of either kind."""
        one = trial.arguments
        used = one["labelled"] + (0 if one["arm"] == "baseline" else one["unlabelled"])
        share = round(one["labelled"] / used, 3)
        step, with_it = self._timed(one["network"], min(one["batch"], used), len(one["seeds"]), share)
        every, epochs = -(-used // one["batch"]), one["epochs"]
        of_epochs = {"lin": epochs, "exp40": int(-one["sigma"] * math.log(max(self.cutoff, 1e-30)))}
        several = {"baseline": 0, PADDED: 0} | of_epochs
        reconstructing = min(epochs, several.get(one["arm"], one["t1"]))
        later = epochs - reconstructing
        if one["arm"] == ALONE:
            return every * reconstructing * with_it + -(-one["labelled"] // one["batch"]) * later * step
        return every * (reconstructing * with_it + later * step)

    @cache  # noqa: B019 - a study lives as long as its command
    def _timed(self, network: str, batch: int, seeds: int, share: float) -> tuple[float, float]:
        """Seconds of an update without and with reconstruction."""
        rows = 2 * batch
        labels = np.where(np.arange(seeds * rows) % rows < max(1, share * rows), 1.0, np.nan)
        pixels = np.random.default_rng(0).random((seeds * rows, 784))
        problem = with_tasks(Problem.from_arrays(pixels, labels[:, None], [DIGIT]), [self._reconstruction().task])
        found = []
        for arm, epochs in ((PADDED, 10), ("pretraining", 2)):
            one = {"network": network, "labelled": rows, "unlabelled": 0, "seeds": list(range(seeds)), "batch": batch}
            one |= {"t1": 1, "sigma": 1.0, "tail": 0, "epochs": epochs}
            times = []
            for _ in range(2):  # the first one warms up
                training = self._training(problem, one, arm, epochs)
                began = time.perf_counter()
                training.run()
                times.append((time.perf_counter() - began) / training.last)
            found.append(times[-1])
        return found[0], found[0] + found[1]

    # ---- what is told

    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """The published table, and the same differences from the padded baseline."""
        return compare(rows)

    def figure(self, rows: pandas.DataFrame) -> matplotlib.figure.Figure:
        """Differences from the baseline beside the published ones, a panel per number of images."""
        return draw(self.findings(rows))

    def remarks(self, rows: pandas.DataFrame) -> list[str]:
        """What was chosen, and what the control says."""
        decoders = f"{'tied' if self.tied else 'own'} decoders, {self.cost} ({self.reduction} over inputs)"
        chosen = (
            f"Chosen where the paper is silent: {self.activation} units, initial weights {self.init}, layer-wise "
            f"auto-encoders with {decoders}, {self.corruption:g} of each layer's inputs masked, classification loss "
            f"per {self.per}, learning rate {self.rate:g} with a linear fall to 0 over the last "
            f"{min(self.tail, self.epochs)} of {self.epochs} epochs."
        )
        return [
            chosen,
            "Differences are paired: all arms of a seed have the same labelled images and the same initial weights.",
            "An update has a full batch, so an epoch with a remainder sees some images twice.",
            f"exp40: a weight of reconstruction below {self.cutoff:g} counts as 0.",
        ]


@lru_cache(maxsize=1)
def pool() -> Images:
    """The images; read once in a process."""
    return datasets.mnist()


@torch.no_grad()
def _errors(training: Training) -> list[float]:
    """The share of test images that each replica gets wrong, in per cent."""
    images = pool()
    model = training.network.model.handed_over.eval()
    wrong = torch.zeros(training.replicas)
    pixels = torch.tensor(images.test_inputs, dtype=torch.float32).flatten(1) / 255
    for x, y in zip(pixels.split(2000), torch.tensor(images.test_labels).split(2000), strict=True):
        said: Tensor = model(x.expand(training.replicas, *x.shape)).tasks[0]
        wrong += (said.argmax(-1) != y).float().sum(1)
    return (100 * wrong / len(pixels)).tolist()

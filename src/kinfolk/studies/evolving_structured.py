"""Evolving weights for a structured output: reconstruction of inputs and of outputs beside the task itself."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kinfolk import datasets
from kinfolk.auxiliary import Reconstruction
from kinfolk.auxiliary.base import Auxiliary, WithAuxiliary, tasks_of, with_tasks
from kinfolk.balancing import Evolving
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.datasets.base import Images
from kinfolk.exceptions import InputError
from kinfolk.replicas import key
from kinfolk.runs import Folder
from kinfolk.sharing import Hard
from kinfolk.studies.base import Finding, Study, Trial, at_least, finite, of_each, positive, train
from kinfolk.studies.halves import PIXELS, OfInputs, OfLeftHalf, OfOutputs, halves
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.optim import Sgd
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import Mlp

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

IMAGES = 60_000  # that MNIST has to train
RIGHT = Task("right half", "regression", outputs=PIXELS)
RECONSTRUCTED: tuple[str, ...] = ("inputs", "outputs")
SUPERVISED, PADDED = "supervised", "supervised, padded"
ARMS: dict[str, tuple[str, ...]] = {
    SUPERVISED: (),
    PADDED: (),
    "+ inputs": ("inputs",),
    "+ outputs": ("outputs",),
    "+ inputs + outputs": ("inputs", "outputs"),
}
"""What is reconstructed beside the task."""
MEASURE = "relative squared error"


class EvolvingStructured(Study):
    """The right half of a digit from its left half, helped by halves without the other one.

    The network's first layers are also those of auto-encoders of its inputs, and its last layer is also the decoder of
    an auto-encoder of its outputs. The first learn from left halves alone, the second from right halves alone; their
    weights fall while that of the task rises. The paper's outputs are facial landmarks; here they are pixels, so its
    direction is what can be compared. "padded" makes the steps of the other arms toward the task, on the same batches,
    and none toward a reconstruction.

    Parameters
    ----------
    pairs
        Images of which both halves are known.
    others
        Images of which the left half is known alone, and as many of which the right half is known alone. With the
        pairs, all are of the 60,000 training images.
    width
        Hidden layers.
    activation, init
        Of the network, see :class:`~kinfolk.trunks.Mlp`.
    schedule
        "exponential": the reconstructions share exp(-epoch / sigma), the task has the rest, as in the authors' code.
        "windows": all weights start at 1, and those of the reconstructions fall linearly to 0, each in its own epochs:
        from a tenth of training on, inputs until the half and outputs until seven tenths, as in one of its scripts.
    sigma
        Epochs; of "exponential".
    corruption
        Share of each layer's inputs that are masked for the auto-encoders of the inputs, in [0, 1): 0.2 and 0.01 in
        that script. Layers after the last number have that one; numbers after the last layer are not used.
    corruption_of_outputs
        Share of the right half that is masked for its auto-encoder, in [0, 1). That script masks nothing.
    epochs, batch, rate, momentum
        Of plain gradient steps; the learning rate falls linearly to 0 in the last tenth.

    References
    ----------
    S. Belharbi, R. Herault, C. Chatelain, S. Adam (2015). Deep neural networks regularization for structured output
    prediction. arXiv 1504.07550.
    """

    title = "Evolving weights for a structured output: half a digit from the other"
    paper = (
        "S. Belharbi, R. Herault, C. Chatelain, S. Adam (2015). Deep neural networks regularization for structured "
        "output prediction. arXiv 1504.07550."
    )

    def __init__(
        self,
        *,
        pairs: int = 500,
        others: int = 2000,
        width: Sequence[int] = (256, 64),
        activation: str = "sigmoid",
        init: str = "glorot_sigmoid",
        schedule: str = "exponential",
        sigma: float = 30.0,
        corruption: Sequence[float] = (0.2, 0.01),
        corruption_of_outputs: float = 0.0,
        epochs: int = 150,
        batch: int = 100,
        rate: float = 0.5,
        momentum: float = 0.9,
    ) -> None:
        if schedule not in ("exponential", "windows"):
            raise ValueError(f"`schedule` must be exponential or windows. Got {schedule!r}.")
        at_least(10, pairs=pairs, epochs=epochs)
        at_least(0, others=others)
        at_least(1, batch=batch)
        positive(rate=rate)
        for name, value in (("corruption_of_outputs", corruption_of_outputs), ("momentum", momentum)):
            if not 0 <= value < 1:
                raise ValueError(f"`{name}` must be in [0, 1). Got {value}.")
        if pairs + 2 * others > IMAGES:
            raise ValueError(
                f"`pairs` and twice `others` must be at most {IMAGES} images together: MNIST has no more to train. "
                f"Got {pairs + 2 * others}."
            )
        self.pairs, self.others, self.width, self.activation, self.init = pairs, others, width, activation, init
        self.schedule, self.sigma, self.corruption = schedule, sigma, corruption
        self.corruption_of_outputs, self.epochs, self.batch = corruption_of_outputs, epochs, batch
        self.rate, self.momentum = rate, momentum
        self._parts({"arm": "+ inputs + outputs", "epochs": epochs})  # these judge their own numbers

    # ---- what is computed

    def trials(self, seeds: int, quick: bool) -> list[Trial]:
        """An arm with all its seeds side by side."""
        size = {"pairs": self.pairs, "others": self.others, "epochs": self.epochs, "batch": self.batch}
        if quick:
            size = {"pairs": 20, "others": 40, "epochs": 10, "batch": 20}
        return [Trial(f"{arm}, {seeds} seeds", {"arm": arm, "seeds": list(range(seeds)), **size}) for arm in ARMS]

    def run(self, trial: Trial, folder: Folder) -> list[dict[str, Any]]:
        """Every seed's error on the test images after the last epoch."""
        one = trial.arguments
        training = self._training(self._problem(one), one, one["epochs"])
        train(training, folder, "training")
        errors = of_each(training, partial(_errors, training), math.nan)
        return [
            {"arm": one["arm"], "seed": seed, "measure": MEASURE, "value": error}
            for seed, error in zip(one["seeds"], errors, strict=True)
        ]

    def _problem(self, one: Mapping[str, Any]) -> Problem:
        """For each seed pairs, then left halves alone, then right halves alone; what is not known is 0."""
        images = pool()
        size = one["pairs"] + 2 * one["others"]
        if size > len(images.inputs):
            raise InputError(
                f"`pairs` and twice `others` must be at most {len(images.inputs)} images together: there are no more "
                f"to train. Got {size}."
            )
        orders = [np.random.default_rng([seed, 1504]).permutation(len(images.inputs))[:size] for seed in one["seeds"]]
        known = halves(images.inputs[np.concatenate(orders)])
        place = torch.arange(len(known)) % size
        left, right = place < one["pairs"] + one["others"], (place < one["pairs"]) | (place >= size - one["others"])
        known[~left, :PIXELS], known[~right, PIXELS:] = 0, 0
        labels = torch.where((left & right).unsqueeze(1), known[:, PIXELS:], torch.nan)
        problem = with_tasks(Problem.from_arrays(known, [labels.numpy()], [RIGHT]), tasks_of(self._auxiliary()))
        return replace(problem, observed=torch.stack([left & right, left, right], 1))

    def _training(self, problem: Problem, one: Mapping[str, Any], epochs: int) -> Training:
        size = one["pairs"] + 2 * one["others"]
        rows = torch.arange(one["pairs"] if one["arm"] == SUPERVISED else size)
        columns = (0, *(1 + RECONSTRUCTED.index(name) for name in ARMS[one["arm"]]))
        members = [
            Replica(i * size + rows, i * size + rows[:10], columns, key(seed, 1504) % 2**31, self.rate, 0.0)
            for i, seed in enumerate(one["seeds"])
        ]
        batch = min(one["batch"], len(rows))
        every = -(-len(rows) // batch)
        updates = epochs * every
        schedule = Schedule(updates, every, batch, updates + 1, 0, shape="constant", tail=updates // 10, look=epochs)
        return Training(problem, partial(self._parts, one), members, replace(schedule, look=min(10, epochs)))

    def _parts(self, one: Mapping[str, Any]) -> Parts:
        trunk = Mlp(width=self.width, activation=self.activation, init=self.init)
        made = {one.name: one for one in self._auxiliary()}
        network = WithAuxiliary(OfLeftHalf(Hard()), [made[name] for name in ARMS[one["arm"]]])
        return Parts(trunk, network, self._evolving(one), optimizer=partial(Sgd, momentum=self.momentum))

    def _auxiliary(self) -> list[Auxiliary]:
        layers, last = len(self.width), list(self.corruption[-1:])
        shares = (list(self.corruption) + last * layers)[:layers]
        return [OfInputs(Reconstruction(layerwise=True, corruption=shares)), OfOutputs(self.corruption_of_outputs)]

    def _evolving(self, one: Mapping[str, Any]) -> Evolving:
        """The weights of what an arm reconstructs, and of the task."""
        epochs, wanted = one["epochs"], ARMS[one["arm"]]
        groups = [*([name] for name in wanted), [RIGHT.name]]
        ends = {"inputs": epochs // 2, "outputs": 7 * epochs // 10}
        windows = {name: [epochs // 10, ends[name]] for name in wanted} if self.schedule == "windows" else None
        sigma = self.sigma * epochs / self.epochs
        return Evolving(schedule="exponential", sigma=sigma, groups=groups, windows=windows, alternate=True)

    def seconds(self, trial: Trial) -> float:
        """From a few timed epochs on noise."""
        one = dict(trial.arguments)
        few = max(1, one["batch"] // 4)
        found = _timed(self, one["arm"], one["batch"], len(one["seeds"]), few)
        rows = one["pairs"] if one["arm"] == SUPERVISED else one["pairs"] + 2 * one["others"]
        return found * one["epochs"] * -(-rows // one["batch"])

    # ---- what is told

    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """Errors, and differences from the same steps without reconstruction."""
        errors = {arm: rows[rows["arm"] == arm].set_index("seed")["value"] for arm in ARMS if arm in set(rows["arm"])}
        found = [Finding(f"{arm}: {MEASURE}", None, finite(e), "%") for arm, e in errors.items()]
        for arm in errors:
            if PADDED in errors and arm != PADDED:
                paired = finite(errors[arm] - errors[PADDED])
                claim, source = (
                    ("negative", "Belharbi et al. 2015, against our control") if ARMS[arm] else ("", "our control")
                )
                found.append(Finding(f"{arm} - {PADDED}", None, paired, "points", claim, source))
        return found

    def figure(self, rows: pandas.DataFrame) -> matplotlib.figure.Figure:
        """The error of each arm and seed."""
        from matplotlib.figure import Figure

        from kinfolk.drawing import COLOURS, INK, style

        with style():
            figure = Figure(figsize=(5.0, 2.4), layout="constrained")
            panel = figure.subplots()
            for place, arm in enumerate(reversed(ARMS)):
                values = rows[rows["arm"] == arm]["value"]
                colour = COLOURS["sharing" if ARMS[arm] else "single-task"][0]
                panel.plot(values, [place] * len(values), "o", color=colour, markersize=3, alpha=0.6)
                panel.plot(values.mean(), place, "|", color=INK, markersize=12)
            panel.set_yticks(range(len(ARMS)), list(reversed(ARMS)))
            panel.set_xlabel("squared error on test images, % of that of the mean image")
        return figure

    def remarks(self, rows: pandas.DataFrame) -> list[str]:
        """What was chosen."""
        return [
            "The paper's outputs are facial landmarks on other data: its direction is compared, not its numbers.",
            f"{self.pairs} pairs, {self.others} left halves and {self.others} right halves alone; "
            f"{'-'.join(map(str, self.width))} {self.activation} units, {self.epochs} epochs, learning rate "
            f"{self.rate:g} with momentum {self.momentum:g}, weights {self.schedule}.",
            "Every arm but the first makes the same number of steps toward the task, on the same batches.",
        ]


@lru_cache(maxsize=1)
def pool() -> Images:
    """The images; read once in a process."""
    return datasets.mnist()


@torch.no_grad()
def _errors(training: Training) -> list[float]:
    """Squared error of each replica on the test images, in per cent of that of their mean image."""
    pixels = halves(pool().test_inputs)
    left, right = pixels[:, :PIXELS], pixels[:, PIXELS:]
    network = training.network.model.handed_over.eval()
    lost = torch.zeros(training.replicas)
    for x, y in zip(left.split(2000), right.split(2000), strict=True):
        said = network.get_submodule("whole")(x.expand(training.replicas, *x.shape)).tasks[0]
        lost += (said - y).square().sum((1, 2))
    return (100 * lost / (right - right.mean(0)).square().sum()).tolist()


@cache
def _timed(study: EvolvingStructured, arm: str, batch: int, seeds: int, few: int) -> float:
    """Seconds of an update on noise; the second of two measurements."""
    one = {"arm": arm, "seeds": list(range(seeds)), "pairs": few, "others": 2 * few, "epochs": 10, "batch": batch}
    size = 5 * few
    place = torch.arange(seeds * size) % size
    left, right = place < 3 * few, (place < few) | (place >= 3 * few)
    noise = torch.rand(len(place), 2 * PIXELS)
    labels = torch.where((left & right).unsqueeze(1), noise[:, PIXELS:], torch.nan)
    problem = with_tasks(Problem.from_arrays(noise, [labels.numpy()], [RIGHT]), tasks_of(study._auxiliary()))
    problem = replace(problem, observed=torch.stack([left & right, left, right], 1))
    for _ in range(2):
        training = study._training(problem, one, 10)
        began = time.perf_counter()
        training.run()
        seconds = (time.perf_counter() - began) / training.last
    return seconds

"""A task that learns what another one makes easy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kinfolk.data.tasks import Task
from kinfolk.studies.base import Finding
from kinfolk.studies.mechanism import Backprop, Experiment, Rows, Sample, Setting, best, outputs, row, values
from kinfolk.training.loop import Training

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

INPUTS, HIDDEN, TEST = 10, 16, 1000
ARMS = ("alone", "with F as a task")


def draw(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, F, and labels ``[row, 2]``: the product of F and another function, with noise, and F itself."""
    random = np.random.default_rng([13, seed])
    inputs = random.normal(size=(rows + TEST, INPUTS))
    units = random.normal(size=(2, INPUTS))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    easy, other = np.tanh(3 * inputs @ units.T).T
    hard = easy * other + 0.2 * random.normal(size=len(inputs))
    return inputs, easy, np.stack([hard, easy], 1)


class Eavesdropping(Experiment):
    """F is easy for one task, which is F itself (a hint), and hard for the other, which multiplies it."""

    name = "eavesdropping"

    def __init__(self, backprop: Backprop) -> None:
        self.backprop = backprop

    def trainings(self, setting: Setting) -> dict[str, Callable[[], Training]]:
        """The hard task without and with the easy one."""
        return {arm: partial(self._training, setting, tasks) for tasks, arm in enumerate(ARMS, 1)}

    def _training(self, setting: Setting, columns: int) -> Training:
        train, halt = (60, 60) if setting["quick"] else (150, 300)
        samples = []
        for seed in range(setting["seeds"]):
            inputs, _, labels = draw(seed, train + halt)
            samples.append(Sample(inputs[: train + halt], labels[: train + halt, :columns], train))
        tasks = [Task("hard", "regression"), Task("easy", "regression", main=False)][:columns]
        return self.backprop.training(samples, tasks, HIDDEN)

    def measure(self, setting: Setting, arm: str, training: Training) -> Rows:
        """The error of the hard task, and how much of F a linear probe finds in its hidden layer."""
        rows = sum((60, 60) if setting["quick"] else (150, 300))
        drawn = [draw(seed, rows) for seed in range(setting["seeds"])]
        inputs = np.stack([one[0][-TEST:] for one in drawn])
        model = best(training)
        said = outputs(model, inputs)[0][..., 0]
        truth = np.stack([labels[-TEST:, 0] for _, _, labels in drawn])
        errors = np.sqrt(((said - truth) ** 2).mean(1))
        found = []
        for seed, (hidden, (_, easy, _)) in enumerate(zip(_hidden(model, inputs), drawn, strict=True)):
            found += [row(arm, seed, "RMSE", errors[seed]), row(arm, seed, "R2 of F", probed(hidden, easy[-TEST:]))]
        return found

    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """Both differences."""
        source = "Caruana 1997, section 4.3"
        lines = []
        for measure, what, claim in (
            ("RMSE", "RMSE of the hard task", "negative"),
            ("R2 of F", "R² of F in the hidden layer", "positive"),
        ):
            alone, helped = (values(rows, arm=arm, measure=measure) for arm in ARMS)
            lines.append(Finding(f"{what}, {ARMS[1]} - alone", None, tuple(helped - alone), "", claim, source))
        return lines

    def draw(self, rows: pandas.DataFrame, axes: Axes) -> None:
        """What the probe finds."""
        axes.boxplot([values(rows, arm=arm, measure="R2 of F") for arm in ARMS], tick_labels=list(ARMS))
        axes.set(title="Eavesdropping", ylabel="R² of F in the hidden layer")


@torch.no_grad()
def _hidden(model: Any, inputs: np.ndarray) -> np.ndarray:
    """The features of the first task, ``[replica, row, unit]``."""
    return model(torch.as_tensor(inputs).to(next(model.parameters()))).features[0].numpy()


def probed(hidden: np.ndarray, truth: np.ndarray) -> float:
    """R² on the second half of the rows of a linear fit to the first."""
    half = len(truth) // 2
    design = np.concatenate([hidden, np.ones((len(hidden), 1))], 1)
    fitted = np.linalg.lstsq(design[:half], truth[:half], rcond=1e-6)[0]
    rest = truth[half:] - design[half:] @ fitted
    return 1 - float(rest @ rest / ((truth[half:] - truth[half:].mean()) ** 2).sum())

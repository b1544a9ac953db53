"""Auxiliary tasks and their early stopping: landmarks of faces, beside what is told about the same faces."""

from __future__ import annotations

import math
import time
from functools import cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from kinfolk.balancing import Fixed, TaskStopping
from kinfolk.balancing.base import Balancing
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.runs import Folder
from kinfolk.sharing import Hard
from kinfolk.studies.base import Finding, Study, Trial, at_least, finite, of_each, positive, train
from kinfolk.studies.classes import check_folder
from kinfolk.studies.faces import EYES, Faces, Rendered, Source
from kinfolk.studies.photographs import Photographs
from kinfolk.training.loop import Training
from kinfolk.training.network import Parts, Replica
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import FromModules

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

ALONE, RELATED, SHUFFLED, STOPPING = "alone", "related", "shuffled", "related, stopped by task"
ARMS = (ALONE, RELATED, SHUFFLED, STOPPING)
MAIN = Task("landmarks", "regression", outputs=10)
STOP, BATCH = 200, 50
ERROR, BEST, STOPPED = "error, last epoch", "error, best epoch", "attributes stopped"
PAPER = "Zhang et al. 2014"


class AuxiliaryTasks(Study):
    """Whether pose, gender, glasses, smile and occlusion help to find five landmarks of a face.

    The paper trains a network for landmarks together with four attributes of the same faces, each of which stops when
    it has ceased to help (task-wise early stopping), and reports a mean error of 8.0 % of the distance between the
    eyes on AFLW. Its photographs are not here: faces are rendered, with measures, light, place, turn and tilt of
    their own. The controls are the attributes of other faces (shuffled), which have all but the relation, and the
    attributes without stopping.

    Who has the photographs names their folder, and gets the same arms on them, with the paper's four attributes. They
    come without the paper's boxes around faces, so a square is cut out around the landmarks and shifted by chance:
    see :class:`~kinfolk.studies.photographs.Photographs`.

    Parameters
    ----------
    faces
        Training faces: few, as many landmarks leave nothing to gain.
    weight
        Of each attribute's loss; the paper's are not known, and were chosen per attribute.
    epsilon, k
        Of :class:`~kinfolk.balancing.TaskStopping`; the paper's are not known.
    epochs, rate, decay
        Of AdamW with a cosine.
    photographs
        The unpacked folder MTFL: see :func:`kinfolk.datasets.mtfl`. None: faces are rendered.

    Raises
    ------
    InputError
        For a folder that is not there, or not the one that is meant.

    References
    ----------
    Z. Zhang, P. Luo, C. C. Loy, X. Tang (2014). Facial landmark detection by deep multi-task learning. ECCV.
    """

    title: ClassVar[str] = "Auxiliary tasks and their early stopping, on landmarks of faces"
    paper: ClassVar[str] = (
        "Z. Zhang, P. Luo, C. C. Loy, X. Tang (2014). Facial landmark detection by deep multi-task learning. ECCV."
    )
    seeds: ClassVar[int] = 5

    def __init__(
        self,
        faces: int = 300,
        weight: float | int = 0.1,
        epsilon: float | int = 1,
        k: int = 5,
        epochs: int = 100,
        rate: float | int = 0.003,
        decay: float | int = 0.01,
        photographs: str | None = None,
    ) -> None:
        at_least(BATCH, faces=faces)
        at_least(2, epochs=epochs)
        at_least(0, decay=decay)
        positive(rate=rate)
        self.faces, self.weight, self.epsilon, self.k = faces, float(weight), float(epsilon), k
        check_folder("photographs", photographs)
        self.epochs, self.rate, self.decay = epochs, float(rate), float(decay)
        self.photographs = photographs
        self._source: Source = Rendered() if photographs is None else Photographs(photographs)
        self._balancing(STOPPING)  # it judges its own numbers

    def trials(self, seeds: int, quick: bool) -> list[Trial]:
        """An arm and a seed each: convolutions do not gain by being side by side on a CPU."""
        size = {"faces": BATCH, "epochs": 7} if quick else {"faces": self.faces, "epochs": self.epochs}
        asked = [{"arm": arm, "seed": seed, **size} for seed in range(seeds) for arm in ARMS]
        return [Trial(f"{one['arm']}, seed {one['seed']}", one) for one in asked]

    def run(self, trial: Trial, folder: Folder) -> list[dict[str, Any]]:
        """Errors on other faces, and how many attributes were stopped."""
        training = self._training(trial, trial.arguments["epochs"])
        train(training, folder, "training")
        names = (ERROR, BEST, *([STOPPED] if trial.arguments["arm"] == STOPPING else []))
        (found,) = of_each(training, lambda: [self._measured(training, trial)], dict.fromkeys(names, math.nan))
        columns = {name: trial.arguments[name] for name in ("arm", "seed")}
        return [columns | {"measure": name, "value": value} for name, value in found.items()]

    def _measured(self, training: Training, trial: Trial) -> dict[str, float]:
        test = _test(self._source)
        given = _given(self._source, trial.arguments["faces"], trial.arguments["seed"])
        best = {  # the single replica as it was when its landmarks were best
            name: tensor.unflatten(0, (len(training.tasks), -1))[0]
            for name, tensor in training.stopping.snapshot(0).items()
        }
        scale = _scale(given, trial.arguments["faces"])
        found = {name: _error(training, state, test, scale) for name, state in ((ERROR, {}), (BEST, best))}
        if trial.arguments["arm"] == STOPPING:
            active = training.network.balancing.active()
            found[STOPPED] = 0.0 if active is None else float((~active).sum())
        return found

    def seconds(self, trial: Trial) -> float:
        """From two epochs."""
        training = self._training(trial, 3)
        training.run(until=training.schedule.every)
        start = time.perf_counter()
        training.run(until=2 * training.schedule.every)
        return (time.perf_counter() - start) * trial.arguments["epochs"]

    def _training(self, trial: Trial, epochs: int) -> Training:
        arm, seed, faces = (trial.arguments[name] for name in ("arm", "seed", "faces"))
        given = _given(self._source, faces, seed)
        attributes = given.attributes
        if arm == SHUFFLED:
            attributes = np.random.default_rng([seed, 1]).permuted(attributes, axis=0)
        tasks = [MAIN, *(Task(n, "multiclass", tuple(range(c)), main=False) for n, c in self._source.classes.items())]
        mean, spread = _scale(given, faces)
        flat = (given.landmarks - mean).reshape(len(given.landmarks), -1) / spread
        labels = [flat, *attributes.T.astype(np.float64)]
        columns = (0,) if arm == ALONE else tuple(range(len(tasks)))
        problem = Problem.from_arrays(given.pictures.astype(np.float32), labels, tasks)
        rows, every = torch.arange(faces + STOP), faces // BATCH
        member = Replica(rows[:faces], rows[faces:], columns, seed, self.rate, self.decay)
        schedule = Schedule(epochs * every, every, BATCH, epochs * every + 1, min(20, every * epochs // 4))
        return Training(problem, lambda: Parts(_trunk(), Hard(), self._balancing(arm)), [member], schedule)

    def _balancing(self, arm: str) -> Balancing:
        if arm == STOPPING:
            return TaskStopping(self.epsilon, self.k, weight=self.weight)
        return Fixed(dict.fromkeys(self._source.classes, self.weight)) if arm != ALONE else Fixed()

    def findings(self, rows: pandas.DataFrame) -> list[Finding]:
        """What the paper says of the error with and without attributes, then all errors."""
        table: Any = rows.pivot(index="seed", columns=["arm", "measure"], values="value").sort_index()
        of = partial(_of, table)
        difference = lambda a, b, measure: finite(table[a][measure] - table[b][measure])  # noqa: E731
        found = [
            Finding(f"{a} - {b}, {measure}", None, difference(a, b, measure), "points", claim, source)
            for measure in (ERROR, BEST)
            for a, b, claim, source in (
                (RELATED, ALONE, "negative", PAPER),
                (STOPPING, ALONE, "negative", PAPER),
                (STOPPING, RELATED, "negative", PAPER),
                (SHUFFLED, ALONE, "", "our control"),
                (RELATED, SHUFFLED, "", "our control"),
            )
        ]
        found += [Finding(f"{arm}, {m}", None, of(arm, m), "%", source="") for m in (ERROR, BEST) for arm in ARMS]
        stopped = of(STOPPING, STOPPED)
        return [*found, Finding(f"attributes stopped, of {len(self._source.classes)}", None, stopped)]

    def figure(self, rows: pandas.DataFrame) -> matplotlib.figure.Figure:
        """The error of each arm, a point per seed, at the last and the best epoch."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.6), layout="constrained")
        for axes, measure in zip(figure.subplots(1, 2, sharey=True), (ERROR, BEST), strict=True):
            for i, arm in enumerate(ARMS):
                values = rows[(rows["arm"] == arm) & (rows["measure"] == measure)]["value"]
                axes.plot(values, [i] * len(values), "o", alpha=0.6)
            axes.set(title=measure, xlabel="% of the distance between the eyes", yticks=range(len(ARMS)))
            axes.set_yticklabels(ARMS)
            axes.invert_yaxis()
        return figure

    def remarks(self, rows: pandas.DataFrame) -> list[str]:
        """What was chosen."""
        return [
            self._source.remark,
            f"{self.faces} training faces, {STOP} that choose the best epoch and stop attributes, "
            f"{self._source.tests} test faces. Every attribute's loss weighs {self.weight:g}; neither this nor the "
            "learning rate was tuned.",
            "The error is the mean distance of the five points from where they are, over that between the eyes.",
        ]


@cache
def _given(source: Source, faces: int, seed: int) -> Faces:
    """Faces that train, then those that stop training."""
    return source.training(faces + STOP, seed)


@cache
def _test(source: Source) -> Faces:
    return source.test()


def _trunk() -> FromModules:
    """Three convolutions with pooling and a dense layer, as the paper's smaller ones."""
    sizes = (1, 16, 32, 48)
    stages: list[nn.Module] = [
        nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)) for a, b in pairwise(sizes)
    ]
    return FromModules([*stages, nn.Sequential(nn.Flatten(), nn.Linear(48 * 25, 100), nn.ReLU())], fresh=True)


def _scale(given: Faces, faces: int) -> tuple[np.ndarray, float]:
    """Mean landmarks of the training faces, ``[5, 2]``, and the spread of all of them."""
    landmarks = given.landmarks[:faces]
    mean = landmarks.mean(0)
    return mean, float((landmarks - mean).std())


@torch.no_grad()
def _error(training: Training, state: dict[str, Tensor], test: Faces, scale: tuple[np.ndarray, float]) -> float:
    """The mean distance from the landmarks in per cent of the distance between the eyes, with tensors from a state."""
    model = training.network.model.eval()
    x = torch.from_numpy(test.pictures).to(training.problem.inputs)
    parts = [functional_call(model, state, (rows.unsqueeze(0),)).tasks[0][0] for rows in x.split(500)]
    found = scale[0] + scale[1] * torch.cat(parts).numpy().reshape(test.landmarks.shape)
    away = np.linalg.norm(found - test.landmarks, axis=-1).mean(1)
    left, right = test.landmarks[:, EYES].swapaxes(0, 1)
    return 100 * float((away / np.linalg.norm(left - right, axis=-1)).mean())


def _of(table: Any, arm: str, measure: str) -> tuple[float, ...]:
    return finite(table[arm][measure])

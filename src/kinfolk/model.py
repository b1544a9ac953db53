"""The model that is handed over: per task a blend of fitted learners. It predicts, is saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kinfolk import __version__, persistence
from kinfolk.data.encoding import Encoder
from kinfolk.data.targets import by_target
from kinfolk.data.tasks import Task
from kinfolk.evidence import learners
from kinfolk.evidence.jobs import Predictor, Setting
from kinfolk.exceptions import InputError
from kinfolk.runs import Folder

if TYPE_CHECKING:
    from kinfolk.sharing.base import Sharing

FORMAT = 1


@dataclass(frozen=True)
class Member:
    """One fitted learner of a model.

    Attributes
    ----------
    name
        As in the verdict.
    arm
        Its text.
    setting
        The setting it was fitted with.
    width
        Of its trunk, where the text does not say.
    predictor
        The fit.
    """

    name: str
    arm: str
    setting: Setting
    width: int
    predictor: Predictor


@dataclass(frozen=True)
class Model:
    """What is handed over.

    Attributes
    ----------
    tasks
        The tasks of the problem; auxiliary ones are not predicted.
    encoder
        From a user's columns to encoded ones.
    members
        The fitted learners.
    blend
        Task -> member -> weight; the weights of a task sum to 1.
    """

    tasks: tuple[Task, ...]
    encoder: Encoder
    members: tuple[Member, ...]
    blend: Mapping[str, Mapping[str, float]]

    def probabilities(self, frame: pd.DataFrame) -> tuple[dict[str, np.ndarray], list[str]]:
        """Predictions ``[row, size]`` of each main task, and warnings about the table.

        Raises
        ------
        InputError
            If the table lacks a column, or one has changed its type.
        """
        features, notes = self.encoder.check(frame)
        if not len(features):  # encoders refuse tables without rows
            return {task.name: np.zeros((0, task.size)) for task in self.tasks if task.name in self.blend}, notes
        inputs = self.encoder.transform(features)
        found: dict[str, np.ndarray] = {}
        for member in self.members:
            predictions = member.predictor.predict(inputs)
            for task, prediction in zip(self.tasks, predictions, strict=True):
                weight = self.blend.get(task.name, {}).get(member.name, 0.0)
                if weight and prediction is not None:
                    found[task.name] = found.get(task.name, 0.0) + weight * prediction
        return {task.name: found[task.name] for task in self.tasks if task.name in found}, notes

    def predict(self, frame: pd.DataFrame, proba: bool = False) -> pd.DataFrame:
        """Predictions for a table: a column per target.

        Of a target that is a task for each class, probabilities are those of its tasks, scaled to sum to 1.

        Parameters
        ----------
        frame
            The columns that the model was fitted on; others are ignored.
        proba
            Give class probabilities, a column ``task: class`` for each, instead of the likeliest class.
        """
        return self.predict_with_notes(frame, proba)[0]

    def predict_with_notes(self, frame: pd.DataFrame, proba: bool = False) -> tuple[pd.DataFrame, list[str]]:
        """As :meth:`predict`, with warnings such as categories that the model has not seen."""
        found, notes = self.probabilities(frame)
        columns: dict[str, Any] = {}
        for target, tasks in by_target(task for task in self.tasks if task.name in found).items():
            columns |= _columns(target, tasks, [found[task.name] for task in tasks], proba)
        return pd.DataFrame(columns, index=frame.index), notes

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """What the learners read of a table: ``[row, feature]``, NaN where a number is missing.

        Raises
        ------
        InputError
            If the table lacks a column, or one has changed its type.
        """
        return self.encoder.transform(self.encoder.check(frame)[0])

    def networks(self) -> dict[str, Sharing]:
        """The trained networks by the name of their member, to look into; see :func:`kinfolk.sharing.describe`.

        Each is a stack: the networks of the inner folds, each as it was at the best epoch of each task. Where every
        task has a network of its own, the name is followed by the task's, ``"independent: price"``. Other members
        (ridge, trees) are left out.
        """
        from kinfolk.evidence.networks import NetworkPredictor

        found: dict[str, Sharing] = {}
        for member in self.members:
            if not isinstance(member.predictor, NetworkPredictor):
                continue
            for part in member.predictor.parts:
                names = [self.tasks[column].name for column in part.columns]
                apart = len(names) == 1 < len(self.tasks)
                found[f"{member.name}: {names[0]}" if apart else member.name] = part.model
        return found

    def export(self, path: Path | str) -> None:
        """Writes the networks to an ONNX file, from encoded inputs to predictions, and ``path.json`` that describes it.

        It is as ``kinfolk export`` does, see :func:`kinfolk.exporting.export`.

        Parameters
        ----------
        path
            Where to write, a name that ends in ``.onnx``.

        Raises
        ------
        InputError
            If a task is predicted by something else than networks, or a package of the extra ``onnx`` is absent.
        """
        from kinfolk.exporting import export

        export(path, self.encoder, self.tasks, {m.name: m.predictor for m in self.members}, self.blend)

    def save(self, path: Path | str) -> None:
        """Writes a folder: ``model.json``, weights as safetensors, encoders and trees as skops."""
        folder = Folder(path)
        folder.remove("model.json")  # it is written last: no model is half another one
        if self.encoder.sklearn is not None:
            folder.path.mkdir(parents=True, exist_ok=True)
            persistence.save_sklearn(self.encoder.sklearn, folder.path / "encoder.skops")
        for i, member in enumerate(self.members):
            learners.save(member.predictor, folder, f"member{i}")
        folder.write_json(
            "model.json",
            {
                "format": FORMAT,
                "kinfolk": __version__,
                "tasks": [asdict(task) for task in self.tasks],
                "encoder": self.encoder.state(),
                "members": [
                    {"name": m.name, "arm": m.arm, "setting": m.setting, "width": m.width} for m in self.members
                ],
                "blend": {task: dict(weights) for task, weights in self.blend.items()},
            },
        )


def load(path: Path | str) -> Model:
    """Reads a model folder. No code in it is run.

    Raises
    ------
    InputError
        If the folder holds no model, one of another version, or a damaged or unsafe file.
    """
    folder = Folder(path)
    if not folder.has("model.json"):
        hint = f" Did you mean {folder.path / 'model'}?" if folder.has("model/model.json") else ""
        raise InputError(f"{folder.path} must be a model folder, with a model.json.{hint}")
    stored = folder.read_json("model.json")
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        version = stored.get("kinfolk", "?") if isinstance(stored, dict) else "?"
        raise InputError(
            f"{folder.path} was written by kinfolk {version} in another format. Read it with that version, or fit anew."
        )
    try:
        return _restored(folder, stored)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder.path / 'model.json'} is damaged ({error!r}). Fit the model anew.") from error


def _restored(folder: Folder, stored: dict[str, Any]) -> Model:
    tasks = tuple(Task(**{**task, "classes": tuple(task["classes"])}) for task in stored["tasks"])
    _check_blend(stored["blend"], [task.name for task in tasks], [one["name"] for one in stored["members"]])
    at = folder.path / "encoder.skops"
    encoder = Encoder.from_state(stored["encoder"], persistence.load_sklearn(at) if at.exists() else None)
    width = len(encoder.names)
    members = []
    for i, one in enumerate(stored["members"]):
        predictor = learners.load(one["arm"], one["setting"], one["width"], tasks, width, folder, f"member{i}")
        members.append(Member(one["name"], one["arm"], one["setting"], one["width"], predictor))
    return Model(tasks, encoder, tuple(members), stored["blend"])


def _check_blend(blend: Any, tasks: list[str], members: list[str]) -> None:
    """Raises ValueError where a task's weights are no weights of members."""
    if not tasks or not set(blend) <= set(tasks):
        raise ValueError(f"it blends {', '.join(map(str, blend))} and has the tasks {', '.join(tasks)}")
    for task, weights in blend.items():
        if not set(weights) <= set(members) or not abs(sum(weights.values()) - 1) < 0.01 or min(weights.values()) < 0:
            raise ValueError(f"the weights of '{task}' must be shares of its members")


def _columns(target: str, tasks: Sequence[Task], predictions: Sequence[np.ndarray], proba: bool) -> dict[str, Any]:
    task, prediction, classes = tasks[0], predictions[0], tasks[0].classes
    if task.numeric:
        return {target: prediction[:, 0]}
    if task.target:
        prediction, classes = _shares(np.concatenate(predictions, 1)), tuple(one.classes[1] for one in tasks)
    elif task.kind == "binary":
        prediction = np.concatenate([1 - prediction, prediction], 1)
    if proba:
        return {f"{target}: {c}": prediction[:, i] for i, c in enumerate(classes)}
    return {target: _labels(classes, prediction.argmax(1))}


def _shares(probability: np.ndarray) -> np.ndarray:
    """Probabilities of each class against the rest as shares of their sum; equal ones where all are 0."""
    whole = probability.sum(1, keepdims=True)
    return np.where(whole > 0, probability, 1 / probability.shape[1]) / np.where(whole > 0, whole, 1)


def _labels(classes: Sequence[Any], codes: np.ndarray) -> Any:
    return pd.Series(list(classes)).take(codes).to_numpy()

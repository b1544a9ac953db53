"""The networks of a model as one ONNX file, checked in onnxruntime, with its inputs and outputs described beside it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from kinfolk import __version__
from kinfolk.data.encoding import Encoder
from kinfolk.data.tasks import Task
from kinfolk.evidence.features import Preparation
from kinfolk.evidence.jobs import Predictor
from kinfolk.evidence.networks import NetworkPredictor
from kinfolk.exceptions import InputError
from kinfolk.graph import Blend, Graph, shown
from kinfolk.runs import Folder

FORMAT = 1
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUTS = "inputs"
TOLERANCE = 1e-5  # of a probability; of a value, relative to the largest one and to the target's deviation

FEATURES = {
    "number": "the cell as a number, true as 1 and false as 0, at most 1e18 from 0; NaN where it is missing",
    "category": "1 where the cell, as text, is this category, else 0 (all 0 for one that was not seen in training)",
    "missing": "1 where the cell of a category is missing, else 0",
    "date": "this part of the date, total_seconds since 1970 as float32; NaN where it is missing",
    "text": "a component of the text's character n-grams, which `Model.encode` of kinfolk computes",
    "scale": "where there is one, the feature is (number / magnitude - centre) / spread, computed in float64",
}
"""What the words of the encoding mean."""


def export(
    path: Path | str, encoder: Encoder, tasks: Sequence[Task], fits: Mapping[str, Predictor], blend: Blend
) -> None:
    """Writes the ONNX file and ``path.json``, which describes inputs and outputs.

    Before it is written, the graph is run in onnxruntime on random inputs and on odd ones (missing, at the edges of
    bins, far away), and must give what the model predicts, to 1e-5.

    Parameters
    ----------
    path
        Where to write, a name that ends in ``.onnx``.
    encoder
        Gives the inputs.
    tasks
        All tasks of the problem.
    fits
        The fitted learners by name.
    blend
        Task -> name -> weight, for each task that is predicted.

    Raises
    ------
    InputError
        If the path ends otherwise, a package of the extra ``onnx`` is absent, a task is predicted by something else
        than networks, or the graph cannot be made or predicts otherwise. No file is written then.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise InputError(f"The file to export to must end in .onnx. Got {path}.")
    _require_packages()
    used = _used(tasks, fits, blend)
    graph = Graph(len(encoder.names), tasks, used, blend).eval()
    content, outputs, opset = _to_onnx(graph)
    _check(content, outputs, tasks, used, blend)
    folder = Folder(path.parent)
    folder.write_json(f"{path.name}.json", _description(path, encoder, graph.tasks, outputs, opset))
    folder.write_bytes(path.name, content)


def _require_packages() -> None:
    absent = [name for name in PACKAGES if util.find_spec(name) is None]
    if absent:
        raise InputError(f"An export needs {', '.join(absent)}, not installed here: pip install kinfolk[onnx]")


def _used(tasks: Sequence[Task], fits: Mapping[str, Predictor], blend: Blend) -> dict[str, NetworkPredictor]:
    """The networks that have a weight; refuses tasks that something else predicts."""
    found: dict[str, NetworkPredictor] = {}
    others: dict[str, list[str]] = {}
    for task in tasks:
        for name, weight in blend.get(task.name, {}).items():
            fit = fits[name]
            if weight and isinstance(fit, NetworkPredictor):
                found[name] = fit
            elif weight:
                others.setdefault(task.name, []).append(name)
    if others:
        said = "; ".join(f"'{task}' by {' and '.join(names)}" for task, names in others.items())
        raise InputError(f"Only networks can be exported. This model predicts {said}. Fit with --one-network.")
    return found


# ---- to ONNX, and the check


def _to_onnx(graph: Graph) -> tuple[bytes, list[str], int]:
    """The bytes of the file, in which rows are a dynamic axis, the names of its outputs, and its opset."""
    example = torch.zeros(3, graph.features)
    with _quiet():
        try:
            # AUTO: a layer may look at the number of rows to choose the faster of two equal ways
            shapes = ({0: torch.export.Dim.AUTO},)
            program = torch.export.export(graph, (example,), dynamic_shapes=shapes, strict=False)
            made = torch.onnx.export(
                program, dynamo=True, dynamic_shapes=({0: "row"},), external_data=False, verbose=False
            )
        except (RuntimeError, ValueError) as error:
            why = " ".join(str(error).split())[:300]
            raise InputError(f"Networks must have a form that torch can trace. This one has not: {why}") from error
    model = cast(Any, made).model
    names = _name_outputs(model.graph, graph.tasks)
    _forget_origins(model.graph)
    return cast(Any, made).model_proto.SerializeToString(), names, int(model.opset_imports[""])


def _name_outputs(graph: Any, tasks: Sequence[Task]) -> list[str]:
    """Names the outputs as the tasks; with a line behind a name that something else in the graph has."""
    taken = {value.name for node in graph.all_nodes() for value in node.outputs}
    taken |= {value.name for value in graph.inputs} | set(graph.initializers)
    for value, task in zip(graph.outputs, tasks, strict=True):
        name = task.name or "_"
        while name in taken:
            name += "_"
        taken.add(name)
        value.name = name
    return [value.name for value in graph.outputs]


def _forget_origins(graph: Any) -> None:
    """Drops what the exporter notes of each node: lines of code and paths of the machine that it ran on."""
    for part in (graph, *graph.all_nodes()):
        part.metadata_props.clear()
        for value in part.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps from the user what torch's exporter says of itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Some sharings keep the gates of the last forward pass. Here it is a copy that keeps them.
            warnings.filterwarnings("ignore", r"The tensor attributes? .* assigned during export", UserWarning)
            warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _check(
    content: bytes, outputs: Sequence[str], tasks: Sequence[Task], fits: Mapping[str, NetworkPredictor], blend: Blend
) -> None:
    """Raises InputError where onnxruntime gives something else than the model for some inputs."""
    import onnxruntime

    native = import_module("onnxruntime.capi.onnxruntime_pybind11_state")  # where its errors are, with no common base
    failures = tuple(kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # as everything here
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        for inputs in _trials([fit.preparation for fit in fits.values()]):
            found = cast(list[np.ndarray], session.run(list(outputs), {INPUTS: inputs}))
            _compare(inputs, found, tasks, fits, blend)
    except failures as error:
        why = " ".join(str(error).split())[:300]
        raise InputError(f"onnxruntime must run what is exported. It does not: {why} No file was written.") from error


def _compare(
    inputs: np.ndarray,
    found: Sequence[np.ndarray],
    tasks: Sequence[Task],
    fits: Mapping[str, NetworkPredictor],
    blend: Blend,
) -> None:
    predictions = {name: fit.predict(inputs) for name, fit in fits.items()}
    predicted = [(at, task) for at, task in enumerate(tasks) if blend.get(task.name)]
    for (at, task), one in zip(predicted, found, strict=True):
        weighted = [(w, predictions[n][at]) for n, w in blend[task.name].items() if n in fits]
        expected = shown(task, torch.from_numpy(sum(w * p for w, p in weighted if p is not None))).numpy()
        limit = TOLERANCE
        if task.numeric:
            deviation = max(float(fit.scale[at, 1]) for fit in fits.values())
            limit *= max(deviation, float(np.abs(expected).max()))
        if not np.allclose(one, expected, rtol=0, atol=limit, equal_nan=True):
            raise InputError(
                f"Exported predictions must equal the model's within {limit:.2g}. Those of '{task.name}' are off by "
                f"{np.abs(one - expected).max():.2g}. No file was written."
            )


def _trials(preparations: Sequence[Preparation]) -> Iterator[np.ndarray]:
    """Encoded rows as the networks know them, with gaps, on the edges of bins and far away; and a single row."""
    random = np.random.default_rng(0)
    for one in preparations:
        width = len(one.shift)
        standard = random.standard_normal((64, width))
        gaps = np.where(random.random((64, width)) < 0.3, np.nan, standard)
        far = np.array([-8.0, -1.0, 0.0, 1.0, 8.0, np.nan])[:, None] * np.ones(width)
        edges = np.zeros((one.edges.shape[1], width))
        edges[:, one.binned[: len(one.edges)]] = one.edges.T
        rows = np.concatenate([standard, gaps, far, edges]) * one.scale + one.shift
        yield rows.astype(np.float32)
        yield rows[-1:].astype(np.float32)


# ---- what stands beside it


def _description(
    path: Path, encoder: Encoder, tasks: Sequence[Task], outputs: Sequence[str], opset: int
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kinfolk": __version__,
        "file": path.name,
        "opset": opset,
        "versions": {name: metadata.version(name) for name in ("torch", *PACKAGES)},
        "input": {"name": INPUTS, "type": "float32", "shape": ["row", len(encoder.names)], "missing": "NaN"},
        "features": _features(encoder),
        "words": FEATURES,
        "outputs": [_output(task, name) for task, name in zip(tasks, outputs, strict=True)],
    }


def _features(encoder: Encoder) -> list[dict[str, Any]]:
    """How a user's columns become the columns of the input, in its order."""
    scales = encoder.state()["scales"]
    found = []
    for name, (column, part) in encoder.origins.items():
        how = encoder.schema[column]
        one: dict[str, Any] = {"name": name, "column": column}
        if how.kind == "numeric":
            one["is"] = "number"
        elif how.kind == "category" and part not in how.categories:
            one["is"] = "missing"
        else:
            one |= {"is": how.kind, {"category": "category", "date": "part", "text": "component"}[how.kind]: part}
        if how.format:
            one["format"] = how.format
        if name in scales:
            one["scale"] = dict(zip(("magnitude", "centre", "spread"), scales[name], strict=True))
        found.append(one)
    return found


def _output(task: Task, name: str) -> dict[str, Any]:
    one = {"name": name, "task": task.name, "kind": task.kind}
    one |= {"target": task.target} if task.target else {}
    if task.numeric:
        what = "score: only its order counts" if task.kind == "ranking" else "value, in the unit of the target"
        return one | {"shape": ["row"], "is": what}
    return one | {"shape": ["row", len(task.classes)], "is": "probability of each class", "classes": task.classes}

"""ONNX files: every sharing, what stands beside them, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import kinfolk.sharing
from kinfolk import cli, exporting, replicas
from kinfolk.data.encoding import Encoder
from kinfolk.data.tasks import Task
from kinfolk.evidence.arms import NetworkArm
from kinfolk.evidence.features import Preparation
from kinfolk.evidence.jobs import Job, Rows
from kinfolk.evidence.networks import NetworkPredictor, Part
from kinfolk.evidence.opponents import Ridge
from kinfolk.exceptions import InputError
from kinfolk.graph import Prepared
from kinfolk.model import Member, Model, load
from kinfolk.sharing import Hard, Independent
from kinfolk.sharing.base import Sharing
from kinfolk.trunks import FromModules, Mlp
from kinfolk.trunks.base import Trunk

onnxruntime: Any = pytest.importorskip("onnxruntime")

TASKS = (
    Task("a", "regression"),
    Task("b", "multiclass", ("x", "y", "z")),
    Task("c", "binary", (0, 1)),
    Task("d", "regression"),
    Task("e", "regression", main=False),
)
MAIN = [task.name for task in TASKS if task.main]
SETTING = {"encoding": "piecewise", "rate": 0.003, "decay": 0.01, "dropout": 0.1}
FOUND: list[type[Sharing]] = [
    v for v in vars(kinfolk.sharing).values() if isinstance(v, type) and issubclass(v, Sharing)
]


def inputs(rows: int = 40, seed: int = 0) -> np.ndarray:
    """Encoded rows: numbers with gaps, one without, one of two values, one steep, one that is always the same."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 5)) * [1, 30, 1, 1e-3, 0] + [0, 500, 0, 7, 2]
    x[:, 2] = x[:, 2] > 0
    x[:, 3] **= 9
    x[::5, 0] = np.nan
    return x.astype(np.float32)


def frame(x: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({f"x{i}": x[:, i] for i in range(x.shape[1])})


def predictor(
    kind: type[Sharing], trunk: Trunk, encoding: str = "piecewise", tasks: Sequence[Task] = TASKS
) -> NetworkPredictor:
    """Two members, each with a snapshot per task, as they come from a training."""
    preparation = Preparation(encoding).fit(inputs())
    width = preparation.transform(inputs()).shape[1]
    parts = []
    for columns in kind().problems(tasks):
        learned = [tasks[c] for c in columns]
        made = []
        for seed in range(2 * len(columns)):
            with replicas.own("network", seed):
                made.append(kind().setup(trunk, learned, torch.Size([width])))
        parts.append(Part(replicas.stack(made).eval().requires_grad_(False), tuple(columns)))
    scale = np.array([[1000.0 * i, 10.0 ** (i - 1)] for i in range(len(tasks))])
    return NetworkPredictor(tuple(parts), preparation, tuple(tasks), scale, members=2)


def run(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"inputs": x}), strict=True))


def assert_agrees(path: Path, fit: NetworkPredictor, x: np.ndarray) -> None:
    found = run(path, x)
    assert list(found) == [task.name for task in fit.tasks if task.main]
    for at, (task, expected) in enumerate(zip(fit.tasks, fit.predict(x), strict=True)):
        if not task.main:
            continue
        assert expected is not None
        got = found[task.name]
        if task.kind == "regression":
            assert got.shape == (len(x),)
            np.testing.assert_allclose(got, expected[:, 0], rtol=1e-5, atol=1e-5 * fit.scale[at, 1])
        else:
            assert got.shape == (len(x), len(task.classes))
            np.testing.assert_allclose(got.sum(1), 1, rtol=1e-5)
            np.testing.assert_allclose(got[:, -1], expected[:, -1], atol=1e-5)


def export(path: Path, fit: NetworkPredictor) -> None:
    encoder = Encoder().fit(frame(inputs()))
    blend = {task.name: {"net": 1.0} for task in fit.tasks if task.main}
    exporting.export(path, encoder, fit.tasks, {"net": fit}, blend)


@pytest.mark.parametrize("kind", FOUND, ids=lambda kind: kind.__name__)
def test_every_sharing_is_exported(kind: type[Sharing], tmp_path: Path) -> None:
    fit = predictor(kind, Mlp(6))
    export(tmp_path / "net.onnx", fit)
    for seed, rows in ((1, 17), (2, 1)):
        assert_agrees(tmp_path / "net.onnx", fit, inputs(rows, seed))


def test_a_network_is_left_as_it_was(tmp_path: Path) -> None:
    fit = predictor(Hard, Mlp(6, norm="batch", dropout=0.2))
    before = {name: array.copy() for name, array in fit.state().items()}
    export(tmp_path / "net.onnx", fit)
    assert all(np.array_equal(array, before[name]) for name, array in fit.state().items())
    assert_agrees(tmp_path / "net.onnx", fit, inputs(9, 1))


def test_modules_of_ones_own(tmp_path: Path) -> None:
    width = Preparation().fit(inputs()).transform(inputs()).shape[1]
    images = [nn.Linear(width, 16), nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Flatten()]
    fit = predictor(Hard, FromModules([*images, nn.Sequential(nn.GELU(), nn.Dropout(0.5))]), "standard")
    export(tmp_path / "net.onnx", fit)
    assert_agrees(tmp_path / "net.onnx", fit, inputs(9, 1))


@pytest.mark.parametrize("encoding", ["standard", "piecewise"])
@pytest.mark.parametrize("columns", [slice(0, 5), slice(1, 2), slice(2, 3), slice(4, 5)])
def test_the_preparation_in_torch_is_the_preparation(encoding: str, columns: slice) -> None:
    preparation = Preparation(encoding).fit(inputs()[:, columns])
    for x in (inputs()[:, columns], inputs(20, 3)[:, columns] * 3, np.full((2, len(preparation.shift)), np.nan)):
        found = Prepared(preparation)(torch.as_tensor(x))
        assert torch.equal(found.isnan(), torch.zeros_like(found).bool())
        torch.testing.assert_close(found.float(), preparation.transform(x), rtol=1e-6, atol=1e-6)


def test_names_of_tasks_that_the_graph_has_already(tmp_path: Path) -> None:
    tasks = [Task(name, "regression") for name in ("inputs", "linear", "", "prix en €", "add", "val_1", "_")]
    fit = predictor(Hard, Mlp(4), "standard", tasks)
    export(tmp_path / "net.onnx", fit)
    said = json.loads((tmp_path / "net.onnx.json").read_text())["outputs"]
    assert [one["task"] for one in said] == [task.name for task in tasks]
    found = run(tmp_path / "net.onnx", inputs(5, 1))
    assert list(found) == [one["name"] for one in said]
    for one, expected in zip(found.values(), fit.predict(inputs(5, 1)), strict=True):
        assert expected is not None
        np.testing.assert_allclose(one, expected[:, 0], rtol=1e-4)


def test_a_graph_that_predicts_otherwise_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Prepared.forward
    monkeypatch.setattr(Prepared, "forward", lambda self, x: right(self, x) * 1.001)
    with pytest.raises(InputError, match=r"within .* are off by"):
        export(tmp_path / "net.onnx", predictor(Hard, Mlp(6)))
    assert not list(tmp_path.iterdir())


def test_a_network_that_cannot_be_traced_is_refused(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(InputError, match="can trace"):
        export(tmp_path / "net.onnx", predictor(Hard, FromModules([Branches()]), "standard"))
    assert not list(tmp_path.iterdir())


# ---- whole models


def table(rows: int = 80) -> pd.DataFrame:
    random = np.random.default_rng(0)
    made = pd.DataFrame({"size": random.normal(size=rows), "wealth": random.normal(size=rows) * 1e9})
    made["colour"] = random.choice(["red", "blue", "green", ""], rows)
    made["colour"] = made["colour"].replace("", None)
    made["sure"] = random.choice(["yes", "no"], rows)
    made["day"] = pd.date_range("2020-01-01", periods=rows, freq="37h").strftime("%Y-%m-%d %H:%M:%S")
    made["note"] = [f"{'ab' * (i % 5)} text {i}" for i in range(rows)]
    made["true"] = made["size"] > 0
    made["void"] = None
    made.loc[::6, "size"] = np.nan
    return made


@pytest.fixture(scope="module")
def model() -> Model:
    """A blend of two networks, with a ridge that has no weight."""
    encoder = Encoder().fit(table())
    x = encoder.transform(table())
    labels = np.random.default_rng(0).integers(0, 2, (len(x), len(TASKS))).astype(float)
    rows = Rows(x, labels, np.ones(len(x)), TASKS)
    everything = np.arange(len(x))
    ridge = Ridge(1).fit(rows, [Job(everything[::2], everything[1::2], 0, 0)]).predictors[0]
    assert ridge is not None
    members = [Member("ridge", "ridge", {"alpha": 10.0}, 8, ridge)]
    for text in ("mlp(width=4) + hard", "independent"):
        parts = NetworkArm(text, width=8).make(SETTING)
        preparation = Preparation("piecewise").fit(x)
        made = predictor(type(parts.sharing), parts.trunk)
        width = preparation.transform(x).shape[1]
        fresh = [
            Part(_stack(type(parts.sharing), parts.trunk, part.columns, width), part.columns) for part in made.parts
        ]
        members.append(Member(text, text, SETTING, 8, replace(made, parts=tuple(fresh), preparation=preparation)))
    blend = {name: {"mlp(width=4) + hard": 0.25, "independent": 0.75, "ridge": 0.0} for name in MAIN}
    return Model(TASKS, encoder, tuple(members), {**blend, "c": {"independent": 1.0}})


def _stack(kind: type[Sharing], trunk: Trunk, columns: tuple[int, ...], width: int) -> Sharing:
    tasks = [TASKS[c] for c in columns]
    made = [kind().setup(trunk, tasks, torch.Size([width])) for _ in range(2 * len(columns))]
    return replicas.stack(made).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def small(model: Model) -> Model:
    """The same with one network for all tasks: as it comes from ``--one-network``."""
    return replace(model, members=model.members[1:2], blend={name: {"mlp(width=4) + hard": 1.0} for name in MAIN})


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["kinfolk", *map(str, words)])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    return int(ending.value.code or 0)


def test_the_command_exports_a_saved_model(
    small: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small.save(tmp_path / "model")
    path = tmp_path / "out" / "net.onnx"
    assert command(monkeypatch, "export", tmp_path / "model", "--onnx", path) == 0
    said = capsys.readouterr()
    assert "checked in onnxruntime" in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert {p.name for p in path.parent.iterdir()} == {"net.onnx", "net.onnx.json"}
    assert_predicts(path, load(tmp_path / "model"))


def assert_predicts(path: Path, model: Model) -> None:
    found, expected = run(path, model.encode(table())), model.predict(table(), proba=True)
    np.testing.assert_allclose(found["a"], expected["a"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["d"], expected["d"], rtol=1e-5)
    np.testing.assert_allclose(found["b"], expected[["b: x", "b: y", "b: z"]], atol=1e-5)
    np.testing.assert_allclose(found["c"], expected[["c: 0", "c: 1"]], atol=1e-5)


def test_a_blend_and_what_stands_beside_it(model: Model, tmp_path: Path) -> None:
    """All but texts: the description, read literally, gives what the encoder gives."""
    model.export(str(tmp_path / "net.onnx"))
    assert_predicts(tmp_path / "net.onnx", model)
    assert str(Path(kinfolk.sharing.__file__).parents[2]).encode() not in (tmp_path / "net.onnx").read_bytes()
    said = json.loads((tmp_path / "net.onnx.json").read_text())
    raw, encoded = table(), model.encode(table())
    assert said["input"]["shape"] == ["row", encoded.shape[1]]
    assert {one["is"] for one in said["features"]} == {"number", "category", "missing", "date", "text"}
    assert {one["is"] for one in said["features"]} <= set(said["words"])
    for at, one in enumerate(said["features"]):
        cell = raw[one["column"]]
        if one["is"] == "number":
            values = cell.to_numpy(float)
        elif one["is"] == "missing":
            values = cell.isna().to_numpy(float)
        elif one["is"] == "category":
            values = (cell == one["category"]).to_numpy(float)
        elif one["is"] == "date":
            date = pd.to_datetime(cell, format=one["format"])
            seconds = ((date - pd.Timestamp(0)) / pd.Timedelta(seconds=1)).astype(np.float32)
            values = (seconds if one["part"] == "total_seconds" else getattr(date.dt, one["part"])).to_numpy(float)
        else:
            continue
        if scale := one.get("scale"):
            values = (values / scale["magnitude"] - scale["centre"]) / scale["spread"]
        np.testing.assert_allclose(encoded[:, at], values, rtol=1e-6, err_msg=one["name"])
    assert [one["task"] for one in said["outputs"]] == MAIN
    assert said["outputs"][1]["classes"] == ["x", "y", "z"]
    assert said["opset"] >= 18


def test_the_networks_of_a_model_are_described(model: Model) -> None:
    found = model.networks()
    apart = [f"independent: {name}" for name in MAIN]
    assert list(found) == ["mlp(width=4) + hard", *apart]
    assert isinstance(found["independent: a"], Independent)
    assert "5 tasks (a, b, c, d, e: auxiliary)" in kinfolk.sharing.describe(found["mlp(width=4) + hard"])
    assert "1 task (b)" in kinfolk.sharing.describe(found["independent: b"])


def test_tasks_that_trees_or_ridge_predict_are_refused_by_name(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blend = {**model.blend, "c": {"ridge": 1.0}, "d": {"ridge": 0.5, "independent": 0.5}}
    replace(model, blend=blend).save(tmp_path / "model")
    assert command(monkeypatch, "export", tmp_path / "model", "--onnx", tmp_path / "net.onnx") == 2
    said = capsys.readouterr().err
    assert "'c' by ridge; 'd' by ridge" in said
    assert "'a'" not in said
    assert "--one-network" in said
    assert not list(tmp_path.glob("*.onnx*"))


def test_mistakes_are_one_line(
    small: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small.save(tmp_path / "model")
    (tmp_path / "file").touch()
    for words, expected in (
        (["nowhere", "--onnx", "net.onnx"], "model.json"),
        ([tmp_path / "model", "--onnx", tmp_path / "net.pt"], "must end in .onnx"),
        ([tmp_path / "model", "--onnx", tmp_path / "file" / "net.onnx"], "cannot be written"),
    ):
        assert command(monkeypatch, "export", *words) == 2
        said = capsys.readouterr().err
        assert expected in said
        assert len(said.strip().splitlines()) == 1
    with monkeypatch.context() as patched:
        patched.setattr(exporting.util, "find_spec", lambda name: None if name == "onnxruntime" else object())
        assert command(patched, "export", tmp_path / "model", "--onnx", tmp_path / "net.onnx") == 2
    assert "pip install kinfolk[onnx]" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"model", "file"}

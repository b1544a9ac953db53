"""``--target kind:one_vs_rest`` from the table to predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import kinfolk
from kinfolk.cli import main
from kinfolk.conclusion import conclude
from kinfolk.fitted import Fitted, Options

OPTIONS = Options(arms=("ridge", "hist_gradient_boosting"), repeats=1, folds=3, inner=2, settings=1)


def frame(rows: int = 90, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 2))
    kind = np.array(["east", "north", "west"])[np.digitize(x[:, 0], [-0.5, 0.5])]
    made = pd.DataFrame({"x": x[:, 0], "y": x[:, 1], "height": x.sum(1), "kind": kind})
    made.loc[random.random(rows) < 0.2, "kind"] = None
    return made


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    out = tmp_path_factory.mktemp("runs") / "a"
    targets = ["kind:one_vs_rest", "height"]
    return kinfolk.fit(frame(), targets, errors={"kind": "brier"}, options=OPTIONS, out=out)


def test_each_class_has_a_verdict_of_its_own(fitted: Fitted) -> None:
    assert list(fitted.verdict.tasks) == ["kind=east", "kind=north", "kind=west", "height"]
    assert fitted.verdict.tasks["kind=north"]["error_name"] == "brier"


def test_the_column_is_predicted_as_one(fitted: Fitted) -> None:
    new = frame(60, seed=1)
    found, proba = fitted.predict(new), fitted.predict(new, proba=True)
    assert list(found) == ["kind", "height"]
    assert list(proba) == ["kind: east", "kind: north", "kind: west", "height"]
    shares = proba.iloc[:, :3].to_numpy()
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)
    assert found["kind"].tolist() == [("east", "north", "west")[i] for i in shares.argmax(1)]
    right = found["kind"].to_numpy() == new["kind"].to_numpy()
    assert right[new["kind"].notna().to_numpy()].mean() > 0.8
    parts, _ = fitted.model.probabilities(new)
    each = np.concatenate([parts[f"kind={name}"] for name in ("east", "north", "west")], 1)
    np.testing.assert_allclose(shares, each / each.sum(1, keepdims=True), rtol=1e-6)


def test_a_saved_model_and_the_command_line_do_the_same(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame(20, seed=1).to_csv(tmp_path / "new.csv", index=False)
    command = ["predict", str(fitted.path / "model"), str(tmp_path / "new.csv"), "--out", str(tmp_path / "found.csv")]
    monkeypatch.setattr("sys.argv", ["kinfolk", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "found.csv"), fitted.predict(frame(20, seed=1)), rtol=1e-6)


def test_the_report_is_written_again_by_another_error_of_the_target(fitted: Fitted) -> None:
    verdict = conclude(fitted.path, {"kind": "1-auc", "kind=west": "log_loss"})
    assert [verdict.tasks[f"kind={n}"]["error_name"] for n in ("east", "west")] == ["1-auc", "log_loss"]
    conclude(fitted.path)

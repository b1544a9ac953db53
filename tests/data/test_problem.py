"""A batch against a slow reference, row by row."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kinfolk.data.losses import row_losses
from kinfolk.data.problem import Batch, Problem
from kinfolk.data.tasks import Task

ROWS, TASKS = 12, 3
Per = Literal["batch", "expected"]


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def problem(missing: float = 0.4, weight: bool = True, seed: int = 0) -> Problem:
    g = np.random.default_rng(seed)
    labels = np.where(g.random((ROWS, TASKS)) < missing, np.nan, g.normal(size=(ROWS, TASKS)))
    weights = g.choice([0.0, 0.5, 1.0, 3.0], ROWS) if weight else None
    return Problem.from_arrays(g.normal(size=(ROWS, 4)), labels, [Task(c, "regression") for c in "abc"], weights)


def test_from_arrays() -> None:
    labels = np.array([[1.0, np.nan], [np.nan, 2.0]])
    made = Problem.from_arrays(
        np.ones((2, 3), dtype=np.float32), labels, [Task("a", "regression"), Task("b", "regression")]
    )
    assert made.inputs.dtype == torch.float64
    assert made.observed.tolist() == [[True, False], [False, True]]
    assert [target.tolist() for target in made.targets] == [[1, 0], [0, 2]]
    assert made.weight.tolist() == [1, 1]
    assert not made.complete


def test_complete() -> None:
    assert problem(missing=0, weight=False).complete
    assert not problem(missing=0).complete
    assert not problem(weight=False).complete


def reference(p: Problem, rows, columns, valid, per: Per) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Weights, presence and targets, one label at a time."""
    weight = np.zeros((*rows.shape, columns.shape[1]))
    targets = [np.zeros(rows.shape) for _ in range(columns.shape[1])]
    for r, i, t in np.ndindex(*weight.shape):
        row, column = int(rows[r, i]), int(columns[r, t])
        targets[t][r, i] = float(p.targets[column][row])
        if valid[r, i] and p.observed[row, column]:
            weight[r, i, t] = float(p.weight[row])
    present = weight.sum(1) > 0
    for r, t in np.ndindex(*present.shape):
        column = int(columns[r, t])
        share = np.mean([float(w) * bool(o) for w, o in zip(p.weight, p.observed[:, column], strict=True)])
        divisor = weight[r, :, t].sum() if per == "batch" else share * rows.shape[1]
        weight[r, :, t] /= divisor if divisor > 0 else 1
    return weight, present, targets


@given(
    seed=st.integers(0, 5),
    replicas=st.integers(1, 3),
    size=st.integers(1, 7),
    weighted=st.booleans(),
    missing=st.sampled_from([0.0, 0.4, 0.9]),
    per=st.sampled_from(["batch", "expected"]),
    chosen=st.booleans(),
    padded=st.booleans(),
)
def test_batch_equals_the_reference(seed, replicas, size, weighted, missing, per, chosen, padded) -> None:
    p = problem(missing, weighted, seed)
    g = torch.Generator().manual_seed(seed)
    rows = torch.randint(ROWS, (replicas, size), generator=g)
    columns = torch.randint(TASKS, (replicas, 2), generator=g) if chosen else torch.arange(TASKS).expand(replicas, -1)
    valid = torch.rand(replicas, size, generator=g) > 0.3 if padded else None
    batch = p.batch(rows, columns if chosen else None, valid, per)
    weight, present, targets = reference(p, rows, columns, torch.ones(replicas, size) if valid is None else valid, per)
    np.testing.assert_allclose(batch.weight.numpy(), weight, rtol=1e-12)
    assert np.array_equal(batch.present.numpy(), present)
    assert torch.equal(batch.inputs, p.inputs[rows])
    for mine, theirs in zip(batch.targets, targets, strict=True):
        assert np.array_equal(mine.numpy(), theirs)


def test_per_batch_divides_by_the_labels_in_the_batch() -> None:
    batch = problem().batch(torch.arange(ROWS)[None])
    torch.testing.assert_close(batch.weight.sum(1)[batch.present], torch.ones(int(batch.present.sum())))


def test_per_expected_is_the_mean_over_all_batches() -> None:
    """A rare task is not amplified: over the whole table its weights sum to 1, in whatever batches it is read."""
    p = problem()
    halves = p.batch(torch.arange(ROWS).view(2, ROWS // 2), per="expected").weight.sum(1)
    torch.testing.assert_close(halves.mean(0), torch.ones(TASKS))


def test_only_two_ways_to_divide() -> None:
    with pytest.raises(ValueError, match='"batch" or "expected"'):
        problem().batch(torch.zeros(1, 2, dtype=torch.int64), per="row")


@pytest.mark.parametrize("per", ["batch", "expected"])
def test_the_path_of_complete_problems_is_the_general_one(per: Per) -> None:
    p = problem(missing=0, weight=False)
    rows = torch.randint(ROWS, (3, 5))
    for columns in (None, torch.tensor([[0, 2], [1, 1], [2, 0]])):
        fast = p.batch(rows, columns, per=per)
        slow = p.batch(rows, columns, torch.ones(3, 5, dtype=torch.bool), per=per)
        torch.testing.assert_close(fast.weight, slow.weight)
        assert torch.equal(fast.present, slow.present)
        assert torch.equal(fast.inputs, slow.inputs)
        assert all(torch.equal(a, b) for a, b in zip(fast.targets, slow.targets, strict=True))


def test_a_task_whose_labels_weigh_nothing_is_absent() -> None:
    labels = np.array([[1.0, np.nan], [1.0, 2.0]])
    p = Problem.from_arrays(np.ones((2, 1)), labels, [Task(c, "regression") for c in "ab"], np.array([1.0, 0.0]))
    batch = p.batch(torch.tensor([[0, 1]]))
    assert batch.present.tolist() == [[True, False]]
    assert batch.weight.tolist() == [[[1, 0], [0, 0]]]


def losses(batch: Batch, p: Problem, weights: torch.Tensor) -> torch.Tensor:
    outputs = list((batch.inputs @ weights).split(1, -1))
    return (row_losses(p.tasks, outputs, batch.targets) * batch.weight).sum(1)


def test_parts_sum_to_the_whole() -> None:
    p, weights = problem(), torch.randn(4, TASKS)
    whole = p.batch(torch.randint(ROWS, (2, 9)))
    parts = [whole.part(slice(rank, None, 2)) for rank in range(2)]
    assert [part.inputs.shape[1] for part in parts] == [5, 4]
    assert all(torch.equal(part.present, whole.present) for part in parts)
    torch.testing.assert_close(sum(losses(part, p, weights) for part in parts), losses(whole, p, weights))


def test_what_is_not_observed_has_no_gradient() -> None:
    p, weights = problem(missing=0.5), torch.randn(4, TASKS, requires_grad=True)
    value = losses(p.batch(torch.arange(ROWS)[None]), p, weights)
    value.sum().backward()
    assert weights.grad is not None
    assert bool(weights.grad.isfinite().all())
    only = [i for i in range(ROWS) if not p.observed[i, 0]][:3]
    gradient = torch.autograd.grad(losses(p.batch(torch.tensor([only])), p, weights).sum(), weights)[0]
    assert torch.equal(gradient[:, 0], torch.zeros(4))

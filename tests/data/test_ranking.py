"""Rankings: losses that know order alone, and the errors that judge it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from kinfolk.data.concordance import concordance, mean_of_lowest
from kinfolk.data.errors import check_error, error, resampled, scores
from kinfolk.data.losses import row_loss, row_losses
from kinfolk.data.ranking import pairwise, rankprop, ranks
from kinfolk.data.tasks import Task

RISK = Task("risk", "ranking")


def drawn(seed: int, rows: int = 12, values: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    score = torch.randn(2, rows, generator=draws)
    label = torch.randint(values, (2, rows), generator=draws).float()
    return score, label, torch.rand(2, rows, generator=draws) * (torch.rand(2, rows, generator=draws) < 0.8)


@pytest.mark.parametrize("seed", range(3))
def test_pairwise_is_the_mean_over_pairs_of_each_row(seed: int) -> None:
    score, label, weight = drawn(seed)
    found = pairwise(score, label, weight)
    for r in range(2):
        for i in range(score.shape[1]):
            cost = partners = 0.0
            for j in range(score.shape[1]):
                if label[r, i] != label[r, j]:
                    high, low = (i, j) if label[r, i] > label[r, j] else (j, i)
                    cost += float(weight[r, j] * F.softplus(score[r, low] - score[r, high]))
                    partners += float(weight[r, j])
            assert float(found[r, i]) == pytest.approx(cost / partners if partners else 0.0, abs=1e-5)


def test_of_two_classes_the_mean_over_rows_is_that_over_pairs() -> None:
    score, label, _ = drawn(0, values=2)
    pairs = F.softplus(score[0][label[0] == 0].unsqueeze(1) - score[0][label[0] == 1])
    torch.testing.assert_close(pairwise(score, label, torch.ones_like(score))[0].mean(), pairs.mean())


def test_ranks_follow_labels_then_scores_and_pass_over_rows_without_a_label() -> None:
    score = torch.tensor([[0.9, 0.1, 0.5, -1.0, 0.2]])
    label = torch.tensor([[0.0, 1.0, 0.0, 0.0, 1.0]])
    weight = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.5]])
    assert ranks(score, label, weight)[0, [0, 1, 2, 4]].tolist() == pytest.approx([1 / 3, 2 / 3, 0, 1])
    assert float(rankprop(score, label, weight)[0, 3]) == 0


def test_rankprop_has_no_gradient_through_its_targets() -> None:
    score, label, weight = drawn(1)
    score.requires_grad_()
    rankprop(score, label, weight).sum().backward()
    expected = 2 * (score.detach() - ranks(score, label, weight)) * (weight > 0)
    torch.testing.assert_close(score.grad, expected)


@pytest.mark.parametrize("loss", ["pairwise", "rankprop"])
@pytest.mark.parametrize("seed", range(3))
def test_rows_without_a_label_change_nothing(loss: str, seed: int) -> None:
    score, label, weight = drawn(seed)
    kept = weight[0] > 0
    found = row_loss("ranking", score[:1].unsqueeze(-1), label[:1], weight[:1], loss)
    alone = row_loss("ranking", score[:1, kept].unsqueeze(-1), label[:1, kept], weight[:1, kept], loss)
    torch.testing.assert_close(found[:, kept], alone)


@pytest.mark.parametrize("loss", ["pairwise", "rankprop"])
def test_replicas_and_tasks_do_not_see_each_other(loss: str) -> None:
    tasks = (Task("a", "ranking", loss=loss), Task("b", "regression"), Task("c", "ranking", loss=loss))
    score, label, weight = drawn(2)
    shared, targets = [score.unsqueeze(-1), score.unsqueeze(-1), -score.unsqueeze(-1)], [label] * 3
    weights = torch.stack([weight, weight, weight.flip(1)], -1)
    found = row_losses(tasks, shared, targets, weights)
    for t, task in enumerate(tasks):
        for r in range(2):
            one = slice(r, r + 1)
            alone = row_loss(task.kind, shared[t][one], targets[t][one], weights[one, :, t], loss)
            torch.testing.assert_close(found[one, :, t], alone)


@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(2, 12))
def test_concordance_counts_pairs(seed: int, values: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    label, score, weight = random.integers(values, size=rows), random.integers(5, size=rows), random.random((3, rows))
    right = (score[:, None] > score) + 0.5 * (score[:, None] == score)
    pairs = label[:, None] > label
    with np.errstate(invalid="ignore"):
        expected = [(w @ (right * pairs) @ w) / np.float64(w @ pairs @ w) for w in weight]
    np.testing.assert_allclose(concordance(label, score, weight), expected)


def test_of_two_labels_concordance_is_the_auc() -> None:
    random = np.random.default_rng(0)
    label, score, weight = random.random(50) < 0.3, random.integers(8, size=50), random.random(50)
    expected = roc_auc_score(label, score, sample_weight=weight)
    assert float(concordance(label, score, weight)) == pytest.approx(expected)


def test_the_error_at_a_fraction_counts_the_lowest_rows() -> None:
    label, score = [0, 1, 0, 0, 1, 1, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    found = [error(Task("t", "ranking", error=f"fop_{f}0"), label, np.array(score)[:, None]) for f in (1, 2, 5)]
    assert found == pytest.approx([0, 1 / 2, 2 / 5])
    assert float(mean_of_lowest([0, 1, 1], [0.0, 0.0, 1.0], [1, 1, 1], 1 / 3)) == pytest.approx(0.5)
    twice = resampled(Task("t", "ranking", error="fop_20"), label, np.array(score)[:, None], np.ones((4, 10)))
    assert np.asarray(twice).tolist() == [0.5] * 4


def test_what_is_undefined_is_nan() -> None:
    assert np.isnan(error(RISK, [1.0, 1.0], [[0.1], [0.2]]))
    assert np.isnan(float(mean_of_lowest([], [], np.zeros(0), 0.5)))


def test_a_ranking_says_how_it_is_judged_and_trained() -> None:
    assert (RISK.error, RISK.loss, RISK.size, RISK.numeric) == ("1-concordance", "pairwise", 1, True)
    assert scores(RISK, [1.0, 2.0, 3.0], [[5.0], [9.0], [7.0]]) == {"concordance": pytest.approx(2 / 3)}
    assert check_error("price", "Concordance", "regression") == "1-concordance"
    with pytest.raises(ValueError, match="loss of a ranking task must be one of pairwise, rankprop"):
        Task("risk", "ranking", loss="squared")

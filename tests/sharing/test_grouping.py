"""Affinity of tasks, the grouping of least cost, and the choice of rows for thin layers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from kinfolk.sharing.grouping import affinity, between, group, separation, somp, thin


def planted(sizes: list[int], across: float = 0.5) -> np.ndarray:
    """Affinity 1 within groups, ``across`` between them."""
    place = np.repeat(np.arange(len(sizes)), sizes)
    return np.where(place == place[:, None], 1.0, across)


def test_affinity_counts_rows_difficult_for_both_or_easy_for_both() -> None:
    generator = np.random.default_rng(0)
    margins = generator.random((40, 3))
    found = affinity(margins, np.ones((40, 3), dtype=bool))
    difficult = margins >= margins.mean(0)
    for i in range(3):
        for j in range(3):
            e, other = difficult[:, i], difficult[:, j]
            assert found[i, j] == pytest.approx(np.mean(e & other) + np.mean(~e & ~other))


def test_rows_that_are_not_observed_are_left_out_of_a_pair() -> None:
    generator = np.random.default_rng(1)
    margins, observed = generator.random((60, 3)), generator.random((60, 3)) < 0.6
    found = affinity(np.where(observed, margins, 1e9), observed)  # what stands where nothing is observed does not count
    both = observed[:, 0] & observed[:, 1]
    e = [margins[both, i] >= margins[observed[:, i], i].mean() for i in (0, 1)]
    assert found[0, 1] == pytest.approx(np.mean(e[0] == e[1]))
    assert np.allclose(found, found.T)


def test_tasks_without_a_common_row_agree_by_chance() -> None:
    observed = np.eye(2, dtype=bool).repeat(5, 0)
    assert affinity(np.random.default_rng(0).random((10, 2)), observed).tolist() == [[1.0, 0.5], [0.5, 1.0]]
    assert affinity(np.ones((3, 2)), np.zeros((3, 2), dtype=bool)).tolist() == [[1.0, 0.5], [0.5, 1.0]]


def test_the_affinity_of_branches() -> None:
    tasks = np.array([[1.0, 0.8, 0.3], [0.8, 1.0, 0.6], [0.3, 0.6, 1.0]])
    # To the lone task: mean of 0.3 and 0.6; back: the least of them. Within: the least of 1 and 0.8, twice.
    expected = [[0.8, (0.45 + 0.3) / 2], [(0.45 + 0.3) / 2, 1.0]]
    np.testing.assert_allclose(between(tasks, np.array([0, 0, 1])), expected)
    np.testing.assert_allclose(between(tasks, np.arange(3)), tasks)


def test_separation_by_hand() -> None:
    pairs = planted([2, 2])
    assert separation(pairs, np.array([0, 0, 0, 0])) == pytest.approx(0.25)
    assert separation(pairs, np.array([0, 0, 1, 1])) == pytest.approx(0)
    assert separation(planted([3, 1]), np.array([0, 0, 0, 0])) == pytest.approx(1 - (1 + 3 * 0.5) / 4)


@pytest.mark.parametrize("level", [0, 1, 3])
@pytest.mark.parametrize("sizes", [[2, 2], [3, 3], [1, 3], [5, 2]])
def test_the_switch_point_from_one_group_to_two(sizes: list[int], level: int) -> None:
    related = planted(sizes)
    apart, together = np.repeat([0, 1], sizes), np.zeros(sum(sizes), dtype=int)
    switch = 2**level / (separation(related, together) - separation(related, apart))
    assert group(related, 2**level, 0.99 * switch, 9).tolist() == together.tolist()
    assert group(related, 2**level, 1.01 * switch, 9).tolist() == apart.tolist()


def test_planted_groups_are_found_whatever_their_order() -> None:
    order = np.random.default_rng(0).permutation(12)
    related = planted([5, 4, 3], across=0.4)[np.ix_(order, order)]
    found = group(related, 1, 50, 12)
    place = np.repeat([0, 1, 2], [5, 4, 3])[order]
    assert len({*zip(found.tolist(), place.tolist(), strict=True)}) == 3
    assert found[0] == 0
    assert found.max() == 2
    assert [found.tolist().index(g) for g in range(3)] == sorted(found.tolist().index(g) for g in range(3))


def test_no_more_groups_than_allowed_and_none_without_alpha() -> None:
    related = planted([1, 1, 1, 1], across=0.1)
    assert group(related, 1, 1000, 9).tolist() == [0, 1, 2, 3]
    assert group(related, 1, 1000, 2).max() == 1
    assert group(related, 1, 0, 9).tolist() == [0, 0, 0, 0]
    assert group(np.ones((1, 1)), 1, 1000, 9).tolist() == [0]


def test_branches_without_any_affinity_are_grouped_without_a_warning() -> None:
    assert group(planted([2, 2, 2], across=0.0), 1, 100, 6).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_somp_is_exact_once_every_direction_is_there(rank: int) -> None:
    generator = np.random.default_rng(rank)
    directions = generator.normal(size=(rank, 8))
    place = np.concatenate([np.arange(rank), generator.integers(rank, size=12)])
    matrix = generator.normal(size=(len(place), 1)) * directions[place]
    chosen, combinations = somp(matrix, rank)
    assert {place[i] for i in chosen} == set(range(rank))
    np.testing.assert_allclose(combinations @ matrix[chosen], matrix, atol=1e-12)


def test_somp_comes_nearer_with_each_row() -> None:
    matrix = np.random.default_rng(0).normal(size=(9, 7))
    far = []
    for rows in range(1, 10):
        chosen, combinations = somp(matrix, rows)
        assert len(set(chosen)) == rows
        best = matrix @ np.linalg.pinv(matrix[chosen])
        np.testing.assert_allclose(combinations, best, atol=1e-12)
        far.append(np.linalg.norm(matrix - combinations @ matrix[chosen]))
    assert all(b <= a + 1e-9 for a, b in pairwise(far))
    assert far[6] < 1e-9  # rank 7


def test_somp_takes_a_row_of_zeros_last() -> None:
    chosen, combinations = somp(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]), 3)
    assert chosen[-1] == 0
    assert np.isfinite(combinations).all()


@pytest.mark.parametrize("rows", [0, 4])
def test_somp_refuses_other_numbers_of_rows(rows: int) -> None:
    with pytest.raises(ValueError, match=rf"from 1 to the matrix's 3 rows\. Got {rows}"):
        somp(np.ones((3, 2)), rows)


def test_thin_convolutions_read_the_channels_that_are_left() -> None:
    generator = np.random.default_rng(0)
    wide = [generator.normal(size=(6, 3, 2, 2)), generator.normal(size=(5, 6, 2, 2))]
    thinner, kept = thin(wide, [4, 2])
    assert [weight.shape for weight in thinner] == [(4, 3, 2, 2), (2, 4, 2, 2)]
    np.testing.assert_array_equal(thinner[1], wide[1][kept[1]][:, kept[0]])

"""Rules on task gradients against numbers from an independent solver, and against what theory says of them.

The two Jacobians and their numbers were computed apart from this code, in double precision, from the equations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from kinfolk.balancing import cagrad, nash_mtl, pcgrad
from kinfolk.balancing.base import Losses
from kinfolk.balancing.gramian import Gramian
from kinfolk.balancing.jacobian import RULES
from kinfolk.balancing.wording import NATIVE, SCALES
from kinfolk.catalogue import CATALOGUES, parse
from kinfolk.data.tasks import Task

J1 = torch.tensor([[2.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
J2 = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [-1.0, -0.5, 0.5]], dtype=torch.float64)
EXACT_MGDA = "mgda(epsilon=1e-12, max_iters=20000)"
NEAR = {"upgrad": 2e-3, "dualproj": 1e-3, "mgda": 1e-4}  # their solvers: a ridge of 1e-4; a slow search


def made(text: str, tasks: int) -> Any:
    torch.manual_seed(0)
    (term,) = parse(text)
    return CATALOGUES["balancing"].make(term).setup([Task(name, "regression") for name in "abcdefgh"[:tasks]])


def weights(text: str, jacobian: Tensor) -> Tensor:
    present = torch.ones(1, len(jacobian), dtype=torch.bool)
    return made(text, len(jacobian)).weights((jacobian @ jacobian.T)[None], present)[0]


def near(text: str) -> float:
    return NEAR.get(text.partition("(")[0], 1e-5)


@pytest.mark.parametrize(
    ("text", "jacobian", "expected"),
    [
        (EXACT_MGDA, J1, [0.4, 0.6]),
        ("imtl_g", J1, [0.414214, 0.585786]),
        ("nash_mtl(max_norm=inf)", J1, [0.923880, 1.306563]),
        ("fairgrad", J1, [0.942321, 1.369568]),
        ("fairgrad(alpha=1.0)", J1, [0.923880, 1.306563]),
        ("aligned_mtl(pref_vector={a: 1})", J1, [0.829180, 1.105573]),
        ("upgrad", J1, [0.75, 1.0]),
        (EXACT_MGDA, J2, [0.512195, 0.195122, 0.292683]),
        ("imtl_g", J2, [0.510636, 0.197358, 0.292006]),
        ("nash_mtl(max_norm=inf)", J2, [5.619335, 2.231221, 3.210157]),
        ("fairgrad", J2, [8.629535, 3.354004, 4.935118]),
        ("aligned_mtl(pref_vector={a: 1})", J2, [1.283590, 0.569401, 0.780789]),
        ("upgrad", J2, [1.5, 0.621212, 0.848485]),
    ],
)
def test_weights(text: str, jacobian: Tensor, expected: list[float]) -> None:
    assert weights(text, jacobian).tolist() == pytest.approx(expected, rel=near(text))


@pytest.mark.parametrize(
    ("text", "jacobian", "expected"),
    [
        (EXACT_MGDA, J1, [0.2, 0.6]),
        ("pcgrad", J1, [1.0, 2.0]),
        ("gradvac", J1, [1.0, 2.0]),
        ("imtl_g", J1, [0.242641, 0.585786]),
        ("nash_mtl(max_norm=inf)", J1, [0.541196, 1.306563]),
        ("fairgrad", J1, [0.515075, 1.369568]),
        ("cagrad(c=0.4, rescale=0)", J1, [0.3, 0.7]),
        ("cagrad(c=0.5, rescale=0)", J1, [0.25, 0.75]),
        ("cagrad(c=0.5)", J1, [0.2, 0.6]),
        ("aligned_mtl", J1, [0.552786 / 2, 1.105573 / 2]),
        ("aligned_mtl(scale_mode=rmse, pref_vector={a: 1})", J1, [1.095445, 2.190890]),
        ("upgrad", J1, [0.5, 1.0]),
        ("dualproj", J1, [0.5, 0.5]),
        (EXACT_MGDA, J2, [0.024390, 0.048780, 0.146341]),
        ("nash_mtl(max_norm=inf)", J2, [0.177957, 0.626142, 1.605079]),
        ("cagrad(c=0.4, rescale=0)", J2, [-0.170034, 0.166667, 0.166667]),
        ("upgrad", J2, [0.030303, 0.196970, 0.424242]),
    ],
)
def test_update(text: str, jacobian: Tensor, expected: list[float]) -> None:
    assert (weights(text, jacobian) @ jacobian).tolist() == pytest.approx(expected, rel=near(text), abs=near(text))


def test_pcgrad_depends_on_the_order() -> None:
    gramian, order = (J2 @ J2.T)[None], torch.arange(3).expand(1, 3, 3)
    first, last = (pcgrad.project(gramian, one)[0] @ J2 for one in (order, order.flip(-1)))
    assert first.tolist() == pytest.approx([-0.583333, 0.833333, 0.916667], abs=1e-6)
    assert last.tolist() == pytest.approx([0, 0.5, 0.833333], abs=1e-6)


def test_gradvac_reaches_the_cosine_that_it_remembers() -> None:
    method = made("gradvac", 2)
    method.state_phi_t.copy_(torch.tensor([[0.0, 0.5], [-1.0, 0.0]]))
    found = method.weights((J1 @ J1.T)[None], torch.ones(1, 2, dtype=torch.bool))[0]
    turned = (found - torch.tensor([0.0, 1.0])) @ J1  # the second gradient was left as it was
    assert turned.tolist() == pytest.approx([0.422650, 1.577350], abs=1e-5)
    assert float(torch.cosine_similarity(turned, J1[1], dim=0)) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(("mu", "expected", "slopes"), [(1.0, 2.313262, (0.268941, 0.731059)), (0.1, 2.000005, None)])
def test_stch(mu: float, expected: float, slopes: tuple[float, float] | None) -> None:
    method = made(f"stch(mu={mu}, weights={{a: 1, b: 1}})", 2)
    value = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True) * 1
    assert float(method.total(Losses(value)).detach()) == pytest.approx(expected, abs=1e-6)
    if slopes:
        assert method.backward(Losses(value)).tolist() == pytest.approx(slopes, abs=1e-6)


def test_imtl_l_scales_losses_to_one() -> None:
    method = made("imtl_l", 2)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        found = method.backward(Losses(torch.tensor([0.25, 4.0], requires_grad=True) * 1))
        optimizer.step()
    assert found.tolist() == pytest.approx([4, 0.25], rel=1e-2)


# ---- what theory says

FEW = settings(max_examples=15)
JACOBIANS = st.tuples(st.integers(2, 5), st.integers(0, 4), st.integers(0, 2**31)).map(
    lambda drawn: torch.from_numpy(
        np.random.default_rng(drawn[2]).normal(size=(drawn[0], drawn[0] + drawn[1]))
        * np.random.default_rng(drawn[2] + 1).uniform(0.3, 3, size=(drawn[0], 1))
    )
)


def well_posed(jacobian: Tensor) -> bool:
    unit = jacobian / jacobian.norm(dim=1, keepdim=True)
    return float(torch.linalg.eigvalsh(unit @ unit.T)[0]) > 0.02


@FEW
@given(JACOBIANS)
def test_mgda_gains_at_least_its_squared_norm_for_every_task(jacobian: Tensor) -> None:
    update = weights("mgda(epsilon=1e-5, max_iters=500)", jacobian) @ jacobian
    assert bool((jacobian @ update >= update @ update - 1e-2 * jacobian.square().sum()).all())


@FEW
@given(JACOBIANS)
def test_nash_solves_its_equation(jacobian: Tensor) -> None:
    assume(well_posed(jacobian))
    found = weights("nash_mtl(max_norm=inf)", jacobian)
    update = found @ jacobian
    assert float(update @ update) == pytest.approx(len(jacobian), rel=1e-6)
    torch.testing.assert_close(jacobian @ update, 1 / found, rtol=1e-6, atol=1e-8)


@FEW
@given(JACOBIANS)
def test_nash_is_clipped(jacobian: Tensor) -> None:
    update = weights("nash_mtl", jacobian) @ jacobian
    assert float(update.norm()) == pytest.approx(1, rel=1e-5) or float(update.norm()) < 1


@FEW
@given(JACOBIANS)
def test_imtl_g_has_equal_cosines(jacobian: Tensor) -> None:
    assume(well_posed(jacobian))
    shares = jacobian @ (weights("imtl_g", jacobian) @ jacobian) / jacobian.norm(dim=1)
    torch.testing.assert_close(shares, shares.mean().expand_as(shares), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("text", ["upgrad", "dualproj"])
@FEW
@given(jacobian=JACOBIANS)
def test_no_loss_rises(text: str, jacobian: Tensor) -> None:
    gains = jacobian @ (weights(text, jacobian) @ jacobian)
    assert bool((gains >= -1e-2 * jacobian.square().sum()).all())


@FEW
@given(JACOBIANS)
def test_aligned_gradients_are_orthogonal_and_equally_long(jacobian: Tensor) -> None:
    assume(well_posed(jacobian))
    singular = torch.linalg.svd(jacobian).S
    u, _, v = torch.linalg.svd(jacobian, full_matrices=False)
    torch.testing.assert_close(
        weights("aligned_mtl(pref_vector={a: 1})", jacobian) @ jacobian, singular[-1] * (u @ v).sum(0)
    )


@FEW
@given(JACOBIANS, st.integers(0, 2**31))
def test_scale_of_one_loss(jacobian: Tensor, seed: int) -> None:
    """Nash stays, IMTL-G keeps its direction, MGDA and PCGrad change."""
    assume(well_posed(jacobian))
    scale = torch.from_numpy(np.random.default_rng(seed).uniform(0.2, 5, size=(len(jacobian), 1)))
    both = lambda text: [weights(text, j) @ j for j in (jacobian, scale * jacobian)]  # noqa: E731
    torch.testing.assert_close(*both("nash_mtl(max_norm=inf)"), rtol=1e-6, atol=1e-8)
    one, other = both("imtl_g")
    assert abs(float(torch.cosine_similarity(one, other, dim=0))) == pytest.approx(1, abs=1e-8)


def test_scale_changes_mgda_and_pcgrad() -> None:
    scale = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    for text in ("mgda", "pcgrad", "aligned_mtl"):
        assert not torch.allclose(weights(text, J1) @ J1, weights(text, scale * J1) @ (scale * J1))


@FEW
@given(JACOBIANS, st.floats(0, 0.9))
def test_cagrad_is_the_best_of_its_ball(jacobian: Tensor, c: float) -> None:
    """Its worst gain reaches the dual bound that its own weights give, which no update of the ball can pass."""
    mean = jacobian.mean(0)
    g = (jacobian @ jacobian.T)[None]
    found = cagrad.avert(g, torch.ones(1, len(jacobian), dtype=torch.bool), c)[0]
    update = found @ jacobian
    if not bool(found.any()):  # gradients cancel each other
        return
    assert float((update - mean).norm()) <= c * float(mean.norm()) * (1 + 1e-6) + 1e-12
    aside = found - 1 / len(found)
    worst = aside / aside.sum() if c > 0.01 else None
    if worst is not None:
        bound = (worst @ jacobian) @ mean + c * mean.norm() * (worst @ jacobian).norm()
        assert float((jacobian @ update).min()) == pytest.approx(float(bound), abs=1e-5 * float(g.abs().max()))


@FEW
@given(JACOBIANS)
def test_cagrad_without_a_ball_is_the_mean(jacobian: Tensor) -> None:
    torch.testing.assert_close(weights("cagrad(c=0.0)", jacobian), torch.full_like(jacobian[:, 0], 1 / len(jacobian)))


@FEW
@given(JACOBIANS, st.integers(0, 2**31))
def test_pcgrad_is_the_published_loop(jacobian: Tensor, seed: int) -> None:
    tasks = len(jacobian)
    order = torch.from_numpy(np.random.default_rng(seed).random((tasks, tasks))).argsort(-1)
    total = torch.zeros_like(jacobian[0])
    for i in range(tasks):
        g = jacobian[i].clone()
        for j in order[i].tolist():
            if j != i and float(g @ jacobian[j]) < 0:
                g = g - (g @ jacobian[j]) / (jacobian[j] @ jacobian[j]) * jacobian[j]
        total += g
    found = pcgrad.project((jacobian @ jacobian.T)[None], order[None])[0]
    torch.testing.assert_close(found @ jacobian, total)


ON_GRAMIANS = ["nash_mtl", "cagrad", "pcgrad", *(n for n, rule in RULES.items() if issubclass(rule, Gramian))]
DETERMINISTIC = ["aligned_mtl", "cagrad", "dualproj", "fairgrad", "imtl_g", "mgda", "nash_mtl", "upgrad"]


@pytest.mark.parametrize("text", DETERMINISTIC)
def test_permutation_of_tasks(text: str) -> None:
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(weights(text, J2[order]), weights(text, J2)[order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("text", sorted(SCALES))
@pytest.mark.parametrize("factor", [1e-9, 1e6])
def test_size_of_all_gradients(text: str, factor: float) -> None:
    power = SCALES[text](made(text, 3))
    expected = weights(text, J2) * factor ** (2 * power)
    torch.testing.assert_close(weights(text, factor * J2), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("text", sorted({*NATIVE, "cagrad(rescale=2)", "pcgrad"}))
def test_native_scale(text: str) -> None:
    same = torch.tensor([[0.6, 0.8]], dtype=torch.float64).expand(3, 2)
    expected = {"sum": 3, "mean": 1}[made(text, 3).native]
    torch.testing.assert_close(weights(text, same) @ same, expected * same[0], rtol=1e-3, atol=1e-3)


# ---- the solves of our own, and the library's


@pytest.mark.parametrize("tasks", [2, 7, 40])
def test_replicas_and_absent_tasks(tasks: int) -> None:
    """A batch is its replicas one by one, and an absent task is one that is not there."""
    jacobians = torch.randn(3, tasks, 2 * tasks, dtype=torch.float64)
    g, present = jacobians @ jacobians.mT, torch.rand(3, tasks) < 0.7
    present[:, 0] = True
    order = torch.rand(3, tasks, tasks).argsort(-1)
    for solve in (nash_mtl.bargain, lambda g, on: cagrad.avert(g, on, 0.4)):
        whole = solve(g, present)
        assert not bool(whole[~present].any())
        for r, on in enumerate(present):
            alone = solve(g[r][on][:, on][None], torch.ones(1, int(on.sum()), dtype=torch.bool))[0]
            torch.testing.assert_close(whole[r][on], alone, rtol=1e-6, atol=1e-8)
    whole = pcgrad.project(g, order)
    for r in range(3):
        torch.testing.assert_close(whole[r], pcgrad.project(g[r : r + 1], order[r : r + 1])[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("text", ON_GRAMIANS)
def test_gradients_that_cancel_each_other(text: str, dtype: torch.dtype) -> None:
    """Opposite, equal and zero gradients, and fewer parameters than tasks, leave all weights finite."""
    rows = [[[1.0], [-1.0]], [[1.0], [1.0]], [[0.0], [2.0]], [[0.0], [0.0]], [[1.0], [-2.0], [3.0], [-1.0]]]
    for jacobian in rows:
        assert bool(weights(text, torch.tensor(jacobian, dtype=dtype)).isfinite().all()), jacobian


def test_cancelled_gradients_make_no_update() -> None:
    opposite = torch.tensor([[1.0, 0.5], [-1.0, -0.5]], dtype=torch.float64)
    assert float((weights("cagrad", opposite) @ opposite).norm()) == pytest.approx(0, abs=1e-12)
    assert float((weights("nash_mtl", opposite) @ opposite).norm()) < 1e-3


@pytest.mark.filterwarnings("ignore:You are solving:UserWarning")
@pytest.mark.parametrize("tasks", [2, 5, 12])
def test_cagrad_and_nash_are_the_librarys(tasks: int) -> None:
    """Where its solvers, which Kinfolk does not ask for, are there."""
    pytest.importorskip("cvxpy")
    pytest.importorskip("ecos")
    from torchjd.aggregation import CAGrad, NashMTL

    jacobian = torch.randn(tasks, 3 * tasks, dtype=torch.float64) + 0.2
    g, on = (jacobian @ jacobian.T)[None], torch.ones(1, tasks, dtype=torch.bool)
    torch.testing.assert_close(cagrad.avert(g, on, 0.4)[0] @ jacobian, CAGrad(c=0.4)(jacobian), rtol=1e-3, atol=1e-4)
    library = NashMTL(tasks, max_norm=0.0)(jacobian)
    ours = nash_mtl.bargain(g, on)[0] @ jacobian
    assert float(torch.cosine_similarity(ours, library, dim=0)) == pytest.approx(1, abs=1e-3)


def test_pcgrad_is_the_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchjd.aggregation import PCGradWeighting

    jacobian = torch.randn(6, 9, dtype=torch.float64)
    order = torch.rand(6, 6).argsort(-1)
    orders = iter(order)
    monkeypatch.setattr(torch, "randperm", lambda _: next(orders))
    library = PCGradWeighting()(jacobian @ jacobian.T)
    torch.testing.assert_close(pcgrad.project((jacobian @ jacobian.T)[None], order[None])[0], library)


def test_bad_parameters() -> None:
    for text, message in [
        ("nash_mtl(max_norm=0.0)", "`max_norm` must be positive"),
        ("nash_mtl(reduction=sum)", "`reduction` must be native"),
        ("cagrad(c=1.0)", r"`c` must be in \[0, 1\)"),
        ("cagrad(rescale=3)", "`rescale` of 'cagrad' must be .*0, 1, 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            made(text, 2)

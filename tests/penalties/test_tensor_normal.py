"""The tensor-normal prior over heads: flip-flop, its density, the authors' variant, and how it lives in a training."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from kinfolk import replicas
from kinfolk.balancing import Fixed
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.penalties import TensorNormal
from kinfolk.penalties.tensor_normal import authors_update, flip_flop
from kinfolk.sharing import Hard, Independent
from kinfolk.sharing.base import Outputs
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import Mlp

TASKS = (Task("a", "regression"), Task("b", "multiclass", ("x", "y", "z")), Task("c", "binary", (0, 1)))


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def planted() -> tuple[Tensor, Tensor]:
    """Heads drawn with correlations 0.9 and -0.5 within two pairs of tasks, and none elsewhere."""
    covariance = torch.eye(4)
    covariance[0, 1] = covariance[1, 0] = 0.9
    covariance[2, 3] = covariance[3, 2] = -0.5
    drawn = torch.randn(4, 6, 400, generator=torch.Generator().manual_seed(0))
    return covariance, torch.einsum("st,tcf->scf", torch.linalg.cholesky(covariance), drawn)[None]


def test_five_flip_flops_recover_the_planted_covariance() -> None:
    covariance, weights = planted()
    found = flip_flop(weights * 3, 5, ridge=1e-5)[0].matrix[0]  # the scale goes to the covariance of features
    assert float(found.trace()) == pytest.approx(4)
    root = found.diagonal().rsqrt()
    found = found * root[:, None] * root
    torch.testing.assert_close(found, covariance, rtol=0, atol=0.05)  # 2400 draws of each task: +-0.02
    torch.testing.assert_close(found, weights[0].flatten(1).corrcoef(), rtol=0, atol=0.01)


def test_one_step_is_the_maximum_likelihood_of_tasks_given_the_others() -> None:
    _, weights = planted()
    found = flip_flop(weights, 1, ridge=1e-9)[0].matrix[0]
    unfolded = weights[0].flatten(1)
    expected = unfolded @ unfolded.T / (6 * 400)
    torch.testing.assert_close(found, expected * 4 / expected.trace(), rtol=1e-6, atol=1e-6)


def test_more_rounds_are_not_less_likely() -> None:
    """In a case where the maximum exists: as many features as the others have columns, and more."""
    weights = torch.randn(1, 5, 4, 3) * torch.linspace(0.5, 3, 5).view(-1, 1, 1)
    found = [flip_flop(weights, rounds, ridge=1e-9) for rounds in range(1, 7)]
    likely = [float(density(weights[0], [s.matrix[0] for s in spectra])) for spectra in found]
    assert all(b > a - 1e-6 for a, b in pairwise(likely))


def density(weights: Tensor, covariances: list[Tensor]) -> Tensor:
    task, output, feature = covariances
    normal = MultivariateNormal(torch.zeros(weights.numel()), torch.kron(task, torch.kron(output, feature)))
    return normal.log_prob(weights.flatten())


@pytest.mark.parametrize("features", [2, 40])
def test_a_spectrum_is_its_matrix(features: int) -> None:
    for spectrum in flip_flop(torch.randn(1, 2, 3, features)):
        matrix = spectrum.matrix[0]
        torch.testing.assert_close(spectrum.log_determinant[0], torch.logdet(matrix))
        x = torch.randn(1, len(matrix), 3)
        white = spectrum.whiten(x)[0]
        torch.testing.assert_close(white.T @ white, x[0].T @ torch.linalg.solve(matrix, x[0]))


def model_of(tasks: tuple[Task, ...] = (*TASKS, Task("d", "regression")), seed: int = 0) -> Any:
    with replicas.own("network", seed):
        return Hard().setup(Mlp(5), tasks, torch.Size([3]))


def value(penalty: TensorNormal, model: Hard, copies: int = 1) -> Tensor:
    features = torch.zeros(copies, 1, 1)
    return penalty(model, Outputs([features], [features]), torch.zeros(copies, 4))


def heads(model: Any) -> Tensor:
    return model.heads.layers[0].weight.mT.detach()


def test_it_is_the_density_but_for_a_constant() -> None:
    model = model_of()
    penalty: Any = TensorNormal(strength=0.5).setup(model, (*TASKS, Task("d", "regression")))
    before = value(penalty, model)
    torch.testing.assert_close(before[0], heads(model).square().sum() * 0.5 / 2)  # all identities
    penalty.at_epoch(1, None, None)
    found = value(penalty, model)
    spectra = penalty.priors[0].spectra()
    weights = heads(model)
    constant = weights.numel() / 2 * torch.log(torch.tensor(2 * torch.pi))
    expected = -density(weights, [s.matrix[0] for s in spectra]) - constant
    torch.testing.assert_close(found[0], 0.5 * expected)
    found.backward()
    precision = torch.kron(spectra[0].matrix[0], spectra[2].matrix[0]).inverse()  # heads of one output
    gradient = model.heads.layers[0].weight.grad
    torch.testing.assert_close(gradient.flatten(), 0.5 * precision @ weights.flatten())


def test_heads_of_one_shape_belong_together_whatever_their_kind() -> None:
    penalty = TensorNormal().setup(model_of(), (*TASKS, Task("d", "regression")))
    learned = penalty.learned()
    assert set(learned) == {"task covariance", "task correlation"}
    assert learned["task covariance"].lines == learned["task covariance"].columns == ("a", "c", "d")
    torch.testing.assert_close(learned["task covariance"].values, torch.eye(3)[None])


def test_two_groups_have_two_tables() -> None:
    tasks = (*TASKS, Task("d", "multiclass", ("u", "v", "w")))
    model = model_of(tasks)
    penalty = TensorNormal().setup(model, tasks)
    penalty.at_epoch(1, None, None)
    value(penalty, model)
    tables = penalty.learned()
    assert [tables[f"task covariance {i}"].lines for i in (1, 2)] == [("a", "c"), ("b", "d")]
    for i in (1, 2):
        assert float(tables[f"task covariance {i}"].values.diagonal(dim1=1, dim2=2).sum()) == pytest.approx(2)
        assert tables[f"task correlation {i}"].values[0].diagonal().tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("variant", ["paper", "authors"])
def test_a_stack_is_its_replicas(variant: str) -> None:
    tasks = (*TASKS, Task("d", "regression"))
    models = [model_of(tasks, seed) for seed in range(3)]
    priors = [TensorNormal(variant=variant).setup(one, tasks) for one in models]
    model, prior = replicas.stack(copy.deepcopy(models)), replicas.stack(copy.deepcopy(priors))
    for one in (*priors, prior):
        one.at_epoch(1, None, None)
    alone = torch.cat([value(p, m) for p, m in zip(priors, models, strict=True)])
    torch.testing.assert_close(value(prior, model, 3), alone)
    replicas.select(model, keep := torch.tensor([True, False, True]))
    replicas.select(prior, keep)
    torch.testing.assert_close(value(prior, model, 2), alone[keep])


def test_a_replica_that_fails_or_rests_at_zero_keeps_what_it_had() -> None:
    tasks = (*TASKS, Task("d", "regression"))
    models = [model_of(tasks, seed) for seed in range(3)]
    prior = replicas.stack([TensorNormal().setup(one, tasks) for one in models])
    model = replicas.stack(models)
    weight = model.heads.layers[0].weight.data.unflatten(0, (3, -1))
    weight[0], weight[1] = torch.nan, 0
    prior.at_epoch(1, None, None)
    assert value(prior, model, 3).isfinite().tolist() == [False, True, True]
    covariances = prior.learned()["task covariance"].values
    torch.testing.assert_close(covariances[:2], torch.eye(3).expand(2, 3, 3))
    assert not torch.allclose(covariances[2], torch.eye(3))


def test_it_learns_every_few_epochs_and_not_before_the_first() -> None:
    model = model_of()
    penalty = TensorNormal(every=2).setup(model, (*TASKS, Task("d", "regression")))
    changed = []
    for epoch in range(5):
        before = penalty.learned()["task covariance"].values.clone()
        penalty.at_epoch(epoch, None, None)
        model.heads.layers[0].weight.data += torch.randn_like(model.heads.layers[0].weight)
        for _ in range(2):  # the second pass of an update estimates nothing
            value(penalty, model)
        changed.append(not torch.equal(before, penalty.learned()["task covariance"].values))
    assert changed == [False, False, True, False, True]


def test_the_variant_of_the_authors() -> None:
    vectors = torch.linalg.qr(torch.randn(3, 3))[0]
    others = torch.linalg.qr(torch.randn(12, 12))[0][:3]
    weights = vectors @ torch.diag(torch.tensor([2.0, 1.0, 0.1])) @ others  # eigenvalues 4, 1 and 0.01
    spectrum = authors_update(weights.view(1, 3, 2, 6))
    precision = vectors @ torch.diag(1 / torch.tensor([4 + 1e-5, 1 + 1e-5, 1 / (0.01 + 1e-5)])) @ vectors.T
    torch.testing.assert_close(spectrum.matrix[0].inverse(), precision)
    large = authors_update(0.32 * torch.eye(400).view(1, 400, 1, 400))  # 400 times about 9.8
    assert float((1 / large.variances).sum()) == pytest.approx(3000)
    model = model_of()
    penalty = TensorNormal(strength=2, variant="authors").setup(model, (*TASKS, Task("d", "regression")))
    torch.testing.assert_close(value(penalty, model)[0], 2 * heads(model).square().sum())
    penalty.at_epoch(1, None, None)
    flat = heads(model).flatten(1)
    inverse = authors_update(heads(model)[None]).matrix[0].inverse()
    torch.testing.assert_close(value(penalty, model)[0], 2 * (flat * (inverse @ flat)).sum())


def test_bad_input() -> None:
    wrong: dict[str, Any]
    for wrong in ({"strength": -1}, {"eps": 0}, {"every": 0}, {"rounds": 0}, {"variant": "other"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TensorNormal(**wrong)
    with pytest.raises(ValueError, match=r"two tasks with heads of one shape\. Hard has heads for a, b"):
        TensorNormal().setup(model_of(TASKS[:2]), TASKS[:2])
    with pytest.raises(ValueError, match="Independent has heads for a"):
        TensorNormal().setup(Independent().setup(Mlp(5), TASKS[:1], torch.Size([3])), TASKS[:1])
    with pytest.raises(ValueError, match="Hard has no heads"):
        TensorNormal().setup(Hard(), TASKS)


def training(seeds: tuple[int, ...] = (0, 1)) -> Training:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(50, 3, generator=g)
    labels = torch.stack([x[:, 0], x[:, 0] - 0.1 * x[:, 1], x[:, 2]], 1)
    labels[torch.rand(50, 3, generator=g) < 0.2] = torch.nan
    problem = Problem.from_arrays(x.numpy(), labels.numpy(), [Task(name, "regression") for name in "abc"])
    members = [Replica(torch.arange(35), torch.arange(35, 50), (0, 1, 2), seed, 1e-2, 0.0) for seed in seeds]
    schedule = Schedule(updates=16, every=4, batch=8, patience=99, warmup=2)
    return Training(problem, lambda: Parts(Mlp(5), Hard(), Fixed(), (TensorNormal(0.01),)), members, schedule)


def test_in_a_training_it_stands_alone_and_resumes() -> None:
    whole = training()
    whole.run()
    through = training()
    through.run(8)
    state = {name: tensor.clone() for name, tensor in through.state().items()}
    through = training()
    through.load(state)
    through.run()
    other = through.state()
    for name, tensor in whole.state().items():
        assert torch.equal(tensor.nan_to_num(), other[name].nan_to_num()), name
    alone = training((1,))
    alone.run()
    last = [one.learned[-1].quantities["task correlation"].values for one in (whole, alone)]
    torch.testing.assert_close(last[0][1:], last[1])
    assert not torch.allclose(last[1], torch.eye(3))

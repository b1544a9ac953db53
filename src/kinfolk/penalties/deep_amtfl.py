"""Deep-AMTFL: features are reconstructed from task outputs, and a task pays for that by its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kinfolk import distributed
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.penalties.base import Penalty
from kinfolk.quantities import Quantity
from kinfolk.replicas import own
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.sharing.hard import common_heads


class DeepAmtfl(Penalty):
    """Asymmetric multi-task feature learning: tasks that are learned well shape the features, others hardly.

    To the sum of task losses L_t it adds
    ``alpha sum_t |A_t| (L_t + p_t) + gamma mean ||h - relu(o A + b)||^2 + mu |S| + decay / 2 ||W||^2``, where h are
    the features that all heads read, o all outputs side by side, A their feedback to the features (learned, as b), S
    the weights of the heads and W the parameters of the trunk. ``|A_t|`` and ``|S|`` are sums of absolute values, the
    mean is over rows. Gradients flow through h, o and A. A task of several classes has a line of A for each.

    A task's L_t is what the loop gives: how a balancing weighs it changes nothing here.

    Parameters
    ----------
    alpha
        Price of feedback, not negative. 0.1 is the authors' for their images.
    gamma
        Strength of the reconstruction, not negative. With 0 there is none, and none is computed.
    mu
        Strength of the absolute values of the heads' weights, not negative.
    decay
        Strength of the squares of the trunk's parameters, biases among them, not negative. It is part of the loss:
        to an adaptive optimiser something other than its own weight decay.
    proxy
        p_t is this over the root of a task's examples, relative to their mean over tasks; not negative, 0: none. The
        examples of a binary task are the training rows of its second class, of another all its labelled training
        rows. The paper's equation has no such term, the authors' code has.
    feedback
        Whether A and b are learned. Otherwise they are 0: a control, in which ``gamma mean ||h||^2`` holds features
        down and nothing is reconstructed.

    Raises
    ------
    ValueError
        For a negative number, and in ``setup`` for a network in which heads do not read the same features.

    References
    ----------
    H. B. Lee, E. Yang, S. J. Hwang (2018). Deep asymmetric multi-task feature learning. ICML.
    """

    def __init__(
        self,
        alpha: float | int = 0.1,
        gamma: float | int = 0.01,
        mu: float | int = 1e-4,
        decay: float | int = 1e-4,
        proxy: float | int = 1e-3,
        feedback: bool = True,
    ) -> None:
        super().__init__()
        given = {"alpha": alpha, "gamma": gamma, "mu": mu, "decay": decay, "proxy": proxy}
        for name, value in given.items():
            if not value >= 0:
                raise ValueError(f"`{name}` must not be negative. Got {value}.")
        self.alpha, self.gamma, self.mu, self.decay, self.proxy = map(float, given.values())
        self.feedback = feedback

    def setup(self, model: Sharing, tasks: Sequence[Task]) -> DeepAmtfl:
        """Feedback near 0."""
        features = common_heads(model, "deep_amtfl")[0].weight.shape[1]
        self._names, self._sizes = tuple(task.name for task in tasks), tuple(task.size for task in tasks)
        with own("deep_amtfl"):
            start = 0.01 * self.feedback * torch.randn(1, sum(self._sizes), features)
        self.matrix = nn.Parameter(start, requires_grad=self.feedback)
        self.offset = nn.Parameter(torch.zeros(1, 1, features), requires_grad=self.feedback)
        self.rarity: Tensor
        self.register_buffer("rarity", torch.ones(len(tasks)))
        return self

    def at_start(self, problem: Problem, train: Tensor, columns: Sequence[int]) -> None:
        """Counts the examples of each task."""
        rows = train.to(problem.inputs.device)
        counts = torch.stack([_examples(problem, rows, column) for column in columns]).clamp(min=1)
        self.rarity.copy_((counts / counts.mean()).rsqrt())

    def learned(self) -> Mapping[str, Quantity]:
        """How much each task gives to the features."""
        given = self._transfer().detach().unsqueeze(-1)
        return {"outgoing transfer": Quantity(given, self._names, ("features",))}

    def forward(
        self, model: Sharing, outputs: Outputs, losses: Float[Tensor, "replica task"]
    ) -> Float[Tensor, " replica"]:
        """All of it but the sum of task losses."""
        whole = losses.new_zeros(len(losses))
        if self.alpha:
            price = losses + self.proxy * self.rarity.view_as(losses)
            whole = whole + self.alpha * (self._transfer() * price).sum(1)
        if self.gamma:
            whole = whole + self.gamma * self._reconstruction(outputs)
        if self.mu:
            for layer in common_heads(model, "deep_amtfl"):
                whole = whole + self.mu * layer.weight.abs().view(len(losses), -1).sum(1)
        if self.decay:
            for parameter in model.get_submodule("trunk").parameters():
                flat = parameter.view(len(losses), -1)
                whole = whole + self.decay / 2 * torch.linalg.vecdot(flat, flat)
        return whole

    def _transfer(self) -> Float[Tensor, "replica task"]:
        """``|A_t|``."""
        each = self.matrix.abs().sum(-1)
        return torch.stack([part.sum(1) for part in each.split(self._sizes, 1)], 1)

    def _reconstruction(self, outputs: Outputs) -> Float[Tensor, " replica"]:
        features = outputs.features[0]
        said = torch.baddbmm(self.offset, torch.cat(list(outputs.tasks), -1), self.matrix).relu()
        rows = distributed.total(features.new_tensor(float(features.shape[1])))
        return distributed.total((features - said).square().sum((1, 2))) / rows


def _examples(problem: Problem, rows: Tensor, column: int) -> Tensor:
    """How many examples of a task are among the rows."""
    seen = problem.observed[rows, column]
    return (
        ((problem.targets[column][rows] > 0) & seen if problem.tasks[column].kind == "binary" else seen).sum().float()
    )

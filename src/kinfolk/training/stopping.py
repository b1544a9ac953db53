"""When each task was best, what the network was then, and when a replica may end.

None of it influences training: what is remembered is only read after the end.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from kinfolk.replicas import tensors


class Stopping:
    """Each task's best update, with a snapshot of its replica's tensors at that time.

    It keeps all replicas that ever were, also those that have retired; a replica is known by its number.

    Parameters
    ----------
    model
        The network of all replicas.
    replicas, tasks
        Their numbers.
    main
        Bool ``[task]``: a replica ends when the patience of every main task is spent.
    patience
        Updates without improvement after which a task's patience is spent, for good.

    Attributes
    ----------
    together
        Judge all tasks by the mean error of the main ones, so that a network has one best epoch. Set it before
        training.
    """

    def __init__(self, model: nn.Module, replicas: int, tasks: int, main: Bool[Tensor, " task"], patience: int) -> None:
        self.main, self.patience = main, patience
        self.together = False
        self.best = torch.full((replicas, tasks), torch.inf)
        self.best_update = torch.zeros(replicas, tasks, dtype=torch.int64)
        self.spent = torch.zeros(replicas, tasks, dtype=torch.bool)
        self.snapshots = {
            name: t.detach().unflatten(0, (replicas, 1, -1)).repeat(1, tasks, *[1] * t.ndim)
            for name, t in tensors(model)
        }

    def restart(self, update: int) -> None:
        """Forgets what was best: from this update on the network is another one. Snapshots stay until then."""
        self.best.fill_(torch.inf)
        self.best_update.fill_(update)
        self.spent.fill_(False)

    def update(
        self,
        model: nn.Module,
        numbers: Int[Tensor, " replica"],
        update: int,
        errors: Float[Tensor, "replica task"],
        together: bool = False,
    ) -> Bool[Tensor, " replica"]:
        """Remembers what improved, and tells which of the given replicas go on."""
        errors = errors.detach().to("cpu", self.best.dtype)
        if self.together or together:
            errors = errors[:, self.main].mean(1, keepdim=True).expand_as(errors)
        better = errors < self.best[numbers]
        self.best[numbers] = torch.where(better, errors, self.best[numbers])
        self.best_update[numbers] = torch.where(better, update, self.best_update[numbers])
        at = better.nonzero()
        if len(at):
            self._keep(model, numbers, at)
        self.spent[numbers] |= update - self.best_update[numbers] >= self.patience
        return ~(self.spent[numbers] | ~self.main).all(-1)

    def _keep(self, model: nn.Module, numbers: Tensor, at: Tensor) -> None:
        whole = len(at) == len(numbers) * self.best.shape[1] and len(numbers) == len(self.best)
        for name, t in tensors(model):
            kept, now = self.snapshots[name], t.detach().unflatten(0, (len(numbers), -1))
            if whole:
                kept.copy_(now.unsqueeze(1).expand_as(kept))
            else:
                where = at.to(kept.device)
                kept[numbers.to(kept.device)[where[:, 0]], where[:, 1]] = now[where[:, 0]]

    def snapshot(self, replica: int) -> dict[str, Tensor]:
        """The tensors of one replica at each task's best update: a stack of one copy per task."""
        return {name: kept[replica].flatten(0, 1) for name, kept in self.snapshots.items()}

    def state(self) -> dict[str, Tensor]:
        """All of it, by name."""
        own = {"best": self.best, "best_update": self.best_update, "spent": self.spent}
        return own | {f"snapshot/{name}": kept for name, kept in self.snapshots.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """The inverse of :meth:`state`."""
        self.best, self.best_update, self.spent = (state[name].clone() for name in ("best", "best_update", "spent"))
        for name, kept in self.snapshots.items():
            kept.copy_(state[f"snapshot/{name}"])

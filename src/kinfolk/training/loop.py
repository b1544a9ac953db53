"""THE loop: a stack of replicas from the first update to the last snapshot."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kinfolk import distributed, replicas
from kinfolk.balancing.base import Losses
from kinfolk.data.losses import row_losses
from kinfolk.data.problem import Batch, Problem
from kinfolk.data.tasks import Task
from kinfolk.sharing.base import Outputs
from kinfolk.training.network import Network, Parts, Replica
from kinfolk.training.noted import Failure, Learned
from kinfolk.training.schedule import Schedule
from kinfolk.training.stopping import Stopping


class Training:
    """Replicas that train side by side.

    Each has its own rows, seed, learning rate, weight decay and end, and equals the run with these alone,
    whatever is stacked beside it or has retired.

    Parameters
    ----------
    problem
        The inputs and labels.
    make
        Makes the parts of a replica, anew at each call.
    members
        One :class:`Replica` per training; tasks in the same place of ``columns`` must be alike (kind, size).
    schedule
        How long they train.
    per
        What a task's loss is divided by, see :meth:`kinfolk.data.problem.Problem.batch`.
    """

    def __init__(
        self,
        problem: Problem,
        make: Callable[[], Parts],
        members: Sequence[Replica],
        schedule: Schedule,
        per: str = "batch",
    ) -> None:
        self.problem, self.schedule, self.per = problem, schedule, per
        _check_alike(problem.tasks, members)
        longest = max(len(m.train) for m in members)
        self.network = replicas.stack([Network(problem, make(), m, schedule.batch, longest) for m in members])
        self.network.to(problem.inputs.device)
        self.network.number.copy_(torch.arange(len(members)))
        self.network.optimizer.forget()
        self.tasks: tuple[Task, ...] = tuple(problem.tasks[c] for c in members[0].columns)
        every_task = tuple(range(len(problem.tasks)))
        self._all_columns = all(m.columns == every_task for m in members)
        self.members = len(members)
        self._stop = _padded([m.stop for m in members]).to(problem.inputs.device)
        main = torch.tensor([t.main for t in self.tasks])
        self.stopping = Stopping(self.network.model, self.members, len(self.tasks), main, schedule.patience)
        self.updates = 0
        self.failures: list[Failure] = []
        self.history: list[tuple[Tensor, ...]] = []
        self.learned: list[Learned] = []
        self._random = [m for m in self.network.modules() if isinstance(m, replicas.Random)]

    @property
    def replicas(self) -> int:
        """How many replicas still train."""
        return len(self.network.number)

    @property
    def done(self) -> bool:
        """No replica goes on."""
        return not self.replicas or self.updates >= self.last

    def run(
        self,
        until: int | None = None,
        deadline: float | None = None,
        checkpoint: Callable[[Training], None] | None = None,
    ) -> None:
        """Trains on, epoch by epoch, until an update (default: the last) or a time (``time.monotonic``)."""
        last = self.last if until is None else min(until, self.last)
        while self.replicas and self.updates < last:
            self._look_at_epochs()
            if checkpoint is not None and not self.done:
                checkpoint(self)
            if deadline is not None and distributed.agree(time.monotonic() >= deadline, self.problem.inputs.device):
                return

    @property
    def last(self) -> int:
        """The updates of all phases."""
        return self.schedule.updates * self.network.model.phases

    @property
    def _in_phase(self) -> int:
        """How many updates of the present phase were made."""
        return self.updates - self.phase * self.schedule.updates

    @property
    def phase(self) -> int:
        """The phase of the next update."""
        return min(self.updates // self.schedule.updates, self.network.model.phases - 1)

    def _begin_phase(self) -> None:
        """Goes back to the network that was best in the phase before, and lets it change."""
        phase, network = self.phase, self.network
        for i, number in enumerate(network.number.tolist()):
            for name, best in self.stopping.snapshot(number).items():
                whole = dict(replicas.tensors(network.model))[name].data.unflatten(0, (self.replicas, -1))
                whole[i] = best.unflatten(0, (len(self.tasks), -1))[0]
        outputs, batch = self._look()
        network.model.at_phase(phase, outputs, batch)
        network.restart(phase)
        self.stopping.restart(self.updates)

    @property
    def epoch(self) -> int:
        """Epochs that were made; the last one of a phase may be shorter."""
        return self.phase * -(-self.schedule.updates // self.schedule.every) + self._in_phase // self.schedule.every

    def _look_at_epochs(self) -> None:
        """Trains for the epochs between two looks at the stop rows, and looks."""
        if self.phase and self.updates == self.phase * self.schedule.updates:
            self._begin_phase()
        epoch, before = self.epoch, self._before()
        self.network.optimizer.forget()  # so that what it derives depends on no more than a checkpoint holds
        sums = [torch.zeros(self.replicas, len(self.tasks), device=self.problem.inputs.device) for _ in range(3)]
        left = self.schedule.updates - self._in_phase
        for done in range(min(self.schedule.look, -(-left // self.schedule.every))):
            for part in self.network.parts():
                part.at_epoch(epoch + done, *before)
            self._train(min(self.schedule.every, left - done * self.schedule.every), sums)
        losses, weights, seen = (whole.cpu() for whole in sums)
        errors, judged = self._judge()
        number = self.network.number.cpu()
        shown = (losses / seen, torch.where(judged, errors, torch.nan), weights / seen)  # 0 / 0: NaN where never seen
        self.history.append((torch.full_like(number, self.updates), number.clone(), *(t.contiguous() for t in shown)))
        self._note(len(self.history) - 1)
        finite = torch.isfinite(losses) & torch.isfinite(errors)
        self._fail(number, finite)
        # A task without a label on the stop rows improves until the end.
        errors = torch.where(judged, errors, -float(self.updates))
        errors = torch.where(finite, errors, torch.inf)
        # In earlier phases no replica ends, and its tasks have one best epoch: the next phase starts from there.
        last = self.updates > self.schedule.updates * (self.network.model.phases - 1)
        goes_on = self.stopping.update(self.network.model, number, self.updates, errors, together=not last)
        self.keep((goes_on if last else torch.ones_like(goes_on)) & finite.all(-1))

    def _before(self) -> tuple[Tensor | None, Tensor | None]:
        """Losses of the epoch before, in training and on the stop rows, of the replicas that still train."""
        if not self.history:
            return None, None
        _, numbers, train, stop, _ = self.history[-1]
        kept = torch.isin(numbers, self.network.number.cpu())
        return train[kept].to(self.problem.inputs.device), stop[kept].to(self.problem.inputs.device)

    def _note(self, look: int) -> None:
        """Keeps what was learned beside weights, some twenty times in all."""
        looks = self.last // (self.schedule.every * self.schedule.look)
        if look % max(1, looks // 20):
            return
        network, found = self.network, {}
        for part in network.parts():
            found |= {
                name: replace(one, values=one.values.detach().cpu().clone()) for name, one in part.learned().items()
            }
        if found:
            self.learned.append(Learned(self.updates, network.number.cpu().clone(), found))

    def _train(self, updates: int, sums: Sequence[Tensor]) -> None:
        """Makes updates; adds to sums their losses and weights, and in how many a task had a label."""
        for _ in range(updates):
            for whole, part in zip(sums, self._update(), strict=True):
                whole += part

    def _fail(self, number: Tensor, finite: Tensor) -> None:
        for i in (~finite.all(-1)).nonzero().flatten().tolist():
            task = int((~finite[i]).nonzero()[0])
            self.failures.append(Failure(int(number[i]), task, self.updates))

    def keep(self, goes_on: Tensor) -> None:
        """Retires the replicas where ``goes_on`` (Bool ``[replica]``) is False: they cost nothing from now on."""
        if not bool(goes_on.all()):
            replicas.select(self.network, goes_on)
            self._forget()

    def _forget(self) -> None:
        self.network.rows.forget()
        self.network.optimizer.forget()

    def _update(self) -> tuple[Tensor, Tensor, Tensor]:
        network = self.network
        columns, partly = None if self._all_columns else network.columns, network.balancing.partial
        batch = self.problem.batch(network.rows(), columns, per=self.per, positions=partly)
        batch = network.labelled(batch)
        network.optimizer.factor = self.schedule.factor(self._in_phase)
        losses, weights = network.balancing.step(partial(self._losses, batch), network.optimizer)
        for source in self._random:
            source.update.add_(1)
        self.updates += 1
        seen = losses.seen  # not what the batch has: a method may make steps toward some of the tasks alone
        weights = weights.detach() * seen if network.sparse else weights.detach()
        return losses.value.detach(), weights, seen

    def _losses(self, batch: Batch, tasks: Tensor | None = None) -> Losses:
        network = self.network
        batch = batch if tasks is None else batch.only(tasks)
        if distributed.processes() > 1:
            batch = batch.part(distributed.share())
        batch = self.problem.filled(batch)
        if network.model.skips:
            outputs = network.model(batch.inputs, batch.preference, tasks)
        else:
            outputs = network.model(batch.inputs, batch.preference)
        value = (row_losses(self.tasks, outputs.tasks, batch.targets, batch.weight) * batch.weight).sum(1)
        value = distributed.total(value)
        if network.sparse:
            network.optimizer.present = batch.present
        shared, last = network.shared(), network.last_shared()
        losses = Losses(value, batch.present, None, shared, last, outputs.features, outputs.tasks, outputs.heads)
        for penalty in network.penalties:
            plain = network.model.handed_over
            told = len(plain.made_for.tasks) if plain.made_for else len(self.tasks)
            extra = penalty(plain, outputs.first(told), value[:, :told])
            losses.penalty = extra if losses.penalty is None else losses.penalty + extra
        return losses

    @torch.no_grad()
    def _judge(self) -> tuple[Float[Tensor, "replica task"], Bool[Tensor, "replica task"]]:
        """The losses on the stop rows, and whether a task has a label there; the same in every process."""
        outputs, batch = self._look()
        value = (row_losses(self.tasks, outputs.tasks, batch.targets, batch.weight) * batch.weight).sum(1)
        return distributed.mean(value).cpu(), batch.present.cpu()

    @torch.no_grad()
    def _look(self) -> tuple[Outputs, Batch]:
        """What the networks say about the stop rows, and these."""
        rows = self._stop[self.network.number]
        columns = None if self._all_columns else self.network.columns
        batch = self.problem.batch(rows.clamp(min=0), columns, rows >= 0)
        outputs = self.network.model.eval()(batch.inputs)
        self.network.model.train()
        return outputs, batch

    def state(self) -> dict[str, Tensor]:
        """Everything that a training is, as named tensors: a checkpoint.

        They are the training's own: write or copy them before it goes on.
        """
        state = {f"network/{name}": t.detach() for name, t in self.network.state_dict().items()}
        state |= {f"stopping/{name}": t for name, t in self.stopping.state().items()}
        state |= {f"history/{i}/{j}": t for i, row in enumerate(self.history) for j, t in enumerate(row)}
        for i, one in enumerate(self.learned):
            state |= {f"learned/{i}/updates": torch.tensor(one.updates), f"learned/{i}/numbers": one.numbers}
            state |= {f"learned/{i}/{name}": quantity.values for name, quantity in one.quantities.items()}
        failures = [(f.replica, f.task, f.update) for f in self.failures]
        return state | {
            "updates": torch.tensor(self.updates),
            "failures": torch.tensor(failures, dtype=torch.int64).view(-1, 3),
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on from a checkpoint, bit for bit.

        Raises
        ------
        ValueError
            If the checkpoint is one of another network.
        """
        inside = lambda part: {n[len(part) :]: t for n, t in state.items() if n.startswith(part)}  # noqa: E731
        replicas.load(self.network, inside("network/"))
        self.stopping.load(inside("stopping/"))
        rows = 1 + max((int(name.split("/")[0]) for name in inside("history/")), default=-1)
        self.history = [tuple(state[f"history/{i}/{j}"] for j in range(5)) for i in range(rows)]
        self.failures = [Failure(*row) for row in state["failures"].tolist()]
        self.updates = int(state["updates"])
        self.learned = self._learned(inside("learned/"))
        self.network.set_rates(self.phase)
        self._forget()

    def _learned(self, state: dict[str, Tensor]) -> list[Learned]:
        """What was learned, from a checkpoint; lines and columns are the network's."""
        named = {name: quantity for part in self.network.parts() for name, quantity in part.learned().items()}
        found = []
        for i in range(sum(name.endswith("/updates") for name in state)):
            kept = {name: state.get(f"{i}/{name}") for name in named}
            quantities = {name: replace(named[name], values=v) for name, v in kept.items() if v is not None}
            found.append(Learned(int(state[f"{i}/updates"]), state[f"{i}/numbers"], quantities))
        return found


def _check_alike(tasks: Sequence[Task], members: Sequence[Replica]) -> None:
    shapes = {tuple((tasks[c].kind, tasks[c].loss, tasks[c].size) for c in m.columns) for m in members}
    if len(shapes) != 1:
        said = " against ".join(", ".join(f"{kind} ({size})" for kind, _, size in shape) for shape in sorted(shapes))
        raise ValueError(f"The replicas of one stack must learn tasks of equal kinds and sizes. Got {said or 'none'}.")


def _padded(rows: Sequence[Tensor]) -> Tensor:
    """Rows of each replica side by side, filled up with -1."""
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=-1)

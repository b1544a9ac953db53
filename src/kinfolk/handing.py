"""The model that is handed over, put together from the fits on all rows."""

from __future__ import annotations

from kinfolk.data.encoding import Encoder
from kinfolk.evidence import learners
from kinfolk.evidence.fitting import Comparing
from kinfolk.evidence.judging import Candidate, SplitFits
from kinfolk.exceptions import InputError
from kinfolk.model import Member, Model


def hand_over(comparing: Comparing) -> Model:
    """Chooses the blend of each task on the inner rows of the fits on all rows, and loads these fits.

    Raises
    ------
    InputError
        If no arm could be fitted.
    """
    fits = SplitFits(comparing, comparing.model)
    network = fits.choose_network() if comparing.plan.one_network else None
    blend: dict[str, dict[str, float]] = {}
    used: list[Candidate] = []
    for task, one in enumerate(fits.tasks):
        weights = fits.choose(task).weights if fits.learnable(task) else {}
        if network is not None and network in fits.candidates(task):
            weights = {network: 1.0}
        if weights:
            blend[one.name] = {fits.name(c): w for c, w in weights.items()}
            used += [c for c in weights if c not in used]
    if not used:
        raise InputError(_why_nothing(fits))
    table = comparing.table
    rows = comparing.splits[comparing.model].train
    encoder = Encoder(comparing.plan.seed).fit(table.features.iloc[rows])
    members = []
    for one in used:
        result, folder = fits.results[one.arm], comparing.folder(comparing.model, one.arm)
        setting, width = result["settings"][one.setting], comparing.plan.width
        name = f"setting{one.setting}"
        fitted = learners.load(result["arm"], setting, width, table.tasks, len(encoder.names), folder, name)
        members.append(Member(fits.name(one), result["arm"], setting, width, fitted))
    return Model(table.tasks, encoder, tuple(members), blend)


def _why_nothing(fits: SplitFits) -> str:
    what = "A network that serves all targets" if fits.comparing.plan.one_network else "A model"
    failed = [
        f"{one['arm']}, {one['task']}: {one['why']}" for result in fits.results.values() for one in result["failed"]
    ]
    why = f" ({failed[0]})" if failed else ""
    return f"{what} could not be fitted: every setting of every arm failed{why}. Choose other arms or more rows."

"""A task: one target to learn."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("regression", "binary", "multiclass", "ranking", "loss")
DEFAULT_ERRORS = {
    "regression": "rrse",
    "binary": "1-auc",
    "multiclass": "log_loss",
    "ranking": "1-concordance",
    "loss": "",
}
LOSSES = {
    "regression": ("squared",),
    "binary": ("logistic", "squared"),
    "multiclass": ("softmax",),
    "ranking": ("pairwise", "rankprop"),
    "loss": ("output",),
}
"""What each kind can be trained with, the default first; see :mod:`kinfolk.data.losses`."""


@dataclass(frozen=True)
class Task:
    """One target to learn: its name, its kind, and how it is judged.

    Parameters
    ----------
    name
        The column's name.
    kind
        ``"regression"``, ``"binary"``, ``"multiclass"``, or ``"ranking"``: numbers of which only the order counts.
        ``"loss"``: it needs no label, its output is its loss, as the auxiliary tasks that a term of an arm adds.
    classes
        The labels in the order of their codes: (negative, positive) of a binary task, all classes of a
        multiclass task, empty where labels are numbers.
    main
        Main tasks are judged; auxiliary tasks (``main=False``) only help training.
    error
        The name of the error by which it is judged, see :mod:`kinfolk.data.errors`; lower is better.
        By default the error of its kind.
    target
        The column that it is a part of, where one column makes several tasks (a class against the rest); else empty.
    loss
        What it is trained with, by default the first loss of its kind in :data:`LOSSES`.
    outputs
        How many numbers the label of a regression is. More than 1: the label is a vector, its loss the mean over them;
        tables have none, and the errors of :mod:`kinfolk.data.errors` judge single numbers alone.

    Raises
    ------
    ValueError
        For an unknown kind, or classes or a loss that do not fit it, or outputs of no regression.

    Examples
    --------
    >>> Task("price", "regression").error
    'rrse'
    >>> Task("colour", "multiclass", ("blue", "green", "red")).size
    3
    >>> Task("right half", "regression", outputs=392).size
    392
    """

    name: str
    kind: str
    classes: tuple[str | int | float | bool, ...] = ()
    main: bool = True
    error: str = ""
    target: str = ""
    loss: str = ""
    outputs: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"`kind` must be one of {', '.join(KINDS)}. Got {self.kind!r}.")
        least = 2 if self.kind in ("binary", "multiclass") else 0
        if len(self.classes) < least or (self.kind != "multiclass" and len(self.classes) != least):
            raise ValueError(f"A {self.kind} task needs {least} classes. Task {self.name!r} got {len(self.classes)}.")
        if self.outputs < 1 or (self.outputs > 1 and self.kind != "regression"):
            raise ValueError(f"`outputs` must be 1, or more for a regression. Task {self.name!r} got {self.outputs}.")
        if not self.error:
            object.__setattr__(self, "error", DEFAULT_ERRORS[self.kind])
        if not self.loss:
            object.__setattr__(self, "loss", LOSSES[self.kind][0])
        if self.loss not in LOSSES[self.kind]:
            raise ValueError(
                f"The loss of a {self.kind} task must be one of {', '.join(LOSSES[self.kind])}. "
                f"Task {self.name!r} got {self.loss!r}."
            )

    @property
    def numeric(self) -> bool:
        """Its labels are numbers, not classes."""
        return self.kind in ("regression", "ranking")

    @property
    def column(self) -> str:
        """The column that it learns."""
        return self.target or self.name

    @property
    def size(self) -> int:
        """How many numbers predict one row: the classes of a multiclass task, else ``outputs``, mostly 1."""
        return len(self.classes) if self.kind == "multiclass" else self.outputs

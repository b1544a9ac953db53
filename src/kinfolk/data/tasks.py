"""A task: one target to learn."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("regression", "binary", "multiclass")
DEFAULT_ERRORS = {"regression": "rrse", "binary": "1-auc", "multiclass": "log_loss"}


@dataclass(frozen=True)
class Task:
    """One target to learn: its name, its kind, and how it is judged.

    Parameters
    ----------
    name
        The column's name.
    kind
        ``"regression"``, ``"binary"`` or ``"multiclass"``.
    classes
        The labels in the order of their codes: (negative, positive) of a binary task, all classes of a
        multiclass task, empty for regression.
    main
        Main tasks are judged; auxiliary tasks (``main=False``) only help training.
    error
        The name of the error by which it is judged, see :mod:`kinfolk.data.errors`; lower is better.
        By default the error of its kind.

    Raises
    ------
    ValueError
        For an unknown kind, or classes that do not fit it.

    Examples
    --------
    >>> Task("price", "regression").error
    'rrse'
    >>> Task("colour", "multiclass", ("blue", "green", "red")).size
    3
    """

    name: str
    kind: str
    classes: tuple[str | int | float | bool, ...] = ()
    main: bool = True
    error: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"`kind` must be one of {', '.join(KINDS)}. Got {self.kind!r}.")
        least = {"regression": 0, "binary": 2, "multiclass": 2}[self.kind]
        if len(self.classes) < least or (self.kind != "multiclass" and len(self.classes) != least):
            raise ValueError(f"A {self.kind} task needs {least} classes. Task {self.name!r} got {len(self.classes)}.")
        if not self.error:
            object.__setattr__(self, "error", DEFAULT_ERRORS[self.kind])

    @property
    def size(self) -> int:
        """How many numbers predict one row: 1, or the number of classes of a multiclass task."""
        return len(self.classes) if self.kind == "multiclass" else 1

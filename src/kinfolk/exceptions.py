"""What a user can do wrong, in one place and one form."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A mistake in a user's table, file or option.

    The message says in one line what must hold, what came, and what to do. The command line catches
    this exception and no other: it prints the message and ends with exit code 2.
    """


class WorkerDied(RuntimeError):
    """The worker process of one item died, again and again: mostly for lack of memory."""


class Interrupted(Exception):
    """The user stopped the work (Ctrl-C). Everything finished so far is on disk."""


def unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    """An error for a name that does not exist, with the nearest names that do.

    >>> print(unknown("target", "G4", ["G1", "G2", "age"]))
    Unknown target 'G4'. Did you mean 'G2' or 'G1'?
    """
    known = [str(k) for k in known]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if not near:
        near = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=3, cutoff=0.5)
        near = [k for k in known if k.lower() in near]
    if near:
        return InputError(f"Unknown {what} '{name}'. Did you mean {' or '.join(repr(n) for n in near)}?")
    listed = ", ".join(known[:12]) + (" ..." if len(known) > 12 else "")
    return InputError(f"Unknown {what} '{name}'. Known are: {listed}.")

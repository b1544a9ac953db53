"""The quick form of each study, run once in a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kinfolk.catalogue import STUDIES
from kinfolk.studies import running
from kinfolk.studies.results import Result


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Result]:
    """``quick("uncertainty")``: what the quick form of a study leaves behind; run at the first call."""
    done: dict[str, Result] = {}

    def run(name: str) -> Result:
        name = name.replace("-", "_")
        if name not in done:
            out: Path = tmp_path_factory.mktemp(name) / "run"
            done[name] = running.run(STUDIES.get(name)(), out, quick=True)
        return done[name]

    return run

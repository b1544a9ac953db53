"""Whether a table fits into memory."""

from __future__ import annotations

import os
from pathlib import Path

from kinfolk.exceptions import InputError

_COPIES = 3  # of the encoded table that are alive at a time: all rows, a split's rows, a learner's scaled ones


def available_memory() -> int | None:
    """Bytes that this process can still take, None where the system does not say."""
    found = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")  # of a container
    if limit.exists() and used.exists() and (most := limit.read_text().strip()).isdigit():
        found.append(int(most) - int(used.read_text()))
    return min(found, default=None)


def check_memory(rows: int, encoded_columns: int) -> None:
    """Refuse a table whose encoded form would not fit into memory.

    Raises
    ------
    InputError
        With the memory that is needed and the memory that there is, in GB.
    """
    need, there = 4 * _COPIES * rows * encoded_columns, available_memory()
    if there is not None and need > there:
        raise InputError(
            f"The encoded table must fit into memory. {rows} rows of {encoded_columns} encoded columns need about "
            f"{need / 1e9:.3g} GB; {max(there, 0) / 1e9:.3g} GB are free. Leave columns out with --ignore, or rows."
        )

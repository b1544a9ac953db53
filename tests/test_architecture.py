"""The rules of the design that a program can read: who imports whom, how large things are, what is not done.

``ORDER`` is the one place where the order of modules stands. An import goes to a line above only, and inside a
folder to a file named before it. A new file is added here, in its place.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "kinfolk"

# The other files of a folder, side by side: in a catalogue the methods, which never import each other.
METHODS = "*"

# room -> its files in order (a folder), or None (a single module).
ORDER: dict[str, tuple[str, ...] | None] = {
    "exceptions": None,
    "replicas": None,
    "distributed": None,
    "quantities": None,
    "terms": None,
    "signatures": None,
    "docstrings": None,
    "catalogue": None,
    "processes": None,
    "teams": None,
    "workers": None,
    "runs": None,
    "trees": None,
    "persistence": None,
    "pareto": None,
    "data": (
        "tasks",
        "concordance",
        "errors",
        "columns",
        "reading",
        "targets",
        "rows",
        "tables",
        "kinds",
        "unlabelled",
        "memory",
        "encoding",
        "ranking",
        "losses",
        "problem",
        "streams",
        "splits",
    ),
    "datasets": ("base", "origin", "idx", "matlab", "pictures", METHODS),
    "trunks": ("base", "stages", "convolution", "looped", METHODS),
    "sharing": ("base", "heads", "copies", "description", "grouping", METHODS),
    "auxiliary": ("base", METHODS),
    "penalties": ("base", METHODS),
    "balancing": (
        "base",
        "nodes",
        "rows",
        "layers",
        "norms",
        "passes",
        "gramian",
        "library",
        "wording",
        "jacobian",
        METHODS,
    ),
    "training": ("slices", "optim", "stopping", "network", "schedule", "noted", "loop", "checkpoints"),
    "relatedness": None,
    "transfer": None,
    "linear": ("base", METHODS),
    "evidence": (
        "jobs",
        "length",
        "unlabelled",
        "intervals",
        "paired",
        "blend",
        "taskwise",
        "opponents",
        "features",
        "networks",
        "stacks",
        "arms",
        "plan",
        "learners",
        "fitting",
        "estimate",
        "judging",
        "compare",
        "wording",
        "verdict",
    ),
    "evolution": ("base", METHODS),
    "graph": None,
    "exporting": None,
    "model": None,
    "drawing": None,
    "numerals": None,
    "plots": None,
    "learned": None,
    "panels": None,
    "report": None,
    "handing": None,
    "identity": None,
    "conclusion": None,
    "fitted": None,
    "estimators": ("labels", "base", "regressor", "classifier", "mixed", "folds"),
    "studies": (
        "base",
        "shallow",
        "classes",
        "amtfl_table",
        "planted",
        "bodies",
        "transfer_table",
        "split_table",
        "evolving_table",
        "halves",
        "weightings",
        "faces",
        "photographs",
        "mechanism",
        "promoted",
        "amplification",
        "eavesdropping",
        "inductive_bias",
        "peaks",
        "overfitting",
        "patients",
        METHODS,
        "results",
        "running",
    ),
    "screen": None,
    "commands": ("listing", "studying"),
    "cli": None,
}
ROOMS = list(ORDER)

LINES = 320  # of a module; 300 is meant, a few more are no reason to split a thought
BODY = 40  # lines of a function, its docstring apart
VAGUE = {"utils", "util", "core", "common", "helpers", "helper", "misc"}
FORBIDDEN = {
    "TODO and the like": r"\b(TODO|FIXME|XXX|HACK)\b",
    "a bare except": r"\bexcept\s*:",
    "a broad except": r"\bexcept\b[^:\n]*\b(Base)?Exception\b",
    "reading a pickle": r"\bpickle\.loads?\(|\bUnpickler\b|\bfrom (cloud)?pickle\b|\bjoblib\.load\(",
    "torch.load without weights_only=True": r"\btorch\.load\((?![^\n]*weights_only=True)",
}

# What is right in one place, and why.
EXEMPT = {
    ("processes", "reading a pickle"): "a pipe between our own processes; no file is read",
    ("processes", "a broad except"): "the end of a worker process: the parent raises what it raised",
    ("teams", "reading a pickle"): "a pipe between our own processes; no file is read",
}

MODULES = sorted(SOURCE.rglob("*.py"))


def name(path: Path) -> tuple[str, ...]:
    """The dotted name below ``kinfolk``: () for the package itself, ("data",) for a folder, ("data", "tasks")."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def identify(path: Path) -> str:
    return ".".join(("kinfolk", *name(path)))


def imports(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line, dotted name below ``kinfolk``) of everything that a file imports from the package, in functions too."""
    package = ("kinfolk", *(name(path) if path.name == "__init__.py" else name(path)[:-1]))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            lead = package[: len(package) - node.level + 1] if node.level else ()
            base = (*lead, *(node.module.split(".") if node.module else ()))
            # "from kinfolk.data import tasks" names a module, "from kinfolk.data.tasks import Task" what is in one.
            targets = [(*base, alias.name) if is_module(base, alias.name) else base for alias in node.names]
        else:
            continue
        yield from ((node.lineno, target[1:]) for target in targets if target[0] == "kinfolk")


def is_module(base: tuple[str, ...], attribute: str) -> bool:
    place = SOURCE.joinpath(*base[1:], attribute)
    return base[:1] == ("kinfolk",) and (place.is_dir() or place.with_suffix(".py").is_file())


def rank(room: str, file: str) -> int:
    """Where a file stands inside its folder. Methods of a catalogue stand side by side, after the bases."""
    files = ORDER[room] or ()
    if file in files:
        return files.index(file)
    if METHODS in files:
        return files.index(METHODS)
    raise LookupError(f"'{room}/{file}.py' has no place in ORDER of tests/test_architecture.py: add it to '{room}'.")


def allowed(importer: tuple[str, ...], imported: tuple[str, ...]) -> bool:
    """Whether the order lets one module import another."""
    if not imported:
        return True  # the package itself, for its version
    if not importer:
        return False  # what the package exports, it imports when asked
    if importer[0] != imported[0]:
        return ROOMS.index(imported[0]) < ROOMS.index(importer[0])
    if len(importer) == 1:
        return len(imported) > 1  # a folder's __init__ exports its files
    return len(imported) > 1 and rank(importer[0], imported[1]) < rank(importer[0], importer[1])


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_every_file_has_its_place(path: Path) -> None:
    match name(path):
        case ():
            pass
        case (room,):
            assert room in ORDER, f"'{room}' has no place in ORDER of tests/test_architecture.py: add it."
            folder = ORDER[room] is not None
            assert folder == (path.name == "__init__.py"), f"{identify(path)}: ORDER says otherwise: module or folder?"
        case (room, file):
            assert ORDER.get(room), f"'{room}/' has no place in ORDER of tests/test_architecture.py: add it."
            rank(room, file)
        case _:
            pytest.fail(f"{identify(path)}: folders inside folders are not foreseen.")


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_imports_go_up_only(path: Path) -> None:
    importer = name(path)
    wrong = [
        f"line {line}: kinfolk.{'.'.join(imported)}"
        for line, imported in imports(path)
        if importer and not allowed(importer, imported)
    ]
    assert not wrong, f"{identify(path)} imports what stands below it or beside it: {'; '.join(wrong)}"


UPWARD = [
    (("cli",), ("exceptions",)),
    (("data", "splits"), ("data", "tasks")),
    (("sharing", "hard"), ("sharing", "base")),
    (("sharing", "hard"), ("trunks", "mlp")),
    (("cli",), ()),
]


@pytest.mark.parametrize(("lower", "upper"), UPWARD)
def test_the_order_has_one_direction(lower: tuple[str, ...], upper: tuple[str, ...]) -> None:
    assert allowed(lower, upper)
    assert not allowed(upper, lower)


def test_methods_never_import_each_other() -> None:
    assert not allowed(("sharing", "hard"), ("sharing", "independent"))
    assert not allowed(("sharing", "independent"), ("sharing", "hard"))
    assert not allowed(("sharing", "hard"), ("sharing",))


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES, f"{identify(path)}: {len(text.splitlines())} lines. Which concept hides?"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if len(node.body) > 1 and ast.get_docstring(node) else node.body[0]
            length = (node.end_lineno or 0) - first.lineno + 1
            assert length <= BODY, f"{identify(path)}:{node.lineno} {node.name}: a body of {length} lines."


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_names_say_what_is_inside(path: Path) -> None:
    assert not VAGUE & set(name(path)), f"{identify(path)}: what is in there?"


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_what_is_not_done(path: Path) -> None:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        for what, pattern in FORBIDDEN.items():
            exempt = (".".join(name(path)), what) in EXEMPT
            assert exempt or not re.search(pattern, line), f"{identify(path)}:{number}: {what}: {line.strip()}"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HEAVY = ("torch", "sklearn", "skrub", "skops", "matplotlib", "scipy", "onnx", "onnxruntime", "onnxscript")


def test_import_is_light() -> None:
    loaded = run(f"import sys, kinfolk; print(*[name for name in {HEAVY} if name in sys.modules])")
    assert loaded == "", f"import kinfolk imports {loaded}"


def test_a_name_of_the_package_is_no_module() -> None:
    """What ``kinfolk`` exports lazily must not be the name of a module, which an import would put in its place."""
    assert run("import kinfolk; print(*kinfolk.__all__)").split() != []
    assert not set(run("import kinfolk; print(*kinfolk.__all__)").split()) & set(ROOMS)


def test_help_is_light() -> None:
    pytest.importorskip("kinfolk.cli")
    code = f"""
import io, sys
from contextlib import redirect_stdout
from kinfolk.cli import main
sys.argv = ["kinfolk", "--help"]
with redirect_stdout(io.StringIO()):
    try:
        main()
    except SystemExit as ending:
        status = ending.code
    else:
        status = 0
print(*[name for name in {HEAVY} if name in sys.modules])
sys.exit(status)
"""
    loaded = run(code)
    assert loaded == "", f"kinfolk --help imports {loaded}"


RUNS_WITHOUT_TORCH = (
    "exceptions",
    "catalogue",
    "workers",
    "runs",
    "data.tasks",
    "data.errors",
    "data.tables",
    "evidence.intervals",
    "evidence.verdict",
    "plots",
    "report",
)


@pytest.mark.parametrize("module", RUNS_WITHOUT_TORCH)
def test_looking_needs_no_torch(module: str) -> None:
    """The run folder is the interface between computing and looking: what looks imports no torch."""
    if not is_module(("kinfolk", *module.split(".")[:-1]), module.split(".")[-1]):
        pytest.skip(f"kinfolk.{module} does not exist yet")
    loaded = run(f"import sys, kinfolk.{module}; print('torch' if 'torch' in sys.modules else '')")
    assert loaded == ""

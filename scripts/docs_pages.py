"""MkDocs hook: writes the pages that follow from the package, while the documentation is built.

A table of methods per catalogue, from signatures and docstrings, and an API page per part of the package. Nothing that
it writes is kept, so nothing can be out of date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import kinfolk
from kinfolk.catalogue import CATALOGUES, STUDIES, Method, Parameter

SOURCE = Path(__file__).parents[1] / "src" / "kinfolk"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Gives the generated pages their places in the navigation."""
    methods = [{_title(name): f"methods/{name}.md"} for name in _catalogues()]
    parts = [{f"kinfolk.{name}": f"api/{name}.md"} for name in _parts()]
    studies = [{heading: f"studies/{path.name}"} for heading, path in _studies()]
    config["nav"] += [{"Studies": ["studies/index.md", *studies]}]
    config["nav"] += [{"Methods": ["methods/index.md", *methods]}, {"API": ["api/index.md", *parts]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages to the written ones."""
    for uri, text in _pages():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Lists the studies at the end of their first page."""
    if page.file.src_uri != "studies/index.md":
        return markdown
    kinds = {name.replace("_", "-"): STUDIES.get(name) for name in STUDIES.names()}
    lines = ["| study | what | paper |", "|---|---|---|"]
    lines += [f"| [`{n}`]({n}.md) | {_cell(kind.title)} | {_cell(kind.paper)} |" for n, kind in kinds.items()]
    return "\n".join([markdown, *lines])


def on_page_content(html: str, **_: object) -> str:
    """Shows the names that docstrings mark by a role, as in :func:`fit`, as code, without the role."""
    return re.sub(r":(?:mod|class|func|meth|attr|data|exc):(?=<code>|<a )", "", html)


def _pages() -> Iterator[tuple[str, str]]:
    catalogues = _catalogues()
    yield "methods/index.md", _overview(catalogues)
    for name, methods in catalogues.items():
        yield f"methods/{name}.md", _catalogue_page(name, methods)
    yield "api/index.md", _public()
    for name, modules in _parts().items():
        directives = "\n\n".join(f"::: {module}" for module in modules)
        yield f"api/{name}.md", f"# kinfolk.{name}\n\n{directives}\n"


def _studies() -> list[tuple[str, Path]]:
    """The written pages of studies, each with its heading."""
    pages = [path for path in sorted((SOURCE.parents[1] / "docs/studies").glob("*.md")) if path.stem != "index"]
    return [(path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# "), path) for path in pages]


def _public() -> str:
    """A page of the names that the package exports, each from its home."""
    homes = [f"{getattr(kinfolk, name).__module__}.{name}" for name in kinfolk.__all__]
    lines = [
        "# API",
        "",
        "What is meant to be used from Python stands on this page. The other pages of this part describe the package",
        "room by room, for those who read or extend it.",
    ]
    for home in homes:
        lines += ["", f"::: {home}"]
    return "\n".join(lines) + "\n"


def _catalogues() -> dict[str, list[Method]]:
    """The methods of every catalogue that has some, in the package's own order."""
    described = {name: catalogue.describe() for name, catalogue in CATALOGUES.items()}
    return {name: methods for name, methods in described.items() if methods}


def _overview(catalogues: dict[str, list[Method]]) -> str:
    lines = [
        "# Methods",
        "",
        "Every method by name, as it is written in the text of an [arm](../concepts/arm.md). These tables are made",
        "from the package itself; `kinfolk list` prints them.",
    ]
    for name, methods in catalogues.items():
        lines += ["", f"## [{_title(name)}]({name}.md)", "", "| method | what it does |", "|---|---|"]
        lines += [f"| [`{method.name}`]({name}.md#{method.name}) | {_cell(method.summary)} |" for method in methods]
    return "\n".join(lines) + "\n"


def _catalogue_page(name: str, methods: list[Method]) -> str:
    lines = [f"# {_title(name)}", ""]
    for method in methods:
        lines += [f"## `{method.name}` {{ #{method.name} }}", "", method.summary, ""]
        lines += ["```text", method.signature, "```", ""]
        if method.parameters:
            lines += ["| parameter | default | type | what it is |", "|---|---|---|---|"]
            lines += [_row(parameter) for parameter in method.parameters] + [""]
        if name == "balancing":
            lines += [f"*Reads.* {_reads(CATALOGUES[name].get(method.name))}", ""]
        if method.reference:
            lines += [f"*Reference.* {' '.join(method.reference.split())}", ""]
        home = method.name if (SOURCE / name / f"{method.name}.py").is_file() else "jacobian"  # made from a library
        lines += [f"API: [kinfolk.{name}.{home}](../api/{name}.md#kinfolk.{name}.{home})", ""]
    return "\n".join(lines)


def _reads(kind: Callable[..., object]) -> str:
    """What a balancing reads of an update, and what that costs."""
    needs, parents = getattr(kind, "needs", ()), {parent.__name__ for parent in getattr(kind, "__mro__", ())}
    if "Jacobian" in parents:
        return "The tasks' gradients for the shared parameters: a pass back per task, all of them held at once."
    if "Gramian" in parents:
        return (
            "Inner products of the tasks' gradients for the shared parameters: up to a pass back per task. With "
            "`at=features`: passes through the heads, and one through the trunk."
        )
    if "last" in needs:
        return "The losses, and the tasks' gradients at the last shared layer: a short pass back per task."
    own = " It has a `step` of its own." if "step" in vars(kind) else ""
    return f"The losses, or less: one pass back.{own}"


def _row(parameter: Parameter) -> str:
    default = "must be given" if parameter.default is None else f"`{parameter.default}`"
    kind = f"`{parameter.annotation}`" if parameter.annotation else ""
    return f"| `{parameter.name}` | {default} | {kind} | {_cell(parameter.description)} |"


def _cell(text: str) -> str:
    """Text that stays inside its cell of a table."""
    return " ".join(text.split()).replace("|", r"\|")


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _parts() -> dict[str, list[str]]:
    """Every module at the top, and the modules of every folder, by the name of the page they are described on."""
    parts: dict[str, list[str]] = {}
    for path in sorted(SOURCE.iterdir()):
        if path.suffix == ".py" and path.stem != "__init__":
            parts[path.stem] = [f"kinfolk.{path.stem}"]
        elif (path / "__init__.py").is_file():
            files = [file.stem for file in sorted(path.glob("*.py")) if file.stem != "__init__"]
            parts[path.name] = [f"kinfolk.{path.name}.{file}" for file in files]
    return {name: modules for name, modules in parts.items() if modules}

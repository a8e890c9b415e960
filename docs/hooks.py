"""The site's API pages, made from the packages, so that no module can be missing from them.

Every folder of modules is one page, `api/<package>/<folder>.md`, and a package without folders is
`api/<package>.md`. A page has mkdocstrings show each of its modules. Once a page is made it is read
again: a public function, class or method that is not on it, because it has no docstring, is a
warning, and with `mkdocs build --strict` a warning is an error. (A method of a class with a base
class may have its docstring there.)

Docstrings here say `Example:`, or hold a session as a paragraph; mkdocstrings shows worked examples
under `Examples:` or indented alone.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = (
    "theory",
    "toy_world",
    "llm_experiment",
    "proofs_check",
    "paper_figures",
    "mightnt",
)
TITLE: Final = "API"
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_log: Final = get_plugin_logger("hooks")


@dataclass(frozen=True, kw_only=True)
class ApiPage:
    """One page of the API.

    Attributes:
        package: whose modules it shows, such as `toy_world.planners`.
        title: in the navigation.
        uri: of its Markdown, below `docs_dir`.
    """

    package: str
    title: str
    uri: str

    @property
    def modules(self) -> tuple[str, ...]:
        """The public modules of the folder: as its docstring names them, then alphabetically."""
        folder = ROOT / self.package.replace(".", "/")
        stems = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
        tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
        named = re.findall(rf"\b{self.package}\.(\w+)", ast.get_docstring(tree) or "")
        inside = [stem for stem in dict.fromkeys(named) if stem in stems]
        return tuple(f"{self.package}.{stem}" for stem in dict.fromkeys([*inside, *stems]))

    def markdown(self) -> str:
        """The page as mkdocstrings takes it."""
        shown = [f"::: {self.package}\n    options: {{members: false, heading_level: 1}}"]
        shown += [f"::: {module}\n    options: {{heading_level: 2}}" for module in self.modules]
        return "\n\n".join(shown) + "\n"

    def public_names(self) -> Iterator[str]:
        """The functions, classes and methods that its readers may use, as dotted names."""
        for module in self.modules:
            path = (ROOT / module.replace(".", "/")).with_suffix(".py")
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                yield from _named(node, module)


class WorkedExamples(griffe.Extension):
    """Has mkdocstrings show worked examples as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """See griffe.Extension."""
        if obj.docstring is not None:
            paragraphs = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n").split("\n\n")
            obj.docstring.value = "\n\n".join(
                textwrap.indent(paragraph, "    ") if paragraph.startswith(">>>") else paragraph
                for paragraph in paragraphs
            )


def api_pages() -> dict[str, list[ApiPage]]:
    """The pages of each package, its own modules first."""
    pages: dict[str, list[ApiPage]] = {}
    for package in PACKAGES:
        inner = sorted(path.parent for path in (ROOT / package).glob("**/*/__init__.py"))
        names = [str(folder.relative_to(ROOT / package)) for folder in inner]
        folders = [
            ApiPage(
                package=f"{package}.{name.replace('/', '.')}",
                title=name,
                uri=f"api/{package}/{name}.md",
            )
            for name in names
        ]
        own = ApiPage(
            package=package,
            title="commands" if folders else package,
            uri=f"api/{package}/index.md" if folders else f"api/{package}.md",
        )
        pages[package] = [own, *folders]
    return pages


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages to the navigation."""
    section: list[Any] = []
    for package, pages in api_pages().items():
        entries = [{page.title: page.uri} for page in pages]
        section += entries if len(pages) == 1 else [{package: entries}]
    config.nav = [*(config.nav or []), {TITLE: section}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages themselves."""
    for pages in api_pages().values():
        for page in pages:
            files.append(File.generated(config, page.uri, content=page.markdown()))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Warn of public names that are not on their page."""
    del config, files
    shown = {each.uri: each for pages in api_pages().values() for each in pages}
    api_page = shown.get(page.file.src_uri)
    if api_page is not None:
        for name in api_page.public_names():
            if f'id="{name}"' not in html:
                _log.warning("%s is not on %s: give it a docstring", name, api_page.uri)
    return html


def _named(node: ast.stmt, within: str) -> Iterator[str]:
    """The public names that a statement defines, methods of a class among them."""
    if not isinstance(node, (*_FUNCTIONS, ast.ClassDef)) or node.name.startswith("_"):
        return
    name = f"{within}.{node.name}"
    yield name
    if isinstance(node, ast.ClassDef) and not node.bases:
        for inner in node.body:
            if isinstance(inner, _FUNCTIONS):
                yield from _named(inner, name)

"""How the site is put together: pages by hand, pages made from the code, and files of the repository.

The site has the pages of `docs/pages` at its root, and under `tree/` every other page of the repository and
every file that a page leads to, where they are in the repository. So a link that works in a checkout works on
the site, without a network and without the address of a code host.
"""

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from posixpath import relpath
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = ROOT / "docs" / "pages"
MADE: Final = {
    "concepts/laws.md": "laws",
    "reference/cli.md": "cli",
    "reference/metrics.md": "record",
    "reference/python.md": "python",
    "reference/scenario.md": "scenario",
    "reference/trace.md": "trace",
}
"""Pages that are made when the site is: their path below `docs/pages` -> their module in `docs.made`."""
GENERATED: Final = frozenset(PAGES / name for name in MADE)
_NOT_OURS: Final = re.compile(r"\.|(?:build|docs|runs)$")  # environments and what is made, and the site's own
_LINK: Final = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)#])")


def make(name: str) -> str:
    """Return a page that is made from the code."""
    page: Callable[[], str] = import_module(f"docs.made.{MADE[name]}").page
    return page()


def other_pages() -> Iterator[Path]:
    """Yield the repository's pages that are not below `docs`, but for the README, whose place is the home."""
    for path in sorted(ROOT.glob("**/*.md")):
        folder = path.relative_to(ROOT).parts[0]
        if not _NOT_OURS.match(folder) and path != ROOT / "README.md":
            yield path


def source_of(uri: str) -> Path:
    """Return where in the repository a page of the site is."""
    return ROOT / uri.removeprefix("tree/") if uri.startswith("tree/") else PAGES / uri


def uri_of(path: Path) -> str:
    """Return where on the site a file of the repository is."""
    if path == ROOT / "README.md":
        return "index.md"
    if path.is_relative_to(PAGES):
        return path.relative_to(PAGES).as_posix()
    return f"tree/{path.relative_to(ROOT).as_posix()}"


def relinked(text: str, uri: str) -> str:
    """Return a page with its links as the site has them; a folder without a page becomes text."""
    folder = uri.rpartition("/")[0]

    def link(found: re.Match[str]) -> str:
        target = found[1]
        if "://" in target or target.startswith("mailto:"):
            return target
        path = _resolved(uri, target)
        return target if path is None else relpath(uri_of(path), folder or ".")

    text = re.sub(r"(?<!!)\[([^]]+)\]\(([^)\s#]+)\)", lambda found: _without_folder(found, uri), text)
    return _LINK.sub(link, text)


def linked_files(text: str, uri: str) -> Iterator[Path]:
    """Yield the files of the repository, other than pages, that a page leads to."""
    for target in _LINK.findall(text):
        path = None if "://" in target else _resolved(uri, target)
        if path is not None and path.suffix != ".md" and path.is_file():
            yield path


def _resolved(uri: str, target: str) -> Path | None:
    path = (source_of(uri).parent / target).resolve()
    if path.is_dir() and (path / "README.md").exists():
        path = path / "README.md"
    return path if path.exists() or path in GENERATED else None


def _without_folder(found: re.Match[str], uri: str) -> str:
    path = _resolved(uri, found[2]) if "://" not in found[2] else None
    return found[1] if path is not None and path.is_dir() else found[0]

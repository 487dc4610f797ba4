"""What MkDocs calls while it builds the site; everything else is in `docs.site`."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

from docs.site import MADE, PAGES, linked_files, make, other_pages, relinked, uri_of


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages that are made, the other pages of the repository, and the files that pages lead to."""
    texts = {
        uri_of(path): path.read_text(encoding="utf-8") for path in [*PAGES.glob("**/*.md"), *other_pages()]
    }
    texts |= {name: make(name) for name in MADE}
    linked: set[Path] = set()
    for uri, text in texts.items():
        linked.update(linked_files(text, uri))
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, content=text))
    for path in sorted(linked):
        if files.get_file_from_path(uri_of(path)) is None:
            files.append(File.generated(config, uri_of(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Write the links as the site has them."""
    return relinked(markdown, page.file.src_uri)

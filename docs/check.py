"""`make docs`, its end: no page of the site loads anything from elsewhere, and no link leads nowhere."""

import re
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Final
from urllib.parse import unquote

_TAG: Final = re.compile(r"<(script|link|img|iframe|source|object|embed)\b([^>]*)>", re.IGNORECASE)
_ATTRIBUTE: Final = re.compile(r"\b(?:src|href|data)=[\"']?([^\"'\s>]+)", re.IGNORECASE)
_HARMLESS: Final = ("canonical", "alternate", "prev", "next")  # a link that nothing is loaded by
_ANCHOR: Final = re.compile(r"<a\b[^>]*\bhref=[\"']?([^\"'\s>]+)", re.IGNORECASE)


def loads_from_elsewhere(page: str) -> Iterator[str]:
    """Yield the addresses outside the page's own folder that a browser would fetch for it."""
    for tag, attributes in _TAG.findall(page):
        is_harmless = tag.lower() == "link" and any(
            f"rel={word}" in attributes.replace('"', "") for word in _HARMLESS
        )
        for target in () if is_harmless else _ATTRIBUTE.findall(attributes):
            if re.match(r"(?:https?:)?//", target):
                yield target
    yield from re.findall(r"(?:@import\s+|url\()[\"']?((?:https?:)?//[^\"')\s]+)", page)


def dead_links(page: Path, text: str) -> Iterator[str]:
    """Yield the links of a page to files that are not there."""
    for target in map(unescape, _ANCHOR.findall(text)):
        path = unquote(target.partition("#")[0].partition("?")[0])
        is_file = path and not re.match(r"[a-z]+:|//", path)
        if is_file and not (page.parent / path).exists():
            yield target


def main() -> None:
    """Check every page of the site in the folder that is named."""
    site = Path(sys.argv[1])
    pages = sorted(page for page in site.glob("**/*.html") if page.name != "404.html")
    faults = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        faults += [f"{page}: loads {target}" for target in loads_from_elsewhere(text)]
        faults += [f"{page}: {target} leads nowhere" for target in dead_links(page, text)]
    if faults or not pages:
        sys.exit("\n".join(faults) or f"{site} has no page; run make docs")
    print(f"{len(pages)} pages in {site}: no load from elsewhere, no dead link; open {site / 'index.html'}")


if __name__ == "__main__":
    main()

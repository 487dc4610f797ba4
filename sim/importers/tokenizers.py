"""Tokenizers for recordings that have text instead of counts, by name."""

from pathlib import Path
from typing import Final

from concur.sim.errors import ExtraMissingError, TraceError
from concur.sim.importers.importer import CountTokens

_EXTRA: Final = "import"
_TIKTOKEN: Final = "tiktoken:"


def tokenizer(name: str) -> CountTokens:
    """Return the tokenizer `tiktoken:ENCODING`, or that of a `tokenizer.json` of Hugging Face.

    Raises
    ------
    TraceError
        If there is none of this name.
    ExtraMissingError
        If its library is not installed.
    """
    if name.startswith(_TIKTOKEN):
        return _tiktoken(name.removeprefix(_TIKTOKEN))
    return _hugging_face(Path(name))


def _tiktoken(encoding: str) -> CountTokens:
    try:
        import tiktoken
    except ImportError as error:
        raise ExtraMissingError(error, extra=_EXTRA) from None
    known = tiktoken.list_encoding_names()
    if encoding not in known:
        raise TraceError(f"tokenizer = 'tiktoken:{encoding}' but must be one of {', '.join(sorted(known))}")
    try:
        found = tiktoken.get_encoding(encoding)
    except Exception as error:  # it fetches its table from the net
        raise TraceError(
            f"tokenizer = 'tiktoken:{encoding}' cannot be loaded ({error}); name a tokenizer.json"
        ) from None
    return lambda text: len(found.encode_ordinary(text))


def _hugging_face(path: Path) -> CountTokens:
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise TraceError(f"tokenizer = {str(path)!r} is no file; name a tokenizer.json or tiktoken:ENCODING")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ExtraMissingError(error, extra=_EXTRA) from None
    try:
        found = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no other class
        raise TraceError(f"{path}: no tokenizer ({error}); name a tokenizer.json") from None
    return lambda text: len(found.encode(text, add_special_tokens=False))

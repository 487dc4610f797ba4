import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from concur.sim.errors import ExtraMissingError, TraceError
from concur.sim.importers.tokenizers import tokenizer


def test_a_library_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    (tmp_path / "tokenizer.json").write_text("{}")
    for name in ("tiktoken:cl100k_base", str(tmp_path), str(tmp_path / "tokenizer.json")):
        with pytest.raises(ExtraMissingError, match=r"concur-admission\[import\]"):
            tokenizer(name)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"is no file; name a tokenizer\.json or tiktoken:ENCODING"):
        tokenizer(str(tmp_path / "no.json"))


def test_an_encoding_counts_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    words = SimpleNamespace(encode_ordinary=str.split)
    library = SimpleNamespace(list_encoding_names=lambda: ["words"], get_encoding=lambda name: words)
    monkeypatch.setitem(sys.modules, "tiktoken", library)
    assert tokenizer("tiktoken:words")("a b c") == 3
    with pytest.raises(TraceError, match="'tiktoken:letters' but must be one of words"):
        tokenizer("tiktoken:letters")


def test_a_file_of_hugging_face_counts_tokens(tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers")
    model = library.models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?")
    made = library.Tokenizer(model)
    made.pre_tokenizer = library.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    assert tokenizer(str(tmp_path))("a b c d") == 4
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TraceError, match="no tokenizer"):
        tokenizer(str(tmp_path))

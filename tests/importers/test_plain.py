import io
import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concur.sim.importers import plain
from concur.sim.importers.plain import PlainJson

TEXTS: Final = st.text(alphabet='xyz ,:[]"\n\\', max_size=5)
"""Texts without the words that become null."""


def read_all(text: str) -> str:
    file = PlainJson(io.BytesIO(text.encode()))
    return b"".join(iter(lambda: file.read(1), b"")).decode()


@pytest.mark.parametrize(
    ("text", "plainly"),
    [
        ('{"a": NaN}', '{"a": null}'),
        ("[NaN,-Infinity, Infinity]", "[null,null, null]"),
        ('{"a":NaN,"b":"xNaN"}', '{"a":null,"b":"xNaN"}'),
        ("NaN", "NaN"),
        ("", ""),
    ],
)
def test_numbers_that_are_none_become_null(text: str, plainly: str) -> None:
    assert read_all(text) == plainly


@given(
    value=st.recursive(
        st.none() | st.floats() | st.integers() | TEXTS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
        max_leaves=20,
    ),
    size=st.integers(1, 9),
    indent=st.none() | st.just(1),
)
def test_it_is_plain_json_wherever_the_pieces_end(value: Any, size: int, indent: int | None) -> None:
    text = json.dumps([value], indent=indent)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plain, "_CHUNK_BYTES", size)
        found = read_all(text)
    expected = json.loads(text, parse_constant=lambda _: None)
    assert json.loads(found, parse_constant=lambda name: pytest.fail(name)) == expected

"""A samples file is believed later, far from where it was made: what is wrong must be said at the door."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from concur.calib.errors import SamplesError
from concur.calib.fit.samples import Samples, concatenate_samples, read_samples, write_samples
from tests.calib.helpers import make_provenance, make_samples


def steps(**changes: Any) -> pd.DataFrame:
    row: dict[str, Any] = {
        "t_s": [0.0],
        "step_s": [0.01],
        "phase": ["mixed"],
        "prefill_tokens": [[5]],
        "prefill_context_tokens": [[0]],
        "decode_context_tokens": [[7, 9]],
    }
    return pd.DataFrame(row | changes)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    samples = make_samples(20)
    write_samples(samples, tmp_path / "deep" / "s.parquet")
    again = read_samples(tmp_path / "deep" / "s.parquet")
    assert again.provenance == samples.provenance
    assert len(again) == 20
    for column in samples.steps.columns:
        assert [_plain(v) for v in again.steps[column]] == [_plain(v) for v in samples.steps[column]]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["s.parquet"]


def _plain(value: Any) -> Any:
    return list(value) if hasattr(value, "__len__") and not isinstance(value, str) else value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step_s": [float("nan")]}, r"row 0: step_s = nan but must be positive and finite"),
        ({"step_s": [0.0]}, "step_s = 0.0"),
        ({"prefill_tokens": [[-1]]}, "prefill_tokens = .* without negative counts"),
        ({"prefill_context_tokens": [[1, 2]]}, "one per prefill"),
        (
            {"prefill_tokens": [[]], "prefill_context_tokens": [[]], "decode_context_tokens": [[]]},
            "not empty when nothing decodes",
        ),
    ],
)
def test_what_no_engine_measures_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SamplesError, match=message):
        Samples(steps(**changes), make_provenance())


def test_no_steps_are_refused() -> None:
    with pytest.raises(SamplesError, match="there are no steps"):
        Samples(steps().iloc[:0], make_provenance())


def test_broken_files_are_named(tmp_path: Path) -> None:
    good = tmp_path / "good.parquet"
    write_samples(make_samples(50), good)
    truncated = tmp_path / "truncated.parquet"
    truncated.write_bytes(good.read_bytes()[:-100])
    with pytest.raises(SamplesError, match=r"truncated\.parquet: not a readable samples file"):
        read_samples(truncated)
    with pytest.raises(SamplesError, match=r"none\.parquet: not a readable"):
        read_samples(tmp_path / "none.parquet")
    bare = tmp_path / "bare.parquet"
    pq.write_table(pa.table({"step_s": [1.0]}), bare)
    with pytest.raises(SamplesError, match="without a provenance"):
        read_samples(bare)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SamplesError, match=r"s\.parquet: cannot be written"):
        write_samples(make_samples(20), tmp_path / "file" / "s.parquet")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    write_samples(Samples(steps(), make_provenance(schema_version=99)), path)
    with pytest.raises(SamplesError, match=r"schema version 99 is newer than 1; update it"):
        read_samples(path)


def test_samples_of_two_engines_do_not_mix() -> None:
    samples = make_samples(20)
    other = Samples(samples.steps, make_provenance(device="another"))
    assert len(concatenate_samples([samples, samples])) == 40
    with pytest.raises(SamplesError, match="device = 'none' and 'another' do not mix"):
        concatenate_samples([samples, other])

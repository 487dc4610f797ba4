"""Samples: what each engine step computed and how long it took, and on what it was measured.

One parquet file: one row per step (`SCHEMA`), and the provenance (`Provenance`) as JSON in the schema's
metadata. Which of a step's requests are prefills and which are decodes is defined in
`concur.sim.step_time.step_time.StepBatch`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from concur.calib.errors import SamplesError
from concur.sim.files import whole_file

SCHEMA_VERSION: Final = 1
_KEY: Final = b"concur.provenance"
_TOKENS: Final = pa.list_(pa.int32())
SCHEMA: Final = pa.schema(
    [
        (
            "t_s",
            pa.float64(),
        ),  # begin of the step since the start of the recording; 0 where there is no clock
        ("step_s", pa.float64()),
        ("phase", pa.string()),  # what the step was part of: "prefill", "decode", "mixed", or a run's name
        ("prefill_tokens", _TOKENS),  # per prefill: tokens scheduled
        ("prefill_context_tokens", _TOKENS),  # per prefill: tokens computed before
        ("decode_context_tokens", _TOKENS),  # per decode: tokens computed before
    ]
)
_ONE_ENGINE: Final = (
    *("source", "engine", "device", "model", "dtype", "tensor_parallel_size", "block_size"),
    *("async_scheduling", "cudagraph_capture_sizes"),
)
_LISTS: Final = ("prefill_tokens", "prefill_context_tokens", "decode_context_tokens")


class Provenance(BaseModel):
    """Where samples come from; everything that decides a step's duration, and who measured it.

    `model` holds the fields of the Hugging Face config. `num_gpu_blocks` is what the engine resolved (or, for
    silicon data, what fits the memory); bandwidths are of copies between host and device, pinned memory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    source: Literal["vllm", "silicon", "synthetic"]
    engine: str  # e.g. "vllm 0.32.0+cpu"
    device: str  # e.g. "NVIDIA H200", "h100_sxm"
    model_name: str
    model: dict[str, Any]
    dtype: str = "bfloat16"
    tensor_parallel_size: int = 1
    block_size: int
    num_gpu_blocks: int
    max_num_batched_tokens: int
    max_num_seqs: int
    async_scheduling: bool = False
    cudagraph_capture_sizes: tuple[int, ...] = ()  # empty: eager
    host_to_device_bytes_per_s: float | None = None
    device_to_host_bytes_per_s: float | None = None
    flags: dict[str, Any] = {}
    versions: dict[str, str] = {}
    date: str  # ISO 8601
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Samples:
    """Steps (columns of `SCHEMA`) and their provenance; checked when made.

    Raises
    ------
    SamplesError
        If there are no steps, a duration is not a positive finite number, a count is negative, a step
        computes nothing, or the two lists of a step's prefills differ in length.
    """

    steps: pd.DataFrame
    provenance: Provenance

    def __post_init__(self) -> None:
        _check(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def read_samples(path: Path) -> Samples:
    """Read a samples file.

    Raises
    ------
    SamplesError
        If the file is missing, no parquet, truncated, of a newer schema, or fails the checks of `Samples`.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise SamplesError(
            f"{path}: not a readable samples file ({error}); measure or import again"
        ) from None
    raw = (table.schema.metadata or {}).get(_KEY)
    if raw is None:
        raise SamplesError(f"{path}: parquet without a provenance; write samples with `concur calibrate`")
    missing = set(SCHEMA.names) - set(table.schema.names)
    if missing:
        raise SamplesError(f"{path}: columns {sorted(missing)} are missing; measure or import again")
    try:
        provenance = Provenance.model_validate_json(raw)
    except ValidationError as error:
        raise SamplesError(f"{path}: {_first(error)}") from None
    if provenance.schema_version > SCHEMA_VERSION:
        raise SamplesError(
            f"{path}: schema version {provenance.schema_version} is newer than {SCHEMA_VERSION}; update it"
        )
    try:
        return Samples(table.select(SCHEMA.names).to_pandas(), provenance)
    except SamplesError as error:
        raise SamplesError(f"{path}: {error}") from None


def concatenate_samples(parts: Sequence[Samples]) -> Samples:
    """Join samples of one engine.

    Raises
    ------
    SamplesError
        If there are none, or they differ in the engine, the device, the model or how they were run.
    """
    if not parts:
        raise SamplesError("no samples given; name at least one file")
    first = parts[0].provenance
    for part in parts[1:]:
        for name in _ONE_ENGINE:
            mine, other = getattr(first, name), getattr(part.provenance, name)
            if mine != other:
                raise SamplesError(f"samples of {name} = {mine!r} and {other!r} do not mix; fit them apart")
    return Samples(pd.concat([part.steps for part in parts], ignore_index=True), first)


def write_samples(samples: Samples, path: Path) -> None:
    """Write a samples file, under a temporary name first.

    Raises
    ------
    SamplesError
        If the place cannot be written to.
    """
    table = pa.Table.from_pandas(samples.steps, schema=SCHEMA, preserve_index=False)
    table = table.replace_schema_metadata({_KEY: samples.provenance.model_dump_json().encode()})
    with whole_file(path, SamplesError) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"provenance {'.'.join(map(str, first['loc']))}: {first['msg']}"


def _check(steps: pd.DataFrame) -> None:
    if steps.empty:
        raise SamplesError("there are no steps; measure at least one")
    step_s = steps["step_s"].to_numpy(dtype=float)
    _refuse(~(np.isfinite(step_s) & (step_s > 0)), "step_s", "positive and finite", steps)
    for column in _LISTS:
        is_negative = [bool(len(tokens)) and min(tokens) < 0 for tokens in steps[column]]
        _refuse(np.array(is_negative), column, "without negative counts", steps)
    prefills = steps["prefill_tokens"].map(len).to_numpy()
    contexts = steps["prefill_context_tokens"].map(len).to_numpy()
    _refuse(prefills != contexts, "prefill_context_tokens", "one per prefill", steps)
    decodes = steps["decode_context_tokens"].map(len).to_numpy()
    _refuse(prefills + decodes == 0, "prefill_tokens", "not empty when nothing decodes", steps)


def _refuse(
    is_bad: "np.ndarray[Any, np.dtype[np.bool_]]", column: str, bound: str, steps: pd.DataFrame
) -> None:
    if is_bad.any():
        row = int(np.argmax(is_bad))
        value = steps[column].iloc[row]
        raise SamplesError(f"row {row}: {column} = {value} but must be {bound}; leave the row out")

"""The step-time profile: what was fitted to an engine's measured steps, as one JSON file.

It holds the coefficients of `concur.sim.step_time.roofline`, the domain they were fitted on, how far off they
were on steps held out of the fit, and what the engine's memory holds. `calib` writes it; the simulator reads
it.
"""

import hashlib
import json
import math
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from concur.sim.errors import ProfileError
from concur.sim.step_time.corrections import Corrections

SCHEMA_VERSION: Final = 1
_SHIPPED_BY: Final = "concur.calib"  # the package whose folder `profiles` is shipped; a name, not an import
_NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Regime = Literal["prefill", "decode", "mixed", "all"]
REGIMES: Final[tuple[Regime, ...]] = ("prefill", "decode", "mixed", "all")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RooflineCoefficients(_Part):
    """Coefficients of `concur.sim.step_time.roofline`, seconds unless their name says otherwise."""

    base_s: _NonNegative = 0.0
    weights_s: _NonNegative = 0.0
    experts_s: _NonNegative = 0.0
    experts_tokens: float = Field(1.0, gt=0)
    per_gemm_token_s: _NonNegative = 0.0
    roofline_sharpness: float = Field(4.0, ge=1, le=64)
    gemm_tile_tokens: int = Field(1, ge=1)
    per_token_s: _NonNegative = 0.0
    per_allreduce_token_s: _NonNegative = 0.0
    allreduce_switch_s: _NonNegative = 0.0
    prefill_s: _NonNegative = 0.0
    per_prefill_seq_s: _NonNegative = 0.0
    per_prefill_token_s: _NonNegative = 0.0
    per_prefill_context_token_s: _NonNegative = 0.0
    per_prefill_pair_s: _NonNegative = 0.0
    decode_s: _NonNegative = 0.0
    per_decode_seq_s: _NonNegative = 0.0
    per_context_token_s: _NonNegative = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.base_s + self.weights_s + self.per_gemm_token_s + self.per_token_s == 0:
            raise ValueError("base_s, weights_s and the times per token are all 0, but a step must take time")
        return self


class RegimeErrors(_Part):
    """Prediction against measurement: absolute percentage errors as fractions, bias = mean relative error.

    `worst_ape` is absent from older profiles, and leaves no trace in a file then.
    """

    num_steps: int = Field(ge=0)
    median_ape: float
    p95_ape: float
    bias: float
    worst_ape: float | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        raw: dict[str, Any] = serialise(self)
        return {name: value for name, value in raw.items() if value is not None}


class StepDomain(_Part):
    """The range of each regressor that the fit has seen, (smallest, largest)."""

    num_tokens: tuple[int, int]
    prefill_seqs: tuple[int, int]
    prefill_tokens: tuple[int, int]
    prefill_context_tokens: tuple[int, int]
    prefill_pairs: tuple[int, int]
    decode_seqs: tuple[int, int]
    context_tokens: tuple[int, int]


class HostWork(_Part):
    """The host's work in each step that no device time covers: scheduling, input preparation, sampling.

    `source` says where the number is from: assumed, or measured where and how.
    """

    per_step_s: _NonNegative
    source: str = Field(min_length=1)


class StepTimeProfile(_Part):
    """One engine's step times and memory. `held_out` is by regime; bytes are of the model over all GPUs.

    `host`: absent where steps were measured with the host's work in them, and in profiles made before it was
    told apart; both add nothing. `corrections`: absent where the law alone was fitted. `kv_cache_groups`:
    what `[engine]` calls so, absent where all layers keep the whole context.
    """

    schema_version: int = SCHEMA_VERSION
    name: str
    coefficients: RooflineCoefficients
    corrections: Corrections | None = None
    host: HostWork | None = None
    cudagraph_capture_sizes: tuple[int, ...] = ()
    domain: StepDomain
    held_out: dict[Regime, RegimeErrors]
    kv_bytes_per_token: int | None = Field(None, ge=1)
    kv_cache_groups: tuple[dict[str, str | int], ...] | None = None
    weights_bytes: int | None = Field(None, ge=1)
    num_gpu_blocks: int = Field(ge=2)
    block_size: int = Field(ge=1)
    host_to_device_bytes_per_s: float | None = Field(None, gt=0)
    device_to_host_bytes_per_s: float | None = Field(None, gt=0)
    warnings: tuple[str, ...] = ()
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _check(self) -> Self:
        sizes = self.cudagraph_capture_sizes
        if list(sizes) != sorted(set(sizes)) or any(size < 1 for size in sizes):
            raise ValueError("cudagraph_capture_sizes must rise strictly from at least 1")
        return self

    @property
    def sha256(self) -> str:
        """Hash of the content, the same for the same content."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Return the file's text; optional parts that are absent leave no trace, nor change the hash."""
        absent = {name for name in ("corrections", "host", "kv_cache_groups") if getattr(self, name) is None}
        raw = self.model_dump(mode="json", exclude=absent)
        return json.dumps(raw, indent=1, sort_keys=True, allow_nan=False) + "\n"

    def num_blocks_of(self, block_size: int) -> int:
        """Return how many blocks of that size the same memory holds."""
        return max(2, self.num_gpu_blocks * self.block_size // block_size)


def load_profile(name_or_path: str) -> StepTimeProfile:
    """Read a profile: a shipped one by its name, any other by its path.

    Raises
    ------
    ProfileError
        If there is no such profile, or it is no JSON, of a newer schema, or holds an impossible value.
    """
    path = Path(name_or_path)
    if path.suffix != ".json" and len(path.parts) == 1:
        return _parse(_shipped_text(name_or_path), name_or_path)
    try:
        return _parse(path.read_text(encoding="utf-8"), name_or_path)
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(
            f"{name_or_path}: not readable ({error}); name a file, or one of {_names()}"
        ) from None


def shipped_profiles() -> list[str]:
    """Return the names of the shipped profiles."""
    folder = resources.files(_SHIPPED_BY) / "profiles"
    if not folder.is_dir():
        return []
    return sorted(
        entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json")
    )


def _shipped_text(name: str) -> str:
    if name not in shipped_profiles():
        raise ProfileError(f"no shipped profile is called {name!r}; there are {_names()}; or give a path")
    return (resources.files(_SHIPPED_BY) / "profiles" / f"{name}.json").read_text(encoding="utf-8")


def _names() -> str:
    return ", ".join(shipped_profiles()) or "none shipped"


def _parse(text: str, origin: str) -> StepTimeProfile:
    try:
        raw = json.loads(text, parse_constant=lambda constant: math.nan)
    except ValueError as error:
        raise ProfileError(f"{origin}: no JSON ({error}); fit it again with `concur calibrate fit`") from None
    if not isinstance(raw, dict):
        raise ProfileError(f"{origin}: not a JSON object; fit it again with `concur calibrate fit`")
    version = raw.get("schema_version")
    if not isinstance(version, int):
        raise ProfileError(f"{origin}: schema_version = {version!r} but must be an integer; fit it again")
    if version > SCHEMA_VERSION:
        raise ProfileError(
            f"{origin}: schema_version = {version} but this release reads up to {SCHEMA_VERSION}; "
            "update concur"
        )
    try:
        return StepTimeProfile.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "profile"
        value = "" if first["type"] == "missing" else f" = {str(first['input'])[:80]}"
        raise ProfileError(
            f"{origin}: {key}{value}: {first['msg']}; fit it again with `concur calibrate fit`"
        ) from None

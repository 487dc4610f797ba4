"""The verbs around a fit: `concur calibrate silicon`, `fit`, `predict`, `check`, `report`.

Results go to stdout, diagnostics to stderr. A PROFILE is the name of a shipped one or a path.
"""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from concur.calib.errors import FitError
from concur.calib.fit.check import check_profile, errors_table, parse_batch, predict_step
from concur.calib.fit.fit import fit_step_time
from concur.calib.fit.fit_result import write_profile
from concur.calib.fit.samples import concatenate_samples, read_samples, write_samples
from concur.calib.show.report import write_report
from concur.calib.silicon.silicon import SiliconRequest, silicon_samples
from concur.sim.step_time.profile import HostWork, load_profile

_Profile = Annotated[str, typer.Argument(metavar="PROFILE", help="A shipped profile's name, or a path.")]
_Samples = Annotated[list[Path], typer.Argument(metavar="SAMPLES...", help="Samples, .parquet.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_fit_verbs(calibrate: typer.Typer) -> None:
    """Add the verbs of this module."""
    calibrate.command("silicon")(silicon)
    calibrate.command("fit")(fit)
    calibrate.command("predict")(predict)
    calibrate.command("check")(check)
    calibrate.command("report")(report)


def silicon(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A known name, or a config.json.")],
    system: Annotated[str, typer.Option("--system", metavar="NAME", help="E.g. h100_sxm.")],
    out: Annotated[Path, typer.Option("--out", metavar="SAMPLES", help="Where the samples go.")],
    tensor_parallel_size: Annotated[int, typer.Option("--tp", min=1, help="GPUs per engine.")] = 1,
    engine: Annotated[
        str, typer.Option("--engine", metavar="NAME", help="Whose kernels: vllm, sglang.")
    ] = "vllm",
    block_size: Annotated[int, typer.Option("--block-size", min=1)] = 16,
    max_num_seqs: Annotated[int, typer.Option("--max-num-seqs", min=1)] = 1024,
    max_num_batched_tokens: Annotated[int, typer.Option("--max-num-batched-tokens", min=1)] = 16_384,
    kv_cache_dtype: Annotated[
        str, typer.Option("--kv-cache-dtype", metavar="NAME", help="vLLM's: auto, bfloat16, fp8.")
    ] = "auto",
    max_step_context_tokens: Annotated[
        int | None,
        typer.Option("--step-context-tokens", min=1, help="Context of one step; default: 4 pools."),
    ] = None,
) -> None:
    """Make samples from the database of measured kernels; no GPU needed."""
    request = SiliconRequest(
        model,
        system,
        tensor_parallel_size,
        backend=engine,
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        kv_cache_dtype=kv_cache_dtype,
        max_step_context_tokens=max_step_context_tokens,
    )
    samples = silicon_samples(request, date=datetime.now(UTC).date().isoformat())
    write_samples(samples, out)
    print(f"samples: {out} ({len(samples)} steps, num_gpu_blocks {samples.provenance.num_gpu_blocks:,})")
    for note in samples.provenance.notes:
        Console(stderr=True, soft_wrap=True).print(f"note: {note}", markup=False, highlight=False)


def fit(
    samples: _Samples,
    out: Annotated[Path, typer.Option("--out", metavar="PROFILE", help="Where the profile goes, .json.")],
    host_ms: Annotated[
        float | None,
        typer.Option("--host-ms", min=0, help="Host work that each step waits for; samples of kernels only."),
    ] = None,
    host_source: Annotated[
        str | None, typer.Option("--host-source", metavar="TEXT", help="Where that number is from.")
    ] = None,
) -> None:
    """Fit a step-time profile to samples of one engine."""
    if out.suffix != ".json":
        raise FitError(f"--out {out} but a profile is a .json file; name it {out}.json")
    if (host_ms is None) != (host_source is None):
        raise FitError("--host-ms and --host-source go together; say where the number is from")
    host = (
        HostWork(per_step_s=1e-3 * host_ms, source=host_source)
        if host_ms is not None and host_source
        else None
    )
    measured = concatenate_samples([read_samples(path) for path in samples])
    result = fit_step_time(measured, name=out.stem, host=host)
    write_profile(result.profile, out)
    print(result.summary())
    print(f"\nprofile: {out}")


def predict(
    profile: _Profile,
    prefills: Annotated[
        list[str] | None,
        typer.Option("--prefill", metavar="TOKENS@CONTEXT", help="A prefill of the step; repeatable."),
    ] = None,
    decodes: Annotated[
        list[str] | None,
        typer.Option("--decode", metavar="BATCHxCONTEXT", help="Decodes of the step; repeatable."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Predict the duration of one engine step."""
    step = predict_step(load_profile(profile), parse_batch(prefills or (), decodes or ()))
    if as_json:
        print(json.dumps(asdict(step), indent=1))
        return
    print(f"step: {step.step_ms:.3f} ms")
    for name, part_ms in step.parts_ms.items():
        print(f"  {name:18s} {part_ms:10.3f} ms")
    for warning in step.warnings:
        Console(stderr=True).print(f"warning: {warning}")


def check(profile: _Profile, samples: _Samples, as_json: _Json = False) -> None:
    """Compare a profile's predictions with samples."""
    measured = concatenate_samples([read_samples(path) for path in samples])
    errors = check_profile(load_profile(profile), measured)
    if as_json:
        print(json.dumps({regime: of_regime.model_dump() for regime, of_regime in errors.items()}, indent=1))
        return
    Console().print(errors_table(errors))


def report(
    profile: _Profile,
    samples: _Samples,
    out: Annotated[Path, typer.Option("--out", metavar="PAGE", help="Where the page goes, .html.")],
) -> None:
    """Write one self-contained HTML page: a profile against samples."""
    measured = concatenate_samples([read_samples(path) for path in samples])
    write_report(load_profile(profile), measured, out)
    print(f"report: {out}")

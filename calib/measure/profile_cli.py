"""The verbs that measure: `concur calibrate profile`, `concur calibrate import`.

Results go to stdout, progress and diagnostics to stderr.
"""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from concur.calib.errors import SamplesError
from concur.calib.fit.import_steps import import_steps
from concur.calib.fit.samples import Provenance, Samples, write_samples
from concur.calib.fit.spread import describe
from concur.calib.fit.step_samples import sample_rows, steps_frame
from concur.calib.measure.closed_loop import ClosedLoopOptions, run_closed_loop
from concur.calib.measure.copy_bandwidth import copy_bandwidths
from concur.calib.measure.engine import EngineOptions, VllmEngine
from concur.calib.measure.profiler import ProfileOptions, ProfileResult
from concur.calib.measure.profiler import profile as run_profile
from concur.sim.runs.progress import one_bar_each

_Out = Annotated[Path, typer.Option("--out", metavar="SAMPLES.parquet", help="The samples file to write.")]

_INTERRUPTED = 130  # the shell's status for Ctrl-C


def add_profile_verbs(calibrate: typer.Typer) -> None:
    """Add the verbs of this module."""
    calibrate.command("profile")(profile)
    calibrate.command("import")(import_)


def import_(
    steps: Annotated[
        Path, typer.Argument(metavar="STEPS", help="A recording, .jsonl or .jsonl.gz.", show_default=False)
    ],
    out: _Out,
) -> None:
    """Turn recorded engine steps into samples."""
    _check_out(out)
    samples = import_steps(steps)
    write_samples(samples, out)
    print(f"{out}: {describe(samples)}")


def profile(
    out: _Out,
    model: Annotated[
        str,
        typer.Option("--model", metavar="NAME|FOLDER", help="tiny, qwen3-8b, qwen3-32b, or a folder."),
    ],
    record_run: Annotated[
        Path | None,
        typer.Option(
            "--record-run", metavar="SAMPLES.parquet", help="Also record a closed loop, not for fitting."
        ),
    ] = None,
    run_caps: Annotated[
        list[int] | None, typer.Option("--run-cap", min=0, help="Agents at once; 0 = all; repeatable.")
    ] = None,
    run_agents: Annotated[int, typer.Option("--run-agents", min=1, help="Agents of the closed loop.")] = 24,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Times the whole grid is measured.")] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Order of the points, and token ids.")] = 0,
    budget_s: Annotated[
        float | None, typer.Option("--budget-s", min=0, help="Begin no point of the grid after this.")
    ] = None,
    note: Annotated[
        list[str] | None, typer.Option("--note", help="A remark for the provenance; repeatable.")
    ] = None,
    load_format: Annotated[str, typer.Option(help="vLLM's; weights are dummies by default.")] = "dummy",
    block_size: Annotated[int | None, typer.Option(min=1, help="A multiple of 32 on a CPU.")] = None,
    num_gpu_blocks: Annotated[int | None, typer.Option(min=2, help="Default: what the memory holds.")] = None,
    max_num_batched_tokens: Annotated[int | None, typer.Option(min=1, help="vLLM's.")] = None,
    max_num_seqs: Annotated[int | None, typer.Option(min=1, help="vLLM's.")] = None,
    max_model_len: Annotated[int | None, typer.Option(min=1, help="vLLM's.")] = None,
    tensor_parallel_size: Annotated[int, typer.Option(min=1, help="vLLM's.")] = 1,
    gpu_memory_utilization: Annotated[float | None, typer.Option(min=0, max=1, help="vLLM's.")] = None,
    async_scheduling: Annotated[bool, typer.Option("--async-scheduling", help="vLLM's.")] = False,
    enforce_eager: Annotated[bool, typer.Option("--enforce-eager", help="No CUDA graphs.")] = False,
) -> None:
    """Measure engine steps of a real vLLM over a designed grid.

    Interrupted or out of budget, what was measured is written, and the same command continues.
    """
    for path in (out, record_run):
        if path is not None:
            _check_out(path)
    engine = VllmEngine(
        EngineOptions(
            model=model,
            load_format=load_format,
            block_size=block_size,
            num_gpu_blocks=num_gpu_blocks,
            max_num_batched_tokens=max_num_batched_tokens,
            max_num_seqs=max_num_seqs,
            max_model_len=max_model_len,
            tensor_parallel_size=tensor_parallel_size,
            gpu_memory_utilization=gpu_memory_utilization,
            async_scheduling=async_scheduling,
            enforce_eager=enforce_eager,
        )
    )
    try:
        grid = _measure_grid(engine, ProfileOptions(repeats, seed, budget_s), out, tuple(note or ()))
        if grid.is_interrupted:
            raise typer.Exit(_INTERRUPTED)
        if record_run is not None:
            run = _measure_run(engine, run_agents, run_caps or [0], grid.samples.provenance)
            write_samples(run, record_run)
            print(f"{record_run}: {describe(run)}")
    finally:
        engine.close()


def _measure_grid(
    engine: VllmEngine, options: ProfileOptions, out: Path, notes: tuple[str, ...]
) -> ProfileResult:
    checkpoint = out.with_name(f"{out.name}.partial.jsonl.gz")
    with one_bar_each() as on_progress:
        result = run_profile(
            engine,
            options,
            checkpoint,
            notes=notes,
            extra_facts=copy_bandwidths(),
            on_progress=partial(on_progress, "grid"),
        )
    write_samples(result.samples, out)
    print(f"{out}: {describe(result.samples)}")
    if result.num_left:
        print(f"{result.num_left} points are left; the same command continues from {checkpoint}")
    return result


def _measure_run(engine: VllmEngine, num_agents: int, caps: list[int], provenance: Provenance) -> Samples:
    rows = []
    with one_bar_each() as on_progress:
        for cap in caps:
            rows += run_closed_loop(
                engine,
                ClosedLoopOptions(num_agents=num_agents, cap=cap),
                on_call=partial(on_progress, f"closed loop, cap {cap or 'none'}"),
            )
    samples = sample_rows(rows, is_async=provenance.async_scheduling, origin_s=rows[0].begin_s)
    return Samples(steps_frame(samples), provenance)


def _check_out(path: Path) -> None:
    """Refuse before the measurement what would fail after it."""
    if path.suffix != ".parquet" or path.is_dir():
        raise SamplesError(f"{path} cannot be written as samples; name a file that ends in .parquet")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SamplesError(f"{path.parent} cannot be made ({error}); choose another folder") from None

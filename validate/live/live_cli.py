"""The verbs that confront the simulator with a live engine: `concur validate run` and `compare`."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from concur.sim.cli.options import Controllers, Json, Overrides, ScenarioFile, policy_texts
from concur.sim.engine.config import EngineConfig
from concur.sim.lab.oracle import expand_oracle
from concur.sim.record.record import check_writable
from concur.sim.runs.compare import Runs, policies
from concur.sim.runs.progress import counting, one_bar_each, say, waiting
from concur.sim.scenario.scenario import Scenario, load_scenario
from concur.sim.show.report import check_report_folder
from concur.sim.show.tables import print_tables
from concur.validate.confront.confront import confront, confrontation_json
from concur.validate.confront.confront_report import confrontation_table, write_confrontation
from concur.validate.confront.same_engine import check_server
from concur.validate.confront.verdicts import Confrontation
from concur.validate.errors import EngineDiffersError, ServerError, VllmMissingError
from concur.validate.live.devices import why_no_gpu
from concur.validate.live.live_runs import (
    LiveRun,
    check_server_of_runs,
    load_worlds,
    plan,
    run_live,
    simulate_policies,
)
from concur.validate.live.scope import check_both_worlds
from concur.validate.live.server import Server, ServerOptions, attach, started


def run(
    context: typer.Context,
    scenario: ScenarioFile,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Records of both worlds and the report.")],
    overrides: Overrides = None,
    controllers: Controllers = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="cpu|gpu|URL[,URL...]",
            help="Start servers, one for each engine of a fleet, or use those that run.",
        ),
    ] = "cpu",
    model: Annotated[
        str, typer.Option("--model", help="tiny, qwen3-8b, qwen3-32b (dummy weights), or what vLLM takes.")
    ] = "tiny",
    load_format: Annotated[str, typer.Option("--load-format", help="vLLM's.")] = "dummy",
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Live runs of each policy.")] = 1,
    record_steps: Annotated[
        bool, typer.Option("--record-steps", help="Also record every engine step, for calibration.")
    ] = False,
    judge: Annotated[
        bool, typer.Option("--judge/--no-judge", help="Whether tolerances decide the exit status.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Replay policies on a live engine, simulate the same, and compare.

    The engine must be the scenario's: its sizes and flags are checked before any run. Stopped, it goes on
    where it was: complete runs are not repeated. Exit status 1 if the worlds differ by more than the
    tolerances or a run is not complete.
    """
    config = load_scenario(scenario, overrides or ())
    check_both_worlds(config)
    simulations = Runs(config, [config.seed])
    workload = simulations.workloads[config.seed]
    texts = expand_oracle(policy_texts(context, controllers), simulations, say)
    chosen = policies(config, texts, num_agents=len(workload.agents))
    runs = plan(out, config, workload, chosen, repeats=repeats)
    for folder in (*(each.folder for each in runs), *(out / "sim" / each.label for each in chosen)):
        check_writable(folder)
    check_report_folder(out / "report")
    options = server_options(config, engine, model, load_format, out / "server" if record_steps else None)
    for batch in _batches(config, runs):
        with _servers(config, engine, options, out / "server") as servers:
            for alone, server in zip(config.engines, servers, strict=True):
                say(f"vLLM {server.facts.get('vllm', '')} answers at {server.url}, model {server.model}")
                check_server(alone, workload, server)
            check_server_of_runs(out, servers[0])
            with one_bar_each() as on_progress:
                for record in run_live(config, workload, servers, batch, on_progress):
                    if not record.is_complete:
                        _say_and_exit(record.run)
    with counting("simulating", len(chosen)) as advance:
        simulated = simulate_policies(config, workload, chosen, out, advance)
    _, live = load_worlds(out)
    live = [record for record in live if record.label in {each.label for each in chosen}]
    result = confront(simulated, live)
    page = write_confrontation(result, simulated, live, out / "report")
    _print(result, as_json)
    if not as_json:
        print(f"records: {out}\nreport: {page}")
    raise typer.Exit(0 if result.ok or not judge else 1)


def compare(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `concur validate run` left.")],
    as_json: Json = False,
) -> None:
    """Compare the records of both worlds; exit status 1 if they differ by more than the tolerances."""
    simulated, live = load_worlds(folder)
    result = confront(simulated, live)
    _print(result, as_json)
    raise typer.Exit(0 if result.ok else 1)


def server_options(
    config: Scenario, engine: str, model: str, load_format: str, steps_folder: Path | None
) -> ServerOptions:
    """Return what to start: on a CPU without compilation, whose minutes a small model never earns back."""
    return ServerOptions(
        model=model,
        engine=config.vllm,
        load_format=load_format,
        steps_file=steps_folder / "steps.jsonl.gz" if steps_folder else None,
        extra=("--enforce-eager",) if engine == "cpu" else (),
    )


def _batches(config: Scenario, runs: Sequence[LiveRun]) -> list[Sequence[LiveRun]]:
    """Return the runs that share their servers: none where a run kills one."""
    if config.fleet is not None and config.fleet.outages:
        return [[each] for each in runs]
    return [runs] if runs else []


@contextmanager
def _servers(
    config: Scenario, engine: str, options: ServerOptions, folder: Path
) -> Iterator[Sequence[Server]]:
    """Yield a server for each engine of the scenario: those that run already, or new ones."""
    if config.fleet is None:
        with _server(engine, options, folder) as server:
            yield [server]
        return
    if engine in ("cpu", "gpu"):
        with ExitStack() as stack:
            yield [
                stack.enter_context(
                    _server(engine, replace(options, engine=alone.vllm), folder / str(number))
                )
                for number, alone in enumerate(config.engines)
            ]
        return
    if config.fleet.outages:
        raise ServerError(
            f"fleet.outages: a server that is started here can be killed, one at {engine} cannot; leave "
            "fleet.outages out and kill it by hand, or use --engine cpu"
        )
    urls = [url for url in engine.split(",") if url]
    if len(urls) != len(config.engines):
        raise ServerError(
            f"--engine {engine} names {len(urls)} servers but the scenario has {len(config.engines)} "
            "engines; start as many, and name their addresses with commas between them, or use --engine cpu"
        )
    with waiting(f"asking {engine}"):
        servers = [attach(url) for url in urls]
    yield servers


@contextmanager
def _server(engine: str, options: ServerOptions, folder: Path) -> Iterator[Server]:
    if engine not in ("cpu", "gpu"):
        with waiting(f"asking {engine}"):
            server = attach(engine)
        yield server
        return
    _check_startable(engine, options.engine)
    say(f"starting vLLM takes minutes, {options.start_s:.0f} s at most; its log is {folder / 'server.log'}")
    with ExitStack() as stack:
        with waiting("starting vLLM") as on_wait:
            server = stack.enter_context(started(options, folder, on_wait=on_wait))
        yield server


def _check_startable(engine: str, config: EngineConfig) -> None:
    """Refuse at once what would come out, or fail, after minutes of starting."""
    no_gpu = why_no_gpu(os.environ) if engine == "gpu" else None
    if no_gpu:
        raise ServerError(
            f"--engine gpu but this machine has no GPU ({no_gpu}); use --engine cpu, or name a server that "
            "runs with --engine URL"
        )
    if config.host_cache.capacity_tokens:
        raise EngineDiffersError(
            f"engine.host_cache.capacity_tokens = {config.host_cache.capacity_tokens} but the server starts "
            "without a host cache; simulate none with --set engine.host_cache.capacity_tokens=0"
        )
    if config.pool_tokens < config.max_model_len:  # vLLM 0.32.0, `check_enough_kv_cache_memory`
        raise EngineDiffersError(
            f"engine.num_gpu_blocks = {config.num_gpu_blocks} holds {config.pool_tokens} tokens but vLLM "
            f"starts only if a request of max_model_len = {config.max_model_len} fits; --set "
            f"engine.max_model_len={config.pool_tokens}"
        )
    if engine == "cpu" and config.async_scheduling:
        raise EngineDiffersError(
            "engine.async_scheduling = true but vLLM's CPU build never does that; simulate the same with "
            "--set engine.async_scheduling=false"
        )
    if find_spec("vllm") is None:  # not imported: that takes seconds, and the server is another process
        raise VllmMissingError(
            "vLLM is not installed here; run it in the environment that `make test-vllm` builds, or name a "
            "server that runs with --engine URL"
        )


def _print(result: Confrontation, as_json: bool) -> None:
    if as_json:
        print(json.dumps(confrontation_json(result), indent=1))
    else:
        print_tables(confrontation_table(result))


def _say_and_exit(run: dict[str, Any]) -> None:
    """Say what went wrong in an incomplete run; status 130 after a Ctrl-C, as the shell has it."""
    for warning in run["warnings"]:
        print(f"concur: {warning}", file=sys.stderr)
    raise typer.Exit(130 if run.get("interrupted") else 1)

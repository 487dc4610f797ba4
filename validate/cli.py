"""The validation verbs: `concur validate parity`, `run`, `compare`, `published`."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from concur.sim.cli.options import TAKES_POLICIES, Json, Overrides
from concur.sim.engine.sglang_config import SglangConfig
from concur.sim.runs.progress import counting
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.scenario import Scenario, load_scenario
from concur.validate.live import live_cli
from concur.validate.live.scope import check_both_worlds
from concur.validate.parity.explain import explain_result, result_json
from concur.validate.parity.parity import run_parity
from concur.validate.parity.sglang_engine import sglang_version
from concur.validate.parity.sglang_parity import run_parity as run_sglang_parity
from concur.validate.parity.vllm_scheduler import check_in_scope, vllm_release, vllm_version
from concur.validate.published import published_cli

app = typer.Typer(help="Hold the simulator against vLLM and SGLang.", no_args_is_help=True)
app.command("run", context_settings=TAKES_POLICIES)(live_cli.run)
app.command("compare")(live_cli.compare)
app.command("published")(published_cli.published)


class EngineKind(StrEnum):
    """The engines whose own scheduler can be asked."""

    VLLM = "vllm"
    SGLANG = "sglang"


@app.command()
def parity(
    scenario: Annotated[
        Path | None, typer.Argument(metavar="SCENARIO.toml", help="The experiment; not with --fuzz.")
    ] = None,
    overrides: Overrides = None,
    num_worlds: Annotated[
        int | None, typer.Option("--fuzz", metavar="N", min=1, help="Compare N random worlds instead.")
    ] = None,
    kind: Annotated[
        Literal["plain", "groups", "tier", "priority"],
        typer.Option(
            "--worlds",
            help="Random worlds as they are, with groups of layers, with an offload tier, with priorities.",
        ),
    ] = "plain",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random worlds.")] = 0,
    engine: Annotated[
        EngineKind, typer.Option("--engine", help="With --fuzz: whose scheduler; a scenario names its own.")
    ] = EngineKind.VLLM,
    as_json: Json = False,
) -> None:
    """Compare every step with the engine's own scheduler; exit status 1 at the first difference."""
    if (scenario is None) == (num_worlds is None):
        raise typer.BadParameter("give either a scenario or --fuzz N")
    config = None if scenario is None else load_scenario(scenario, overrides or ())
    if engine is EngineKind.SGLANG or (config is not None and isinstance(config.engine, SglangConfig)):
        _with_sglang(config, num_worlds or 1, seed, as_json)
    version = vllm_version()
    if config is None:
        _fuzz(num_worlds or 1, kind, seed, version, as_json)
        return
    check_both_worlds(config)
    check_in_scope(config.vllm)
    result = run_parity(config, build_workload(config))
    print(json.dumps(result_json(result, version)) if as_json else explain_result(result, version))
    raise typer.Exit(0 if result.difference is None else 1)


def _with_sglang(config: Scenario | None, num_worlds: int, seed: int, as_json: bool) -> NoReturn:
    from concur.validate.parity.sglang_fuzz import (  # needs Hypothesis, an optional dependency
        explain_fuzz,
        explain_result,
        fuzz,
        result_json,
    )

    version = sglang_version()
    if config is None:
        with counting("comparing random worlds", num_worlds) as advance:
            found = fuzz(num_worlds, seed, on_progress=advance)
        difference, coverage, text = found.difference, found.coverage, explain_fuzz(found, version)
    else:
        check_both_worlds(config)
        result = run_sglang_parity(config, build_workload(config))
        difference, coverage, text = result.difference, result.coverage, explain_result(result, version)
    print(json.dumps(result_json(coverage, difference, version)) if as_json else text)
    raise typer.Exit(0 if difference is None else 1)


def _fuzz(num_worlds: int, kind: str, seed: int, version: str, as_json: bool) -> None:
    from concur.validate.parity.fuzz import (  # needs Hypothesis, an optional dependency
        explain_fuzz,
        fuzz,
        fuzz_json,
    )
    from concur.validate.parity.worlds import KINDS, of_release

    release = vllm_release()
    with counting("comparing random worlds", num_worlds) as advance:
        result = fuzz(
            num_worlds, seed, drawn_from=lambda: of_release(KINDS[kind](), release), on_progress=advance
        )
    print(json.dumps(fuzz_json(result, version)) if as_json else explain_fuzz(result, version))
    raise typer.Exit(0 if result.failure is None else 1)

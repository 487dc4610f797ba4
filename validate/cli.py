"""The validation verbs: `concur validate parity`, `run`, `compare`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from concur.sim.runs.progress import counting
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.scenario import load_scenario
from concur.validate.live import live_cli
from concur.validate.live.scope import check_both_worlds
from concur.validate.parity.explain import explain_result, result_json
from concur.validate.parity.parity import run_parity
from concur.validate.parity.vllm_scheduler import check_in_scope, vllm_version


def register(app: typer.Typer) -> None:
    """Add this package's verbs to the `concur` command."""
    validate = typer.Typer(help="Hold the simulator against vLLM.", no_args_is_help=True)
    validate.callback()(_group)
    validate.command("parity")(parity)
    more = {"allow_extra_args": True, "ignore_unknown_options": False}  # `--policies a b c`
    validate.command("run", context_settings=more)(live_cli.run)
    validate.command("compare")(live_cli.compare)
    app.add_typer(validate, name="validate")


def _group() -> None:
    """Hold the simulator against vLLM."""


def parity(
    scenario: Annotated[
        Path | None, typer.Argument(metavar="SCENARIO.toml", help="The experiment; not with --fuzz.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one key; repeatable."),
    ] = None,
    num_worlds: Annotated[
        int | None, typer.Option("--fuzz", metavar="N", min=1, help="Compare N random worlds instead.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random worlds.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare every step with vLLM's own scheduler; exit status 1 at the first difference."""
    if (scenario is None) == (num_worlds is None):
        raise typer.BadParameter("give either a scenario or --fuzz N")
    version = vllm_version()
    if scenario is None:
        _fuzz(num_worlds or 1, seed, version, as_json)
        return
    config = load_scenario(scenario, overrides or ())
    check_both_worlds(config)
    check_in_scope(config.engine)
    result = run_parity(config, build_workload(config))
    print(json.dumps(result_json(result, version)) if as_json else explain_result(result, version))
    raise typer.Exit(0 if result.difference is None else 1)


def _fuzz(num_worlds: int, seed: int, version: str, as_json: bool) -> None:
    from concur.validate.parity.fuzz import (  # needs Hypothesis, an optional dependency
        explain_fuzz,
        fuzz,
        fuzz_json,
    )

    with counting("comparing random worlds", num_worlds) as advance:
        result = fuzz(num_worlds, seed, on_progress=advance)
    print(json.dumps(fuzz_json(result, version)) if as_json else explain_fuzz(result, version))
    raise typer.Exit(0 if result.failure is None else 1)

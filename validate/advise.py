"""The verb `concur advise`: which cap, which policy, for this model, these GPUs, these agents.

It may ask a running server for its pool and limits (`--url`), which is why it is here and not beside the
other verbs that simulate. Results go to stdout, progress and diagnostics to stderr.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from concur.sim.cli.examples import or_example
from concur.sim.cli.options import Jobs, Json, Overrides, Seeds
from concur.sim.engine.config import EngineConfig
from concur.sim.errors import ScenarioError
from concur.sim.lab.advise import advise
from concur.sim.lab.advise_page import advice_json, outcomes_table, sentences, write_advice
from concur.sim.runs.parallel import LocalWorkers
from concur.sim.runs.progress import say, tallying
from concur.sim.runs.seeds import read_seeds
from concur.sim.scenario.build import build_workload, build_workloads
from concur.sim.scenario.scenario import Scenario, parse_scenario, read_scenario
from concur.sim.scenario.toml_files import apply_overrides
from concur.sim.show.facts import facts_of, planned
from concur.sim.show.report import check_report_folder
from concur.sim.show.tables import print_tables
from concur.sim.step_time.profile import shipped_profiles
from concur.validate.live.server import attach

_TRACES: Final = (".jsonl", ".gz")

app = typer.Typer()


@app.command("advise")
def run(
    batch: Annotated[Path, typer.Argument(metavar="TRACE|SCENARIO.toml", help="The agents.")],
    model: Annotated[str | None, typer.Option("--model", help="E.g. qwen3-32b; with a trace.")] = None,
    gpu: Annotated[str | None, typer.Option("--gpu", help="E.g. h100; with a trace.")] = None,
    tp: Annotated[int, typer.Option("--tp", min=1, help="GPUs per engine.")] = 1,
    num_gpus: Annotated[
        int | None, typer.Option("--num-gpus", min=1, help="GPUs in all: so many engines share the agents.")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="A running vLLM: its model, pool and limits; with a trace.")
    ] = None,
    overrides: Overrides = None,
    seeds: Seeds = "0,1",
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="A page, a figure, JSON.")] = None,
    jobs: Jobs = None,
    as_json: Json = False,
) -> None:
    """Say which policy and window suit these agents on this engine, and whether any does.

    Of a trace every order of its agents is a seed. Sessions that began before their recording are left out,
    and waits are cut at a minute, unless --set says otherwise. With several engines each gets an equal share
    of the agents for itself, as under session routing, and the advice is for one of them.
    """
    if batch.name.endswith(_TRACES):
        server = {} if url is None else attach(url).facts
        model = model or server.get("model")
        names_profile = any(each.startswith("step_time.profile=") for each in overrides or ())
        profile = None if names_profile else shipped_profile(model, gpu, tp)
        scenario = scenario_of_trace(batch, profile, server, overrides or ())
    elif url is not None or model is not None or gpu is not None:
        raise ScenarioError("a scenario says what its engine is; leave --url, --model and --gpu out")
    else:
        scenario = parse_scenario(read_scenario(or_example(batch), overrides or ()), origin=str(batch))
    num_engines = _num_engines(num_gpus, tp)
    if num_engines > 1:
        scenario = _share(scenario, num_engines)
    if out is not None:
        check_report_folder(out)
    chosen = read_seeds(seeds or "", "--seeds")
    with tallying("simulating") as advance:
        advice = advise(scenario, chosen, workers=LocalWorkers(jobs), on_run=advance)
    advice = replace(advice, num_engines=num_engines)
    if as_json:
        print(json.dumps(advice_json(advice), indent=1))
    else:
        print("\n".join(sentences(advice)) + "\n")
        print_tables(outcomes_table(advice))
    if out is not None:
        found = facts_of(planned(scenario, build_workloads(scenario, chosen)))
        say(f"page: {write_advice(advice, out, title=f'Advice for {batch.name}', facts=found)}")


def shipped_profile(model: str | None, gpu: str | None, tp: int) -> str:
    """Return the shipped profile of a model on so many GPUs of a kind."""
    if model is None or gpu is None:
        raise ScenarioError("a trace says nothing of the engine; name --model and --gpu (and --tp)")
    name = model.rpartition("/")[2].lower()
    fitting = [
        each
        for each in shipped_profiles()
        if each.startswith(gpu.lower()) and each.endswith(f"_{name}_tp{tp}")
    ]
    if len(fitting) != 1:
        raise ScenarioError(
            f"no profile of {model} on {gpu} with tp = {tp} is shipped; there are "
            f"{', '.join(shipped_profiles())}; "
            "`concur calibrate silicon` and `fit` make others: name one in a scenario, or with --set "
            "step_time.profile=FILE"
        )
    return fitting[0]


def _num_engines(num_gpus: int | None, tp: int) -> int:
    if num_gpus is None:
        return 1
    if num_gpus % tp:
        raise ScenarioError(f"num_gpus = {num_gpus} but must be a multiple of tp = {tp}")
    return num_gpus // tp


def _share(scenario: Scenario, num_engines: int) -> Scenario:
    """Return the scenario with one engine's share of the agents, rounded up; each seed draws others."""
    num_agents = len(build_workload(scenario).agents)
    if num_agents < num_engines:
        raise ScenarioError(f"{num_agents} agents cannot be shared among {num_engines} engines")
    raw = scenario.model_dump(mode="json")
    raw["workload"]["num_agents"] = -(-num_agents // num_engines)
    return parse_scenario(raw, origin=f"a share of {num_engines}")


def scenario_of_trace(
    trace: Path, profile: str | None, server: Mapping[str, Any], overrides: Sequence[str]
) -> Scenario:
    """Return the scenario of all of a trace's agents, on a profile, with what a server says of itself."""
    engine = {"max_model_len": 262_144, "max_num_seqs": 512}
    engine |= {name: value for name, value in server.items() if name in EngineConfig.model_fields}
    raw: dict[str, Any] = {
        "workload": {
            "trace": str(trace.resolve()),
            "num_agents": 0,
            "order": "shuffled",
            "fresh_only": True,
            "max_tool_latency_s": 60.0,
            "default_tool_latency_s": 1.0,
        },
        "engine": engine,
        "step_time": {} if profile is None else {"profile": profile},
        "controller": {"kind": "none"},
    }
    apply_overrides(raw, overrides)
    return parse_scenario(raw, origin=str(trace))

"""How right the model inside `twin` is: its makespans over the cap curve beside the simulator's.

`python -m benchmarks.twin_fidelity` takes the traces of `examples/judge`, each with two pools. The model gets
the true calls of all agents, for what it does not know of them is not its fault, and the step costs that the
law had fitted in the middle of a run of its own. It writes `examples/results/twin_fidelity.json` and draws
`examples/twin_fidelity.png`.
"""

import json
from dataclasses import fields
from typing import Final, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from benchmarks.result_files import ROOT, Result, write
from concur.sim.lab.judge import Case, load_cases
from concur.sim.record.record import RunRecord
from concur.sim.runs.parallel import run_tasks
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.scenario import Scenario
from concur.sim.show.figures import png_bytes, style
from concur.sim.workload.spec import AgentSpec
from concur.sim.world.simulate import simulate
from concur.twin.costs import StepCosts
from concur.twin.future import Future, FutureAgent, FutureCall, Policy
from concur.twin.model import Rollout

CASES: Final = ROOT / "examples" / "judge"
FIGURE: Final = ROOT / "examples" / "twin_fidelity.png"
POOLS: Final = {  # a starved and an ample one of each
    "tau_airline": (4001, 16001),
    "react_hotpotqa": (1001, 4001),
    "lmcache_miniswe": (5001, 8001),
    "sweagent_demos": (1001, 4001),
    "weka": (20001, 80001),
}
FRACS: Final = (0.02, 0.05, 0.08, 0.12, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0)  # of the agents: the caps
SEED: Final = 0


class Point(NamedTuple):
    """A cap, and the makespans under it in seconds."""

    cap: int
    simulated_s: float
    model_s: float
    recompute_frac: float


def future_of(agent: AgentSpec) -> FutureAgent:
    """Return an agent that has not begun, with all the calls that it is going to make."""
    shared = agent.shared_prefix_tokens if agent.prefix_group is not None else 0
    calls, context = [], 0
    for step in agent.steps:
        kept = context if step.kept_tokens is None else max(0, step.kept_tokens - shared)
        kept_frac = min(1.0, kept / context) if context else 0.0
        wait_s = step.tool_latency_s or 0.0
        calls.append(FutureCall(step.new_prompt_tokens, step.output_tokens, kept_frac, wait_s))
        context = (kept if context else 0) + step.new_prompt_tokens + step.output_tokens
    levels = ((agent.prefix_group, float(shared)),) if agent.prefix_group is not None else ()
    return FutureAgent(0.0, 0.0, False, 0.0, 0.0, tuple(calls), levels)


def costs_of(record: RunRecord) -> StepCosts:
    """Return the step costs that the law had fitted in the middle of its run."""
    states = [json.loads(state) for state in record.ticks["state"]]
    known = [state for state in states if "base_us" in state]
    middle = known[len(known) // 2]
    return StepCosts(**{field.name: middle[f"{field.name[:-2]}_us"] / 1e6 for field in fields(StepCosts)})


def curve(case: Case) -> list[Point]:
    """Return both makespans over the caps."""
    scenario = case.cell.scenario.with_seed(SEED)
    workload = build_workload(scenario)
    costs = costs_of(_run(scenario, "twin"))
    agents = tuple(future_of(agent) for agent in workload.agents)
    future = Future(agents, costs, float(scenario.engine.pool_tokens), newcomer_tokens=0.0)
    points = []
    for cap in sorted({max(1, round(frac * len(agents))) for frac in FRACS}):
        metrics = _run(scenario, f"agent_cap={cap}").metrics
        outcome = Rollout(future, Policy(admit_frac=1e9, slack_frac=1.0, window=cap)).run()
        assert outcome.end_s is not None
        points.append(Point(cap, metrics["makespan_s"], outcome.end_s, metrics["recompute_time_fraction"]))
    return points


def cases() -> list[Case]:
    """Return the cases on H100s."""
    return [
        case
        for name, pools in POOLS.items()
        for case in load_cases(CASES / f"{name}.toml")
        if blocks(case) in pools and case.cell.scenario.step_time.kind == "profile"
    ]


def blocks(case: Case) -> int:
    """Return the size of the pool."""
    return case.cell.scenario.vllm.num_gpu_blocks


def draw(curves: Result) -> Figure:
    """Draw a panel a case: simulated points, the model's line."""
    figure = Figure(figsize=(7.5, 11.0), layout="constrained")
    axes = list(figure.subplots(len(POOLS), 2).flat)
    for ax, (name, points) in zip(axes, curves.items(), strict=True):
        caps = [point["cap"] for point in points]
        ax.plot(caps, [point["simulated_s"] for point in points], "o", color="#0072B2", label="simulated")
        ax.plot(caps, [point["model_s"] for point in points], "-", color="#D55E00", label="the law's model")
        ax.set(xscale="log", yscale="log", xlabel="cap (agents)", ylabel="makespan (s)")
        ax.set_title(name, fontsize=9)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_minor_formatter(StrMethodFormatter("{x:,.0f}"))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _run(scenario: Scenario, text: str) -> RunRecord:
    (controller,) = scenario.policies(text)
    return simulate(scenario.with_controller(controller))


def main() -> None:
    """Write the curves and draw them; print how far the model is off."""
    chosen = cases()
    found = dict(run_tasks(curve, chosen))
    curves: Result = {
        f"{chosen[number].name.partition(',')[0]}, {blocks(chosen[number]):,} blocks": [
            {key: float(f"{value:.6g}") for key, value in point._asdict().items()} for point in found[number]
        ]
        for number in sorted(found)
    }
    write("twin_fidelity", curves)
    with style():
        FIGURE.write_bytes(png_bytes(draw(curves)))
    for name, points in curves.items():
        errors = [point["model_s"] / point["simulated_s"] - 1 for point in points]
        print(f"{name}: {min(errors):+.1%} to {max(errors):+.1%}")


if __name__ == "__main__":
    main()

"""Recompute or reload: what admission control is worth beside an offload tier, law by law.

`python -m benchmarks.offload_study` runs 48 agents of `tau_airline` in a pool of 1,501 blocks without a tier,
with a small one and with an ample one, over a fast link and a slow one, under every law and some static
caps; three orders of the agents each. It writes `examples/results/offload.json` and draws
`examples/offload.png`. A ratio is the makespan under a law over that without control, on the same order:
above 1 control hurts.

The twin was mended on orders 100 to 107; these are 0 to 2.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Final, NamedTuple

from matplotlib.figure import Figure

from benchmarks.result_files import ROOT, Result, mean, write
from concur.sim.runs.intervals import mean_interval
from concur.sim.runs.parallel import run_tasks
from concur.sim.scenario.policy_texts import parse_controllers
from concur.sim.scenario.scenario import load_scenario
from concur.sim.show.figures import COLOURS, png_bytes, style
from concur.sim.world.simulate import simulate

SCENARIO: Final = ROOT / "examples" / "tau_airline.toml"
SEEDS: Final = (0, 1, 2)
CAPS: Final = (8, 16, 24)
LAWS: Final = ("none", "hybrid", "concur", "twin")
CHEAP_RATIO: Final = 1.02
"""What a law may lose where reloading is cheap."""


class Tier(NamedTuple):
    """Host memory in tokens, and each direction of its link."""

    capacity_tokens: int
    bandwidth_bytes_per_s: float


TIERS: Final = {
    "no tier": Tier(0, 48.5e9),
    "30k tokens, 48.5 GB/s": Tier(30_000, 48.5e9),
    "200k tokens, 48.5 GB/s": Tier(200_000, 48.5e9),
    "200k tokens, 2 GB/s": Tier(200_000, 2e9),
}
CHEAP: Final = "200k tokens, 48.5 GB/s"


class Case(NamedTuple):
    """One run."""

    tier: str
    policy: str
    seed: int


def cases() -> list[Case]:
    """Return all runs."""
    policies = [*LAWS, *(f"agent_cap={cap}" for cap in CAPS)]
    return [Case(tier, policy, seed) for tier in TIERS for policy in policies for seed in SEEDS]


def run(case: Case) -> dict[str, float]:
    """Return what a run comes to."""
    tier = TIERS[case.tier]
    keys: dict[str, object] = {
        "seed": case.seed,
        "workload.num_agents": 48,
        "workload.order": "shuffled",
        "engine.num_gpu_blocks": 1501,
        "engine.model_runner": "v1",
        "engine.host_cache.kind": "offloading",
        "engine.host_cache.capacity_tokens": tier.capacity_tokens,
        "engine.host_cache.bandwidth_bytes_per_s": tier.bandwidth_bytes_per_s,
    }
    scenario = load_scenario(SCENARIO, [f"{key}={value}" for key, value in keys.items()])
    (controller,) = parse_controllers(case.policy, scenario.controller)
    metrics = simulate(scenario.with_controller(controller)).metrics
    names = ("makespan_s", "hit_rate", "host_tokens", "recompute_time_fraction", "mean_active_agents")
    return {name: float(metrics[name]) for name in names}


def results() -> Result:
    """Run everything; return "tier: policy" -> metric -> mean with interval, and the ratio to no control."""
    todo = cases()
    measured: defaultdict[tuple[str, str], dict[int, dict[str, float]]] = defaultdict(dict)
    for number, metrics in run_tasks(run, todo):
        case = todo[number]
        measured[case.tier, case.policy][case.seed] = metrics
    return {
        f"{tier}: {policy}": _row(by_seed, measured[tier, "none"])
        for (tier, policy), by_seed in sorted(measured.items(), key=lambda item: _place(*item[0]))
    }


def _row(by_seed: Mapping[int, Mapping[str, float]], none: Mapping[int, Mapping[str, float]]) -> Result:
    row = {
        name: mean_interval([by_seed[seed][name] for seed in SEEDS]).to_json() for name in by_seed[SEEDS[0]]
    }
    ratios = [by_seed[seed]["makespan_s"] / none[seed]["makespan_s"] for seed in SEEDS]
    return row | {"ratio": mean_interval(ratios).to_json(), "worst_ratio": max(ratios)}


def _place(tier: str, policy: str) -> tuple[int, int, int]:
    cap = int(policy.partition("=")[2] or 0)
    return list(TIERS).index(tier), LAWS.index(policy) if policy in LAWS else len(LAWS), cap


def rows_of(result: Mapping[str, Result], tier: str) -> dict[str, Result]:
    """Return the rows of one tier by law; "best cap" is the static cap of the least mean makespan."""
    start = f"{tier}: "
    rows = {key.removeprefix(start): row for key, row in result.items() if key.startswith(start)}
    caps = {policy: row for policy, row in rows.items() if policy not in LAWS}
    best = min(caps, key=lambda policy: mean(caps[policy]["makespan_s"]))
    return {law: rows[law] for law in LAWS} | {"best cap": rows[best] | {"policy": best}}


def table(result: Mapping[str, Result]) -> str:
    """Return a line for each tier and law, and who loses where reloading is cheap."""
    lines = []
    for tier in TIERS:
        for law, row in rows_of(result, tier).items():
            loses = tier == CHEAP and mean(row["ratio"]) > CHEAP_RATIO
            lines.append(
                f"{tier:24} {row.get('policy', law):14} {mean(row['makespan_s']):7.1f} s  "
                f"ratio {mean(row['ratio']):.3f} (worst {row['worst_ratio']:.3f})  "
                f"hits {mean(row['hit_rate']):.3f}  host {mean(row['host_tokens']):9,.0f}  "
                f"recompute {mean(row['recompute_time_fraction']):.3f}{'  LOSES' if loses else ''}"
            )
    return "\n".join(lines)


def figure(result: Mapping[str, Result]) -> Figure:
    """Draw the ratio of each law to no control, tier by tier."""
    drawn = Figure(figsize=(9.5, 3.4), layout="constrained")
    axes = drawn.subplots()
    laws = [law for law in (*LAWS, "best cap") if law != "none"]
    colours = [COLOURS.get(law, COLOURS["agent_cap"]) for law in laws]
    for offset, (law, colour) in enumerate(zip(laws, colours, strict=True)):
        rows = [rows_of(result, tier)[law] for tier in TIERS]
        axes.bar(
            [place + 0.2 * (offset - 1.5) for place in range(len(TIERS))],
            [mean(row["ratio"]) for row in rows],
            width=0.19,
            yerr=[row["ratio"]["half_width"] or 0.0 for row in rows],
            color=colour,
            error_kw={"linewidth": 0.8},
            label=law,
        )
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(TIERS)), [tier.replace(", ", "\n") for tier in TIERS])
    axes.set_ylabel("makespan over that without control")
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(laws))
    return drawn


def main() -> None:
    """Run the study, write its results, print its table and draw its figure."""
    result = results()
    write("offload", result)
    with style():
        (ROOT / "examples" / "offload.png").write_bytes(png_bytes(figure(result)))
    print(table(result))


if __name__ == "__main__":
    main()

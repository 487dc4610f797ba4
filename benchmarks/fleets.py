"""What others published of fleets, and what the simulator says: routers, gates, and the plain cap nobody ran.

`python -m benchmarks.fleets` runs `examples/fleets.toml` under every arm, a quarter of an hour on two
cores, writes `examples/results/fleets.json`, draws `examples/fleets.png`, and prints signed errors and which
published shapes hold. The published numbers are in `validate/published/fleets.toml`. A rate is that of the
calls between minute 10 and 45.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.result_files import ROOT, Result, read, write
from benchmarks.tree_knee import within
from concur.sim.record.record import RunRecord
from concur.sim.runs.parallel import run_tasks
from concur.sim.scenario.scenario import load_scenario
from concur.sim.scenario.toml_files import read_toml
from concur.sim.show.figures import png_bytes, style
from concur.sim.world.simulate import simulate

SCENARIO: Final = ROOT / "examples" / "fleets.toml"
PUBLISHED: Final = ROOT / "validate" / "published" / "fleets.toml"
WINDOW_S: Final = (600.0, 2700.0)
SESSIONS: Final = (16, 32, 48, 64, 96, 128, 192, 256, 338)
CAP: Final = 14
"""Sessions a replica at which the published runs peak: 12 to 16. The arm that nobody ran."""
_LEDGER: Final = {"controller.kind": "ledger", "fleet.gate": "placement"}
_WHOLE_PROMPTS: Final = {"fleet.max_prefix_tokens": 10**6, "fleet.lru_tokens": 10**8}
_POOR_RING: Final = {"fleet.virtual_nodes": 1}
"""One place an engine on the ring: shares as uneven as those of a hash that locks one engine in."""
ARMS: Final[Mapping[str, dict[str, Any]]] = {
    "default": {"fleet.routing": "scorers", "fleet.gate": "global", **_WHOLE_PROMPTS},
    "affinity": {"fleet.routing": "session"},
    "most_room": {**_LEDGER, "fleet.placement": "most_room", "fleet.move_after_s": 0.0},
    "origin_only": {**_LEDGER, "fleet.move_after_s": 1e9},
    "plain_cap": {"fleet.routing": "session", "controller.kind": "agent_cap", "controller.cap": CAP},
}
OTHERS: Final[Mapping[str, tuple[int, dict[str, Any]]]] = {
    "lock_in: session": (48, {"fleet.routing": "session", **_POOR_RING}),
    "lock_in: session_moving 4/1.1": (
        48,
        {
            "fleet.routing": "session_moving",
            "fleet.balance_abs_threshold": 4,
            "fleet.balance_rel_threshold": 1.1,
            **_POOR_RING,
        },
    ),
    "lock_in: plain cap": (
        48,
        {
            "fleet.routing": "session",
            "controller.kind": "agent_cap",
            "controller.cap": CAP,
            **_POOR_RING,
        },
    ),
    "thresholds: 4/1.1": (
        48,
        {
            "fleet.routing": "cache_aware",
            "fleet.balance_abs_threshold": 4,
            "fleet.balance_rel_threshold": 1.1,
        },
    ),
    "thresholds: 32/1.5": (
        48,
        {
            "fleet.routing": "cache_aware",
            "fleet.balance_abs_threshold": 32,
            "fleet.balance_rel_threshold": 1.5,
        },
    ),
    "affinity: off": (48, {"fleet.routing": "round_robin", "fleet.gate": "global"}),
    "affinity: on": (48, {"fleet.routing": "session"}),
}
COLOURS: Final = {
    "default": "#999999",
    "affinity": "#E69F00",
    "most_room": "#56B4E9",
    "origin_only": "#0072B2",
    "plain_cap": "#D55E00",
}


class Case(NamedTuple):
    """One run: its name, how many sessions at a time, and the keys of the scenario that it sets."""

    name: str
    num_sessions: int
    keys: tuple[tuple[str, Any], ...]


def cases() -> list[Case]:
    """Return all runs, the longest first."""
    sweep = [
        Case(arm, number, tuple(keys.items())) for arm, keys in ARMS.items() for number in SESSIONS[::-1]
    ]
    return [*sweep, *(Case(name, number, tuple(keys.items())) for name, (number, keys) in OTHERS.items())]


def run(case: Case) -> Result:
    """Return what one run measures within the window, for the fleet and for each engine."""
    keys = {"workload.arrival.num_sessions": case.num_sessions, **dict(case.keys)}
    overrides = [f"{key}={value}" for key, value in keys.items()]
    if keys.get("fleet.gate") == "placement":
        overrides.append("fleet.routing=round_robin")
    record = simulate(load_scenario(SCENARIO, overrides), end_s=WINDOW_S[1])
    tokens_per_s, hits = within(record, *WINDOW_S)
    return {
        "tokens_per_s": round(tokens_per_s, 1),
        "hit_rate": round(hits, 4),
        "num_moves": record.metrics["num_moves"],
        "engine_hit_rates": [round(each, 3) for each in engine_hits(record)],
    }


def engine_hits(record: RunRecord) -> list[float]:
    """Return the hit rate of each engine within the window."""
    calls = record.requests[record.requests["scheduled_s"].between(*WINDOW_S)]
    sums = calls.groupby("engine_index")[["cached_tokens", "prompt_tokens"]].sum()
    return [float(value) for value in sums["cached_tokens"] / sums["prompt_tokens"]]


def results(only: Sequence[str] = ()) -> Result:
    """Run everything, or what these names begin; return name and sessions -> what was measured."""
    todo = [case for case in cases() if not only or case.name.startswith(tuple(only))]
    found = {}
    for number, measured in run_tasks(run, todo):
        case = todo[number]
        found[number] = (f"{case.name}, {case.num_sessions} sessions", measured)
        print(f"{found[number][0]:40} {measured}", flush=True)
    return dict(found[number] for number in range(len(todo)))


def errors(result: Mapping[str, Any]) -> Iterator[tuple[str, str, float, float, float]]:
    """Yield (arm and sessions, quantity, published, ours, error): of rates relative, of shares absolute."""
    sweep = read_toml(PUBLISHED, what="published numbers")["four_replicas"]
    for quantity in ("tokens_per_s", "hit_rate"):
        for arm, values in sweep[quantity].items():
            for number, published in zip(sweep["sessions"], values, strict=True):
                row = result.get(f"{arm}, {number} sessions")
                if row is None or not published:
                    continue
                difference = row[quantity] - published
                error = difference if quantity == "hit_rate" else difference / published
                yield f"{arm}, {number} sessions", quantity, published, row[quantity], error


def shapes(result: Mapping[str, Any]) -> dict[str, bool]:
    """Return which of the published shapes hold."""

    def of(arm: str, number: int, quantity: str = "tokens_per_s") -> float:
        return float(result[f"{arm}, {number} sessions"][quantity])

    peak = max(of("default", number) for number in SESSIONS)
    most, few = SESSIONS[-1], SESSIONS[0]
    beyond = [number for number in SESSIONS if number >= 128]
    locked = sorted(result["lock_in: session, 48 sessions"]["engine_hit_rates"])
    return {
        "below the knee every arm does the same, within 15 %": all(
            abs(of(arm, few) / of("default", few) - 1) < 0.15 for arm in ARMS
        ),
        "the default router peaks at 12 to 16 sessions a replica, ours 4 to 8 later": peak
        in (
            of("default", 48),
            of("default", 64),
            of("default", 96),
        ),
        "past the knee it loses a third of its peak and nearly all hits": of("default", most) < 0.67 * peak
        and of("default", most, "hit_rate") < 0.1,
        "there placement alone changes nothing (affinity within 15 %)": abs(
            of("affinity", most) / of("default", most) - 1
        )
        < 0.15,
        "there a gate is the whole effect: most room first beats no gate": all(
            of("most_room", number) > of("default", number) for number in beyond
        ),
        "and origin only beats most room first": all(
            of("origin_only", number) > of("most_room", number) for number in beyond
        ),
        "nobody ran it: a plain cap beats origin only": all(
            of("plain_cap", number) > of("origin_only", number) for number in beyond
        ),
        "hashing locks one engine into thrash while another one is well": locked[0] < 0.5 * locked[-1],
        "a rule for moving mends it": result["lock_in: session_moving 4/1.1, 48 sessions"]["tokens_per_s"]
        > result["lock_in: session, 48 sessions"]["tokens_per_s"],
        "loose cache-aware thresholds hit more and serve more than strict ones": of("thresholds: 32/1.5", 48)
        > of("thresholds: 4/1.1", 48)
        and of("thresholds: 32/1.5", 48, "hit_rate") > of("thresholds: 4/1.1", 48, "hit_rate"),
        "affinity hits more and serves more than none": of("affinity: on", 48) > of("affinity: off", 48)
        and of("affinity: on", 48, "hit_rate") > of("affinity: off", 48, "hit_rate"),
    }


def figure(result: Mapping[str, Any]) -> Figure:
    """Draw both quantities over the concurrency: ours as lines, what was published as marks."""
    sweep = read_toml(PUBLISHED, what="published numbers")["four_replicas"]
    drawn = Figure(figsize=(9.0, 3.6), layout="constrained")
    rates, hits = drawn.subplots(1, 2)
    for axes, quantity, label in (
        (rates, "tokens_per_s", "output tokens per second"),
        (hits, "hit_rate", "hit rate"),
    ):
        for arm in ARMS:
            _draw(axes, result, sweep, arm, quantity)
        axes.set(xlabel="sessions at a time, four replicas", ylabel=label, xscale="log")
        axes.set_xticks(sweep["sessions"], [str(number) for number in sweep["sessions"]])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
    rates.plot([], [], "x", color="#333333", label="published")
    drawn.legend(*rates.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return drawn


def _draw(axes: Axes, result: Mapping[str, Any], sweep: Mapping[str, Any], arm: str, quantity: str) -> None:
    values = [result[f"{arm}, {number} sessions"][quantity] for number in SESSIONS]
    axes.plot(SESSIONS, values, marker="o", markersize=3, color=COLOURS[arm], label=arm.replace("_", " "))
    published = sweep[quantity].get(arm, [])
    points = [pair for pair in zip(sweep["sessions"], published, strict=False) if pair[1]]
    axes.plot([x for x, _ in points], [y for _, y in points], "x", color=COLOURS[arm])


def main() -> None:
    """Run everything, or the arms named, write, draw, and say what holds."""
    only = sys.argv[1:]
    result = (read("fleets") if only else {}) | results(only)
    result.pop("shapes", None)
    held = shapes(result)
    write("fleets", result | {"shapes": held})
    with style():
        (ROOT / "examples" / "fleets.png").write_bytes(png_bytes(figure(result)))
    for name, quantity, published, predicted, error in errors(result):
        shown = f"{error:+.3f}" if quantity == "hit_rate" else f"{100 * error:+.1f} %"
        print(f"{name:28} {quantity:14} published {published:8g} predicted {predicted:8g} {shown}")
    for shape, holds in held.items():
        print(f"{'yes' if holds else 'NO ':4} {shape}")


if __name__ == "__main__":
    main()

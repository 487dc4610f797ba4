"""What a report says before its first table: what was run, where, and what came of it in a sentence."""

import html
from collections.abc import Mapping, Sequence
from typing import Any, Final

from concur.errors import ConcurError
from concur.sim.record.provenance import short_commit
from concur.sim.record.record import RunRecord
from concur.sim.runs.intervals import ByPolicy, best_static_label, metric_interval, speed_up
from concur.sim.runs.policies import best_static_run, is_static_cap
from concur.sim.show.tables import percent, plus_minus
from concur.sim.step_time.profile import load_profile

WORTH_IT_FRAC: Final = 0.02
"""Less than this is what makespans stray by with the order of the agents; ours."""


def facts(records: Sequence[RunRecord]) -> dict[str, str]:
    """Return what was run and where, of all records together; what is not known is left out."""
    run = records[0].run
    seeds = sorted({record.run["seed"] for record in records})
    commits = dict.fromkeys(short_commit(record.run.get("git_commit")) for record in records)
    worlds = dict.fromkeys(str(record.run["world"]) for record in records)
    found = {
        **_machine(run),
        "engine": ", ".join(dict.fromkeys(_engine(record.run) for record in records)),
        "pool": ", ".join(dict.fromkeys(_pool(record.run["scenario"]["engine"]) for record in records)),
        "agents": f"{records[0].metrics['num_agents']:,} of {run['workload']['source']}",
        "seed" if len(seeds) == 1 else "seeds": ", ".join(map(str, seeds)),
        "world": ", ".join(worlds),
        "commit": ", ".join(commits),
    }
    return {name: text for name, text in found.items() if text}


def facts_html(records: Sequence[RunRecord]) -> str:
    """Return the facts as a list for a page."""
    rows = (
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd></div>"
        for name, text in facts(records).items()
    )
    return f'<dl class="facts">{"".join(rows)}</dl>'


def _machine(run: Mapping[str, Any]) -> dict[str, str]:
    """Return model, GPU and profile, as far as the profile of the run is at hand."""
    name = run["scenario"]["step_time"].get("profile")
    if not name:
        return {"profile": "linear step times, not fitted"}
    try:
        profile = load_profile(name)
    except ConcurError:
        return {"profile": str(name)}
    if profile.sha256 != run.get("profile_hash"):
        return {"profile": str(name)}
    made = profile.provenance
    device, num_gpus = made.get("device"), made.get("tensor_parallel_size") or 1
    return {
        "model": str(made.get("model_name") or ""),
        "GPU": f"{num_gpus} x {device}" if device else "",
        "profile": profile.name,
    }


def _engine(run: Mapping[str, Any]) -> str:
    """Return whose engine it is and of which release, and how many there are if there are several."""
    engine = run["scenario"]["engine"]
    kind = str(engine.get("kind", "vllm"))
    told = {"vllm": "vLLM", "sglang": "SGLang"}.get(kind, kind)
    release = engine.get("release") or (run["versions"].get("vllm_semantics") if kind == "vllm" else None)
    if release and run["world"] == "sim":
        told += f" {release}"
    fleet = run["scenario"].get("fleet") or {}
    num_engines = fleet.get("num_engines") or len(fleet.get("engines") or ()) or 1
    return told if num_engines == 1 else f"{num_engines} x {told}"


def _pool(engine: Mapping[str, Any]) -> str:
    blocks, size, groups = (engine.get(name) for name in ("num_gpu_blocks", "block_size", "kv_cache_groups"))
    if blocks and groups:  # what a block holds depends on the group that has it
        return f"{blocks:,} blocks for {len(groups)} groups of layers"
    if blocks and size:
        return f"{(blocks - 1) * size:,} tokens ({blocks:,} blocks of {size})"
    tokens = engine.get("max_total_num_tokens")
    return f"{tokens:,} tokens" if tokens else ""


def verdict(records: Sequence[RunRecord]) -> str:
    """Return what came of runs of one workload, in a sentence or two."""
    ended = [record for record in records if record.is_complete and record.metrics["makespan_s"]]
    if not ended:
        return "No run came to its end."
    if len(records) == 1:
        return _of_one(ended[0])
    none = next((record for record in ended if record.label == "none"), None)
    fastest = min(ended, key=_makespan_s)
    if none is None:
        return f"{_named(fastest)} is the fastest: {_makespan_s(fastest):,.0f} s. No run was without control."
    before = f"Without control it takes {_makespan_s(none):,.0f} s, {_recompute(none)} of it in recompute"
    if _makespan_s(none) <= (1 + WORTH_IT_FRAC) * _makespan_s(fastest):
        return f"{before}; no policy is more than {100 * WORTH_IT_FRAC:.0f} % faster: leave control off."
    best = best_static_run(ended)
    laws = [record for record in ended if record is not none and not is_static_cap(record.label)]
    named = [each for each in (best, min(laws, key=_makespan_s, default=None)) if each is not None]
    told = [
        f"{_named(each)} takes {_makespan_s(each):,.0f} s ({_over(none, each)} as fast)" for each in named
    ]
    return f"{before}; {', '.join(told)}."


def seeds_verdict(runs: ByPolicy) -> str:
    """Return what came of one comparison over several seeds, with 95 % intervals."""
    best = best_static_label(runs)
    others = [label for label in runs if label != "none" and not is_static_cap(label)]
    means = {label: metric_interval(runs[label], "makespan_s") for label in runs}
    known = {label: interval.mean for label, interval in means.items() if interval is not None}
    fastest = min((label for label in others if label in known), key=lambda label: known[label], default=None)
    named = [label for label in (best, fastest) if label is not None]
    if "none" not in known or not named:
        first = min(known, key=lambda label: known[label], default=None)
        return (
            "No run came to its end." if first is None else f"{first} is the fastest: {known[first]:,.0f} s."
        )
    told = [
        f"{'the best static cap, ' * (label == best)}{label}: "
        f"{plus_minus(speed_up(runs[label], runs['none']), 2)} times as fast"
        for label in named
    ]
    return f"Without control it takes {plus_minus(means['none'], 0)} s; {'; '.join(told)}."


def _of_one(record: RunRecord) -> str:
    m = record.metrics
    middle = m["phases"]["middle"]
    told = f"{record.label} took {_makespan_s(record):,.0f} s"
    if m["hit_rate"] is not None:
        told += (
            f"; {percent(m['hit_rate'])} of prompt tokens hit, {_recompute(record)} of the time was recompute"
        )
    if middle["end_s"] is not None and middle["end_s"] > middle["start_s"]:
        return (
            f"{told}; histories outgrew the pool from {middle['start_s']:,.0f} to {middle['end_s']:,.0f} s."
        )
    return f"{told}; all histories fit throughout."


def _makespan_s(record: RunRecord) -> float:
    return float(record.metrics["makespan_s"])


def _recompute(record: RunRecord) -> str:
    share = record.metrics["recompute_time_fraction"]
    return "an unknown share" if share is None else f"{100 * share:.0f} %"


def _over(none: RunRecord, other: RunRecord) -> str:
    return f"{_makespan_s(none) / _makespan_s(other):.2f} times"


def _named(record: RunRecord) -> str:
    return f"the best static cap ({record.label})" if is_static_cap(record.label) else record.label

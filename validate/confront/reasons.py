"""Why a policy is off, as far as the records of both worlds tell: one line for each thing found.

What is looked at, in the order in which it would explain the rest: other callers on the server; live repeats
that do not meet each other; the pace of the engine, as time per decoded token (the length of the steps that
a call was in), then the wait for a first token, then the pauses between calls; and what the cache gave.
Times are means over calls, ratios are of the median of the live runs to the simulation. They are told beside
how many calls were in flight at once, for a step of many sequences is a longer step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from statistics import median

import numpy as np
import pandas as pd

from concur.sim.record.record import RunRecord
from concur.validate.confront.verdicts import MAKESPAN_TOLERANCE_FRAC, Figure, PolicyVerdict, tolerance
from concur.validate.live.account import explain_foreign

_RECALIBRATE = "recalibrate the step-time profile on this server"


@dataclass(frozen=True, slots=True)
class Pace:
    """Where the time of a run's calls went: means over its calls in seconds, NaN where not recorded.

    `token_s`: per decoded token after the first. `first_token_s`: from the gate to the first token.
    `between_s`: from an answer to the agent's next call. `num_at_once`: calls in flight, time average.
    """

    token_s: float
    first_token_s: float
    between_s: float
    num_at_once: float


def pace(record: RunRecord) -> Pace:
    """Return where the time of a complete run's calls went."""
    calls = record.requests.sort_values(["agent_index", "call_index"], kind="stable")
    submitted, first, finished, ready = (
        calls[name].to_numpy(np.float64) for name in ("submitted_s", "first_token_s", "finished_s", "ready_s")
    )
    more_tokens = np.where(np.isnan(first), 0, calls["output_tokens"].to_numpy(np.float64) - 1)
    is_same = calls["agent_index"].to_numpy()[1:] == calls["agent_index"].to_numpy()[:-1]
    pauses = (ready[1:] - finished[:-1])[is_same]
    return Pace(
        token_s=_quotient(np.nansum(finished - first), more_tokens.sum()),
        first_token_s=_quotient(np.nansum(first - submitted), float(np.isfinite(first).sum())),
        between_s=_quotient(pauses.sum(), pauses.size),
        num_at_once=_quotient((finished - submitted).sum(), record.metrics["makespan_s"]),
    )


def explain(verdict: PolicyVerdict, simulated: RunRecord, live: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the likely reasons for a policy that is off, at least one; of one that is right, few or none."""
    if verdict.is_right:
        return tuple(_strays(verdict, only_if_decisive=True))
    ours, theirs = pace(simulated), _median_pace([pace(record) for record in live])
    lines = [*_strangers(live), *_strays(verdict), *_paces(verdict, ours, theirs)]
    lines += _cache(verdict, live, is_slow_or_fast=_is_off(ours.token_s, theirs.token_s))
    return tuple(lines) or (_agreement(ours, theirs),)


def _strangers(live: Sequence[RunRecord]) -> Iterator[str]:
    found = [explain_foreign(record.run.get("foreign_tokens")) for record in live]
    yield from [line for line in found if line][:1]


def _strays(verdict: PolicyVerdict, *, only_if_decisive: bool = False) -> Iterator[str]:
    """Tell repeats apart by more than the tolerance; `only_if_decisive`: without that it would be off."""
    for name, words in (("makespan_s", "took {:,.1f} to {:,.1f} s"), ("hit_rate", "hit {:.3f} to {:.3f}")):
        figure = verdict.figures.get(name)
        if figure is None or _meets_itself(figure, name) or (only_if_decisive and _is_near(figure, name)):
            continue
        spread = words.format(min(figure.live), max(figure.live))
        yield (
            f"the engine does not repeat itself, its runs {spread}: quiet the machine, or ask for more "
            "--repeats"
        )


def _paces(verdict: PolicyVerdict, ours: Pace, theirs: Pace) -> Iterator[str]:
    """Name the first part of a call whose time is off, if the makespan is."""
    makespan = verdict.figures.get("makespan_s")
    if makespan is None or makespan.is_within(**tolerance("makespan_s")):
        return
    if _is_off(ours.token_s, theirs.token_s):
        ratio = theirs.token_s / ours.token_s
        yield (
            f"steps took {ratio:.2f}x the simulated time ({1e3 * theirs.token_s:.1f} ms per decoded token, "
            f"simulated {1e3 * ours.token_s:.1f}) with {theirs.num_at_once:.1f} calls at once (simulated "
            f"{ours.num_at_once:.1f}): {_RECALIBRATE}{', or quiet the machine' if ratio > 1 else ''}"
        )
    elif _is_off(ours.first_token_s, theirs.first_token_s):
        yield (
            f"calls waited {theirs.first_token_s / ours.first_token_s:.2f}x the simulated time for their "
            f"first token ({theirs.first_token_s:.2f} s, simulated {ours.first_token_s:.2f}) at the right "
            f"time per decoded token: {_RECALIBRATE}, prompts above all"
        )
    elif _is_off(ours.between_s, theirs.between_s):
        yield (
            f"agents took {theirs.between_s / ours.between_s:.2f}x the simulated time between calls "
            f"({theirs.between_s:.2f} s, simulated {ours.between_s:.2f}): quiet the machine that plays them"
        )


def _cache(verdict: PolicyVerdict, live: Sequence[RunRecord], *, is_slow_or_fast: bool) -> Iterator[str]:
    hits = verdict.figures.get("hit_rate")
    if hits is None or hits.is_within(**tolerance("hit_rate")):
        return
    told = f"the cache gave {100 * hits.live_median:.1f} %, simulated {100 * hits.simulated:.1f}"
    ideal = live[0].metrics["ideal_hit_rate"]
    if ideal is not None and hits.live_median >= ideal - 1e-9:
        yield f"{told}: it lost nothing, so its pool is larger than the scenario's, or has a second tier"
    elif is_slow_or_fast:
        yield f"{told}: at another pace others are evicted; first mend the pace"
    else:
        facts = live[0].run.get("engine", {})
        known = [f"{name} {facts[name]}" for name in ("num_gpu_blocks", "block_size") if name in facts]
        yield (
            f"{told}, at the right pace: the cache is not the simulated one; compare its pool, block size "
            f"and other callers ({', '.join(known) or 'sizes not known'})"
        )


def _agreement(ours: Pace, theirs: Pace) -> str:
    ratios = [_ratio(getattr(ours, name), getattr(theirs, name)) for name in Pace.__slots__[:3]]
    words = zip(("per decoded token", "to the first token", "between calls"), ratios, strict=True)
    told = ", ".join(f"{word} {ratio}" for word, ratio in words)
    return f"call by call the worlds agree ({told}): who ran when differs; see the policy over time"


def _median_pace(paces: Sequence[Pace]) -> Pace:
    return Pace(**{each.name: median(getattr(one, each.name) for one in paces) for each in fields(Pace)})


def _meets_itself(figure: Figure, name: str) -> bool:
    allowed = tolerance(name)
    spread = max(figure.live) - min(figure.live)
    return spread <= max(allowed.get("points", 0.0), allowed.get("frac", 0.0) * abs(figure.live_median))


def _is_near(figure: Figure, name: str) -> bool:
    return figure.is_near(**tolerance(name))


def _is_off(simulated: float, live: float) -> bool:
    """Tell whether a time is off by more than makespans may be; one that is not known is not."""
    return bool(abs(live - simulated) > MAKESPAN_TOLERANCE_FRAC * live) if simulated > 0 else False


def _ratio(simulated: float, live: float) -> str:
    return f"{live / simulated:.2f}x" if simulated > 0 and not pd.isna(live) else "not known"


def _quotient(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")

"""Simulated against live: runs of both worlds put side by side, and the result as JSON and back."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from concur.sim.record.provenance import short_commit
from concur.sim.record.record import RunRecord
from concur.sim.runs.policies import in_order
from concur.sim.scenario.policy_texts import parse_controllers
from concur.sim.scenario.sections import ControllerConfig
from concur.validate.confront import same_engine
from concur.validate.confront.reasons import explain
from concur.validate.confront.same_experiment import explain_difference, of_record
from concur.validate.confront.verdicts import (
    HIT_RATE_TOLERANCE,
    MAKESPAN_TOLERANCE_FRAC,
    SPEED_UP_TOLERANCE_FRAC,
    Confrontation,
    Figure,
    PolicyVerdict,
)
from concur.validate.errors import ConfrontError

_METRICS: Final = ("makespan_s", "throughput_tokens_per_s", "hit_rate", "mean_active_agents", "mean_kv_usage")


def confront(simulated: Sequence[RunRecord], live: Sequence[RunRecord]) -> Confrontation:
    """Put runs of one experiment side by side, by policy; live ones may repeat, in the order of their rounds.

    Raises
    ------
    ConfrontError
        If a live run is not complete, its engine or its scenario is not the simulated one, the policies are
        not of one experiment, a policy ran in one world only, or nothing of it can be judged.
    """
    if not live:
        raise ConfrontError("there is no live run to compare with; run `concur validate run` first")
    by_label = {record.label: record for record in simulated}
    runs: dict[str, list[RunRecord]] = {}
    for record in in_order(live):
        _check(record, by_label)
        runs.setdefault(record.label, []).append(record)
    ours = [by_label[label] for label in runs]
    _check_one_experiment(ours)
    verdicts = tuple(_verdict(by_label[label], repeats) for label, repeats in runs.items())
    return Confrontation(verdicts, tuple(_notes(verdicts, ours, runs)))


def confrontation_json(result: Confrontation) -> dict[str, Any]:
    """Return the result as JSON values: per policy both worlds and their errors, and a top-level `ok`.

    A figure that was not measured in both worlds is null.
    """
    return {
        "ok": result.ok,
        "tolerances": {
            "hit_rate": HIT_RATE_TOLERANCE,
            "makespan_frac": MAKESPAN_TOLERANCE_FRAC,
            "speed_up_frac": SPEED_UP_TOLERANCE_FRAC,
        },
        "policies": {each.label: _verdict_json(each) for each in result.policies},
        "misranked": [list(pair) for pair in result.misranked],
        "knee": dict(zip(("simulated", "live"), result.knees or (None, None), strict=True))
        | {"ok": result.is_knee_right},
        "speed_ups": {label: _figure_json(figure) for label, figure in result.speed_ups.items()},
        "notes": list(result.notes),
    }


def read_confrontation(path: Path) -> Confrontation:
    """Read back what `concur validate compare --json` printed.

    Raises
    ------
    ConfrontError
        If the file is missing, is not such a result, or nothing in it can be judged.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        verdicts = tuple(_read_verdict(label, each) for label, each in given["policies"].items())
        return Confrontation(verdicts, tuple(given.get("notes", ())))
    except ConfrontError as error:
        raise ConfrontError(f"{path}: {error}") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfrontError(
            f"{path}: not a confrontation ({error}); make one with `concur validate compare DIR --json`"
        ) from None


def _verdict_json(verdict: PolicyVerdict) -> dict[str, Any]:
    figures = {name: verdict.figures.get(name) for name in _METRICS}
    return {
        "ok": verdict.is_right,
        "not_judged": list(verdict.not_judged),
        "reasons": list(verdict.reasons),
        "rounds": list(verdict.rounds),
    } | {name: figure and _figure_json(figure) for name, figure in figures.items()}


def _read_verdict(label: str, given: dict[str, Any]) -> PolicyVerdict:
    (controller,) = parse_controllers(label, ControllerConfig())
    figures: dict[str, Figure] = {
        name: Figure(given[name]["simulated"], tuple(given[name]["live_runs"]))
        for name in _METRICS
        if given.get(name) is not None
    }
    num_timed = len(figures["makespan_s"].live) if "makespan_s" in figures else 0
    return PolicyVerdict(
        label,
        controller.kind,
        controller.parameters.get("cap"),
        figures,
        tuple(given.get("rounds", range(num_timed))),
        tuple(given.get("reasons", ())),
    )


def _check(live: RunRecord, simulated: Mapping[str, RunRecord]) -> None:
    if not live.is_complete:
        raise ConfrontError(f"the live run of {live.label} is not complete; run it again")
    if live.label not in simulated:
        raise ConfrontError(f"{live.label} ran live but was not simulated; simulate it too")
    told = _difference(live, simulated[live.label])
    if told:
        raise ConfrontError(
            f"{live.label} ran different experiments in the two worlds, {told} (there: live, here: "
            "simulated); run both from one scenario"
        )
    engine = simulated[live.label].run["scenario"]["engine"]
    differing = same_engine.differences(engine, live.run.get("engine", {}))
    if differing:
        raise ConfrontError(
            f"{live.label} ran live on another engine than the scenario's: {'; '.join(differing)}; run it "
            "again with `concur validate run`, which says how to make them one"
        )


def _check_one_experiment(simulated: Sequence[RunRecord]) -> None:
    """Refuse policies that differ in more than their controller."""
    first = simulated[0]
    for record in simulated[1:]:
        told = _difference(record, first, but="controller")
        if told is None and record.run.get("profile_hash") != first.run.get("profile_hash"):
            told = "their step-time profiles differ"
        if told:
            raise ConfrontError(
                f"{record.label} and {first.label} are not of one experiment, {told} (there: {record.label}, "
                f"here: {first.label}); run them from one scenario"
            )


def _difference(there: RunRecord, here: RunRecord, *, but: str | None = None) -> str | None:
    return explain_difference(of_record(there), of_record(here), but=but)


def _verdict(simulated: RunRecord, live: Sequence[RunRecord]) -> PolicyVerdict:
    controller = simulated.run["scenario"]["controller"]
    figures: dict[str, Figure] = {}
    for name in _METRICS:
        ours, theirs = simulated.metrics[name], [record.metrics[name] for record in live]
        measured = tuple(float(value) for value in theirs if value is not None)
        if ours is not None and measured:
            figures[name] = Figure(float(ours), measured)
    cap = controller["parameters"].get("cap")
    verdict = PolicyVerdict(simulated.label, controller["kind"], cap, figures, _rounds(live))
    reasons = explain(verdict, simulated, live)
    return PolicyVerdict(simulated.label, controller["kind"], cap, figures, verdict.rounds, reasons)


def _rounds(live: Sequence[RunRecord]) -> tuple[int, ...]:
    """Return the rounds of runs, or their places where they have none, or the same one twice."""
    rounds = tuple(int(record.run.get("round", place)) for place, record in enumerate(live))
    return rounds if len(set(rounds)) == len(rounds) else tuple(range(len(rounds)))


def _notes(
    verdicts: Sequence[PolicyVerdict], simulated: Sequence[RunRecord], live: Mapping[str, list[RunRecord]]
) -> list[str]:
    """Say what was not judged or checked, and what the records warn of; every line once."""
    unjudged = [each.label for each in verdicts if each.not_judged]
    lines = [
        f"{name} not judged, because it was not measured live: {', '.join(unjudged)}"
        for name in dict.fromkeys(name for each in verdicts for name in each.not_judged)
    ]
    runs = [record for repeats in live.values() for record in repeats]
    for record in runs:
        lines += same_engine.notes(simulated[0].run["scenario"], record.run.get("engine", {}))
    lines += [f"simulated: {line}" for line in _all_warnings(simulated)]
    lines += [f"live: {line}" for line in _all_warnings(runs)]
    commits = list(dict.fromkeys(short_commit(record.run.get("git_commit")) for record in runs))
    if len(commits) > 1:
        lines.append(f"the live runs are of several commits: {', '.join(commits)}")
    return list(dict.fromkeys(lines))


def _all_warnings(records: Sequence[RunRecord]) -> list[str]:
    """Return each warning once, with whose it is where it is not everybody's."""
    found: dict[str, list[str]] = {}
    for record in records:
        for line in record.run["warnings"]:
            found.setdefault(line, []).append(record.label)
    return [
        line if len(labels) == len(records) else f"{', '.join(dict.fromkeys(labels))}: {line}"
        for line, labels in found.items()
    ]


def _figure_json(figure: Figure) -> dict[str, Any]:
    return {
        "simulated": figure.simulated,
        "live": figure.live_median,
        "live_runs": list(figure.live),
        "error": figure.error,
        "error_frac": figure.error_frac,
    }

"""A run as a trace that the Perfetto UI opens: a lane per agent, the engine's gauges, the decisions.

Chrome's trace-event format ("Trace Event Format", Google, 2016) in gzip: complete events (`X`), counters
(`C`), instants (`i`) and metadata (`M`). Times are whole microseconds; both ends of a slice are rounded, not
its length, so slices nest and follow each other exactly and a lane adds up to its agent's latency. The same
record gives the same bytes.

Every call is one slice, and inside it is what it waited for and did. A boundary that a live engine does not
tell joins its two sides in one slice ("queue + prefill"). A record has no times of single tokens: *recompute*
and *useful prefill* share the time of a prefill in proportion to their tokens, recompute first, as histories
come before new tokens. A preempted call may have recomputed some of its tokens after the first token instead.
"""

import gzip
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from concur.signals import UNLIMITED
from concur.sim.errors import RecordError
from concur.sim.files import whole_file
from concur.sim.record.rates import window_of, windowed_hit_rate, windowed_rate
from concur.sim.record.record import RunRecord

SUFFIX: Final = ".json.gz"

# Perfetto keeps id 0 for itself, and takes a thread whose id is its process's for the main thread.
_ENGINE_PID: Final = 1
_CONTROLLER_TID: Final = 1
_AGENTS_PID: Final = 2
_FIRST_AGENT_TID: Final = 3

_PARTS: Final = (
    ("gate wait", "submitted_s"),
    ("queue", "scheduled_s"),
    ("prefill", "first_token_s"),
    ("decode", "finished_s"),
)
"""The parts of a call in order, each with the time at which it ends; the first begins at `ready_s`."""

_CALL_ARGS: Final = (
    "call_index",
    "prompt_tokens",
    "kept_tokens",
    "cached_tokens",
    "host_tokens",
    "recomputed_tokens",
    "output_tokens",
    "num_preemptions",
)
_SPLIT_NOTE: Final = "the prefill's time, shared in proportion to tokens; not a measured order"

Event = dict[str, Any]


def write_perfetto(record: RunRecord, path: Path) -> None:
    """Write the record's trace to `path`, whole or not at all.

    Raises
    ------
    RecordError
        If the name does not end in `.json.gz`, or the place cannot be written to.
    """
    check_trace_name(path)
    with (
        whole_file(path, RecordError) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
    ):
        packed.write(f'{{"displayTimeUnit":"ms","otherData":{_dumps(_origin(record))},'.encode())
        packed.write(b'"traceEvents":[\n')
        for number, event in enumerate(trace_events(record)):
            packed.write((",\n" if number else "").encode() + _dumps(event).encode())
        packed.write(b"\n]}\n")


def check_trace_name(path: Path) -> None:
    """Refuse a name that does not say what is in the file.

    Raises
    ------
    RecordError
        If it does not end in `.json.gz`.
    """
    if not path.name.endswith(SUFFIX):
        raise RecordError(f"{path}: a trace is JSON in gzip; give it a name that ends in {SUFFIX}")


def trace_events(record: RunRecord) -> Iterator[Event]:
    """Yield the events of a run: metadata, then the engine, then the agents lane by lane."""
    names = _lane_names(record)
    yield from _metadata(names)
    yield from _counters(record.timeline)
    yield from _decisions(record.ticks)
    calls = record.requests.sort_values(["agent_index", "call_index"], kind="stable").to_dict("records")
    for index, own in groupby(calls, key=itemgetter("agent_index")):
        yield from _lane(list(own), _FIRST_AGENT_TID + int(index))


def _lane_names(record: RunRecord) -> dict[int, str]:
    """Name the lanes so that their names sort as the agents do; an agent that failed has calls but no row."""
    ids = dict(zip(record.agents["agent_index"], record.agents["agent_id"], strict=True))
    indices = sorted({*ids, *record.requests["agent_index"]})
    width = len(str(indices[-1])) if indices else 1
    return {int(index): f"{index:0{width}d} {ids.get(index, '(not finished)')}" for index in indices}


def _metadata(lanes: dict[int, str]) -> Iterator[Event]:
    for pid, name in ((_ENGINE_PID, "engine"), (_AGENTS_PID, "agents")):
        yield _meta(pid, 0, "process_name", name=name)
        yield _meta(pid, 0, "process_sort_index", sort_index=pid)
    yield _meta(_ENGINE_PID, _CONTROLLER_TID, "thread_name", name="controller")
    for index, name in lanes.items():
        yield _meta(_AGENTS_PID, _FIRST_AGENT_TID + index, "thread_name", name=name)
        yield _meta(_AGENTS_PID, _FIRST_AGENT_TID + index, "thread_sort_index", sort_index=index)


def _meta(pid: int, tid: int, what: str, **args: object) -> Event:
    return {"ph": "M", "pid": pid, "tid": tid, "name": what, "args": args}


def _counters(timeline: pd.DataFrame) -> Iterator[Event]:
    """Yield one counter per sample and track; what the engine does not publish is left out."""
    if timeline.empty:
        return
    times_us = [_us(time_s) for time_s in timeline["t_s"]]
    for track, columns in _tracks(timeline).items():
        values = [[_value(value) for value in column] for column in columns.values()]
        for time_us, *sample in zip(times_us, *values, strict=True):
            args = {name: value for name, value in zip(columns, sample, strict=True) if value is not None}
            if args:
                yield {"ph": "C", "pid": _ENGINE_PID, "tid": 0, "name": track, "ts": time_us, "args": args}


def _tracks(timeline: pd.DataFrame) -> dict[str, dict[str, Iterable[Any]]]:
    window_s = window_of(timeline)
    window = timeline["window"].to_numpy(np.float64)
    return {
        "KV usage": {
            "referenced": timeline["kv_cache_usage_frac"],
            "resident": timeline["kv_cache_resident_frac"],
        },
        "hit rate": {"windowed": np.round(windowed_hit_rate(timeline, window_s), 4)},
        "requests": {
            "running": timeline["num_requests_running"],
            "waiting": timeline["num_requests_waiting"],
        },
        "output tokens/s": {"windowed": np.round(windowed_rate(timeline, "generation_tokens", window_s), 2)},
        "recomputed tokens/s": {
            "windowed": np.round(windowed_rate(timeline, "recomputed_tokens", window_s), 2)
        },
        "agents": {state: timeline[f"agents_{state}"] for state in ("active", "paused", "waiting")},
        "window": {"agents": np.where(window < UNLIMITED, window, np.nan)},
    }


def _decisions(ticks: pd.DataFrame) -> Iterator[Event]:
    """Yield an instant for every decision that changed the window, with what it was based on."""
    changes = ticks[ticks["window"] != ticks["window_before"]]
    for tick in changes.to_dict("records"):
        args = {name: tick[name] for name in ("window_before", "window", "agents_active")}
        args = {name: _value(value) for name, value in args.items()}
        yield {
            "ph": "i",
            "s": "t",
            "pid": _ENGINE_PID,
            "tid": _CONTROLLER_TID,
            "name": "window up" if tick["window"] > tick["window_before"] else "window down",
            "ts": _us(tick["t_s"]),
            "args": args | {"state": json.loads(tick["state"], parse_constant=str)},
        }


def _lane(calls: list[dict[Any, Any]], tid: int) -> Iterator[Event]:
    """Yield the calls of one agent and its tool waits between them."""
    for number, call in enumerate(calls):
        if number:
            yield from _slice(tid, "tool wait", calls[number - 1]["finished_s"], call["ready_s"])
        args = {name: value for name in _CALL_ARGS if (value := _value(call[name])) is not None}
        yield from _slice(tid, "call", call["ready_s"], call["finished_s"], args)
        for name, start_s, end_s in _parts(call):
            shares = _prefill_shares(call) if name == "prefill" else None
            if shares is None:
                yield from _slice(tid, name, start_s, end_s)
            else:
                yield from _prefill(tid, start_s, end_s, shares)


def _parts(call: dict[Any, Any]) -> Iterator[tuple[str, float, float]]:
    """Yield (name, start_s, end_s) of a call's parts; one whose end is not known joins the next."""
    start_s, names = call["ready_s"], []
    for name, end in _PARTS:
        names.append(name)
        if not math.isnan(call[end]):
            yield " + ".join(names), start_s, call[end]
            start_s, names = call[end], []


def _prefill_shares(call: dict[Any, Any]) -> tuple[int, int] | None:
    """Return (recomputed, useful) tokens of the prefill, or `None` where the record does not tell them."""
    if pd.isna(call["recomputed_tokens"]) or pd.isna(call["cached_tokens"]):
        return None
    computed = max(call["prompt_tokens"] - call["cached_tokens"], 1)
    recomputed = min(call["recomputed_tokens"], computed)
    return recomputed, computed - recomputed


def _prefill(tid: int, start_s: float, end_s: float, shares: tuple[int, int]) -> Iterator[Event]:
    recomputed, useful = shares
    between_s = start_s + (end_s - start_s) * recomputed / (recomputed + useful)
    bounds_s = pairwise((start_s, between_s, end_s))
    for (name, tokens), (from_s, to_s) in zip(
        (("recompute", recomputed), ("useful prefill", useful)), bounds_s, strict=True
    ):
        yield from _slice(tid, name, from_s, to_s, {"tokens": int(tokens), "split": _SPLIT_NOTE})


def _slice(
    tid: int, name: str, start_s: float, end_s: float, args: Mapping[str, object] | None = None
) -> Iterator[Event]:
    """Yield a complete event, or nothing if it has no length."""
    start_us = _us(start_s)
    length_us = _us(end_s) - start_us
    if length_us > 0:
        event = {"ph": "X", "pid": _AGENTS_PID, "tid": tid, "name": name, "ts": start_us, "dur": length_us}
        yield event | ({"args": args} if args else {})


def _origin(record: RunRecord) -> dict[str, Any]:
    run = record.run
    return {
        "label": run["label"],
        "world": run["world"],
        "workload": run["workload"]["source"],
        "seed": run["seed"],
        "commit": run["git_commit"],
        "warnings": run["warnings"],
    }


def _value(number: Any) -> int | float | str | None:
    """Return a number that JSON has: `None` for null and NaN, a word for the window that never binds."""
    if pd.isna(number):
        return None
    if number == UNLIMITED:
        return "unlimited"
    return int(number) if float(number).is_integer() else float(number)


def _us(time_s: float) -> int:
    return round(time_s * 1e6)


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)

"""What the plots of a page are drawn from: runs on one clock, thinned out to what a screen can show."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np

from concur.signals import UNLIMITED
from concur.sim.record.rates import window_of, windowed_hit_rate, windowed_rate
from concur.sim.record.record import RunRecord
from concur.sim.runs.policies import best_static_run, is_static_cap
from concur.sim.show.figures import COLOURS, OTHER_COLOUR, length_s, phases_of, time_split

_MOST_POINTS: Final = 400  # of a line: a screen has not many more pixels for it
_FEWEST_POINTS: Final = 80
_MOST_VALUES: Final = 150_000  # of a page, about six bytes each
_ON_LIGHT: Final = {"turnover": "#9C8F00"}  # yellow on white, and what is dark on dark, are not seen
_ON_DARK: Final = {
    "vegas": "#F2F2F2",
    "twin": "#A79BFF",
    "fleet_twin": "#E58FB5",
    "agent_cap": "#4AA3E0",
    "none": "#F0803C",
}


def plot_data(groups: Mapping[str, Sequence[RunRecord]]) -> list[dict[str, Any]]:
    """Return the groups of runs that a page can switch between, each of one workload, as JSON has it."""
    num_runs = sum(map(len, groups.values()))
    num_points = int(np.clip(_MOST_VALUES // (6 * max(num_runs, 1)), _FEWEST_POINTS, _MOST_POINTS))
    return [_group(name, records, num_points) for name, records in groups.items()]


def point_data(means: Mapping[str, Mapping[str, float | None]]) -> list[dict[str, Any]]:
    """Return the grid points of a sweep, each with its curve over caps and other policies, as JSON.

    `means`: name of the point -> policy -> mean makespan in seconds, `None` where it has not ended.
    """
    points = []
    for name, by_policy in means.items():
        known = {policy: round(mean_s, 2) for policy, mean_s in by_policy.items() if mean_s is not None}
        caps = sorted(
            (int(policy.partition("=")[2]), s) for policy, s in known.items() if is_static_cap(policy)
        )
        others = [
            (policy, mean_s, _kind_colours(policy.split("+")[0].partition("=")[0]))
            for policy, mean_s in known.items()
            if not is_static_cap(policy)
        ]
        if len(caps) > 1:
            points.append({"name": name, "caps": caps, "others": others})
    return points


def _group(name: str, records: Sequence[RunRecord], num_points: int) -> dict[str, Any]:
    chosen = _shown_first(records, best_static_run(records))
    times_s = _clock(records, chosen, num_points)
    split = time_split(records)
    return {
        "name": name,
        "t": _rounded(times_s, 2),
        "runs": [
            _run(record, times_s, colours=_colours(records, record))
            | {"on": record.label in chosen}
            | {"split": {part: round(float(seconds[number]), 3) for part, seconds in split.items()}}
            for number, record in enumerate(records)
        ],
    }


def _clock(records: Sequence[RunRecord], chosen: Collection[str], num_points: int) -> np.ndarray:
    """Return the times of all lines: closer together for as long as one lasts that is shown at first."""
    shown_s = max(length_s(record) for record in records if record.label in chosen)
    longest_s = max(map(length_s, records))
    rest_s = np.linspace(shown_s, longest_s, 2 + num_points // 4)[1:] if longest_s > shown_s else np.empty(0)
    return np.concatenate([np.linspace(0.0, shown_s, num_points), rest_s])


def _shown_first(records: Sequence[RunRecord], best: RunRecord | None) -> set[str]:
    """Return what a page shows before anybody switches: no control, the best cap, the laws."""
    wanted = [each for each in records if each is best or not is_static_cap(each.label)]
    laws = [each for each in wanted if not each.label.startswith("request_cap")]
    return {each.label for each in (laws or wanted or records)}


def _run(record: RunRecord, times_s: np.ndarray, *, colours: tuple[str, str]) -> dict[str, Any]:
    controller = record.run["scenario"]["controller"]
    end_s = length_s(record)
    throughput = record.metrics["throughput_tokens_per_s"]
    return {
        "label": record.label,
        "kind": controller["kind"],
        "cap": controller["parameters"].get("cap"),
        "colours": colours,
        "length_s": round(end_s, 1),
        "throughput": None if throughput is None else round(throughput, 1),
        "phases": [
            [name.replace("_", "-"), round(phase["start_s"], 2), round(phase["end_s"], 2)]
            for name, phase in phases_of(record)
        ],
        "series": _series(record, times_s, end_s),
    }


def _series(record: RunRecord, times_s: np.ndarray, end_s: float) -> dict[str, list[float | None]]:
    timeline = record.timeline
    sampled_s = timeline["t_s"].to_numpy(np.float64)
    index = np.clip(np.searchsorted(sampled_s, times_s, side="right") - 1, 0, len(sampled_s) - 1)
    is_over = times_s > end_s + 1e-9
    num_agents = (record.metrics["num_agents"] or 0) + len(record.run.get("failures", ()))
    window = timeline["window"].to_numpy(np.float64)
    window_s = window_of(timeline)
    columns = {
        "hit": (windowed_hit_rate(timeline, window_s), 3),
        "usage": (timeline["kv_cache_usage_frac"].to_numpy(np.float64), 3),
        "resident": (timeline["kv_cache_resident_frac"].to_numpy(np.float64, na_value=np.nan), 3),
        "active": (timeline["agents_active"].to_numpy(np.float64), 0),
        "unfinished": (num_agents - timeline["agents_finished"].to_numpy(np.float64), 0),
        "window": (np.where(window < UNLIMITED, window, np.nan), 0),
        "rate": (windowed_rate(timeline, "generation_tokens", window_s), 0),
    }
    sampled = {
        name: (np.where(is_over, np.nan, values[index]), digits) for name, (values, digits) in columns.items()
    }
    return {
        name: _rounded(values, digits)
        for name, (values, digits) in sampled.items()
        if not np.isnan(values).all()
    }


def _rounded(values: np.ndarray, digits: int) -> list[float | None]:
    return [
        None if np.isnan(value) else int(value) if not digits else round(float(value), digits)
        for value in np.round(values, digits)
    ]


def _colours(records: Sequence[RunRecord], record: RunRecord) -> tuple[str, str]:
    """Return a policy's colour on white and on black; of several of one kind, shades of it."""
    kind = _kind(record)
    alike = [each for each in records if _kind(each) == kind]
    share = (alike.index(record) + 1) / len(alike)
    light, dark = _kind_colours(kind)
    return _mixed(light, "#FFFFFF", 0.45 * (1 - share)), _mixed(dark, "#FFFFFF", 0.55 * (1 - share))


def _kind_colours(kind: str) -> tuple[str, str]:
    base = COLOURS.get(kind, OTHER_COLOUR)
    return _ON_LIGHT.get(kind, base), _ON_DARK.get(kind, base)


def _mixed(one: str, other: str, part: float) -> str:
    """Return a colour with a part of another in it."""
    mixed = (
        round((1 - part) * int(one[at : at + 2], 16) + part * int(other[at : at + 2], 16)) for at in (1, 3, 5)
    )
    return "#" + "".join(f"{value:02x}" for value in mixed)


def _kind(record: RunRecord) -> str:
    return str(record.run["scenario"]["controller"]["kind"])

"""From the samples of one page to the values of each engine behind it.

A value is taken only where the labels leave no doubt which engine it is of; otherwise the page is refused,
or, where the value is certain but the page is odd, read with a warning:

- The same sample twice, several served models, labels of unknown meaning that take several values, and
  samples of one series with different labels mean that pages of several servers were put together: refused.
- An engine that lacks what another one publishes is refused, unless the series comes late in an engine's
  life; so is a gap in the engines' numbers.
- Processes of one engine repeat its values, which count once; if they differ, the page is refused.
- A gauge by `pid` (prometheus_client in multiprocess mode; vllm#28792) is taken if all processes but those
  that say 0 agree.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from prometheus_client.samples import Sample

from concur.live.capacity import Capacity, capacity_warning, sglang_capacity, vllm_capacity
from concur.live.errors import MetricNamesError, ScrapeError
from concur.live.labels import PID, SERVER, check_labels, values_by_engine
from concur.live.metric_names import CAPACITY, RESIDENT, MetricNames
from concur.signals import COUNTERS, GAUGES, MORE_COUNTERS

_NEEDED: Final = (*GAUGES, *COUNTERS, *CAPACITY)
_SECOND_POOLS: Final = ("sglang:max_total_num_tokens_swa", "sglang:mamba_available_tokens")
_FREE, _POOL = RESIDENT
_UNNAMED: Final = "(no such label)"
_START: Final = "process_start_time_seconds"

Values = Mapping[str, float]
"""The fields of one engine's reading, under a `Snapshot`'s names."""
ByField = dict[str, dict[str, float]]
"""Field, then engine."""


class Key(NamedTuple):
    """What a sample is: its engine, its name, its labels as they are shown."""

    engine: str
    name: str
    labels: str


@dataclass(frozen=True, slots=True)
class Page:
    """One page, read.

    `counters` are by (engine, field), where the server's own have no engine. `births` say when processes
    began to count, as far as that is published; `published` are the samples in use.
    """

    engines: Mapping[str, Values]
    capacities: Mapping[str, Capacity]
    counters: Mapping[tuple[str, str], float]
    births: Mapping[str, float]
    published: frozenset[Key]
    models: frozenset[str]
    engine_types: frozenset[str]
    warnings: tuple[str, ...]


def read_page(samples: Sequence[Sample], names: MetricNames) -> Page:
    """Return what the samples of a page say of each engine.

    Raises
    ------
    MetricNamesError
        If a name is missing, or it cannot be told which engine a value is of.
    ScrapeError
        If a value is none.
    """
    used = [sample for sample in samples if sample.name in {each.name for each in names.series.values()}]
    check_labels(used, names)
    fields, notes = _fields(used, names)
    held = _holders(fields, names)
    counters = {
        (engine, field): value
        for field in (*COUNTERS, *MORE_COUNTERS)
        for engine, value in fields.get(field, {}).items()
    }
    _fill_late(fields, held, names)
    _check_complete(fields, held, names)
    engines = {
        engine: {field: values[engine] for field, values in fields.items() if engine in values}
        for engine in held["num_gpu_blocks"]
    }
    capacities = {engine: _capacity(engine, values, used, names) for engine, values in engines.items()}
    _check_values(engines, capacities, fields)
    _check_idle(engines, used, names)
    notes += [text for each in capacities.values() if (text := capacity_warning(each))]
    return Page(
        engines=engines,
        capacities=capacities,
        counters=counters,
        births=dict(_births(samples, names)),
        published=frozenset(_key(sample, names) for sample in used),
        models=_all_of("model_name", used),
        engine_types=_all_of("engine_type", used),
        warnings=tuple(dict.fromkeys([*notes, *_oddities(samples, used)])),
    )


def _fields(used: Sequence[Sample], names: MetricNames) -> tuple[ByField, list[str]]:
    by_name: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in used:
        by_name[sample.name].append(sample)
    fields, notes = ByField(), list[str]()
    for field, series in names.series.items():
        fields[field], found = values_by_engine(by_name[series.name], field, names)
        notes += found
    highest = max(fields["kv_cache_usage_frac"].values(), default=0.0)
    if highest > 1.0:
        raise ScrapeError(f"KV usage = {highest} but must be a fraction, 0 to 1: has its unit changed?")
    return fields, notes


def _holders(fields: ByField, names: MetricNames) -> dict[str, list[str]]:
    """Return, for every field, whose values there must be: each engine's, or the server's."""
    own = [field for field, series in names.series.items() if not series.is_server_wide]
    engines = sorted(
        {engine for field in own for engine in fields[field]}, key=lambda name: (len(name), name)
    )
    ranks = {int(engine) for engine in engines if engine.isdecimal()}
    missing = sorted(set(range(min(ranks), max(ranks))) - ranks) if ranks else []
    if missing:
        raise MetricNamesError(
            f"{names.engine_label} {missing[0]} is missing between {min(ranks)} and {max(ranks)}: does the "
            "address answer for all of its engines?"
        )
    return {field: engines if field in own else [SERVER] for field in fields}


def _fill_late(fields: ByField, held: Mapping[str, list[str]], names: MetricNames) -> None:
    for group in names.late_groups:
        is_nowhere = not any(fields[field] for field in group.fields)
        for engine in held[group.fields[0]]:
            if any(engine in fields[field] for field in group.fields):
                continue
            counted = sum(
                sum(fields[field].values()) if is_nowhere else fields[field].get(engine, 0.0)
                for field in group.unless
            )
            if counted == 0:
                for field in group.fields:
                    fields[field][engine] = 0.0
                if fields.get(_FREE) and engine in fields[_POOL]:
                    fields[_FREE].setdefault(engine, fields[_POOL][engine])
    for field, series in names.series.items():
        if series.is_late:
            fields[field] = {engine: fields[field].get(engine, 0.0) for engine in held[field]}


def _check_complete(fields: ByField, held: Mapping[str, list[str]], names: MetricNames) -> None:
    missing = sorted({names.series[field].name for field in _NEEDED if not fields[field]})
    if missing:
        raise MetricNamesError(
            f"{', '.join(missing)} not published; the names are those of {names.engine} {names.releases}: "
            f"use such a release, or {names.remedy}"
        )
    for field, values in fields.items():
        lacking = sorted(set(held[field]) - values.keys())
        if values and lacking:
            raise MetricNamesError(
                f"{names.series[field].name} is published for {names.engine_label} {min(values) or _UNNAMED} "
                f"but not for {lacking[0] or _UNNAMED}: use {names.engine} {names.releases}, or name each "
                "engine's own address"
            )


def _capacity(engine: str, values: Values, used: Sequence[Sample], names: MetricNames) -> Capacity:
    info = names.series["num_gpu_blocks"]
    if info.label:
        its = (sample.labels for sample in used if sample.name == info.name)
        return vllm_capacity(next(labels for labels in its if labels.get(names.engine_label, "") == engine))
    return sglang_capacity(values["num_gpu_blocks"], values["block_size"], values.get(_POOL))


def _check_values(engines: Mapping[str, Values], capacities: Mapping[str, Capacity], fields: ByField) -> None:
    queries, hits = (sum(fields[field].values()) for field in COUNTERS[:2])
    if hits > queries:
        raise ScrapeError(f"{hits:g} tokens were found in the cache, but only {queries:g} were looked up")
    for engine, values in engines.items():
        available = values.get(_FREE, 0.0)
        if available > capacities[engine].tokens:
            raise ScrapeError(f"{available:g} tokens are free in a pool of {capacities[engine].tokens}")


def _check_idle(engines: Mapping[str, Values], used: Sequence[Sample], names: MetricNames) -> None:
    """Where every process says 0, the one that knows may be missing: an engine at work is not empty."""
    name = names.series["kv_cache_usage_frac"].name
    by_process = {
        sample.labels.get(names.engine_label, "")
        for sample in used
        if sample.name == name and PID in sample.labels
    }
    for engine in by_process & engines.keys():
        if engines[engine]["kv_cache_usage_frac"] == 0 < engines[engine]["num_requests_running"]:
            raise MetricNamesError(
                f"{name} is 0 in every process (label pid) while requests run: use a vLLM that publishes one "
                "value, or start it with --api-server-count 1"
            )


def _births(samples: Sequence[Sample], names: MetricNames) -> Iterator[tuple[str, float]]:
    counted = {names.series[field].name.replace("_total", "_created") for field in COUNTERS}
    for sample in samples:
        if sample.name in counted or sample.name == _START:
            yield f"{sample.name}{sorted(sample.labels.items())}", sample.value


def _key(sample: Sample, names: MetricNames) -> Key:
    series = next(each for each in names.series.values() if each.name == sample.name)
    engine = SERVER if series.is_server_wide else sample.labels.get(names.engine_label, "")
    labels = {names.engine_label} if series.label else sample.labels.keys() - {PID}
    shown = ", ".join(f'{label}="{sample.labels.get(label, "")}"' for label in sorted(labels))
    return Key(engine, sample.name, f"{{{shown}}}")


def _all_of(label: str, samples: Sequence[Sample]) -> frozenset[str]:
    return frozenset(sample.labels[label] for sample in samples if label in sample.labels)


def _oddities(samples: Sequence[Sample], used: Sequence[Sample]) -> Iterator[str]:
    for half in _all_of("engine_type", used) & {"prefill", "decode"}:
        yield f"this is the {half} half of a disaggregated server, whose pool and load are not the whole's"
    for sample in samples:
        if sample.name in _SECOND_POOLS and sample.value > 0:
            yield (
                f"{sample.name} is published: the engine has a second pool; KV usage is the fuller one's, "
                "the pool's size that of full attention"
            )

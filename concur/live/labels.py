"""Which engine a sample is of, by its labels, and the one value that an engine's samples amount to."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from prometheus_client.samples import Sample

from concur.live.errors import MetricNamesError, ScrapeError
from concur.live.metric_names import MetricNames, Series
from concur.signals import COUNTERS

SERVER: Final = ""
"""In the place of an engine, for what is the whole server's."""
PID: Final = "pid"
_EACH: Final = "name each server's own address; several addresses are one fleet"
Rank = tuple[tuple[int, str], ...]
"""Which process of an engine, by its rank labels."""


def check_labels(used: Iterable[Sample], names: MetricNames) -> None:
    """Refuse samples that are not of one server: of several models, twice there, with labels nobody knows.

    Raises
    ------
    MetricNamesError
        Naming the label, its values and the remedy.
    """
    samples = list(used)
    for label, what, remedy in (
        ("engine_type", "halves of a disaggregated server", "name the address of one half"),
        ("model_name", "models", _EACH),
    ):
        found = sorted({sample.labels[label] for sample in samples if label in sample.labels})
        if len(found) > 1:
            raise MetricNamesError(
                f"several {what} are published on one page ({label} {', '.join(found)}): {remedy}"
            )
    _check_twice(samples)
    _check_label_names(samples)
    _check_unknown(samples, names)


def values_by_engine(
    samples: Iterable[Sample], field: str, names: MetricNames
) -> tuple[dict[str, float], list[str]]:
    """Return what a field's samples say of each engine, and what is odd about them.

    Raises
    ------
    MetricNamesError
        If more than one value could be an engine's.
    ScrapeError
        If a value is none.
    """
    series, notes = names.series[field], list[str]()
    values: dict[str, float] = {}
    for engine, processes in _grouped(samples, series, names).items():
        ranks = sorted(processes)
        repeated = {
            rank: _one_value(processes[rank], field, series, notes)
            for rank in ranks
            if _is_beside(rank, ranks[0])
        }
        if len(set(repeated.values())) > 1:
            _refuse_differing(set(repeated.values()), engine, series, names)
        values[engine] = repeated[ranks[0]]
    return values, notes


def number(sample: Sample, label: str = "") -> float:
    """Return a sample's value, or that of one of its labels.

    Raises
    ------
    ScrapeError
        If it is not a number of at least 0.
    """
    text: Any = sample.labels.get(label) if label else sample.value
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value) or value < 0:
        where = f"{sample.name}{{{label}}}" if label else sample.name
        raise ScrapeError(f"{where} = {text} but must be a number, at least 0")
    return value


def _check_twice(samples: Sequence[Sample]) -> None:
    seen = set()
    for sample in samples:
        key = (sample.name, frozenset(sample.labels.items()))
        if key in seen:
            raise MetricNamesError(f"{sample.name} is published twice with the same labels: {_EACH}")
        seen.add(key)


def _check_label_names(samples: Sequence[Sample]) -> None:
    """One server declares the labels of a series once; if they differ, a total may stand beside its parts."""
    declared: dict[str, frozenset[str]] = {}
    for sample in samples:
        labels = frozenset(sample.labels)
        if declared.setdefault(sample.name, labels) != labels:
            odd = ", ".join(sorted(declared[sample.name] ^ labels))
            raise MetricNamesError(f"{sample.name} is published with and without the label {odd}: {_EACH}")


def _check_unknown(samples: Sequence[Sample], names: MetricNames) -> None:
    by_name = {series.name: series for series in names.series.values()}
    found: defaultdict[str, set[str]] = defaultdict(set)
    for sample in samples:
        series = by_name[sample.name]
        if series.label:
            continue  # an info metric: its labels are values
        known = {names.engine_label, PID, *series.parts, *(label for label, _ in names.totals)}
        known |= set() if series.is_server_wide else set(names.rank_labels)
        for label in sample.labels.keys() - known:
            found[label].add(sample.labels[label])
    for label, values in sorted(found.items()):
        if len(values) > 1:
            shown = ", ".join(sorted(values)[:3])
            raise MetricNamesError(
                f"the label {label} takes {len(values)} values ({shown}): {_EACH}; a server that breaks its "
                "own counts down by it has to be started without"
            )


def _grouped(
    samples: Iterable[Sample], series: Series, names: MetricNames
) -> dict[str, dict[Rank, list[Sample]]]:
    engines: defaultdict[str, defaultdict[Rank, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        labels = sample.labels
        if any(labels.get(label, total) != total for label, total in names.totals):
            continue  # a part; the total is there too
        engine = SERVER if series.is_server_wide else labels.get(names.engine_label, "")
        engines[engine][tuple(_ordered(labels.get(label, "")) for label in names.rank_labels)].append(sample)
    return {engine: dict(processes) for engine, processes in engines.items()}


def _ordered(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdecimal() else (-1, text)


def _is_beside(rank: Rank, first: Rank) -> bool:
    """Whether a process repeats what the first says: stages of a pipeline (the first label) do not."""
    return rank[:1] == first[:1]


def _one_value(samples: Sequence[Sample], field: str, series: Series, notes: list[str]) -> float:
    numbers = [number(sample, series.label) for sample in samples]
    pids = {sample.labels.get(PID) for sample in samples}
    if len(numbers) == 1:
        return numbers[0]
    if field in COUNTERS and len(pids) == 1:
        return sum(numbers)  # over its parts: no other label takes several values
    if field in COUNTERS or len(pids) < len(samples):
        raise MetricNamesError(f"{series.name} is published {len(samples)} times for one engine: {_EACH}")
    said = sorted(set(numbers) - {0.0})
    if len(said) > 1:
        shown = ", ".join(f"{value:g}" for value in said[:3])
        raise MetricNamesError(
            f"{series.name}: {len(samples)} processes (label pid) of one engine say {shown}; nothing tells "
            "which is right: use a vLLM that publishes one value, or start it with --api-server-count 1"
        )
    notes.append(
        f"{series.name} is published by {len(samples)} processes (label pid) of one engine; the one value "
        "that is not 0 was taken"
    )
    return said[0] if said else 0.0


def _refuse_differing(values: Iterable[float], engine: str, series: Series, names: MetricNames) -> None:
    shown = ", ".join(f"{value:g}" for value in sorted(values)[:3])
    text = f"{series.name}: processes ({', '.join(names.rank_labels)}) of one engine say {shown}"
    if engine:
        raise ScrapeError(f"{text}: were they caught at work, or are they of several servers?")
    raise MetricNamesError(
        f"{text}, or are they engines of their own? Use {names.engine} {names.releases}, which labels those "
        f"{names.engine_label}, or {_EACH}"
    )

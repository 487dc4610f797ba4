"""From the body of an answer to its samples, and to the engine that published them.

Read are Prometheus text and OpenMetrics text. Whatever else an address may answer (JSON, HTML, nothing, the
metrics of another program) is named, with the remedy.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as prometheus_families
from prometheus_client.samples import Sample

from concur.live.errors import MetricNamesError, ScrapeError
from concur.live.metric_names import ENGINES, FOREIGN, MetricNames

_TRTLLM: Final = {"gpuMemUsage", "kvCacheStats", "inflightBatchingStats"}
_EOF: Final = "# EOF"
_OWN_ADDRESS: Final = (
    "name the engine's own address, without a path (for SGLang, started with --enable-metrics)"
)
_NAMES: Final = {
    series.name.replace(":", "_"): series.name for names in ENGINES for series in names.series.values()
}


def read_samples(text: str) -> list[Sample]:
    """Return the samples of a page.

    Raises
    ------
    MetricNamesError
        If the page is of another format than Prometheus' or OpenMetrics'.
    ScrapeError
        If it is cut off or malformed.
    """
    text = text.removeprefix("\ufeff")
    _check_format(text)
    is_openmetrics = text.rstrip().endswith(_EOF)
    if not (is_openmetrics or text.endswith("\n")):
        raise ScrapeError("the metrics are cut off: the last line has no end")
    try:
        samples = _openmetrics(text) if is_openmetrics else _prometheus(text)
    except ValueError as error:
        raise ScrapeError(f"the metrics are malformed: {str(error)[:200]}") from None
    return [sample._replace(name=_NAMES.get(sample.name, sample.name)) for sample in samples]


def find_engine(samples: Iterable[Sample], text: str = "") -> MetricNames:
    """Return the table of names of the engine that published `samples`.

    `text` is the page: one that declares an engine's series, but has no samples yet, is that engine's.

    Raises
    ------
    MetricNamesError
        If none did, or two of different kinds: what did, and the remedy.
    """
    published = {sample.name for sample in samples}
    found = [names for names in ENGINES if any(name.startswith(f"{names.engine}:") for name in published)]
    found = found or [names for names in ENGINES if f"# TYPE {names.engine}:" in text]
    if len(found) == 1:
        return found[0]
    if found:
        kinds = " and ".join(names.engine for names in found)
        raise MetricNamesError(f"{kinds} are published on one page: name each engine's own address")
    raise MetricNamesError(_foreign(published))


def _check_format(text: str) -> None:
    body = text.lstrip()
    if not body:
        raise MetricNamesError(f"the answer is empty: {_OWN_ADDRESS}; a fresh SGLang needs one request first")
    if body[0] == "<":
        raise MetricNamesError(f"the answer is HTML, not metrics: {_OWN_ADDRESS}")
    if body[0] in "[{":
        whose = ", as TensorRT-LLM's server gives it" if _TRTLLM & set(re.findall(r'"(\w+)"', body)) else ""
        raise MetricNamesError(
            f"the answer is JSON, not Prometheus text{whose}; only vLLM and SGLang are read: {_OWN_ADDRESS}"
        )


def _prometheus(text: str) -> Sequence[Sample]:
    return [sample for family in prometheus_families(text) for sample in family.samples]


def _openmetrics(text: str) -> Sequence[Sample]:
    """Read OpenMetrics, or Prometheus text that merely ends like it: the samples' syntax is the same."""
    try:
        return [each for family in openmetrics_families(text) for each in family.samples]  # type: ignore[no-untyped-call]
    except ValueError:
        return _prometheus(text)


def _foreign(published: set[str]) -> str:
    for prefix, whose in FOREIGN:
        names = sorted(name for name in published if name.startswith(prefix))
        if names:
            return f"the metrics ({names[0]}, ...) are those of {whose}"
    known = ", ".join(f"{names.engine}:" for names in ENGINES)
    return f"the server publishes {len(published)} metrics but none that begins with {known}; {_OWN_ADDRESS}"

"""The page of predictions: what was simulated, how many rules hold, and each table beside its figure."""

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from concur.sim.errors import RecordError
from concur.sim.files import whole_file
from concur.sim.show.facts import facts_of, head_html, planned
from concur.sim.show.pages import embedded_image, html_table, page_text
from concur.validate.published.predict import ArmPrediction
from concur.validate.published.report import prediction_table
from concur.validate.published.table import PublishedTable


def write_page(
    tables: Mapping[str, PublishedTable],
    found: Mapping[str, Sequence[ArmPrediction]],
    folder: Path,
    *,
    seeds: Sequence[int],
) -> Path:
    """Write `index.html` beside the figures, which are there already; return its path."""
    facts = facts_of(
        [
            run
            for table in tables.values()
            for run in planned(
                table.scenario(table.arm[0], seeds[0]),
                {seed: table.sessions.workload(seed) for seed in seeds},
            )
        ]
    )
    parts = [head_html(facts, in_a_sentence(found)), *_sections(tables, found, folder)]
    page = folder / "index.html"
    with whole_file(page, RecordError) as temporary:
        temporary.write_text(page_text("Predicted, then compared", "\n".join(parts)), encoding="utf-8")
    return page


def in_a_sentence(found: Mapping[str, Sequence[ArmPrediction]]) -> str:
    """Return how many of the rules that were stated beforehand hold, and where one does not."""
    judged = [
        (f"{name}, {arm.name}: {each.metric}", each.holds)
        for name, arms in found.items()
        for arm in arms
        for each in arm.metrics
        if each.holds is not None
    ]
    broken = [what for what, holds in judged if not holds]
    told = f"{len(judged) - len(broken)} of {len(judged)} rules hold"
    return f"{told}; broken: {'; '.join(broken)}." if broken else f"{told}."


def _sections(
    tables: Mapping[str, PublishedTable], found: Mapping[str, Sequence[ArmPrediction]], folder: Path
) -> Iterator[str]:
    for name, arms in found.items():
        yield f"<h2>{html.escape(tables[name].title)}</h2>"
        yield html_table(prediction_table(tables[name], arms))
        yield embedded_image((folder / f"{name}.png").read_bytes(), f"makespan and hit rate, {name}")

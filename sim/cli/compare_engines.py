"""`concur compare` over several engines: the same agents under the same policies on each, in one table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from concur.sim.cli.comparing import Comparison, draw_report, of_whole_seeds
from concur.sim.errors import WorkersLostError
from concur.sim.runs.compare import by_policy
from concur.sim.runs.intervals import summary
from concur.sim.runs.policies import in_order
from concur.sim.runs.progress import warn
from concur.sim.scenario.scenario import Scenario
from concur.sim.show.engines_report import check_engines_folder, note_engines, write_engines_page
from concur.sim.show.run_folders import REPORT
from concur.sim.show.seeds_report import write_seeds_page
from concur.sim.show.side_by_side import ByEngine, engines_table
from concur.sim.show.tables import print_tables


def compare_engines(
    variants: Mapping[str, Scenario],
    texts: Sequence[str],
    *,
    out: Path | None,
    jobs: int | None,
    as_json: bool,
    wide: bool,
) -> None:
    """Run one workload under several policies on several engines; print one table, and write pages."""
    if out is not None:
        check_engines_folder(out, variants)
    comparisons = {
        name: Comparison(variant, out=None if out is None else out / name, jobs=jobs)
        for name, variant in variants.items()
    }
    warn(dict.fromkeys(line for each in comparisons.values() for line in each.warnings))
    for each in comparisons.values():
        each.choose(texts)
    if out is not None:
        note_engines(out, list(variants))
    try:
        for name, each in comparisons.items():
            each.run(f"simulating {name}")
    except (KeyboardInterrupt, WorkersLostError):
        for each in comparisons.values():
            each.say_what_has_ended()
        _show(_records_of(comparisons), as_json=as_json, wide=wide)
        raise
    records = _records_of(comparisons)
    _show(records, as_json=as_json, wide=wide)
    if out is not None:
        _write_pages(comparisons, records, out, as_json=as_json)


def _records_of(comparisons: Mapping[str, Comparison]) -> ByEngine:
    ended = {name: each.records for name, each in comparisons.items() if each.records}
    return {name: in_order(of_whole_seeds(records)) for name, records in ended.items()}


def _show(records: ByEngine, *, as_json: bool, wide: bool) -> None:
    if not records:
        return
    if not as_json:
        print_tables(engines_table(records, is_wide=wide))
        return
    several = len({record.run["seed"] for own in records.values() for record in own}) > 1
    found = {
        name: summary(by_policy(own)) if several else {record.label: record.metrics for record in own}
        for name, own in records.items()
    }
    print(json.dumps(found, indent=1))


def _write_pages(
    comparisons: Mapping[str, Comparison], records: ByEngine, out: Path, *, as_json: bool
) -> None:
    """Write the page of each engine as a comparison by itself would, and the one over all."""
    for name, comparison in comparisons.items():
        assert comparison.folder is not None
        place = comparison.folder.clear_report()
        (write_seeds_page if comparison.has_seeds else draw_report)(records[name], place)
    page = write_engines_page(records, out / REPORT, comparison=out)
    if not as_json:
        print(f"records: {out}")
        print(f"report: {page}")

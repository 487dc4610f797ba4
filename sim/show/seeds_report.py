"""The report of one comparison on several seeds: the table over all of them, and a page for each."""

from collections.abc import Callable, Sequence
from pathlib import Path

from concur.sim.errors import RecordError
from concur.sim.files import whole_file
from concur.sim.record.record import RunRecord
from concur.sim.runs.compare import by_policy
from concur.sim.runs.policies import of_one_workload
from concur.sim.show.pages import html_table, page_text
from concur.sim.show.report import write_report
from concur.sim.show.tables import interval_table


def write_seeds_report(
    records: Sequence[RunRecord], folder: Path, *, on_progress: Callable[[], None] = lambda: None
) -> Path:
    """Write `index.html`, and under `seed-N` the report of each seed; return the page's path.

    Raises
    ------
    RecordError
        If the policies of one seed are not those of another, or the folder cannot be written.
    """
    by_seed: dict[int, list[RunRecord]] = {}
    for record in sorted(records, key=lambda record: int(record.run["seed"])):
        by_seed.setdefault(record.run["seed"], []).append(record)
    _check_same_policies(by_seed)
    for seed, own in by_seed.items():
        write_report(of_one_workload(own), folder / f"seed-{seed}", on_progress=on_progress)
    links = "".join(f'<li><a href="seed-{seed}/index.html">seed {seed}</a></li>' for seed in by_seed)
    table = html_table(interval_table(by_policy(records)))
    title = f"{records[0].run['workload']['source']}: {len(by_seed)} seeds"
    page = folder / "index.html"
    with whole_file(page, RecordError) as temporary:
        temporary.write_text(page_text(title, f"{table}<ul>{links}</ul>"), encoding="utf-8")
    return page


def _check_same_policies(by_seed: dict[int, list[RunRecord]]) -> None:
    (first, first_own), *others = by_seed.items()
    wanted = {record.label for record in first_own}
    for seed, own in others:
        if difference := sorted(wanted ^ {record.label for record in own}):
            raise RecordError(
                f"seed {first} and seed {seed} are not of the same policies ({difference[0]} is of one "
                "only); finish the comparison, or report one seed"
            )

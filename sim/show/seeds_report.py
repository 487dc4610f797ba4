"""The report of one comparison on several seeds: a page over all of them, and one for each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from concur.sim.errors import RecordError
from concur.sim.files import whole_file
from concur.sim.record.record import RunRecord
from concur.sim.runs.compare import by_policy
from concur.sim.runs.policies import of_one_workload
from concur.sim.show.facts import facts, head_html
from concur.sim.show.front import seeds_verdict
from concur.sim.show.pages import html_table, page_text, plots_html, warnings_html
from concur.sim.show.plot_data import plot_data
from concur.sim.show.remarks import warnings_of_runs
from concur.sim.show.report import check_report_folder, write_report
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
    by_seed = _by_seed(records)
    for seed, own in by_seed.items():
        write_report(of_one_workload(own), folder / f"seed-{seed}", on_progress=on_progress)
    return _write(records, by_seed, folder, beside=_links(by_seed))


def write_seeds_page(records: Sequence[RunRecord], folder: Path) -> Path:
    """Write `index.html` over all seeds alone, which takes a moment; return the page's path.

    Raises
    ------
    RecordError
        If the policies of one seed are not those of another, or the folder cannot be written.
    """
    by_seed = _by_seed(records)
    check_report_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    told = "A page for each seed, with figures for a paper: <code>concur report</code> of this comparison."
    return _write(records, by_seed, folder, beside=told)


def _links(seeds: Iterable[int]) -> str:
    links = ", ".join(f'<a href="seed-{seed}/index.html">{seed}</a>' for seed in seeds)
    return f"Each seed on a page of its own, with its phases and figures for a paper: {links}."


def _write(
    records: Sequence[RunRecord], by_seed: Mapping[int, Sequence[RunRecord]], folder: Path, *, beside: str
) -> Path:
    page = folder / "index.html"
    with whole_file(page, RecordError) as temporary:
        temporary.write_text(_page(records, by_seed, beside), encoding="utf-8")
    return page


def _page(records: Sequence[RunRecord], by_seed: Mapping[int, Sequence[RunRecord]], beside: str) -> str:
    runs = by_policy(records)
    parts = [
        head_html(facts(records), seeds_verdict(runs)),
        html_table(interval_table(runs), is_short=True),
        plots_html(),
        f"<p>{beside}</p>",
        warnings_html(warnings_of_runs(records)),
    ]
    title = f"{records[0].run['workload']['source']}: {len(by_seed)} seeds"
    groups = {f"{seed}": of_one_workload(own) for seed, own in by_seed.items()}
    return page_text(title, "\n".join(parts), runs=plot_data(groups))


def _by_seed(records: Sequence[RunRecord]) -> dict[int, list[RunRecord]]:
    by_seed: dict[int, list[RunRecord]] = {}
    for record in sorted(records, key=lambda record: int(record.run["seed"])):
        by_seed.setdefault(record.run["seed"], []).append(record)
    _check_same_policies(by_seed)
    return by_seed


def _check_same_policies(by_seed: dict[int, list[RunRecord]]) -> None:
    (first, first_own), *others = by_seed.items()
    wanted = {record.label for record in first_own}
    for seed, own in others:
        if difference := sorted(wanted ^ {record.label for record in own}):
            raise RecordError(
                f"seed {first} and seed {seed} are not of the same policies ({difference[0]} is of one "
                "only); finish the comparison, or report one seed"
            )

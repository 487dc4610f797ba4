"""The report of one comparison over several engines: a page over all of them, beside one for each.

`DIR/ENGINE` is a comparison as any other (`concur.sim.show.run_folders`). `DIR/report` has the page over all,
and in `engines.json` the names of the engines of the latest comparison, in their order.
"""

import html
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from concur.sim.errors import RecordError
from concur.sim.files import whole_file
from concur.sim.record.record import RunRecord
from concur.sim.runs.compare import by_policy
from concur.sim.runs.policies import of_one_workload
from concur.sim.show.facts import facts, head_html
from concur.sim.show.front import seeds_verdict, verdict
from concur.sim.show.pages import html_table, page_text, plots_html, warnings_html
from concur.sim.show.plot_data import plot_data
from concur.sim.show.report import check_report_folder
from concur.sim.show.run_folders import REPORT
from concur.sim.show.side_by_side import ByEngine, engines_table, warnings_of_engines

_ENGINES: Final = "engines.json"


def check_engines_folder(folder: Path, names: Iterable[str]) -> None:
    """Refuse, before any work is done, a folder with anything but a comparison of engines.

    Raises
    ------
    RecordError
        If it holds something else, or cannot be written to.
    """
    check_report_folder(folder)
    check_report_folder(folder / REPORT)
    known = {REPORT, *names, *(engines_in(folder) if folder.exists() else ())}
    strange = sorted(path.name for path in (folder.iterdir() if folder.exists() else ()))
    if found := [name for name in strange if name not in known]:
        raise RecordError(
            f"{folder}: holds {found[0]!r}, which no comparison of engines has written; choose another "
            "--out, or an empty folder"
        )


def note_engines(folder: Path, names: Sequence[str]) -> None:
    """Take note of the engines of a comparison, in its folder."""
    with whole_file(folder / REPORT / _ENGINES, RecordError) as temporary:
        temporary.write_text(json.dumps(list(names), indent=1) + "\n", encoding="utf-8")


def engines_in(folder: Path) -> list[str]:
    """Return the engines whose comparison a folder holds; none if it holds another one.

    Raises
    ------
    RecordError
        If what names them cannot be read.
    """
    listed = folder / REPORT / _ENGINES
    if not listed.exists():
        return []
    try:
        return [str(name) for name in json.loads(listed.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise RecordError(f"{listed}: not readable ({error}); remove it, and compare again") from None


def write_engines_page(records: ByEngine, folder: Path, *, comparison: Path) -> Path:
    """Write `index.html` over all engines of a comparison's folder; return its path. It links their pages.

    Raises
    ------
    RecordError
        If the folder cannot be written, or there is no run.
    """
    check_report_folder(folder)
    if not any(records.values()):
        raise RecordError(f"{comparison}: no run of any engine is there; compare again")
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    with whole_file(page, RecordError) as temporary:
        temporary.write_text(_page(records, _links(records, folder, comparison)), encoding="utf-8")
    return page


def _page(records: ByEngine, links: str) -> str:
    runs = [record for own in records.values() for record in own]
    parts = [
        head_html(facts(runs), *(_verdict(name, own) for name, own in records.items())),
        html_table(engines_table(records), is_short=True),
        plots_html(group="engine"),
        links,
        warnings_html(warnings_of_engines(records)),
    ]
    title = f"{runs[0].run['workload']['source']}: {len(records)} engines"
    return page_text(title, "\n".join(parts), runs=plot_data(_groups(records)))


def _verdict(name: str, records: Sequence[RunRecord]) -> str:
    is_of_seeds = len({record.run["seed"] for record in records}) > 1
    told = seeds_verdict(by_policy(records)) if is_of_seeds else verdict(records)
    return f"{name}: {told}"


def _groups(records: ByEngine) -> dict[str, list[RunRecord]]:
    """Return what a page can switch between: the runs of an engine, on each seed if there are several."""
    groups: dict[str, list[RunRecord]] = {}
    for name, own in records.items():
        seeds = sorted({record.run["seed"] for record in own})
        for seed in seeds:
            group = f"{name}, seed {seed}" if len(seeds) > 1 else name
            groups[group] = of_one_workload([record for record in own if record.run["seed"] == seed])
    return groups


def _links(names: Iterable[str], folder: Path, comparison: Path) -> str:
    """Return links to the pages of the engines that have one."""
    pages = {name: comparison / name / REPORT / "index.html" for name in names}
    links = [
        f'<a href="{html.escape(os.path.relpath(page, folder))}">{html.escape(name)}</a>'
        for name, page in pages.items()
        if page.exists()
    ]
    return f"<p>Each engine on a page of its own: {', '.join(links)}.</p>" if links else ""

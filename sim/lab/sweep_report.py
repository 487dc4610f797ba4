"""The report of a sweep: its table, and each law against the best static cap of every grid point."""

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
from matplotlib.figure import Figure

from concur.sim.errors import RecordError
from concur.sim.files import whole_file
from concur.sim.lab.sweep import PLAN, TABLE, kept_runs
from concur.sim.lab.sweep_table import Row, mean_makespans_s, sweep_table
from concur.sim.runs.policies import best_static_cap, is_static_cap
from concur.sim.show.facts import facts_of, head_html
from concur.sim.show.figures import COLOURS, OTHER_COLOUR, png_bytes, style
from concur.sim.show.pages import embedded_image, html_table, page_text, points_html, warnings_html
from concur.sim.show.plot_data import point_data
from concur.sim.show.remarks import merged_warnings
from concur.sim.show.report import check_report_folder

_ROW_HEIGHT: Final = 0.28  # inches of a grid point


def is_sweep(folder: Path) -> bool:
    """Tell whether a folder is one that `concur sweep` made."""
    return (folder / PLAN).is_file()


def write_sweep_report(sweep: Path, folder: Path) -> Path:
    """Write `index.html` and `against_best_cap.png` of a finished sweep; return the page's path.

    Raises
    ------
    RecordError
        If the sweep has not come to its end or cannot be read, or the folder cannot be written.
    """
    keys, rows, packages = _read(sweep)
    check_report_folder(folder)
    with style():
        image = png_bytes(_against_best_cap(mean_makespans_s(rows, keys), keys))
    with whole_file(folder / "against_best_cap.png", RecordError) as temporary:
        temporary.write_bytes(image)
    failed = [row["error"] for row in rows if row.get("error")]
    means = mean_makespans_s(rows, keys)
    points = point_data(
        {", ".join(f"{k} {v}" for k, v in zip(keys, at, strict=True)): own for at, own in means.items()}
    )
    runs = [run | {"versions": packages} for run in kept_runs(sweep, rows)]
    parts = [
        head_html(facts_of(runs) if runs else {}, _verdict(means)),
        html_table(sweep_table(rows, keys, most_rows=len(rows))),
        points_html() if points else "",
        "<h2>Against the best static cap</h2>",
        embedded_image(image, "against the best static cap"),
        warnings_html([*failed, *merged_warnings(_warnings(keys, rows))]),
    ]
    page = folder / "index.html"
    with whole_file(page, RecordError) as temporary:
        temporary.write_text(
            page_text(f"{sweep.name}: {len(rows):,} runs", "\n".join(parts), points=points), encoding="utf-8"
        )
    return page


def _read(sweep: Path) -> tuple[list[str], list[Row], dict[str, str]]:
    if not (sweep / TABLE).exists():
        raise RecordError(f"{sweep}: has no {TABLE}: it has not come to its end; run it again")
    try:
        plan = json.loads((sweep / PLAN).read_text(encoding="utf-8"))
        return list(plan["grid"]["grid"]), pq.read_table(sweep / TABLE).to_pylist(), dict(plan["versions"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{sweep}: not what a sweep leaves ({error!r}); run it again") from None


def _warnings(keys: Sequence[str], rows: Sequence[Row]) -> Iterator[tuple[str, list[str]]]:
    """Yield what each run warned of, under its name."""
    for row in rows:
        at = ", ".join(f"{key} {row[key]}" for key in keys)
        said = row["warnings"].split("; ") if row["warnings"] else []
        yield f"{at}, {row['policy']}, seed {row['seed']}", said


def _verdict(means: Mapping[tuple[str, ...], Mapping[str, float | None]]) -> str:
    """Return in a sentence how each law does against the best static cap of every grid point."""
    caps = {best for each in means.values() if (best := best_static_cap(each)) is not None}
    laws = dict.fromkeys(policy for each in means.values() for policy in each if not is_static_cap(policy))
    told = []
    for law in laws:
        ratios = [ratio for each in means.values() if not math.isnan(ratio := _ratio(each, law))]
        if ratios:
            told.append(f"{law} {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f} ({min(ratios):.2f})")
    if not caps or not told:
        return f"{len(means)} grid points; without static caps or other policies there is nothing to compare."
    return (
        f"On {len(means)} grid points, speed over the best static cap's, geometric mean and (worst): "
        f"{', '.join(told)}. {_spread(caps)}"
    )


def _spread(caps: Collection[str]) -> str:
    if len(caps) == 1:
        return f"One cap is the best everywhere: {next(iter(caps))}."
    return f"{len(caps)} different caps are best somewhere."


def _against_best_cap(
    means: Mapping[tuple[str, ...], Mapping[str, float | None]], keys: Sequence[str]
) -> Figure:
    """Draw, for every grid point, the best static cap's makespan over that of each other policy."""
    others = dict.fromkeys(policy for each in means.values() for policy in each if not is_static_cap(policy))
    figure = Figure(figsize=(7.0, 1.2 + _ROW_HEIGHT * len(means)), layout="constrained")
    ax = figure.subplots()
    for policy in others:
        colour = COLOURS.get(policy.split("+")[0].split("=")[0], OTHER_COLOUR)
        ratios = [_ratio(by_policy, policy) for by_policy in means.values()]
        ax.plot(ratios, range(len(ratios)), "o", color=colour, label=policy)
    ax.axvline(1.0, color="0.6", lw=1, zorder=0)
    ax.set_yticks(range(len(means)), [", ".join(values) for values in means])
    ax.invert_yaxis()
    ax.set(xlabel="speed as a multiple of the best static cap's", xlim=(0, None))
    ax.set_ylabel(",\n".join(keys))
    figure.legend(loc="outside upper center", ncols=len(others))
    return figure


def _ratio(by_policy: Mapping[str, float | None], policy: str) -> float:
    best = best_static_cap(by_policy)
    ours, theirs = by_policy.get(policy), None if best is None else by_policy[best]
    return theirs / ours if ours and theirs else float("nan")

"""Folders of run records: what `concur compare --out DIR` leaves, and what `concur report DIR` finds there.

`DIR/POLICY`, or `DIR/seed-N/POLICY` with several seeds, is a record. `DIR/report` has the page, and in
`runs.json` the names of the runs of the latest comparison: records of earlier ones may lie beside them, and
stay apart.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from concur.errors import ConcurError
from concur.sim.errors import RecordError
from concur.sim.files import whole_file
from concur.sim.record.provenance import git_commit, versions
from concur.sim.record.record import RunRecord, is_record_or_empty, load_record, write_record
from concur.sim.scenario.scenario import Scenario, parse_scenario, what_decides
from concur.sim.scenario.sections import ControllerConfig
from concur.sim.show.report import check_report_folder
from concur.sim.workload.spec import Workload

REPORT: Final = "report"
_RUNS: Final = "runs.json"
_OF_A_SEED: Final = "seed-"
_FIGURES: Final = (".png", ".pdf")


class ComparisonFolder:
    """Where a comparison goes. Life: `check`, `kept`, `keep` for each run as it ends, `clear_report`."""

    def __init__(self, folder: Path, *, has_seeds: bool) -> None:
        self.folder = folder
        self._has_seeds = has_seeds
        self._names: list[str] = []
        self._there: set[Path] = set()

    def check(self, scenario: Scenario, workloads: Mapping[int, Workload]) -> None:
        """Refuse, before any work is done, a folder that holds anything but records of this very scenario.

        Raises
        ------
        RecordError
            If it holds something else, or cannot be written to.
        """
        check_report_folder(self.folder)
        check_report_folder(self.folder / REPORT)
        sha256 = next(iter(workloads.values())).sha256
        for run, path in _runs_in(self.folder):
            difference = _difference(run, scenario, sha256, is_any_seed=self._has_seeds)
            if difference is not None:
                name = path.relative_to(self.folder)
                raise RecordError(
                    f"{self.folder}: {name} is a run of another scenario ({difference} differs); choose "
                    "another --out, or remove it"
                )

    def kept(
        self, scenario: Scenario, configs: Sequence[ControllerConfig], seeds: Iterable[int]
    ) -> list[RunRecord]:
        """Return the runs that are there already, made by this very code: what was stopped goes on."""
        found = []
        for seed in seeds:
            for config in configs:
                path = self._place(config.label, seed)
                if (path / "run.json").exists() and _is_same_run(_read(path), scenario, config, seed):
                    found.append(load_record(path))
                    self._there.add(path)
        return found

    def keep(self, record: RunRecord) -> None:
        """Write a run that has ended, and take note that it belongs to this comparison."""
        path = self._place(record.label, record.run["seed"])
        if path not in self._there:
            write_record(record, path)
        self._names.append(str(path.relative_to(self.folder)))
        with whole_file(self.folder / REPORT / _RUNS, RecordError) as temporary:
            temporary.write_text(json.dumps(sorted(self._names), indent=1) + "\n", encoding="utf-8")

    def _place(self, label: str, seed: int) -> Path:
        return (self.folder / f"{_OF_A_SEED}{seed}" if self._has_seeds else self.folder) / label

    def clear_report(self) -> Path:
        """Remove the report of an earlier comparison, and return where the new one goes."""
        report = self.folder / REPORT
        figures = [path for path in report.glob("*") if path.suffix in _FIGURES]
        for path in (*figures, report / "index.html"):
            path.unlink(missing_ok=True)
        return report


def _is_same_run(run: Mapping[str, Any], scenario: Scenario, config: ControllerConfig, seed: int) -> bool:
    """Tell whether a complete run is of that policy and seed, and of this code; the rest has been checked."""
    ours = versions() | scenario.with_controller(config).packages
    return (
        bool(run.get("complete", True))
        and run["seed"] == seed
        and run["scenario"]["controller"] == config.model_dump(mode="json")
        and run.get("versions") == ours
        and run.get("git_commit") == git_commit()
    )


def runs_below(folder: Path) -> list[Path]:
    """Return the record that a folder is, or those of the latest comparison in it, or else all in it.

    Raises
    ------
    RecordError
        If what names the runs of the latest comparison cannot be read.
    """
    if (folder / "run.json").exists() or not folder.is_dir():
        return [folder]
    listed = folder / REPORT / _RUNS
    if listed.exists():
        try:
            return [folder / str(name) for name in json.loads(listed.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError) as error:
            raise RecordError(f"{listed}: not readable ({error}); remove it to report all runs") from None
    return _all_below(folder) or [folder]


def _all_below(folder: Path) -> list[Path]:
    found = (*folder.glob("*/run.json"), *folder.glob(f"{_OF_A_SEED}*/*/run.json"))
    return sorted(path.parent for path in found)


def left_out_below(folder: Path, runs: Sequence[Path]) -> list[str]:
    """Return the names of the records in a folder that are not among `runs`."""
    return [str(path.relative_to(folder)) for path in _all_below(folder) if path not in runs]


def _runs_in(folder: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """Yield run.json and folder of all records in a comparison's folder.

    Raises
    ------
    RecordError
        If there is anything else but a report, and what a run that was killed leaves.
    """
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        if path.name == REPORT and path.is_dir():
            _check_is_report(path)
        elif path.name.startswith(_OF_A_SEED) and path.is_dir() and not (path / "run.json").exists():
            yield from _runs_in(path)
        elif _is_left_over(path):
            continue
        elif path.is_dir() and not path.is_symlink() and is_record_or_empty(path):
            if (path / "run.json").exists():
                yield _read(path), path
        else:
            raise RecordError(
                f"{folder}: holds {path.name!r}, which no comparison has written; choose another --out, or "
                "an empty folder"
            )


def _check_is_report(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name.startswith(_OF_A_SEED) and path.is_dir():
            _check_is_report(path)
        elif not _is_of_report(path) and not _is_left_over(path):
            raise RecordError(
                f"{folder}: holds {path.name!r}, which is no part of a report; choose another --out, or "
                "remove it"
            )


def _is_of_report(path: Path) -> bool:
    return path.name in ("index.html", _RUNS) or path.suffix in _FIGURES


def _is_left_over(path: Path) -> bool:
    return path.name.startswith(".") and path.suffix in (".partial", ".tmp")


def _read(folder: Path) -> dict[str, Any]:
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        run["scenario"], run["workload"]["sha256"], run["profile_hash"], run["seed"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{folder}: not a run record ({error!r}); choose another --out") from None
    return dict(run)


def _difference(
    run: Mapping[str, Any], scenario: Scenario, sha256: str | None, *, is_any_seed: bool
) -> str | None:
    """Return the first section in which a run's scenario is another one, `None` if it is the same."""
    if run["workload"]["sha256"] != sha256:
        return "workload"
    try:
        other = parse_scenario({**run["scenario"], "controller": {}})
    except ConcurError:
        return "its form"
    ours, theirs = what_decides(scenario), what_decides(other)
    if other.step_time.kind == "profile":
        theirs["step_time"]["profile"] = run["profile_hash"]
    same = {"controller", "seed"} if is_any_seed else {"controller"}
    return next((key for key in ours if key not in same and ours[key] != theirs[key]), None)

"""A comparison of policies on one engine as a command makes it: said on stderr, kept as it goes."""

from collections.abc import Sequence
from pathlib import Path

from concur.sim.lab.oracle import expand_oracle
from concur.sim.record.record import RunRecord
from concur.sim.runs.compare import Runs, policies
from concur.sim.runs.parallel import LocalWorkers
from concur.sim.runs.progress import counting, say, tallying
from concur.sim.scenario.scenario import Scenario
from concur.sim.scenario.sections import ControllerConfig
from concur.sim.show.remarks import warnings_of_workloads
from concur.sim.show.report import num_figures, write_report
from concur.sim.show.run_folders import ComparisonFolder


class Comparison:
    """Life: `choose` the policies, `run` them; `records` grows as runs end, and `folder` keeps them."""

    def __init__(self, scenario: Scenario, *, out: Path | None, jobs: int | None) -> None:
        self.scenario = scenario
        self.has_seeds = bool(scenario.compare.seeds)
        seeds = scenario.compare.seeds or (scenario.seed,)
        self.runs = Runs(scenario, seeds, workers=LocalWorkers(jobs))
        self.folder = None if out is None else ComparisonFolder(out, has_seeds=self.has_seeds)
        self.chosen: list[ControllerConfig] = []
        self.records: list[RunRecord] = []
        if self.folder is not None:
            self.folder.check(scenario, self.runs.workloads)

    @property
    def warnings(self) -> list[str]:
        """What was lost of its workloads."""
        return warnings_of_workloads(self.runs.workloads)

    def choose(self, texts: Sequence[str]) -> None:
        """Read the policies, search a best cap where one is asked for, and take what is there already.

        Raises
        ------
        ScenarioError
            If one of them is not a controller, or is named twice.
        """
        num_agents = len(next(iter(self.runs.workloads.values())).agents)
        with tallying("searching the best static cap") as advance:
            texts = expand_oracle(texts, self.runs, say, on_run=advance)
        self.chosen = policies(self.scenario, texts, num_agents=num_agents)
        if self.folder is not None:
            self._know_kept(self.folder)

    def _know_kept(self, folder: ComparisonFolder) -> None:
        """Take what an earlier comparison has left, if this very code made it."""
        kept = folder.kept(self.scenario, self.chosen, self.runs.workloads)
        for record in kept:
            self.runs.know(record)
        if kept:
            say(f"{len(kept)} of {self.num_runs} runs are in {folder.folder} already")

    @property
    def num_runs(self) -> int:
        """How many runs it has in all."""
        return len(self.chosen) * len(self.runs.workloads)

    def run(self, title: str = "simulating") -> None:
        """Add each run to `records` as it ends, and keep it in the folder."""
        with counting(title, self.num_runs) as advance:
            for record in self.runs.run(self.chosen):
                if self.folder is not None:
                    self.folder.keep(record)
                self.records.append(record)
                advance()

    def say_what_has_ended(self) -> None:
        """Tell how far it has come, after a stop."""
        kept = "" if self.folder is None or not self.records else f"; they are kept in {self.folder.folder}"
        say(f"stopped: {len(self.records)} of {self.num_runs} runs had ended{kept}")


def of_whole_seeds(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs of the seeds on which most policies have ended, and the same ones on each."""
    ended: dict[int, set[str]] = {}
    for record in records:
        ended.setdefault(record.run["seed"], set()).add(record.label)
    most = max(ended.values(), key=len)
    return [record for record in records if ended[record.run["seed"]] == most]


def draw_report(records: Sequence[RunRecord], folder: Path) -> Path:
    """Write the report of runs under a bar; return the page's path."""
    with counting("drawing", num_figures(records)) as advance:
        return write_report(records, folder, on_progress=advance)

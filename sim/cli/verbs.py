"""The simulator's verbs."""

from concur.verbs import Verb

VERBS = (
    Verb("simulate", "Simulate one scenario and write its run record.", "concur.sim.cli.simulate:app"),
    Verb("compare", "Run one workload under several policies, in one table.", "concur.sim.cli.compare:app"),
    Verb("report", "Write figures and an HTML page from run records.", "concur.sim.cli.report:app"),
    Verb("sweep", "Run all combinations of a grid, on all cores.", "concur.sim.cli.sweep:app"),
    Verb("judge", "Laws against the best static cap, over many cases.", "concur.sim.cli.judge:app"),
    Verb("tune", "Search a law's parameters, and check them on other seeds.", "concur.sim.cli.tune:app"),
    Verb("trace", "Look at agent traces.", "concur.sim.cli.trace:app"),
    Verb("paper", "The CONCUR paper's tables and figures again.", "concur.sim.cli.paper:app"),
    Verb("example", "The scenarios that come with the package.", "concur.sim.cli.example:app"),
)

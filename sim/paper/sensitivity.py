"""The three headline ratios when one unknown at a time is another, around the lengthened reading.

On the first seed, with a coarse sweep of caps: it shows which unknowns decide, not their third digit.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from rich.table import Table

from concur.sim.paper.numbers import Printed, printed
from concur.sim.paper.parts import Part
from concur.sim.paper.runs import CONCUR, NONE, Book, Job, Policy, agent_cap, concur
from concur.sim.paper.settings import Agents, Setting, deepseek, qwen

HEADLINES: Final[tuple[tuple[Setting, Printed], ...]] = (
    (qwen(8, "lengthened"), printed("table1.qwen_tp8.concur")),
    (qwen(2, "lengthened"), printed("fig6.concur")),
    (deepseek(16, 40, "lengthened"), printed("table1.deepseek_tp16_40.concur")),
)
_CAPS: Final = {256: (16, 24, 32, 48, 64, 96, 128, 192), 40: (4, 8, 12, 16, 24, 32)}


@dataclass(frozen=True, slots=True)
class Variation:
    """One unknown set differently: in the setting, or in CONCUR's parameters."""

    name: str
    change: Callable[[Setting], Setting] = lambda setting: setting
    parameters: tuple[tuple[str, float | int | str], ...] = ()

    def policy(self, setting: Setting) -> Policy:
        """Return CONCUR as varied; a window of all agents is the setting's number of them."""
        given = dict(self.parameters)
        if given.get("initial_window") == 0:
            given["initial_window"] = setting.num_agents
        return concur(**given)


def _agents(change: Callable[[Agents], Agents]) -> Callable[[Setting], Setting]:
    return lambda setting: replace(setting, agents=change(setting.agents))


def _steps(mean_steps: float) -> Callable[[Setting], Setting]:
    return _agents(lambda agents: replace(agents, mean_steps=mean_steps))


def _waits(median_s: float) -> Callable[[Setting], Setting]:
    return _agents(lambda agents: replace(agents, tool_latency_median_s=median_s))


def _shape(output: float, observation: float) -> Callable[[Setting], Setting]:
    """Scale outputs and observations."""
    return _agents(
        lambda agents: replace(
            agents,
            output_median_tokens=output * agents.output_median_tokens,
            observation_median_tokens=observation * agents.observation_median_tokens,
        )
    )


def _longer_steps(setting: Setting) -> Setting:
    """Return ten steps, each as many times longer as the reading has more of them."""
    factor = setting.agents.mean_steps / 10
    return replace(setting, agents=replace(setting.agents.longer(factor), mean_steps=10.0))


def _engine_kv(setting: Setting) -> Setting:
    return replace(setting, kv_bytes_per_token=None)


def _half_pool(setting: Setting) -> Setting:
    return replace(setting, pool_frac=0.5)


def _ten_steps_small_pool(setting: Setting) -> Setting:
    return replace(_steps(10)(setting), pool_frac=0.25)


# Factors of 1/3 and 1.58, and of 5/3 and 0.42, leave the mean context after ten steps as it is.
VARIATIONS: Final = (
    Variation("lengthened reading"),
    Variation("10 steps (Fig. 1)", _steps(10)),
    Variation("10 steps, a quarter of the pool", _ten_steps_small_pool),
    Variation("10 steps, each longer", _longer_steps),
    Variation("20 steps", _steps(20)),
    Variation("40 steps", _steps(40)),
    Variation("tool waits 0.1 s", _waits(0.1)),
    Variation("tool waits 3 s", _waits(3.0)),
    Variation("tool waits 10 s", _waits(10.0)),
    Variation("mostly reading", _shape(1 / 3, 1.58)),
    Variation("mostly writing", _shape(5 / 3, 0.42)),
    Variation("half the KV pool", _half_pool),
    Variation("KV as the engine stores it", _engine_kv),
    Variation("interval 0.1 s", parameters=(("interval_s", 0.1),)),
    Variation("interval 30 s", parameters=(("interval_s", 30.0),)),
    Variation("W0 = 1", parameters=(("initial_window", 1),)),
    Variation("W0 = 64", parameters=(("initial_window", 64),)),
    Variation("W0 = all agents", parameters=(("initial_window", 0),)),
    Variation("U counts idle blocks too", parameters=(("usage_counts", "resident"),)),
)


@dataclass(frozen=True, slots=True)
class Row:
    """The ratios of one setting under one variation. `demand_frac` is of the pool, without control.

    `best_cap` is at least 1: a cap of all agents never binds.
    """

    concur: float
    best_cap: float
    demand_frac: float
    recompute_frac: float

    def text(self) -> str:
        """Return the cell of the table."""
        shares = f"{self.demand_frac:.1f}, {100 * self.recompute_frac:.0f} %"
        return f"{self.concur:.2f}x [{self.best_cap:.2f}x]; {shares}"


def jobs() -> list[Job]:
    """Return what the table needs run."""
    wanted = []
    for variation in VARIATIONS:
        for base, _ in HEADLINES:
            setting = variation.change(base)
            policies = (NONE, CONCUR, variation.policy(setting), *_caps(setting))
            wanted.append(Job(setting, policies, num_seeds=1))
    return wanted


def part(book: Book) -> Part:
    """Return the table."""
    rows = {
        variation.name: [_row(book, variation, base) for base, _ in HEADLINES] for variation in VARIATIONS
    }
    return Part(
        name="sensitivity",
        title="Headline ratios when one unknown is another",
        findings=(),
        tables=[_table(rows)],
        series={"rows": rows},
    )


def _caps(setting: Setting) -> tuple[Policy, ...]:
    return tuple(agent_cap(cap) for cap in _CAPS[setting.num_agents])


def _row(book: Book, variation: Variation, base: Setting) -> Row:
    setting, seed = variation.change(base), book.seeds[0]

    def metric(policy: Policy, name: str) -> float:
        return float(book.runs(setting, policy)[seed].metrics[name])

    none_s = metric(NONE, "makespan_s")
    return Row(
        concur=none_s / metric(variation.policy(setting), "makespan_s"),
        best_cap=max(1.0, *(none_s / metric(policy, "makespan_s") for policy in _caps(setting))),
        demand_frac=metric(NONE, "peak_demand_frac"),
        recompute_frac=metric(NONE, "recompute_time_fraction"),
    )


def _table(rows: dict[str, list[Row]]) -> Table:
    table = Table(
        title="CONCUR over no control [best static cap over no control]; peak demand / pool, recompute",
        caption="first seed, coarse sweep of caps; each row changes one thing of the lengthened reading",
    )
    table.add_column("what is changed")
    for setting, number in HEADLINES:
        table.add_column(f"{setting.title} (printed {number.value:.2f}x)", justify="right")
    for name, cells in rows.items():
        table.add_row(name, *(row.text() for row in cells))
    return table

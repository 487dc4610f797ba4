"""What of a recording a run leaves out, cuts or fills in: each loss is one line in the record."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Losses:
    """Counts of what a workload lost on its way from a trace or a generator into a run.

    Agents beyond `workload.num_agents` are no loss: a part of the trace was asked for. Neither is a wait
    after an agent's last call, which nobody would sit through.
    """

    num_not_fresh: int = 0
    num_too_long: int = 0
    num_sub_agents: int = 0
    num_orphans: int = 0
    num_parents: int = 0
    num_arrivals: int = 0
    num_cut_waits: int = 0
    cut_s: float = 0.0
    num_default_waits: int = 0
    num_user_waits: int = 0
    user_wait_s: float = 0.0

    @property
    def num_agents_skipped(self) -> int:
        """Agents that were left out, for whatever reason."""
        return self.num_not_fresh + self.num_too_long + self.num_sub_agents + self.num_orphans


@dataclass(frozen=True, slots=True)
class Limits:
    """The keys of `[workload]` that lose something; see `concur.sim.workload.config.WorkloadConfig`."""

    fresh_only: bool = True
    max_context_tokens: int | None = None
    max_tool_latency_s: float = 60.0
    default_tool_latency_s: float = 1.0


def agents_left_out(losses: Losses, limits: Limits) -> list[str]:
    """Return a line for each reason why agents are left out: how many, why, and what keeps them."""
    lines = []
    if number := losses.num_not_fresh:
        they, them = ("it", "it") if number == 1 else ("they", "them")
        lines.append(
            f"{_count(number, 'agent')} left out: {they} began before the recording (fresh_start = false); "
            f"workload.fresh_only = false keeps {them}"
        )
    if number := losses.num_too_long:
        they, them = ("it outgrows", "it") if number == 1 else ("they outgrow", "them")
        lines.append(
            f"{_count(number, 'agent')} left out: {they} workload.max_context_tokens = "
            f"{limits.max_context_tokens}; a higher one keeps {them}"
        )
    if number := losses.num_sub_agents:
        lines.append(
            f"{_count(number, 'sub-agent')} left out: workload.sub_agents = 'left_out'; 'kept' keeps them"
        )
    if number := losses.num_orphans:
        lines.append(f"{_count(number, 'sub-agent')} left out: whoever starts them is left out")
    return lines


def loss_lines(losses: Losses, limits: Limits) -> tuple[str, ...]:
    """Return a line for each kind of loss: how much, by which key, and what keeps it."""
    lines = agents_left_out(losses, limits)
    if number := losses.num_parents:
        runs = "it runs as an agent of its" if number == 1 else "they run as agents of their"
        lines.append(f"`parent` of {_count(number, 'agent')} is ignored, without a parent_step: {runs} own")
    if number := losses.num_arrivals:
        lines.append(
            f"`arrival_s` of {_count(number, 'agent')} left out: all come at 0 s; "
            'workload.arrival = "trace" keeps them'
        )
    return (*lines, *_waits(losses, limits))


def _waits(losses: Losses, limits: Limits) -> list[str]:
    lines = []
    longest = f"workload.max_tool_latency_s = {limits.max_tool_latency_s:g} s"
    if number := losses.num_cut_waits:
        lines.append(
            f"{_count(number, 'tool wait')} {_were(number)} cut at {longest} "
            f"({_seconds(losses.cut_s)} in all); raise it to keep them"
        )
    if number := losses.num_default_waits:
        cut = f", cut at {longest}," if limits.default_tool_latency_s > limits.max_tool_latency_s else ""
        lines.append(
            f"{_count(number, 'tool wait')} {_were(number)} not recorded: "
            f"workload.default_tool_latency_s = {limits.default_tool_latency_s:g} s{cut} stands for each"
        )
    if number := losses.num_user_waits:
        lines.append(
            f"`user_wait_s` of {_count(number, 'step')} ({_seconds(losses.user_wait_s)} in all) left out: "
            "a batch has no people in it; workload.user_waits = 'kept' keeps them"
        )
    return lines


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _seconds(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0") + " s"

"""What the fields of a trace cannot say alone: rules within a line, and between the lines of trees."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from concur.sim.errors import TraceError
from concur.sim.traces.format import TraceAgent, TraceStep


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a trace, for error messages."""

    path: Path
    line: int
    step: int | None = None

    def error(self, field: str, problem: str, remedy: str) -> TraceError:
        """Return the error that names the place, the problem and the remedy."""
        step = "" if self.step is None else f", step {self.step}"
        return TraceError(f"{self.path}, line {self.line}{step}, {field}: {problem}; {remedy}")


def contexts(agent: TraceAgent) -> Iterator[tuple[int, int]]:
    """Yield prompt and history after it, in tokens, of each step."""
    history = agent.starting_tokens
    for step in agent.steps:
        kept = history if step.kept_tokens is None else step.kept_tokens
        prompt = kept + step.new_prompt_tokens
        history = prompt + step.output_tokens
        yield prompt, history


def check_agent(agent: TraceAgent, where: Where) -> None:
    """Check one line by itself.

    Raises
    ------
    TraceError
        At the first rule that it breaks.
    """
    if agent.shared_prefix_tokens and agent.prefix_group is None:
        raise where.error(
            "prefix_group", f"absent, with {agent.shared_prefix_tokens} shared tokens", "name the group"
        )
    if agent.prefixes and agent.prefix_group is not None:
        raise where.error("prefix_group", "beside prefixes, whose short form it is", "write only one of them")
    if agent.is_spawned:
        _check_spawned(agent, where)
    else:
        for field in ("spawn_delay_s", "fork_tokens"):
            if value := getattr(agent, field):
                raise where.error(field, f"{value} without parent_step", "say after which step of the parent")
    history = agent.starting_tokens
    for number, (step, (_, after)) in enumerate(zip(agent.steps, contexts(agent), strict=True)):
        _check_step(step, history, Where(where.path, where.line, number))
        history = after


def _check_spawned(agent: TraceAgent, where: Where) -> None:
    if agent.parent is None:
        raise where.error("parent", "absent, with a parent_step", "name the parent's agent_id")
    if agent.arrival_s is not None:
        raise where.error(
            "arrival_s",
            f"{agent.arrival_s}, but a step of its parent starts it",
            "leave arrival_s or parent_step out",
        )
    if agent.fork_tokens and agent.levels:
        raise where.error(
            "fork_tokens", f"{agent.fork_tokens} beside a prefix", "leave the prefix out: it is the parent's"
        )


def _check_step(step: TraceStep, history: int, here: Where) -> None:
    kept = step.kept_tokens
    if kept is not None and here.step == 0:
        raise here.error("kept_tokens", "the first step has no history", "leave it out")
    if kept is not None and kept > history:
        raise here.error(
            "kept_tokens",
            f"{kept} but the history so far is {history} tokens",
            f"give at most {history}, or leave it out to keep everything",
        )
    if (history if kept is None else kept) + step.new_prompt_tokens < 1:
        raise here.error("new_prompt_tokens", "the prompt is empty", "give at least 1 token")
    if step.max_new_tokens is not None and step.max_new_tokens < step.output_tokens:
        raise here.error(
            "max_new_tokens",
            f"{step.max_new_tokens} but the output has {step.output_tokens} tokens",
            f"give at least {step.output_tokens}, or leave it out",
        )


def check_trees(agents: Sequence[TraceAgent], places: Sequence[Where]) -> None:
    """Check that every child has a parent that starts it, and that nobody is its own ancestor.

    Raises
    ------
    TraceError
        At the first line that has none.
    """
    by_id = {agent.agent_id: agent for agent in agents}
    for agent, where in zip(agents, places, strict=True):
        if not agent.is_spawned:
            continue
        parent = by_id.get(agent.parent or "")
        if parent is None:
            raise where.error(
                "parent",
                f"{agent.parent!r} is no agent of this file",
                "add its line, or leave parent_step out and let the child arrive by itself",
            )
        _check_child(agent, parent, where)
        _check_acyclic(agent, by_id, where)


def _check_child(agent: TraceAgent, parent: TraceAgent, where: Where) -> None:
    step = agent.parent_step or 0
    if step >= len(parent.steps):
        raise where.error(
            "parent_step", f"{step} but {parent.agent_id!r} has {len(parent.steps)} steps", "count from 0"
        )
    if agent.fork_tokens:
        history = list(contexts(parent))[step][1]
        if agent.fork_tokens > history:
            raise where.error(
                "fork_tokens",
                f"{agent.fork_tokens} but {parent.agent_id!r} has {history} tokens of history by then",
                f"give at most {history}",
            )


def _check_acyclic(agent: TraceAgent, by_id: dict[str, TraceAgent], where: Where) -> None:
    seen = {agent.agent_id}
    above = by_id.get(agent.parent or "")
    while above is not None and above.is_spawned:
        if above.agent_id in seen:
            raise where.error("parent", f"{agent.agent_id!r} is among its own ancestors", "break the circle")
        seen.add(above.agent_id)
        above = by_id.get(above.parent or "")

"""Make `examples/traces/weka_trees.jsonl.gz`: Claude Code sessions whose sub-agents were recorded, as trees.

`weka.jsonl.gz` says whose a sub-agent is, but not when it began: the recording was reduced to counts. Where
it begins is a guess of ours, stated here and in the file's `source`: the sub-agents of a session, in the
order of their numbers, start three at a time at steps spread evenly over their parent's life, and it waits
for them.
"""

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from concur.sim.traces.format import TraceAgent, to_line
from concur.sim.traces.trace import read_trace

TRACES: Final = Path(__file__).parents[1] / "examples" / "traces"
AT_A_TIME: Final = 3
SOURCE: Final = "weka; parent_step is a guess"


def trees(agents: Sequence[TraceAgent]) -> Iterator[TraceAgent]:
    """Yield the sessions that began with their recording and have sub-agents, each with these."""
    for root in agents:
        children = [agent for agent in agents if agent.parent == root.agent_id]
        if not children or not root.fresh_start:
            continue
        yield replace(root, source=SOURCE)
        num_groups = -(-len(children) // AT_A_TIME)
        for number, child in enumerate(children):
            group = number // AT_A_TIME
            step = (group + 1) * len(root.steps) // (num_groups + 1)
            yield replace(child, source=SOURCE, parent_step=step, fresh_start=True)


def main() -> None:
    """Write the trace."""
    lines = "".join(map(to_line, trees(read_trace(TRACES / "weka.jsonl.gz"))))
    path = TRACES / "weka_trees.jsonl.gz"
    path.write_bytes(gzip.compress(lines.encode(), mtime=0))
    print(f"{path}: {lines.count(chr(10))} agents")


if __name__ == "__main__":
    main()

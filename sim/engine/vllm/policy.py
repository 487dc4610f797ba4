"""Who is served first and who makes way: vLLM's `--scheduling-policy`.

Semantics of vLLM 0.32.0, `v1/core/sched/request_queue.py`, and of the preemption in `sched/scheduler.py`:

- `fcfs`: in the order of arrival, those who had to make way before everybody else. Whoever began to run last
  makes way.
- `priority`: the least (priority, arrival) first, those who had to make way among the others. The running
  request with the greatest makes way, wherever it stands, even if it has a part in the step already.

Releases differ under `priority` in how a round of running requests goes on after somebody has made way.
"""

from bisect import insort
from collections import deque
from collections.abc import Sequence

from mypy_extensions import mypyc_attr

from concur.sim.engine.config import EngineConfig
from concur.sim.engine.request import Request


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class SchedulingPolicy:
    """`fcfs`, and what every policy decides.

    `takes_back`: whether somebody may have to make way who is in the step already. `loses_turns`: whether a
    running request is passed over, in this step, for each that stood before it, was not in the step (its last
    token is in flight) and made way. `goes_on`: whether those behind a request that made way for itself have
    their turn all the same.
    """

    takes_back: bool = False
    loses_turns: bool = False
    goes_on: bool = False

    def add(self, queue: deque[Request], request: Request) -> None:
        """Queue a request that has just come."""
        queue.append(request)

    def put_back(self, queue: deque[Request], requests: Sequence[Request]) -> None:
        """Queue requests again that were taken out of some queue, or had to make way."""
        queue.extendleft(reversed(requests))

    def victim(self, running: list[Request]) -> Request:
        """Return who makes way next."""
        return running[-1]


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class PriorityPolicy(SchedulingPolicy):
    """`priority`: queues are always sorted."""

    takes_back: bool = True

    def add(self, queue: deque[Request], request: Request) -> None:
        """Queue a request behind those that go before it."""
        insort(queue, request, key=rank)

    def put_back(self, queue: deque[Request], requests: Sequence[Request]) -> None:
        """Queue requests as if they had just come."""
        for request in requests:
            self.add(queue, request)

    def victim(self, running: list[Request]) -> Request:
        """Return the running request that goes last."""
        return max(running, key=rank)


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class PriorityPolicyUntil026(PriorityPolicy):
    """`priority` of vLLM 0.24 and 0.26.

    Who makes way moves the loop's `req_index` back only if it is in `scheduled_running_reqs`; 0.28 asks where
    it stood (`victim_index < req_index`).
    """

    loses_turns: bool = True


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class PriorityPolicySince033(PriorityPolicy):
    """`priority` of vLLM 0.33: after "Cannot schedule this request." the loop goes on if it is preempted."""

    goes_on: bool = True


def rank(request: Request) -> tuple[int, int]:
    """Return what requests are ordered by; the least goes first.

    vLLM takes the time of arrival, in which no two requests of a live engine are equal.
    """
    return request.priority, request.arrival_number


def make_policy(config: EngineConfig) -> SchedulingPolicy:
    """Return the policy that a configuration names, as its release of vLLM has it."""
    if config.scheduling_policy == "fcfs":
        return SchedulingPolicy()
    if config.is_before("0.28"):
        return PriorityPolicyUntil026()
    return PriorityPolicy() if config.is_before("0.33") else PriorityPolicySince033()

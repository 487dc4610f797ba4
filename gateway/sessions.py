"""The agents that are in the gate: from an agent's first call to what counts as its end.

An agent arrives with its first call, and its sub-agents name it as their parent. It leaves

- in the call that a header calls the last (`is_final`),
- `turn_ends_s` after an answer that calls none of the tools that were on offer: the loop has nothing to do,
- `idle_s` after its last call.

Whoever leaves and calls again arrives anew. A slot is not waited for that long: the gate's lease gives it
away.

**Resends.** A call that comes again from one agent, to the byte, while its first copy still waits, is the
client's second try: it takes the place of the first, which is refused. A guessed identity is no ground for
that, for two agents may begin alike; nor is the first moment, in which a harness may ask for several
answers to one prompt.
"""

import hashlib
from asyncio import Task
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, Literal

from concur.gateway.config import HoldingConfig, SessionsConfig
from concur.gateway.errors import Refusal
from concur.gateway.identity import Identity
from concur.live.gate import AsyncGate, LiveAgent

Ending = Literal["header", "turn", "idle", "drain"]
AVOIDED_S: Final = 10.0
"""How long an upstream that has not answered is left alone, ours."""
_RETRY_COUNT: Final = "x-stainless-retry-count"


@dataclass(slots=True, eq=False)
class Waiting:
    """A copy of a call that waits for its turn; `turn` is the task that does."""

    since_s: float
    turn: "Task[Any] | None" = None
    is_superseded: bool = False


@dataclass(slots=True, eq=False)
class Session:
    """An agent in the gate. Life: arrived -> calls, one or several at a time -> ended.

    `upstream` is where it began, and stays as long as that answers. `heard_s`: when its last call began or
    ended.
    """

    identity: Identity
    agent: LiveAgent
    upstream: str
    root: str
    began_s: float
    heard_s: float
    stack: AsyncExitStack
    num_calls: int = 0
    num_served: int = 0
    turn_ended: bool = False
    is_final: bool = False
    is_over: bool = False
    waiting: dict[bytes, Waiting] = field(default_factory=dict)

    @property
    def agent_id(self) -> str:
        """The agent's name."""
        return self.identity.agent_id


class Sessions:
    """All of them, by name; what time ends is found by `due`, and ended by `end`."""

    def __init__(
        self,
        gate: AsyncGate,
        upstreams: Sequence[str],
        config: SessionsConfig,
        holding: HoldingConfig,
        *,
        on_end: Callable[[Session, Ending], None] = lambda _session, _ending: None,
    ) -> None:
        self.num_resends = 0
        self.num_ended: Counter[Ending] = Counter()
        self._gate = gate
        self._upstreams = tuple(upstreams)
        self._config = config
        self._holding = holding
        self._on_end = on_end
        self._sessions: dict[str, Session] = {}
        self._failed_s: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    async def enter(self, identity: Identity) -> Session:
        """Return the session of a call, and count the call; `leave` ends it.

        Raises
        ------
        Refusal
            If there are too many agents.
        """
        session = self._sessions.get(identity.agent_id) or await self._arrive(identity)
        session.num_calls += 1
        session.heard_s = self._gate.now_s()
        session.turn_ended = False
        if session.upstream not in self.standing():
            session.upstream = choose_upstream(session.root, self.standing())
        session.is_final = session.is_final or identity.is_final
        return session

    def upstream_failed(self, upstream: str) -> None:
        """Send nobody to an upstream for a while: it has not answered."""
        self._failed_s[upstream] = self._gate.now_s()

    def standing(self) -> Sequence[str]:
        """Return the upstreams that have not failed lately; all of them if none stands."""
        since_s = self._gate.now_s() - AVOIDED_S
        found = [url for url in self._upstreams if self._failed_s.get(url, -inf) < since_s]
        return found or self._upstreams

    def supersede(self, session: Session, call: bytes, headers: Mapping[str, str]) -> "Task[Any] | None":
        """Take the place of an earlier copy of this call; return its task, to be waited for, or nothing."""
        earlier = session.waiting.get(call)
        if earlier is None or earlier.turn is None or earlier.turn.done() or not session.identity.is_certain:
            return None
        is_told = headers.get(_RETRY_COUNT, "0") not in ("", "0")
        if not is_told and self._gate.now_s() - earlier.since_s < self._holding.resend_after_s:
            return None
        earlier.is_superseded = True
        earlier.turn.cancel()
        self.num_resends += 1
        return earlier.turn

    async def leave(self, session: Session, *, turn_ended: bool = False) -> None:
        """Count a call's end. `turn_ended`: its answer leaves the agent with nothing to do."""
        session.num_calls -= 1
        session.heard_s = self._gate.now_s()
        session.turn_ended = turn_ended
        if session.is_final and not session.num_calls:
            await self.end(session, "header")

    def due(self, time_s: float) -> list[tuple[Session, Ending]]:
        """Return the sessions whose time is over, each with why."""
        found: list[tuple[Session, Ending]] = []
        for session in self._sessions.values():
            quiet_s = time_s - session.heard_s
            if session.num_calls:
                continue
            if session.turn_ended and quiet_s >= self._config.turn_ends_s:
                found.append((session, "turn"))
            elif quiet_s >= self._config.idle_s:
                found.append((session, "idle"))
        return found

    async def end(self, session: Session, ending: Ending) -> None:
        """Let an agent go; ending it twice is no error."""
        if session.is_over:
            return
        session.is_over = True
        del self._sessions[session.agent_id]
        self.num_ended[ending] += 1
        await session.stack.aclose()
        self._on_end(session, ending)

    async def end_all(self) -> None:
        """Let everybody go."""
        for session in list(self._sessions.values()):
            await self.end(session, "drain")

    async def _arrive(self, identity: Identity) -> Session:
        if len(self._sessions) >= self._config.max_agents:
            raise Refusal(
                503,
                "too_many_agents",
                f"{len(self._sessions)} agents are here but at most {self._config.max_agents} may be; raise "
                "sessions.max_agents",
                retry_after_s=10,
            )
        above = self._sessions.get(identity.parent) if identity.parent else None
        stack = AsyncExitStack()
        agent = await stack.enter_async_context(
            self._gate.agent(identity.agent_id, parent=above.agent if above is not None else None)
        )
        root = above.root if above is not None else identity.parent or identity.agent_id
        now_s = self._gate.now_s()
        upstream = choose_upstream(root, self.standing())
        session = Session(identity, agent, upstream, root, now_s, now_s, stack)
        self._sessions[identity.agent_id] = session
        return session


def choose_upstream(name: str, upstreams: Sequence[str]) -> str:
    """Return where a tree of agents goes: the same for one name as long as that upstream is there.

    Rendezvous hashing (Thaler, Ravishankar, 1998): without an upstream only its own move.
    """
    return max(upstreams, key=lambda url: hashlib.sha256(f"{name}\n{url}".encode()).digest())


def call_digest(method: str, path: str, body: bytes) -> bytes:
    """Return what two copies of a call have in common, and no others."""
    return hashlib.sha256(f"{method} {path}\n".encode() + body).digest()

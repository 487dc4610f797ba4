"""What the gateway is told: one TOML file, each key of which an option may overrule.

Secrets are never in it: `auth` names the environment variables that have them.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from concur.gateway.identity import CLIENTS, SECRET_HEADERS, ClientRule
from concur.routing import router_params
from concur.sim.scenario.sections import ControllerConfig, GateConfig
from concur.sim.scenario.toml_files import explain, parse_override, read_toml, set_key, toml_value
from concur.sim.section import ParameterSection, Section

MAX_BODY_BYTES: Final = 1 << 30
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$")]
SessionRouting = Literal[
    "session", "session_moving", "least_loaded", "round_robin", "power_of_two", "vllm_dp"
]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class ClientConfig(Section):
    """`[[identity.clients]]`: a line of the header table, looked at before those that are built in."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$")]
    session: HeaderName
    agent: HeaderName | Literal[""] = ""
    parent: HeaderName | Literal[""] = ""
    final: HeaderName | Literal[""] = ""
    hold_s: float = Field(540.0, gt=0, le=86_400)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for header in (self.session, self.agent, self.parent, self.final):
            if header in SECRET_HEADERS:
                raise ValueError(f"header = {header!r} is a secret, and names of agents are shown")
        return self

    @property
    def rule(self) -> ClientRule:
        """The line."""
        return ClientRule(self.name, self.session, self.agent, self.parent, self.final, self.hold_s)


class IdentityConfig(Section):
    """`[identity]`: who is told by what. `unknown`: a call that no header and no field names.

    "fingerprint": by how its conversation begins; "gated": an agent of its own, for one call; "beside": not
    held at all. `without` names lines of the built-in table that are not to be used.
    """

    clients: tuple[ClientConfig, ...] = ()
    without: tuple[str, ...] = ()
    unknown: Literal["fingerprint", "gated", "beside"] = "fingerprint"

    @property
    def rules(self) -> tuple[ClientRule, ...]:
        """The whole table."""
        built_in = (rule for rule in CLIENTS if rule.name not in self.without)
        return (*(client.rule for client in self.clients), *built_in)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [rule.name for rule in CLIENTS]
        for name in self.without:
            if name not in names:
                raise ValueError(f"without = {name!r} but must be one of {', '.join(names)}")
        return self


class HoldingConfig(Section):
    """`[holding]`: how a call waits.

    Nothing is sent for `keep_alive_s`, so that quick errors keep their status; then 200 and a ping that
    often. `max_hold_s` is the most, below each client's own (`hold_s` of the table). `max_held` calls may
    wait at once. A call that comes again from an agent after `resend_after_s`, while its first copy waits,
    takes over.
    """

    keep_alive_s: float = Field(15.0, gt=0, le=120)
    max_hold_s: float = Field(540.0, gt=0, le=86_400)
    max_held: int = Field(10_000, ge=1, le=1_000_000)
    resend_after_s: float = Field(5.0, ge=0, le=3600)


class SessionsConfig(Section):
    """`[sessions]`: when an agent has ended, where no header says so.

    `turn_ends_s` after an answer that calls none of the tools on offer; `idle_s` after its last call in any
    case. Its slot goes to others already after `gate.lease_s`.
    """

    turn_ends_s: float = Field(10.0, gt=0, le=86_400)
    idle_s: float = Field(1800.0, gt=0, le=7 * 86_400)
    max_agents: int = Field(100_000, ge=1, le=1_000_000)


class LimitsConfig(Section):
    """`[limits]`: bodies, and how long a start, a connection and a drain may take."""

    max_body_bytes: int = Field(1 << 28, ge=1024, le=MAX_BODY_BYTES)
    connect_s: float = Field(10.0, gt=0, le=600)
    start_s: float = Field(600.0, ge=0, le=86_400)
    drain_s: float = Field(120.0, ge=0, le=86_400)


class AuthConfig(Section):
    """`[auth]`: environment variables with the token that clients must send, and the key for the upstreams.

    With neither, whatever key a client sends passes on.
    """

    token_env: Variable | None = None
    upstream_key_env: Variable | None = None


class RecordConfig(Section):
    """`[record]`: a run record of what is served, a new one every `rotate_s`, the last `keep` of them."""

    folder: Path | None = None
    rotate_s: float = Field(3600.0, ge=1, le=7 * 86_400)
    keep: int = Field(168, ge=1, le=100_000)
    max_calls: int = Field(1_000_000, ge=1, le=100_000_000)


class HeldGateConfig(GateConfig):
    """`[gate]` as in a scenario, for agents whose ends are mostly not told: a shorter lease, ours."""

    lease_s: float = Field(120.0, gt=0)
    are_ends_told: bool = False


class HeldFleetConfig(ParameterSection):
    """`[fleet]`: several upstreams, each with a gate and a law of its own, behind a router.

    `routing` is a router of the catalog that looks at sessions and loads alone, for a prompt is not looked
    into; its parameters may be written flat. A session is a tree of agents.
    """

    routing: SessionRouting = "session"
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        router_params(self.routing, self.parameters)
        return self


class GatewayConfig(Section):
    """All of it.

    Without `fleet` several upstreams are one pool under one gate.

    `fail_open`: when the gate is no longer controlled (a law that raises), calls pass; else they are refused.
    """

    upstreams: tuple[Url, ...] = Field(min_length=1, max_length=64)
    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8100, ge=0, le=65_535)
    fail_open: bool = True
    log: Path | None = None
    controller: ControllerConfig = Field(default_factory=lambda: ControllerConfig(kind="twin"))
    gate: HeldGateConfig = HeldGateConfig()
    identity: IdentityConfig = IdentityConfig()
    holding: HoldingConfig = HoldingConfig()
    sessions: SessionsConfig = SessionsConfig()
    limits: LimitsConfig = LimitsConfig()
    auth: AuthConfig = AuthConfig()
    record: RecordConfig = RecordConfig()
    fleet: HeldFleetConfig | None = None

    @field_validator("upstreams", mode="after")
    @classmethod
    def _without_slash(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        urls = tuple(url.rstrip("/").removesuffix("/v1") for url in urls)
        if len(set(urls)) < len(urls):
            raise ValueError(f"upstreams = {list(urls)} but each must be named once")
        return urls

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.holding.keep_alive_s >= self.holding.max_hold_s:
            raise ValueError(
                f"holding.keep_alive_s = {self.holding.keep_alive_s} but must be less than "
                f"holding.max_hold_s = {self.holding.max_hold_s}"
            )
        return self


def load_config(
    path: Path | None, options: Mapping[str, Any], overrides: Iterable[str] = ()
) -> GatewayConfig:
    """Read the file, if there is one; let options overrule it, and `key=value` overrides both.

    `options` are by dotted key; `None` stands for one that was not given. `controller` is a policy as it is
    named elsewhere: `twin`, `agent_cap=24`, `concur+app_limited`. A law that is not the file's takes none of
    its parameters.

    Raises
    ------
    ScenarioError
        If the file is not TOML, or a key is unknown, missing or out of bounds.
    """
    raw = read_toml(path, what="configuration") if path is not None else {}
    for key, value in options.items():
        if value is not None:
            _set(raw, key, value)
    for override in overrides:
        key, value = parse_override(override)
        set_key(raw, key, value, origin=f"--set {override}")
    origin = str(path) if path is not None else "gateway"
    try:
        return GatewayConfig.model_validate(raw)
    except ValidationError as error:
        raise explain(error, origin) from None


def _set(raw: dict[str, Any], key: str, value: Any) -> None:
    if key != "controller":
        set_key(raw, key, value, origin=key)
        return
    name, _, cap = value.partition("=")
    kind, *wrappers = name.split("+")
    own = raw.get("controller", {})
    raw["controller"] = (own if own.get("kind") == kind else {}) | {"kind": kind}
    raw["controller"] |= {"wrappers": wrappers} if wrappers else {}
    raw["controller"] |= {"cap": toml_value(cap)} if cap else {}

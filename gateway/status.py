"""`/status`: the gate, its agents and the engines, as JSON and as one page for people."""

import math
from importlib.resources import files
from typing import Any, Final

from concur.gateway.config import GatewayConfig
from concur.gateway.control import Control, sample_json
from concur.gateway.service import Service
from concur.gateway.sessions import Sessions
from concur.signals import UNLIMITED

MOST_AGENTS: Final = 500


def status(config: GatewayConfig, control: Control, sessions: Sessions, service: Service) -> dict[str, Any]:
    """Return what is going on, as JSON has it: no infinite number, no secret."""
    gate = control.gate.gate
    return {
        "controller": config.controller.label,
        "state": _state(control, service),
        "window": gate.window if gate.window < UNLIMITED else None,
        "budget_tokens": gate.budget.admit_tokens if math.isfinite(gate.budget.admit_tokens) else None,
        "agents": {
            "active": gate.active,
            "paused": gate.paused,
            "waiting": gate.waiting,
            "lent": gate.lent,
            "expired": gate.num_expired,
            "ended": dict(sessions.num_ended),
        },
        "calls": {"held": service.num_held, "running": service.num_running, "resent": sessions.num_resends},
        "signals": {
            "age_s": round(control.gate.now_s() - control.last.time_s, 1),
            "stale": control.num_stale,
            "cause": control.stale.reason if control.stale else None,
        },
        "upstreams": [
            {"url": url, "agents": sum(session.upstream == url for session in sessions)}
            | control.told_of(url)
            for url in config.upstreams
        ],
        "samples": [sample_json(sample) for sample in control.samples],
        "here": _agents(control, sessions),
    }


def page() -> str:
    """Return the page, which asks for the JSON again and again; everything it needs is in it."""
    return files("concur.gateway").joinpath("status.html").read_text(encoding="utf-8")


def _state(control: Control, service: Service) -> str:
    if service.is_draining:
        return "draining"
    if service.is_open:
        return "open: the gate has failed and calls pass it"
    return "stale signals: the window stays" if control.num_stale else "controlled"


def _agents(control: Control, sessions: Sessions) -> list[dict[str, Any]]:
    now_s = control.gate.now_s()
    views = {view.agent_id: view for view in control.gate.gate.views()}
    rows = []
    for session in sessions:
        view = views.get(session.agent_id)
        if view is None:
            continue
        waits_s = None if view.waiting_since_s is None else round(now_s - view.waiting_since_s, 1)
        rows.append(
            {
                "agent": session.agent_id,
                "parent": view.parent,
                "client": session.identity.client,
                "slot": "active" if view.holds_slot else "lent" if view.lends_slot else "none",
                "calls": view.num_calls,
                "served": session.num_served,
                "waits_s": waits_s,
                "context_tokens": view.context_tokens,
                "quiet_s": 0.0 if session.num_calls else round(now_s - session.heard_s, 1),
            }
        )
        if len(rows) == MOST_AGENTS:
            break
    return rows

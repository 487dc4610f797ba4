"""Where real clients run: the scripted server, the gateway in front of it, and a home of their own.

`CONCUR_CLIENTS` names the folder that `make test-clients` installs them in.
"""

import asyncio
import io
import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from concur.gateway.app import Gateway
from concur.gateway.config import GatewayConfig
from concur.gateway.logs import EventLog
from tests.clients import programs
from tests.importers.scripted_server import CODEX_CONFIG, ScriptedServer

CLIENTS: Final = Path(os.environ.get("CONCUR_CLIENTS", ".venv-clients")).resolve()
SDKS: Final = {
    "openai": programs.OPENAI,
    "responses": programs.RESPONSES,
    "anthropic": programs.ANTHROPIC,
    "litellm": programs.LITELLM,
}
NAMES: Final = ("claude-code", "codex", "mini-swe-agent", *SDKS)
LIMIT_S: Final = 150.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A gateway in front of the scripted server, and what clients need."""

    gateway: Gateway
    server: ScriptedServer
    home: Path
    log: io.StringIO

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What the gateway has logged of calls."""
        events = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [event for event in events if event["event"] == "call"]

    async def run(self, client: str, number: int, script: str, **environment: str) -> str:
        """Run one client in a home of its own to its end, and return what it prints.

        `TIMEOUT_S` in the environment is the time-out that an SDK is told.
        """
        home = self.home / f"{client}-{number}"
        home.mkdir()
        command, more = self._command(client, number, home, f"Run {number}. {script}", environment)
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=home,
            env={"HOME": str(home), "TMPDIR": str(home), "PATH": os.environ["PATH"]} | more | environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            printed, complaints = await asyncio.wait_for(process.communicate(), LIMIT_S)
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, (client, printed.decode()[-2000:], complaints.decode()[-2000:])
        return printed.decode()

    def _command(
        self, client: str, number: int, home: Path, prompt: str, environment: dict[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        url = self.gateway.url
        if client in SDKS:
            timeout = environment.get("TIMEOUT_S", "120")
            arguments = [url, f"{client}-{number}", prompt, timeout]
            local = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
            return [str(CLIENTS / "bin" / "python"), "-c", SDKS[client], *arguments], local
        return _PROGRAMS[client](url, home, prompt)


def _claude_code(url: str, home: Path, prompt: str) -> tuple[list[str], dict[str, str]]:
    program = str(CLIENTS / "node_modules" / ".bin" / "claude")
    flags = ("--output-format", "json", "--dangerously-skip-permissions")
    return [program, "-p", prompt, *flags], {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_AUTH_TOKEN": "x",
        "ANTHROPIC_MODEL": "m",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "IS_SANDBOX": "1",
    }


def _codex(url: str, home: Path, prompt: str) -> tuple[list[str], dict[str, str]]:
    folder = home / ".codex"
    folder.mkdir()
    (folder / "config.toml").write_text(CODEX_CONFIG.format(url=url), encoding="utf-8")
    program = str(CLIENTS / "node_modules" / ".bin" / "codex")
    flags = ("--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")
    return [program, "exec", *flags, prompt], {"SCRIPTED_KEY": "x"}


def _mini_swe_agent(url: str, home: Path, prompt: str) -> tuple[list[str], dict[str, str]]:
    program = str(CLIENTS / "bin" / "mini")
    flags = ("-m", "openai/m", "-y", "--exit-immediately", "-o", str(home / "task.json"), "-t", prompt)
    return [program, *flags], {
        "OPENAI_API_KEY": "x",
        "OPENAI_BASE_URL": f"{url}/v1",
        "MSWEA_CONFIGURED": "true",
        "MSWEA_COST_TRACKING": "ignore_errors",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


_PROGRAMS: Final = {"claude-code": _claude_code, "codex": _codex, "mini-swe-agent": _mini_swe_agent}


@asynccontextmanager
async def staged(cap: int, **holding: float) -> AsyncIterator[Stage]:
    """Start server and gateway; slots of agents that have ended are soon free, so that tests are quick."""
    with tempfile.TemporaryDirectory() as folder:
        server = ScriptedServer(Path(folder) / "server.jsonl")
        runner = web.AppRunner(server.app())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        log = io.StringIO()
        config = GatewayConfig.model_validate(
            {
                "upstreams": ["http://{}:{}".format(*runner.addresses[0][:2])],
                "port": 0,
                "controller": {"kind": "agent_cap", "cap": cap, "interval_s": 0.5},
                "gate": {"lease_s": 5},
                "sessions": {"turn_ends_s": 0.5},
                "holding": holding,
            }
        )
        async with Gateway(config, EventLog(log)).running() as made:
            yield Stage(made, server, Path(folder), log)
        await runner.cleanup()

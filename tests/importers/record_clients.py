"""Runs real agent clients against the scripted server, and keeps what they record, without its texts.

    python -m tests.importers.record_clients FOLDER [CLIENT ...]

FOLDER has the clients, as `npm install --prefix FOLDER ...` puts them, and environments with the libraries:
`mini-swe-agent`, `openhands` (openhands-sdk, openhands-tools) and `inspect-ai` (inspect-ai, openai).
Each client gets a home and a working folder of its own, and the network of this machine alone. The README of
`recordings` says which versions the kept recordings are from.
"""

import asyncio
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from tests.importers import client_programs
from tests.importers.scripted_server import CODEX_CONFIG, ScriptedServer
from tests.importers.scrub import scrub_file

RECORDINGS: Final = Path(__file__).parent / "recordings"
PAUSE_S: Final = 2.0
"""What a person takes between two prompts."""

_LIMIT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a client runs: its folders, and the server that it asks."""

    clients: Path
    home: Path
    work: Path
    url: str

    async def run(self, *command: str, **environment: str) -> str:
        """Run a client to its end, and return what it prints."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.work,
            env={"HOME": str(self.home), "TMPDIR": str(self.home), "PATH": os.environ["PATH"], **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await asyncio.wait_for(process.communicate(), _LIMIT_S)
        return printed.decode()

    def python(self, name: str) -> str:
        """Return the Python of the environment of a library."""
        return str(self.clients / name / "bin" / "python")

    def node(self, name: str) -> str:
        """Return the program of a client from npm."""
        return str(self.clients / "node_modules" / ".bin" / name)


async def claude_code(stage: Stage) -> list[tuple[Path, str]]:
    """Run Claude Code: sub-agents that it waits for and that run beside it, a second prompt, a compaction."""
    environment = {
        "ANTHROPIC_BASE_URL": stage.url,
        "ANTHROPIC_AUTH_TOKEN": "x",
        "ANTHROPIC_MODEL": "m",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "IS_SANDBOX": "1",
    }
    prompts = (
        "SCRIPT[sh ls; children 1; background 1; sh sleep 1; children 2; say done]",
        "SCRIPT[sh sleep 1 & pwd; say done]",
        "/compact",
        "SCRIPT[sh ls; say done]",
    )
    resume: tuple[str, ...] = ()
    for prompt in prompts:
        flags = ("--output-format", "json", "--dangerously-skip-permissions")
        printed = await stage.run(stage.node("claude"), "-p", prompt, *flags, *resume, **environment)
        resume = ("--resume", json.loads(printed.splitlines()[-1])["session_id"])
        await asyncio.sleep(PAUSE_S)
    (project,) = (stage.home / ".claude" / "projects").iterdir()
    found = [path for path in sorted(project.rglob("*.json*")) if path.is_file()]
    return [(path, str(path.relative_to(project))) for path in found]


async def codex(stage: Stage) -> list[tuple[Path, str]]:
    """Run Codex: commands, two sub-agents at once, and a second prompt."""
    folder = stage.home / ".codex"
    folder.mkdir()
    (folder / "config.toml").write_text(CODEX_CONFIG.format(url=stage.url), encoding="utf-8")
    flags = ("--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")
    first = "SCRIPT[sh ls; sh sleep 1 & pwd; background 2; join 0; join 1; sh sleep 1; say done]"
    await stage.run(stage.node("codex"), "exec", *flags, first, SCRIPTED_KEY="x")
    await asyncio.sleep(PAUSE_S)
    second = "SCRIPT[sh sleep 1; say done]"
    await stage.run(stage.node("codex"), "exec", *flags, "resume", "--last", second, SCRIPTED_KEY="x")
    return [(path, path.name) for path in sorted((folder / "sessions").rglob("*.jsonl"))]


async def opencode(stage: Stage) -> list[tuple[Path, str]]:
    """Run OpenCode: one sub-agent, two at once, and a second prompt; export each session."""
    config = {
        "autoupdate": False,
        "share": "disabled",
        "model": "scripted/m",
        "small_model": "scripted/m",
        "permission": {"*": "allow"},
        "provider": {
            "scripted": {
                "npm": "@ai-sdk/openai-compatible",
                "options": {"baseURL": f"{stage.url}/v1", "apiKey": "x"},
                "models": {"m": {"limit": {"context": 100_000, "output": 4_096}}},
            }
        },
    }
    (stage.work / "opencode.json").write_text(json.dumps(config), encoding="utf-8")
    environment = {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}
    first = "SCRIPT[sh ls; children 1; sh sleep 1; children 2; say done]"
    await stage.run(stage.node("opencode"), "run", first, **environment)
    await asyncio.sleep(PAUSE_S)
    await stage.run(
        stage.node("opencode"), "run", "--continue", "SCRIPT[sh sleep 1; say done]", **environment
    )
    found = []
    for session in dict.fromkeys(row["session"] for row in _log(stage)):
        path = stage.home / f"{session}.json"
        exported = await stage.run(stage.node("opencode"), "export", session, **environment)
        path.write_text(exported[exported.index("{") :], encoding="utf-8")
        found.append((path, path.name))
    return found


async def mini_swe_agent(stage: Stage) -> list[tuple[Path, str]]:
    """Run mini-swe-agent on one task."""
    path = stage.home / "task.traj.json"
    environment = {
        "OPENAI_API_KEY": "x",
        "OPENAI_BASE_URL": f"{stage.url}/v1",
        "MSWEA_CONFIGURED": "true",
        "MSWEA_COST_TRACKING": "ignore_errors",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    task = "SCRIPT[sh ls; sh sleep 1; sh pwd & sleep 2; sh ls; sh echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT]"
    flags = ("-m", "openai/m", "-y", "--exit-immediately", "-o", str(path), "-t", task)
    await stage.run(str(stage.clients / "mini-swe-agent" / "bin" / "mini"), *flags, **environment)
    return [(path, path.name)]


async def openhands(stage: Stage) -> list[tuple[Path, str]]:
    """Run the agent of OpenHands on one task, and keep what its evaluations keep."""
    path = stage.home / "output.jsonl"
    prompt = "SCRIPT[sh ls; sh sleep 1; sh pwd & sleep 2; say done]"
    program = ("-c", client_programs.OPENHANDS, str(path), stage.url, prompt)
    await stage.run(stage.python("openhands"), *program, LITELLM_LOCAL_MODEL_COST_MAP="True")
    return [(path, path.name)]


async def inspect_ai(stage: Stage) -> list[tuple[Path, str]]:
    """Run an agent of Inspect AI with sub-agents, and a scorer that asks a model too."""
    folder = stage.home / "logs"
    prompt = "SCRIPT[sh ls; children 1; sh sleep 1 & pwd; children 2; say done]"
    environment = {"SCRIPTED_API_KEY": "x", "SCRIPTED_BASE_URL": f"{stage.url}/v1"}
    program = ("-c", client_programs.INSPECT_AI, str(folder), prompt)
    await stage.run(stage.python("inspect-ai"), *program, **environment)
    return [(path, "log.json") for path in folder.glob("*.json")]


def _log(stage: Stage) -> list[dict[str, Any]]:
    text = (stage.home / "server.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


CLIENTS: Final[Mapping[str, Callable[[Stage], Awaitable[list[tuple[Path, str]]]]]] = {
    "claude-code": claude_code,
    "codex": codex,
    "opencode": opencode,
    "mini-swe-agent": mini_swe_agent,
    "openhands": openhands,
    "inspect-ai": inspect_ai,
}


async def record(name: str, clients: Path) -> None:
    """Run a client, and keep its recording and the server's log."""
    with tempfile.TemporaryDirectory() as folder:
        home, work = Path(folder) / "home", Path(folder) / "work"
        home.mkdir()
        work.mkdir()
        (work / "a.txt").write_text("a file\n", encoding="utf-8")
        server = ScriptedServer(home / "server.jsonl")
        runner = web.AppRunner(server.app())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        stage = Stage(clients, home, work, f"http://127.0.0.1:{runner.addresses[0][1]}")
        found = await CLIENTS[name](stage)
        await runner.cleanup()
        target = RECORDINGS / name
        shutil.rmtree(target, ignore_errors=True)
        replacements = {
            folder: "/scratch",
            folder.replace("/", "-"): "-scratch",
            folder.lstrip("/"): "scratch",
            str(Path.home()): "/home",
            sys.prefix: "/python",
            sys.base_prefix: "/python",
            platform.node(): "host",
            platform.release(): "release",
            stage.url: "http://server",
        }
        for path, kept in [*found, (home / "server.jsonl", "server.jsonl")]:
            scrub_file(path, target / kept, replacements)


async def main(folder: str, *names: str) -> None:
    """Record all clients, or those that are named."""
    for name in names or CLIENTS:
        await record(name, Path(folder).resolve())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""The adapters, with the real libraries: their loops run behind a gate of two, on the scripted server."""

import asyncio
import subprocess
from pathlib import Path

import pytest
from aiohttp import web

from tests.clients import programs
from tests.clients.stage import CLIENTS
from tests.helpers import ROOT
from tests.importers.scripted_server import ScriptedServer

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(
        not (CLIENTS / "bin").is_dir(), reason="clients are not here; run `make test-clients`"
    ),
]


@pytest.mark.parametrize(
    "program", [programs.AGENTS_SDK, programs.LANGGRAPH], ids=["agents-sdk", "langgraph"]
)
def test_a_loop_of_a_framework_runs_behind_the_gate(program: str, tmp_path: Path) -> None:
    async def main() -> None:
        server = ScriptedServer(tmp_path / "server.jsonl")
        runner = web.AppRunner(server.app())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = "http://{}:{}".format(*runner.addresses[0][:2])
        script = "SCRIPT[sh ls; sh pwd & echo two; say all done]"
        environment = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        done = await asyncio.to_thread(
            subprocess.run,
            [str(CLIENTS / "bin" / "python"), "-c", program, url, script],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            timeout=120,
            check=False,
        )
        await runner.cleanup()
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.split()[:2] == ["18", "18"]  # six agents, three calls each, all with usage
        assert done.stdout.count("all done") == 6
        assert server.most_running <= 2
        assert set(server.copies.values()) == {1}

    asyncio.run(main())

"""The verb `concur gateway`."""

import asyncio
import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from concur.gateway.config import GatewayConfig, load_config
from concur.gateway.errors import GatewayError
from concur.sim.cli.options import Overrides
from concur.sim.errors import ExtraMissingError

app = typer.Typer()


@app.command()
def gateway(
    upstream: Annotated[
        list[str] | None, typer.Option("--upstream", metavar="URL", help="An engine's address; repeatable.")
    ] = None,
    controller: Annotated[
        str | None, typer.Option("--controller", metavar="LAW", help="E.g. agent_cap=24; default twin.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE.toml", help="Options overrule it.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Default 127.0.0.1: this machine alone.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Default 8100.")] = None,
    record: Annotated[
        Path | None, typer.Option("--record", metavar="DIR", help="Keep a run record of what is served.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Hold agents' calls in front of running engines until it is their turn.

    Clients need no change but the address. Its own pages are /status and /metrics; SIGTERM drains it.
    """
    options = {
        "upstreams": upstream or None,
        "controller": controller,
        "host": host,
        "port": port,
        "record.folder": str(record) if record is not None else None,
    }
    serve(load_config(config, options, overrides or ()))


def serve(config: GatewayConfig) -> None:
    """Serve until SIGTERM; events go to stderr, or to the file that the configuration names.

    Raises
    ------
    ExtraMissingError
        If the packages that speak HTTP are not installed.
    GatewayError
        If the address is taken, or the log cannot be written.
    """
    try:
        from concur.gateway.app import Gateway  # needs the extra `live`
        from concur.gateway.logs import EventLog, WarningsToEvents
    except ImportError as error:
        raise ExtraMissingError(error, extra="live") from None
    with ExitStack() as stack:
        try:
            stream = sys.stderr
            if config.log is not None:
                stream = stack.enter_context(config.log.open("a", encoding="utf-8"))
            log = EventLog(stream)
            logging.getLogger("concur").addHandler(WarningsToEvents(log))
            made = Gateway(config, log)
            asyncio.run(made.serve())
        except OSError as error:
            raise GatewayError(f"{error}; choose another --port, --host or log") from None

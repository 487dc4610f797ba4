"""Start, wait for, attach to, reset and stop a vLLM API server.

::

    options = ServerOptions(model="tiny", engine=EngineConfig(block_size=32, num_gpu_blocks=512))
    with started(options, folder) as server:
        server.reset_prefix_cache()
        ...  # server.url, server.facts

The server runs under `concur.validate.live.supervise`: it is gone, its engine core with it, when the block
ends and when this process does, even by SIGKILL. Flags and endpoints are those of vLLM 0.32.0
(engine/arg_utils.py; entrypoints/serve/dev/cache/api_router.py,
entrypoints/serve/dev/server_info/api_router.py). The endpoints of its development mode, which is switched on
here, must not be exposed to a network.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import concur
from concur.sim.engine.config import EngineConfig
from concur.validate.errors import LiveExtraMissingError, ServerError
from concur.validate.live.geometries import model_folder
from concur.validate.live.server_log import explain_end, last_line
from concur.validate.live.supervise import STOP_S

_POLL_S: Final = 0.3
_ANSWER_S: Final = 10.0
_INFO_S: Final = 120.0  # vLLM looks at its whole environment, with other programs, before it answers
_ROOT: Final = Path(concur.__file__).resolve().parents[1]
FLAGS: Final[Mapping[str, str]] = {
    "block_size": "block-size",
    "num_gpu_blocks": "num-gpu-blocks-override",
    "max_num_seqs": "max-num-seqs",
    "max_num_batched_tokens": "max-num-batched-tokens",
    "enable_prefix_caching": "enable-prefix-caching",
    "async_scheduling": "async-scheduling",
    "long_prefill_token_threshold": "long-prefill-token-threshold",
    "scheduler_reserve_full_isl": "scheduler-reserve-full-isl",
    "watermark": "watermark",
    "scheduling_policy": "scheduling-policy",
}
"""What of `[engine]` decides a run's numbers, and vLLM's flag for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What to start.

    `model`: a folder or name that vLLM takes, or a geometry of `concur.validate.live.geometries` (then
    `load_format` must be "dummy"). `engine`: its sizes and scheduling, in vLLM's own terms. `python`: the
    interpreter that has vLLM. `steps_file`: record every engine step there, through
    `concur.validate.steps.recorder`. `per_request_metrics`: ask for the times of each call (vLLM 0.32.0;
    leave out for releases without that flag). `extra`: more flags, as they are.
    """

    model: str
    engine: EngineConfig
    load_format: str = "dummy"
    python: str = sys.executable
    steps_file: Path | None = None
    per_request_metrics: bool = True
    extra: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    start_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers. Calls must name `model`; `facts` are what decides a run's numbers.

    `kill`, of one that was started here, ends it in the middle of whatever it does.
    """

    url: str
    model: str
    facts: dict[str, Any]
    kill: Callable[[], None] | None = field(default=None, compare=False)

    def reset_prefix_cache(self, *, within_s: float = 10.0) -> None:
        """Empty the prefix cache, so that the next run starts cold.

        vLLM refuses while blocks are held (`success` false), e.g. by a request just cancelled: asked again
        until `within_s` seconds have passed.

        Raises
        ------
        ServerError
            If the server was started without VLLM_SERVER_DEV_MODE=1, or still holds blocks in the end.
        """
        deadline_s = time.perf_counter() + within_s
        while not self._reset_once():
            if time.perf_counter() > deadline_s:
                raise ServerError(
                    f"{self.url}: the prefix cache is still in use after {within_s} s; end the calls"
                )
            time.sleep(_POLL_S)

    def _reset_once(self) -> bool:
        try:
            body = _get(urllib.request.Request(f"{self.url}/reset_prefix_cache", data=b"", method="POST"))
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise ServerError(f"{self.url}: reset_prefix_cache failed with status {error.code}") from None
            raise ServerError(
                f"{self.url} has no /reset_prefix_cache; start it with VLLM_SERVER_DEV_MODE=1"
            ) from None
        except (urllib.error.URLError, OSError) as error:
            raise ServerError(f"{self.url} does not answer ({error})") from None
        return bool(json.loads(body).get("success", True)) if body else True  # older releases say nothing


@contextmanager
def started(
    options: ServerOptions, folder: Path, *, on_wait: Callable[[float, str], None] | None = None
) -> Iterator[Server]:
    """Start a server, yield it when it is ready, and stop it; its log is kept as `server.log` in `folder`.

    `on_wait` is called while it is not ready: seconds since the start, the last line of the log.

    Raises
    ------
    ServerError
        If the model is none, or the server ends or is not ready in time: what its log says of why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = options.model
    if options.load_format == "dummy":
        model = str(model_folder(model, folder))
    url = f"http://127.0.0.1:{_free_port()}"
    flags = server_flags(options)
    command = [options.python, "-W", "ignore", "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    command += [*flags, "--served-model-name", Path(model).name]
    command += ["--host", "127.0.0.1", "--port", url.rpartition(":")[2]]
    log_path = folder / "server.log"
    with log_path.open("wb") as log:
        process = _supervised(command, _environment(options), log)
        try:
            _wait_until_ready(process, url, log_path, options.start_s, on_wait or _in_silence)
            server = attach(url)
            facts = server.facts | {"flags": _without_paths(flags)}
            yield Server(server.url, server.model, facts, kill=lambda: stop(process))
        finally:
            stop(process)


def attach(url: str) -> Server:
    """Return a server that runs already; it is left running.

    Raises
    ------
    ServerError
        If it does not answer, or not as vLLM does.
    LiveExtraMissingError
        If the packages that read metrics are not installed.
    """
    url = url.rstrip("/")
    try:
        card = json.loads(_get(f"{url}/v1/models"))["data"][0]
        return Server(url, card["id"], _facts(url, card))
    except (urllib.error.URLError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ServerError(
            f"{url}: no vLLM server answers there ({type(error).__name__}: {error}); start one, or correct "
            "the address"
        ) from None


def server_flags(options: ServerOptions) -> list[str]:
    """Return vLLM's flags for `options`, without model and address."""
    engine = options.engine
    flags = ["--load-format", options.load_format, "--max-model-len", str(engine.max_model_len)]
    flags += [text for name in FLAGS for text in flag(FLAGS[name], getattr(engine, name))]
    flags += ["--skip-tokenizer-init", "--enable-prompt-tokens-details"]
    if options.per_request_metrics:
        flags.append("--enable-per-request-metrics")
    if options.steps_file is not None:
        kind = "RecordingAsyncScheduler" if engine.async_scheduling else "RecordingScheduler"
        flags += ["--scheduler-cls", f"concur.validate.steps.recorder.{kind}"]
    return [*flags, *options.extra]


def flag(name: str, value: object) -> list[str]:
    """Return one of vLLM's flags as words of a command."""
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", str(value)]


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a supervised process and all that it started; ending it twice is no error."""
    assert process.stdin is not None
    process.stdin.close()  # the supervisor does the rest
    try:
        process.wait(2 * STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _supervised(command: list[str], env: dict[str, str], log: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "concur.validate.live.supervise", *command],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=env,
        start_new_session=True,  # a Ctrl-C at the terminal is for us; we stop the server in our own time
    )


def _environment(options: ServerOptions) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    env = os.environ | {"VLLM_SERVER_DEV_MODE": "1", "PYTHONPATH": path}
    env.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; the CPU build reserves 4 otherwise
    if options.steps_file is not None:
        env["CONCUR_STEPS_FILE"] = str(options.steps_file.absolute())
    return env | options.env


def _wait_until_ready(
    process: "subprocess.Popen[bytes]",
    url: str,
    log_path: Path,
    within_s: float,
    on_wait: Callable[[float, str], None],
) -> None:
    begin_s = time.perf_counter()
    while not _is_healthy(url):
        waited_s = time.perf_counter() - begin_s
        if process.poll() is not None:
            raise ServerError(f"the server ended before it was ready; {explain_end(log_path)}")
        if waited_s > within_s:
            raise ServerError(f"the server is not ready after {within_s} s; {explain_end(log_path)}")
        on_wait(waited_s, last_line(log_path))
        time.sleep(_POLL_S)


def _in_silence(waited_s: float, heard: str) -> None:
    """Tell nobody."""


def _is_healthy(url: str) -> bool:
    try:
        _get(f"{url}/health")
    except (urllib.error.URLError, OSError):
        return False
    return True


def _facts(url: str, card: Mapping[str, Any]) -> dict[str, Any]:
    """Ask a server what it is, each way that it has of saying so."""
    try:
        from concur.validate.live.server_facts import card_facts, published_facts, resolved_facts
    except ImportError as error:
        raise LiveExtraMissingError(error) from None
    facts = {"engine": "vllm", "vllm": json.loads(_get(f"{url}/version"))["version"]} | card_facts(card)
    with suppress(urllib.error.HTTPError, ValueError):  # outside its development mode it does not say
        asked = _get(f"{url}/server_info?config_format=json", within_s=_INFO_S)
        facts |= resolved_facts(json.loads(asked))
    with suppress(urllib.error.HTTPError, ValueError):  # a run reads the page again, and says what is wrong
        facts |= published_facts(_get(f"{url}/metrics").decode())
    return facts


def _without_paths(flags: list[str]) -> list[str]:
    return [Path(flag).name if flag.startswith("/") else flag for flag in flags]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _get(request: str | urllib.request.Request, *, within_s: float = _ANSWER_S) -> bytes:
    try:
        with urllib.request.urlopen(request, timeout=within_s) as response:
            body: bytes = response.read()
            return body
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection open otherwise
        raise

"""Model calls over HTTP with token ids, as an exact agent would make them: /v1/completions of vLLM.

Prompts and answers are token ids (`return_token_ids`; vLLM 0.32.0, entrypoints/openai/completion), so that
the engine's prefix cache sees the very histories of the workload. `ignore_eos` makes an answer as long as the
workload says. The cached tokens in `usage` need the server flag --enable-prompt-tokens-details, and the
engine's own time to the first token --enable-per-request-metrics; without them they are `None`.

A call is retried after 429, 5xx, a timeout or a broken connection, with a pause that doubles and is drawn
from a generator that the caller gives; any other refusal is final. What a broken attempt had already
generated is thrown away.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import numpy as np

from concur.errors import require
from concur.validate.errors import CallError, UnansweredError

_RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How a call is tried: at most `max_attempts` times, each at most `timeout_s` seconds.

    Before attempt n + 1 there is a pause between half and all of `first_pause_s` * 2^(n-1), at most
    `max_pause_s`; a `Retry-After` in seconds is heeded up to that maximum. All values are ours.
    """

    max_attempts: int = 5
    timeout_s: float = 600.0
    first_pause_s: float = 0.5
    max_pause_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("max_attempts", "timeout_s", "first_pause_s", "max_pause_s"):
            require(getattr(self, name) > 0, name, getattr(self, name), "greater than 0")


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer; instants in seconds of the client's clock.

    `sent_s` is that of the attempt that succeeded. `first_token_s` is `None` if the answer came in one piece
    and the engine did not say. `engine_ttft_s`: from the engine's scheduling to its first token.
    `causes`: why earlier attempts failed.
    """

    token_ids: tuple[int, ...]
    prompt_tokens: int
    cached_tokens: int | None
    sent_s: float
    first_token_s: float | None
    finished_s: float
    engine_ttft_s: float | None
    causes: tuple[str, ...] = ()


class _RetriableError(Exception):
    """An attempt that failed in a way that may pass; `pause_s` is the server's wish."""

    def __init__(self, cause: str, pause_s: float = 0.0) -> None:
        super().__init__(cause)
        self.pause_s = pause_s


class CompletionClient:
    """Calls one model of one server; holds no state but its random generator."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        model: str,
        *,
        clock: Callable[[], float],
        rng: np.random.Generator,
        retry: RetryPolicy | None = None,
        stream: bool = True,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._session = session
        self._url = f"{url.rstrip('/')}/v1/completions"
        self._model = model
        self._clock = clock
        self._rng = rng
        self._retry = retry or RetryPolicy()
        self._stream = stream
        self._sleep = sleep

    async def complete(self, prompt: Sequence[int], max_tokens: int, *, priority: int = 0) -> Completion:
        """Return the `max_tokens` tokens that the model puts after `prompt`.

        A server whose scheduling policy knows none refuses a `priority` other than 0.

        Raises
        ------
        CallError
            If every attempt failed, the server refused the call, or its answer is not what was asked for.
        """
        causes: list[str] = []
        while True:
            try:
                answer = await self._attempt(self._body(prompt, max_tokens, priority))
            except _RetriableError as error:
                causes.append(str(error))
                if len(causes) >= self._retry.max_attempts:
                    tried = f"{len(causes)} attempts failed, the last with: {causes[-1]}"
                    raise UnansweredError(f"{self._url}: {tried}; see the server's log") from None
                await self._sleep(self._pause_s(len(causes), error.pause_s))
            else:
                return self._completion(answer, len(prompt), max_tokens, tuple(causes))

    async def _attempt(self, body: dict[str, Any]) -> "_Answer":
        answer = _Answer(sent_s=self._clock())
        timeout = aiohttp.ClientTimeout(total=self._retry.timeout_s)
        try:
            async with self._session.post(self._url, json=body, timeout=timeout) as response:
                if response.status != 200:
                    await self._refuse(response)
                if self._stream:
                    async for event in _events(response):
                        answer.add(event, self._clock())
                else:
                    answer.add(await response.json(), self._clock(), is_whole=True)
        except TimeoutError:
            raise _RetriableError(f"no answer within {self._retry.timeout_s} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _RetriableError(f"{type(error).__name__} {error}".rstrip()) from None
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise CallError(f"{self._url}: an answer that is not vLLM's ({error!r})") from None
        answer.finished_s = self._clock()
        if not answer.is_complete:
            raise _RetriableError("the answer broke off")
        return answer

    def _body(self, prompt: Sequence[int], max_tokens: int, priority: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": list(prompt),
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        if priority:
            body["priority"] = priority
        if self._stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    async def _refuse(self, response: aiohttp.ClientResponse) -> None:
        text = (await response.text(errors="replace"))[:300]
        if response.status not in _RETRIED:
            raise CallError(f"{self._url}: refused with status {response.status}: {text}")
        wish_s = 0.0
        with suppress(ValueError):  # a Retry-After may also be a date; then our own pause is taken
            wish_s = float(response.headers.get("Retry-After", "0"))
        raise _RetriableError(f"status {response.status}", wish_s)

    def _pause_s(self, num_failed: int, wish_s: float) -> float:
        pause_s = self._retry.first_pause_s * 2.0 ** (num_failed - 1) * self._rng.uniform(0.5, 1.0)
        return min(max(pause_s, wish_s), self._retry.max_pause_s)

    def _completion(
        self, answer: "_Answer", prompt_tokens: int, max_tokens: int, causes: tuple[str, ...]
    ) -> Completion:
        got = (
            answer.usage.get("prompt_tokens"),
            answer.usage.get("completion_tokens"),
            len(answer.token_ids),
        )
        asked = (prompt_tokens, max_tokens, max_tokens)
        if got != asked:
            raise CallError(
                f"{self._url}: (prompt, completion, returned) tokens are {got} but {asked} were asked for; "
                "serve the model with a max_model_len that fits, on a vLLM that knows return_token_ids"
            )
        ttft_ms, decode_ms = (
            answer.metrics.get(key) for key in ("time_to_first_token_ms", "generation_time_ms")
        )
        first_token_s = answer.first_token_s
        if first_token_s is None and decode_ms is not None:
            first_token_s = answer.finished_s - decode_ms / 1e3
        return Completion(
            token_ids=tuple(answer.token_ids),
            prompt_tokens=prompt_tokens,
            cached_tokens=(answer.usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
            sent_s=answer.sent_s,
            first_token_s=first_token_s,
            finished_s=answer.finished_s,
            engine_ttft_s=None if ttft_ms is None else ttft_ms / 1e3,
            causes=causes,
        )


class _Answer:
    """An answer as it comes in, whole or event by event."""

    def __init__(self, sent_s: float) -> None:
        self.sent_s = sent_s
        self.finished_s = sent_s
        self.first_token_s: float | None = None
        self.token_ids: list[int] = []
        self.usage: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}

    @property
    def is_complete(self) -> bool:
        """Whether the engine's own count, which comes last, is here."""
        return bool(self.usage)

    def add(self, event: dict[str, Any], time_s: float, *, is_whole: bool = False) -> None:
        if "error" in event:  # vLLM reports a failure in mid-stream as one more event
            raise _RetriableError(f"the engine failed: {str(event['error'])[:300]}")
        for choice in event["choices"]:
            self.token_ids += choice.get("token_ids") or ()
            if self.token_ids and self.first_token_s is None and not is_whole:
                self.first_token_s = time_s
        self.usage = event.get("usage") or self.usage
        self.metrics = event.get("metrics") or self.metrics


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Yield the JSON of server-sent events; lines may be of any length (the first holds the whole prompt)."""
    rest = b""
    async for piece in response.content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
                yield json.loads(line[5:])

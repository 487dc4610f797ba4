"""Trajectories of mini-swe-agent, `*.traj.json`: a file a task, its messages with the answers of the API.

An assistant's message, or the message about an answer that could not be parsed, has the API's usage and the
time its call ended under `extra`; the outputs of its commands have the time they ended. Where no usage was
kept, the texts are counted. An answer that could not be parsed is not in the prompt of the next call.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from concur.sim.importers.calls import Call, counted
from concur.sim.importers.importer import CountTokens, Head, Notes
from concur.sim.importers.recorded import Recorded, agents_of
from concur.sim.importers.texts import COUNTED, TextImporter, message_counter, value_with_texts
from concur.sim.importers.values import count_of, list_of, object_of, text_of, time_of
from concur.sim.traces.format import TraceAgent

_SOURCE: Final = "mini-swe-agent"


@dataclass(frozen=True, slots=True)
class _Usage:
    """Tokens of a call, as the API or the tokenizer counts them."""

    prompt: Any
    output: Any
    cached: int | None


def _told_by(head: Head) -> bool:
    value = head.first("messages", "trajectory_format")
    return value is not None and str(value["trajectory_format"]).startswith("mini-swe-agent")


def _agents(path: Path, notes: Notes, count_tokens: CountTokens | None) -> Iterator[TraceAgent]:
    value = object_of(value_with_texts(path, notes))
    if not value:
        return
    messages = [message for message in list_of(value.get("messages")) if isinstance(message, dict)]
    name = text_of(value.get("instance_id")) or path.name.partition(".traj")[0]
    calls = list(_calls(messages, path, notes, count_tokens))
    yield from agents_of([Recorded(agent_id=name, source=_SOURCE, calls=calls)], notes)


def _calls(
    messages: list[dict[str, Any]], path: Path, notes: Notes, count_tokens: CountTokens | None
) -> Iterator[Call]:
    tokens_of = None if count_tokens is None else message_counter(count_tokens)
    before = 0  # tokens of the texts so far
    time_s: float | None = None  # of the last message that has one
    rejected: int | None = None  # the prompt of an answer that is not in the next one
    for number, message in enumerate(messages, 1):
        where = f"{path}, message {number}"
        extra = object_of(message.get("extra"))
        is_kept = message.get("role") == "assistant" or message.get("object") == "response"
        now_s = time_of(extra.get("timestamp"))
        length = 0 if tokens_of is None else tokens_of(message)
        if is_kept or isinstance(extra.get("response"), dict):
            text = None if tokens_of is None else _Usage(before, length, None)
            usage = _usage(message, extra) or text
            tokens = None
            if usage is None:
                notes.leave_out("a call without usage; a --tokenizer counts its text", where)
            elif (tokens := counted(usage.prompt, usage.output, where, notes)) is not None:
                if usage is text:
                    notes.guess(COUNTED, where)
                yield Call(
                    *tokens,
                    where,
                    cached_tokens=usage.cached,
                    began_s=time_s,
                    ended_s=now_s,
                    common_tokens=rejected,
                )
            rejected = None if is_kept or tokens is None else tokens[0]
        before += length
        time_s = now_s if now_s is not None else time_s


def _usage(message: Mapping[str, Any], extra: Mapping[str, Any]) -> _Usage | None:
    """Return the usage that the API sent, in the words of chats or of responses."""
    response = message if message.get("object") == "response" else object_of(extra.get("response"))
    usage = object_of(response.get("usage"))
    for prompt, details, output in (
        ("prompt_tokens", "prompt_tokens_details", "completion_tokens"),
        ("input_tokens", "input_tokens_details", "output_tokens"),
    ):
        if usage.get(prompt) is not None:
            cached = count_of(object_of(usage.get(details)).get("cached_tokens"))
            return _Usage(usage[prompt], usage.get(output), cached)
    return None


MINI_SWE_AGENT: Final = TextImporter(
    name="mini-swe-agent",
    title="mini-swe-agent trajectory (mini -o FILE, *.traj.json)",
    told_by=_told_by,
    agents=_agents,
)

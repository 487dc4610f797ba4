"""A real vLLM server that chats: a tiny model with random weights, and a tokenizer of single bytes.

`python -m tests.gateway.chat_server` (in vLLM's environment) writes what the server streams for each
protocol, byte by byte as it came, into `tests/gateway/streams`.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

from concur.sim.engine.config import EngineConfig
from concur.validate.live.geometries import GEOMETRIES, model_folder
from concur.validate.live.server import Server, ServerOptions, started
from tests.gateway.helpers import PATHS

STREAMS: Final = Path(__file__).parent / "streams"
_ENGINE: Final = EngineConfig(
    block_size=32, num_gpu_blocks=512, max_model_len=4096, max_num_batched_tokens=2048, max_num_seqs=32
)
_TEMPLATE: Final = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant: "
)
_FLAGS: Final = ("--enforce-eager", "--no-skip-tokenizer-init")


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer that knows each byte, and a word for every other number of the model's vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<s>", "</s>", *letters]
    names += [f"w{number}" for number in range(len(names), GEOMETRIES["tiny"]["vocab_size"])]
    tokenizer = Tokenizer(models.BPE(vocab={name: number for number, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = _TEMPLATE
    fast.save_pretrained(folder)


@contextmanager
def chat_server() -> Iterator[Server]:
    """Start the server; it ends with the block."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder("tiny", Path(scratch))
        write_tokenizer(folder)
        options = ServerOptions(model=str(folder), engine=_ENGINE, extra=_FLAGS)
        with started(options, Path(scratch) / "run") as server:
            yield server


def _body(protocol: str, model: str) -> dict[str, Any]:
    common = {"model": model, "stream": True, "temperature": 0.0}
    told = {"stream_options": {"include_usage": True}}
    messages = [{"role": "user", "content": "Größe, 大きさ, size: which of them is it?"}]
    return {
        "chat": common | told | {"messages": messages, "max_tokens": 24, "seed": 1},
        "completions": common | told | {"prompt": "Once upon a time", "max_tokens": 24, "seed": 1},
        "responses": common | {"input": "Once upon a time", "max_output_tokens": 24},
        "messages": common | {"messages": messages, "max_tokens": 24},
    }[protocol]


async def _record(server: Server) -> None:
    async with aiohttp.ClientSession() as client:
        for protocol, path in PATHS.items():
            async with client.post(server.url + path, json=_body(protocol, server.model)) as answer:
                stream = await answer.read()
                assert answer.status == 200, (protocol, stream)
                chunks = stream.decode().replace(server.model, "tiny")
                (STREAMS / f"{protocol}.sse").write_bytes(chunks.encode())
                print(f"{protocol}: {len(chunks)} characters")


def main() -> None:
    """Record a stream of each protocol."""
    STREAMS.mkdir(exist_ok=True)
    with chat_server() as server:
        asyncio.run(_record(server))


if __name__ == "__main__":
    main()

"""For tests of the metrics: pages to read, and pages made of them."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from concur.live.capacity import Capacity
from concur.live.engines import Page

METRICS = Path(__file__).parent / "metrics"
FIELD = METRICS / "field"
VLLM_TEXT = (METRICS / "vllm-0.32.0.txt").read_text()
SGLANG_TEXT = (METRICS / "sglang-0.5.17.txt").read_text()


def field_page(name: str) -> str:
    """Return a page written after a public report."""
    return (FIELD / f"{name}.txt").read_text()


def vllm_text(engines: Mapping[str, Mapping[str, float]], *, model: str = "tiny") -> str:
    """Return a page of several engines: the golden's samples of engine 0, with values replaced."""
    lines = [line for line in VLLM_TEXT.splitlines() if 'engine="0"' in line]
    text = []
    for engine, values in engines.items():
        for line in lines:
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0]
            series = series.replace('engine="0"', f'engine="{engine}"').replace('"tiny"', f'"{model}"')
            text.append(f"{series} {values.get(name, float(value))}")
    return "\n".join(text) + "\n"


def counted_text(
    tokens: float, *, engine: str = "0", model: str = "m", num_gpu_blocks: int = 20_000, born_s: float = 0.0
) -> str:
    """Return a page of a vLLM server that has counted `tokens` prompt tokens, at a hit rate of 0.9.

    `born_s`: when its process started, as it publishes it; 0: it does not.
    """
    labels = f'engine="{engine}",model_name="{model}"'
    values = {
        "num_requests_running": 4,
        "num_requests_waiting": 0,
        "kv_cache_usage_perc": 0.25,
        "prefix_cache_queries_total": int(tokens),
        "prefix_cache_hits_total": int(tokens * 0.9),
        "num_preemptions_total": 0,
        "prompt_tokens_total": int(tokens),
        "generation_tokens_total": int(tokens) // 100,
    }
    text = "".join(f"vllm:{name}{{{labels}}} {value}\n" for name, value in values.items())
    info = f'block_size="16",engine="{engine}",num_gpu_blocks="{num_gpu_blocks}"'
    started = f"process_start_time_seconds {born_s}\n" if born_s else ""
    return f"{text}vllm:cache_config_info{{{info}}} 1.0\n{started}"


def counted_page(tokens: float, *, born_s: float = 0.0) -> Page:
    """Return what `counted_text` is read as, without the reading: quickly."""
    values = {
        "prefix_cache_queries_tokens": int(tokens),
        "prefix_cache_hits_tokens": int(tokens * 0.9),
        "num_preemptions": 0,
        "prompt_tokens": int(tokens),
        "generation_tokens": int(tokens) // 100,
    }
    return Page(
        engines={},
        capacities={"0": Capacity(20_000, 16)},
        counters={("0", field): value for field, value in values.items()},
        births={"process_start_time_seconds[]": born_s} if born_s else {},
        published=frozenset(),
        models=frozenset(),
        engine_types=frozenset(),
        warnings=(),
    )


def edited(text: str, edit: Callable[[str], str | None], *, only: str = "") -> str:
    """Return a page with its samples edited line by line, where they contain `only`; `None` drops one."""
    lines = [line if line.startswith("#") or only not in line else edit(line) for line in text.splitlines()]
    return "".join(f"{line}\n" for line in lines if line is not None)


def without(text: str, part: str) -> str:
    """Return a page without the samples that contain `part`."""
    return edited(text, lambda line: None, only=part)


def with_label(text: str, label: str, value: str) -> str:
    """Return a page with one more label on every sample."""
    return edited(text, lambda line: re.sub(r"\{", f'{{{label}="{value}",', line, count=1))

"""Fig. 1: how contexts and their KV grow over ten steps, and what a reload costs against a recompute."""

from typing import Final

import numpy as np
from rich.table import Table

from concur.sim.paper.numbers import PAPER_KV_BYTES_PER_TOKEN, RELOAD_CONCURRENCY, RELOAD_TOKENS, printed
from concur.sim.paper.parts import Finding, Part
from concur.sim.paper.runs import Book, Job
from concur.sim.paper.settings import LINK_BYTES_PER_S, Setting, deepseek, qwen
from concur.sim.runs.intervals import Interval, mean_interval
from concur.sim.scenario.build import build_workload
from concur.sim.step_time.profile import load_profile
from concur.sim.step_time.roofline import RooflineStepTime
from concur.sim.step_time.step_time import StepBatch

NUM_STEPS: Final = 10
_CHUNK_TOKENS: Final = 8192  # of a prefill in one step
_GIB: Final = 2**30


def jobs() -> list[Job]:
    """Return nothing: workloads are drawn and single steps timed, no batch is run."""
    return []


def part(book: Book) -> Part:
    """Return contexts, bytes and times, and their findings."""
    contexts = {
        setting.title.partition(" ")[0]: [_contexts(setting, seed) for seed in book.seeds]
        for setting in (deepseek(16, 40, "as printed"), qwen(8, "as printed"))
    }
    recompute = {
        "TP16, H100": _recompute_s("h100-sxm_deepseek-v3_tp16"),
        "TP8, H200": _recompute_s("h200-sxm_deepseek-v3_tp8"),
    }
    reload = {
        "the paper's KV": _reload_s(PAPER_KV_BYTES_PER_TOKEN),
        "the engine's KV (MLA)": _reload_s(_mla()),
    }
    return Part(
        name="fig1",
        title="Fig. 1: growth of the KV, and reload against recompute",
        findings=_findings(contexts, recompute, reload),
        tables=[_growth_table(contexts), _reload_table(recompute, reload)],
        series={"contexts": _means(contexts), "recompute": recompute, "reload": reload},
    )


def kv_bytes_per_token(model: str) -> int:
    """Return the bytes by which the paper counts: DeepSeek-V3's as its Fig. 1c, Qwen3-32B's as stored."""
    return PAPER_KV_BYTES_PER_TOKEN if model == "DeepSeek-V3" else 64 * 8 * 128 * 2 * 2


def _mla() -> int:
    return load_profile("h100-sxm_deepseek-v3_tp16").kv_bytes_per_token or 0


def _contexts(setting: Setting, seed: int) -> np.ndarray:
    """Return mean contexts after each of ten steps, of the agents that make so many; shape (10,)."""
    agents = build_workload(setting.scenario().with_seed(seed)).agents
    return np.array(
        [
            np.mean([a.steps[step].context_tokens for a in agents if len(a.steps) > step])
            for step in range(NUM_STEPS)
        ]
    )


def _means(contexts: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    return {model: np.mean(drawn, axis=0) for model, drawn in contexts.items()}


def _reload_s(bytes_per_token: int) -> float:
    """Return how long eight loads of 4,096 tokens take that share the link."""
    return RELOAD_CONCURRENCY * RELOAD_TOKENS * bytes_per_token / LINK_BYTES_PER_S


def _recompute_s(profile: str) -> tuple[float, float]:
    """Return how long it takes to prefill one request of 4,096 tokens, and eight, in full chunks."""
    step_time = RooflineStepTime(load_profile(profile))

    def prefill_s(num_requests: int) -> float:
        batch = StepBatch()
        for _ in range(num_requests):
            batch.add_prefill(RELOAD_TOKENS, 0, 0)
        return step_time(batch)

    per_chunk = _CHUNK_TOKENS // RELOAD_TOKENS
    return prefill_s(1), RELOAD_CONCURRENCY / per_chunk * prefill_s(per_chunk)


def _findings(
    contexts: dict[str, list[np.ndarray]],
    recompute: dict[str, tuple[float, float]],
    reload: dict[str, float],
) -> list[Finding]:
    found = []
    for model, key in (("DeepSeek-V3", "fig1.deepseek_bytes"), ("Qwen3-32B", "fig1.qwen_bytes")):
        bytes_per_token = kv_bytes_per_token(model)
        own = mean_interval([float(drawn[-1]) * bytes_per_token for drawn in contexts[model]])
        found.append(_finding(key, model, "KV per agent after ten steps", own))
    request_gib = PAPER_KV_BYTES_PER_TOKEN * RELOAD_TOKENS / _GIB * 1e9
    found.append(
        _finding("fig1.request_bytes", "DeepSeek-V3", "KV of 4,096 tokens (GiB)", _exact(request_gib))
    )
    paper_s = reload["the paper's KV"]
    found.append(_finding("fig1.reload_s", "DeepSeek-V3", "reload, 8 at once", _exact(paper_s)))
    for machine, (one_s, eight_s) in recompute.items():
        why = f"{RELOAD_CONCURRENCY * RELOAD_TOKENS / eight_s:,.0f} tokens/s by the profile"
        for what, took_s in (("recompute, 1 request", one_s), ("recompute, 8 requests", eight_s)):
            found.append(_finding("fig1.recompute_s", f"DeepSeek-V3 {machine}", what, _exact(took_s), why))
    return found


def _finding(key: str, setting: str, what: str, ours: Interval, why: str = "") -> Finding:
    return Finding(reading=None, setting=setting, what=what, printed=printed(key), ours=ours, why=why)


def _exact(value: float) -> Interval:
    return Interval(value, None)


def _growth_table(contexts: dict[str, list[np.ndarray]]) -> Table:
    table = Table(
        title="context and KV per agent",
        caption="mean over the agents that make so many steps; GB = 1e9 bytes, as the paper counts a token",
    )
    table.add_column("after step", justify="right")
    for model in contexts:
        table.add_column(f"{model}, tokens", justify="right")
        table.add_column("GB", justify="right")
    means = _means(contexts)
    for step in range(NUM_STEPS):
        cells = []
        for model, mean in means.items():
            cells += [f"{mean[step]:,.0f}", f"{mean[step] * kv_bytes_per_token(model) / 1e9:.2f}"]
        table.add_row(str(step + 1), *cells)
    return table


def _reload_table(recompute: dict[str, tuple[float, float]], reload: dict[str, float]) -> Table:
    table = Table(title="4,096 tokens: reload against recompute", caption="ms; printed: 1,100 and 600")
    table.add_column("what")
    table.add_column("one request", justify="right")
    table.add_column("eight requests", justify="right")
    for name, took_s in reload.items():
        table.add_row(
            f"reload, {name}", f"{1000 * took_s / RELOAD_CONCURRENCY:,.0f}", f"{1000 * took_s:,.0f}"
        )
    for machine, (one_s, eight_s) in recompute.items():
        table.add_row(f"recompute, {machine}", f"{1000 * one_s:,.0f}", f"{1000 * eight_s:,.0f}")
    return table

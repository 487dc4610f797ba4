"""The paper's settings as scenarios, in two readings, and what is assumed where the paper is silent."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from concur.sim.paper.numbers import PAPER_KV_BYTES_PER_TOKEN, RELOAD_CONCURRENCY, RELOAD_TOKENS, printed
from concur.sim.scenario.scenario import Scenario, parse_scenario
from concur.sim.step_time.profile import load_profile

Reading = Literal["as printed", "lengthened"]
READINGS: Final[Mapping[Reading, str]] = {
    "as printed": (
        "agents as Fig. 1 shows them, ten steps and the printed contexts; DeepSeek-V3's KV as the engine "
        "stores it."
    ),
    "lengthened": (
        "the agents go on after Fig. 1's ten steps, four times (Qwen3-32B) or twice (DeepSeek-V3) as "
        "long, and DeepSeek-V3's KV is as the paper counts it. The factor is the smallest power of two at "
        "which the peak demand of the headline setting exceeds its pool (TP8, and TP16 with 40 agents): the "
        "paper reports thrashing there, and with less there is none. It is not fitted to any time, ratio or "
        "hit rate."
    ),
}

PROFILES: Final = (
    "h100-sxm_qwen3-32b_tp8",
    "h100-sxm_qwen3-32b_tp2",
    "h100-sxm_deepseek-v3_tp16",
    "h200-sxm_deepseek-v3_tp8",
)
"""The step-time profiles of the settings."""

LINK_BYTES_PER_S: Final = (
    RELOAD_CONCURRENCY * RELOAD_TOKENS * PAPER_KV_BYTES_PER_TOKEN / printed("fig1.reload_s").value
)
"""52.1 GB/s: what Fig. 1c's transfer amounts to, 57.3 GB in 1.1 s."""

ASSUMPTIONS: Final = (
    ("agents", "the generator `react`, all at t = 0", "the paper: an offline batch of ReAct agents"),
    (
        "context of Qwen3-32B agents",
        "5.9k tokens after ten steps",
        "Fig. 1: 1.5 GB at 256 KiB per token (64 layers x 8 KV heads x 128 x 2 x 2 bytes) are 5.7k",
    ),
    (
        "context of DeepSeek-V3 agents",
        "10.5k tokens after ten steps: outputs and observations twice Qwen's",
        "Fig. 1: 17 GiB at the paper's 1.75 MB per token are 10.4k",
    ),
    (
        "number of steps",
        "1 + Poisson, mean 10 (as printed), 40 Qwen3-32B and 20 DeepSeek-V3 (lengthened)",
        "Fig. 1 has ten steps but does not say that agents end there; smallest power of two that thrashes",
    ),
    ("output and observation", "log-normal, medians 180 and 200 tokens", "ours: reach Fig. 1's contexts"),
    ("tool wait", "log-normal, median 1 s, sigma 1", "not in the paper; ours"),
    (
        "KV pool of Qwen3-32B",
        "2.06M tokens (TP8), 0.33M (TP2)",
        "computed: 0.92 of device memory less weights and reserves (calib/README.md)",
    ),
    (
        "KV pool of DeepSeek-V3, TP16 H100",
        "453k tokens (as printed), 291k (lengthened)",
        "the same memory at 70,272 bytes a token on every GPU (MLA), or the paper's 1,748,992 over all GPUs",
    ),
    (
        "KV pool of DeepSeek-V3, TP8",
        "H200: 713k tokens (as printed), 229k (lengthened)",
        "673 GB of weights do not fit eight H100 of 80 GB; eight H200 are the nearest that hold them",
    ),
    ("request cap", "a quarter of the agents", "not recovered; the default of `concur compare`"),
    (
        "HiCache",
        "a host tier of twice the pool over one link of 52.1 GB/s that all loads share",
        "SGLang's default ratio is 2; the rate is what Fig. 1c amounts to",
    ),
    ("control interval, W0", "5 s, 16 agents", "not in the paper; our defaults of `concur`"),
    (
        "usage U",
        "blocks that running requests reference",
        "SGLang's token usage leaves out what it can evict",
    ),
    (
        "engine",
        "vLLM 0.32.0's scheduler, beside it SGLang's: 256 sequences, 8,192 tokens a step, 131,072 of context",
        "ours; the paper runs SGLang, it does not say which release; 0.5.6 to 0.5.8 are of its time",
    ),
    (
        "host's work between steps",
        "none",
        "not in the profiles: our seconds are too short, the more so at TP8",
    ),
)
"""What, which value, why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agents:
    """One kind of agent, in the terms of the generator `react`."""

    mean_steps: float = 10.0
    output_median_tokens: float = 180.0
    observation_median_tokens: float = 200.0
    tool_latency_median_s: float = 1.0

    def workload(self, num_agents: int) -> dict[str, Any]:
        """Return `[workload]`."""
        return {"generator": "react", "num_agents": num_agents, **asdict(self)}

    def longer(self, factor: float) -> "Agents":
        """Return agents whose outputs and observations are `factor` times as long."""
        return replace(
            self,
            output_median_tokens=factor * self.output_median_tokens,
            observation_median_tokens=factor * self.observation_median_tokens,
        )


QWEN_AGENTS: Final = Agents()
DEEPSEEK_AGENTS: Final = Agents().longer(2.0)
QWEN_LENGTHENED: Final = 4
DEEPSEEK_LENGTHENED: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One machine and one batch. `kv_bytes_per_token` = `None`: as the engine stores it.

    `host_cache_ratio`: size of the host tier over the pool's, 0 is none. `pool_frac` shrinks the pool.
    `sglang_release` = `None`: on vLLM. `hicache_write_policy` is SGLang's, and says nothing to vLLM.
    """

    key: str
    title: str
    profile: str
    num_gpus: int
    num_agents: int
    agents: Agents
    kv_bytes_per_token: int | None = None
    pool_frac: float = 1.0
    host_cache_ratio: float = 0.0
    enable_prefix_caching: bool = True
    sglang_release: str | None = None
    hicache_write_policy: str = "write_through"

    @property
    def num_gpu_blocks(self) -> int:
        """Blocks of the pool.

        Counted in other bytes per token, the pool is the same memory: a latent KV is held whole by each GPU,
        the paper's would be spread over all of them.
        """
        profile = load_profile(self.profile)
        blocks = float(profile.num_gpu_blocks)
        if self.kv_bytes_per_token is not None:
            blocks *= self.num_gpus * (profile.kv_bytes_per_token or 0) / self.kv_bytes_per_token
        return int(blocks * self.pool_frac)

    @property
    def pool_tokens(self) -> int:
        """Tokens that the pool holds."""
        return (self.num_gpu_blocks - 1) * load_profile(self.profile).block_size

    def scenario(self) -> Scenario:
        """Return the setting as an experiment, without control."""
        raw = {
            "workload": self.agents.workload(self.num_agents),
            "engine": self._vllm() if self.sglang_release is None else self._sglang(),
            "step_time": {"profile": self.profile},
        }
        return parse_scenario(raw, origin=self.title)

    def _sglang(self) -> dict[str, Any]:
        """Return `[engine]` with as many tokens as vLLM has, and SGLang's defaults but for the sequences."""
        engine: dict[str, Any] = {
            "kind": "sglang",
            "release": self.sglang_release,
            "max_total_num_tokens": self.pool_tokens,
            "max_running_requests": 256,
            "chunked_prefill_size": 8192,
            "context_length": 131_072,
        }
        if self.host_cache_ratio:
            engine["hierarchical_cache"] = {
                "hicache_ratio": self.host_cache_ratio,
                "hicache_write_policy": self.hicache_write_policy,
                **self._link(),
            }
        return engine

    def _link(self) -> dict[str, Any]:
        """Return what a host tier of either engine says of the link."""
        stored = self.kv_bytes_per_token or load_profile(self.profile).kv_bytes_per_token
        return {"bandwidth_bytes_per_s": LINK_BYTES_PER_S, "kv_bytes_per_token": stored}

    def _vllm(self) -> dict[str, Any]:
        profile = load_profile(self.profile)
        engine: dict[str, Any] = {
            "block_size": profile.block_size,
            "num_gpu_blocks": self.num_gpu_blocks,
            "max_num_seqs": 256,
            "max_num_batched_tokens": 8192,
            "max_model_len": 131_072,
            "enable_prefix_caching": self.enable_prefix_caching,
        }
        if self.host_cache_ratio:
            engine["host_cache"] = {
                "kind": "victim",  # nearer to HiCache than what vLLM does: whatever is evicted is kept
                "capacity_tokens": int(self.host_cache_ratio * self.pool_tokens),
                **self._link(),
            }
        return engine


def qwen(num_gpus: int, reading: Reading) -> Setting:
    """Return Qwen3-32B on 8 or 2 H100, 256 agents."""
    factor = QWEN_LENGTHENED if reading == "lengthened" else 1
    return Setting(
        key=f"qwen_tp{num_gpus}",
        title=f"Qwen3-32B TP{num_gpus}, 256 agents",
        profile=f"h100-sxm_qwen3-32b_tp{num_gpus}",
        num_gpus=num_gpus,
        num_agents=256,
        agents=replace(QWEN_AGENTS, mean_steps=QWEN_AGENTS.mean_steps * factor),
    )


def deepseek(num_gpus: int, num_agents: int, reading: Reading) -> Setting:
    """Return DeepSeek-V3 on 16 H100 or 8 H200."""
    is_lengthened = reading == "lengthened"
    factor = DEEPSEEK_LENGTHENED if is_lengthened else 1
    return Setting(
        key=f"deepseek_tp{num_gpus}_{num_agents}",
        title=f"DeepSeek-V3 TP{num_gpus}, {num_agents} agents",
        profile=f"{'h100' if num_gpus == 16 else 'h200'}-sxm_deepseek-v3_tp{num_gpus}",
        num_gpus=num_gpus,
        num_agents=num_agents,
        agents=replace(DEEPSEEK_AGENTS, mean_steps=DEEPSEEK_AGENTS.mean_steps * factor),
        kv_bytes_per_token=PAPER_KV_BYTES_PER_TOKEN if is_lengthened else None,
    )


def with_hicache(setting: Setting) -> Setting:
    """Return the setting with a host tier of twice the pool, SGLang's default."""
    return replace(setting, host_cache_ratio=2.0)


def on_sglang(setting: Setting, release: str) -> Setting:
    """Return the setting on SGLang, the same tokens in its pool."""
    return replace(setting, sglang_release=release)


def on_hicache(setting: Setting, write_policy: str) -> Setting:
    """Return the setting on SGLang 0.5.23 with HiCache itself, of SGLang's default size."""
    return replace(on_sglang(with_hicache(setting), "0.5.23"), hicache_write_policy=write_policy)


def without_cache(setting: Setting) -> Setting:
    """Return the setting with every prompt computed anew: the longest that its agents can take."""
    return replace(setting, enable_prefix_caching=False)

"""Pages as they are met in the field: each is read rightly, or refused in one line that says what to do.

The danger is a pool or a set of engines that is read wrongly and still gives a number. Pages under
`metrics/field` are written by hand after public reports.
"""

import math
import re
from dataclasses import replace

import pytest

from concur.live.errors import MetricNamesError, ScrapeError
from concur.live.scrape import MetricsReader, detect_names
from concur.signals import Snapshot
from tests.live.pages import (
    SGLANG_TEXT,
    VLLM_TEXT,
    counted_text,
    edited,
    field_page,
    vllm_text,
    with_label,
    without,
)


def read(text: str) -> tuple[Snapshot, tuple[str, ...]]:
    reader = MetricsReader(detect_names(text))
    return reader.read(text, time_s=0.0), reader.warnings


def refused(text: str) -> str:
    """Return the one line with which a page is refused, at the start and later alike."""
    with pytest.raises(ScrapeError) as error:
        read(text)
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < 400
    return line


HYBRID = field_page("vllm_dsv4_hybrid")
DP = field_page("sglang_dp_attention")
PIDS = field_page("vllm_api_server_count_pid")
PID_LINE = 'vllm:kv_cache_usage_perc{engine="0",model_name="m",pid="271"} 0.0'


class TestThePool:
    def test_of_a_hybrid_model_is_what_the_engine_says_and_both_numbers_are_told(self) -> None:
        snapshot, warnings = read(HYBRID)
        assert snapshot.pool_tokens == snapshot.total_tokens == 1_021_696
        assert snapshot.num_gpu_blocks * snapshot.block_size == 1_021_696, "whoever multiplies is right too"
        assert len(warnings) == 1
        assert "1021696" in warnings[0]
        assert "15964" in warnings[0]

    def test_of_a_plain_model_is_its_blocks_without_the_null_block(self) -> None:
        snapshot, warnings = read(VLLM_TEXT)
        assert snapshot.kv_cache_size_tokens is None
        assert (snapshot.pool_tokens, snapshot.total_tokens) == (63 * 32, 64 * 32)
        assert warnings == ()

    @pytest.mark.parametrize("max_model_len", [1000, 1023, 131_071])
    def test_of_a_plain_model_is_its_blocks_too_where_the_longest_request_ends_within_one(
        self, max_model_len: int
    ) -> None:
        # As vLLM computes both labels: requests of max_model_len that fit, each of whole blocks.
        concurrency = 9000 / math.ceil(max_model_len / 16)
        tokens = int(concurrency * max_model_len)
        labels = f'kv_cache_max_concurrency="{concurrency}",kv_cache_size_tokens="{tokens}"'
        text = counted_text(100, num_gpu_blocks=9000).replace("info{", f"info{{{labels},")
        assert read(text) == (replace(read(text)[0], kv_cache_size_tokens=None), ())

    def test_under_context_parallelism_is_what_the_engine_says(self) -> None:
        text = VLLM_TEXT.replace('kv_cache_size_tokens="2048"', 'kv_cache_size_tokens="8192"')
        snapshot, warnings = read(text)
        assert snapshot.pool_tokens == 8192
        assert "8192" in warnings[0]

    def test_of_engines_of_which_one_is_hybrid_is_the_sum(self) -> None:
        text = edited(
            vllm_text({"0": {}, "1": {}}),
            lambda line: line.replace('size_tokens="2048"', 'size_tokens="4096"'),
            only='engine="1"',
        )
        assert read(text)[0].pool_tokens == 2048 + 4096

    @pytest.mark.parametrize(
        "sign",
        [
            'mamba_block_size="16"',
            'sliding_window="4096"',
            'effective_attention_block_size="64"',
            'kv_cache_max_concurrency="1.9"',
            'is_attention_free="True"',
        ],
    )
    def test_of_a_hybrid_model_that_does_not_say_its_size_is_refused(self, sign: str) -> None:
        text = counted_text(100)
        assert read(text)[0].pool_tokens == 19_999 * 16
        assert "kv_cache_size_tokens" in refused(text.replace("info{", f"info{{{sign},"))

    def test_of_blocks_that_are_too_small_for_attention_is_refused_unless_it_says_its_size(self) -> None:
        text = HYBRID.replace('kv_cache_max_concurrency="1.949",kv_cache_size_tokens="1021696",', "")
        assert "block_size=4" in refused(text)

    @pytest.mark.parametrize("number", ["0", "None", "-1", "63.5", "inf", "nan", ""])
    @pytest.mark.parametrize("label", ["num_gpu_blocks", "block_size", "kv_cache_size_tokens"])
    def test_of_zero_or_of_no_number_is_refused(self, label: str, number: str) -> None:
        text = re.sub(rf'([,{{]){label}="[^"]*"', rf'\g<1>{label}="{number}"', VLLM_TEXT)
        assert f"{label}" in refused(text)

    @pytest.mark.parametrize("name", ["num_pages", "page_size", "max_total_num_tokens"])
    @pytest.mark.parametrize("value", ["0.0", "-1.0", "NaN", "0.5"])
    def test_of_sglang_of_zero_or_of_no_number_is_refused(self, name: str, value: str) -> None:
        text = edited(SGLANG_TEXT, lambda line: f"{line.rpartition(' ')[0]} {value}", only=f"sglang:{name}{{")
        assert name in refused(text)

    def test_of_sglang_is_what_it_says_where_pages_disagree(self) -> None:
        text = edited(SGLANG_TEXT, lambda line: f"{line.rpartition(' ')[0]} 64000", only="sglang:max_total")
        snapshot, warnings = read(text)
        assert snapshot.pool_tokens == 128_000
        assert "64000" in warnings[0]

    def test_of_sglang_with_a_last_page_that_is_not_whole_is_its_pages(self) -> None:
        text = edited(SGLANG_TEXT, lambda line: f"{line.rpartition(' ')[0]} 16015", only="sglang:max_total")
        snapshot, warnings = read(text)
        assert (snapshot.kv_cache_size_tokens, warnings) == (None, ())

    def test_of_sglang_beside_a_second_pool_is_warned_of(self) -> None:
        second = (
            'sglang:max_total_num_tokens_swa{model_name="m",dp_rank="0",tp_rank="0",pp_rank="0"} 8000.0\n'
        )
        assert "max_total_num_tokens_swa" in read(SGLANG_TEXT + second)[1][0]


class TestEngines:
    def test_of_sglang_under_dp_attention_are_all_counted(self) -> None:
        snapshot, warnings = read(DP)
        assert snapshot.kv_cache_usage_frac == pytest.approx(0.45)
        assert replace(snapshot, kv_cache_usage_frac=0.45) == Snapshot(
            time_s=0.0,
            num_requests_running=108,
            num_requests_waiting=28,
            kv_cache_usage_frac=0.45,
            kv_cache_resident_frac=1 - 800_000 / 5_120_000,
            prefix_cache_queries_tokens=9_000_000,
            prefix_cache_hits_tokens=5_000_000,
            prompt_tokens=9_000_000,
            generation_tokens=50_000,
            num_gpu_blocks=80_000,
            block_size=64,
        )
        assert warnings == ()

    def test_of_sglang_with_several_tensor_ranks_each_are_counted_once(self) -> None:
        # Two DP ranks of two tensor ranks each: constants of all four, gauges of the first of each.
        lines = []
        for rank, (dp_rank, running) in enumerate([(0, 10), (0, 10), (1, 20), (1, 20)]):
            labels = f'{{dp_rank="{dp_rank}",tp_rank="{rank}",pp_rank="0",moe_ep_rank="{rank}",priority=""}}'
            values: dict[str, float] = {"num_pages": 1000, "page_size": 16, "num_retracted_requests_total": 2}
            if rank % 2 == 0:
                values |= {"num_running_reqs": running, "num_queue_reqs": 1, "token_usage": 0.5}
            lines += [f"sglang:{name}{labels} {value}\n" for name, value in values.items()]
        lines += [
            f'sglang:{name}_tokens_total{{is_streaming="{s}"}} 100\n'
            for name in ("prompt", "generation")
            for s in (0, 1)
        ]
        snapshot, warnings = read("".join(lines))
        assert (snapshot.num_requests_running, snapshot.num_gpu_blocks) == (30, 2000)
        assert (snapshot.num_preemptions, snapshot.prompt_tokens) == (4, 200)
        assert warnings == ()

    @pytest.mark.parametrize("missing", ["cache_config_info", "num_requests_running", "prompt_tokens_total"])
    @pytest.mark.parametrize("engine", ["0", "1"])
    def test_of_which_one_lacks_what_another_publishes_are_refused(self, missing: str, engine: str) -> None:
        text = vllm_text({"0": {}, "1": {}})
        line = refused(
            edited(text, lambda line: None if f'engine="{engine}"' in line else line, only=missing)
        )
        assert missing in line

    def test_of_older_releases_with_one_pool_for_two_are_refused(self) -> None:
        line = refused(field_page("vllm_dp2_info_engine0"))
        assert "cache_config_info is published for engine 0 but not for 1" in line

    @pytest.mark.parametrize("rank", range(1, 7))
    def test_with_a_gap_in_their_numbers_are_refused(self, rank: int) -> None:
        assert f"dp_rank {rank} is missing" in refused(without(DP, f'dp_rank="{rank}"'))

    def test_that_do_not_begin_at_zero_are_those_of_one_node_of_many(self) -> None:
        snapshot, _ = read(vllm_text({"4": {}, "5": {}}))
        assert snapshot.num_gpu_blocks == 128

    def test_of_two_models_on_one_page_are_refused(self) -> None:
        line = refused(field_page("vllm_two_models"))
        assert "models" in line
        assert "a, b" in line
        assert "own address" in line

    def test_of_the_halves_of_a_disaggregated_server_are_refused(self) -> None:
        line = refused(field_page("sglang_pd"))
        assert "engine_type decode, prefill" in line
        assert "address of one half" in line

    def test_of_one_half_are_read_with_a_warning(self) -> None:
        half = without(field_page("sglang_pd").replace('"m"', '"deepseek-r1"'), "decode")
        snapshot, warnings = read(half)
        assert snapshot.num_requests_running == 3
        assert "prefill half" in warnings[0]

    @pytest.mark.parametrize(
        "text", [VLLM_TEXT, SGLANG_TEXT, DP, HYBRID], ids=["vllm", "sglang", "dp", "hybrid"]
    )
    def test_of_two_servers_on_one_page_are_refused(self, text: str) -> None:
        assert refused(text + text)
        assert "label pod" in refused(with_label(text, "pod", "a") + with_label(text, "pod", "b"))
        assert "with and without the label pod" in refused(text + with_label(text, "pod", "b"))
        other = re.sub(r'model_name="[^"]*"', 'model_name="other"', text)
        assert "models" in refused(text + other)

    def test_with_a_label_of_their_deployment_are_read_as_ever(self) -> None:
        for text in (VLLM_TEXT, SGLANG_TEXT, DP):
            assert read(with_label(text, "pod", "a")) == read(text)

    def test_of_both_kinds_on_one_page_are_refused(self) -> None:
        assert "vllm and sglang" in refused(VLLM_TEXT + SGLANG_TEXT)


class TestProcessesOfOneEngine:
    def test_the_one_value_that_is_not_zero_counts(self) -> None:
        snapshot, warnings = read(PIDS)
        assert snapshot.kv_cache_usage_frac == pytest.approx(0.6530455880475035)
        assert "label pid" in warnings[0]

    @pytest.mark.parametrize("order", [-1, 1])
    def test_in_any_order(self, order: int) -> None:
        text = "".join(line + "\n" for line in PIDS.splitlines()[::order])
        assert read(text)[0].kv_cache_usage_frac > 0.6

    def test_two_values_are_refused(self) -> None:
        assert "say 0.5, 0.653" in refused(PIDS.replace(PID_LINE, PID_LINE[:-3] + "0.5"))

    def test_no_value_is_zero(self) -> None:
        idle = re.sub("0.653.*", "0.0", PIDS).replace(
            'running{engine="0",model_name="m"} 8', 'running{engine="0",model_name="m"} 0'
        )
        assert read(idle)[0].kv_cache_usage_frac == 0.0

    def test_none_that_knows_is_refused(self) -> None:
        assert "is 0 in every process" in refused(without(PIDS, "0.653"))

    def test_a_counter_by_process_is_refused(self) -> None:
        name = "vllm:prompt_tokens_total"
        text = edited(
            counted_text(100),
            lambda line: "\n".join(line.replace("}", f',pid="{pid}"}}') for pid in "12"),
            only=name,
        )
        assert f"{name} is published 2 times for one engine" in refused(text)

    @pytest.mark.parametrize(("name", "value"), [("token_usage", "0.2"), ("num_pages", "1000.0")])
    def test_ranks_of_one_engine_that_differ_are_refused(self, name: str, value: str) -> None:
        line = f'sglang:{name}{{model_name="m",dp_rank="0",tp_rank="1",pp_rank="0"}} {value}'
        assert line in SGLANG_TEXT
        text = SGLANG_TEXT.replace(line, line.replace(value, "0.9"))
        assert f"sglang:{name}: processes (pp_rank, tp_rank, moe_ep_rank) of one engine say" in refused(text)

    def test_ranks_that_differ_and_might_be_engines_are_refused(self) -> None:
        text = re.sub(r'dp_rank="\d",', "", DP)  # as before SGLang had the label
        assert "or are they engines of their own?" in refused(text)


class TestCounters:
    def test_are_summed_over_what_is_known_to_break_them_down(self) -> None:
        assert read(SGLANG_TEXT)[0].prefix_cache_hits_tokens == 6000
        parts = edited(
            SGLANG_TEXT,
            lambda line: "\n".join(line.replace("{", f'{{is_streaming="{s}",') for s in ("true", "false")),
            only="sglang:prompt_tokens_total",
        )
        assert read(parts)[0].prompt_tokens == 18_000

    def test_broken_down_by_an_unknown_label_are_refused(self) -> None:
        text = edited(
            VLLM_TEXT,
            lambda line: "\n".join(line.replace("{", f'{{tenant="{s}",') for s in "ab"),
            only="vllm:prompt_tokens_total",
        )
        assert "the label tenant takes 2 values (a, b)" in refused(text)

    def test_that_count_more_hits_than_queries_are_refused(self) -> None:
        assert "looked up" in refused(VLLM_TEXT.replace("} 96.0", "} 300.0"))


class TestAFreshServer:
    def test_of_sglang_is_idle_as_long_as_it_says_nothing_else(self) -> None:
        assert read(field_page("sglang_cold")) == (
            Snapshot(time_s=0.0, num_gpu_blocks=62_500, block_size=16),
            (),
        )

    def test_of_sglang_without_its_pool_is_told_what_to_do(self) -> None:
        line = refused(without(field_page("sglang_cold"), "num_pages"))
        assert "sglang:num_pages" in line
        assert "send one request first" in line
        assert "send one request first" in refused(
            "# TYPE sglang:num_pages gauge\nsglang:engine_startup_time 1\n"
        )

    def test_of_sglang_without_any_sample_is_told_what_to_do(self) -> None:
        assert "send one request first" in refused("# TYPE sglang:num_pages gauge\n")

    def test_of_sglang_has_gauges_before_its_first_request_has_ended(self) -> None:
        text = without(without(SGLANG_TEXT, "_tokens_total"), "cached")
        snapshot, _ = read(text)
        assert (snapshot.num_requests_running, snapshot.prompt_tokens) == (7, 0)

    def test_of_sglang_has_ranks_without_a_request_yet(self) -> None:
        gauges = ("num_running_reqs", "num_queue_reqs", "token_usage", "kv_available_tokens")
        text = edited(
            DP, lambda line: None if any(name in line for name in gauges) else line, only='dp_rank="3"'
        )
        snapshot, _ = read(text)
        assert (snapshot.num_requests_running, snapshot.num_gpu_blocks) == (95, 80_000)
        assert snapshot.kv_cache_resident_frac == pytest.approx(1 - (700_000 + 640_000) / 5_120_000)

    @pytest.mark.parametrize(
        "name", ["num_running_reqs", "num_queue_reqs", "token_usage", "prompt_tokens_total"]
    )
    def test_of_sglang_publishes_what_comes_together_together(self, name: str) -> None:
        assert name in refused(without(SGLANG_TEXT, name))

    def test_that_counts_has_gauges(self) -> None:
        text = SGLANG_TEXT
        for name in ("num_running_reqs", "num_queue_reqs", "token_usage"):
            text = without(text, name)
        assert "num_running_reqs" in refused(text)

    def test_of_vllm_with_several_api_servers_has_no_gauges_before_the_first_request(self) -> None:
        text, gauges = counted_text(0), ("num_requests", "kv_cache_usage")
        for name in gauges:
            text = without(text, name)
        assert read(text)[0] == Snapshot(time_s=0.0, num_gpu_blocks=20_000, block_size=16)
        text = counted_text(100)
        for name in gauges:
            text = without(text, name)
        assert "num_requests_running" in refused(text)


class TestOtherFormats:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (field_page("trtllm_json"), "JSON.*TensorRT-LLM"),
            ('{"detail":"Not Found"}', "JSON, not Prometheus text; only"),
            ("<!DOCTYPE html>\n<html></html>\n", "HTML"),
            ("\n  <html>", "HTML"),
            ("", "empty"),
            ("\n \n", "empty"),
            ("Not Found\n", "malformed"),
            ("tgi_queue_size 3\n", "Text Generation Inference"),
            ("trtllm_request_success_total 3\n", "TensorRT-LLM"),
            ("lmdeploy:num_requests_running 3\n", "LMDeploy"),
            ("llamacpp:requests_processing 3\n", r"llama\.cpp"),
            ("dynamo_frontend_inflight_requests 3\n", "Dynamo.*each worker's own address"),
            ("ray_vllm_num_requests_running 3\n", "Ray.*each engine's own address"),
            ("sglang_router_active_workers 3\n", "router"),
            ("vllm_unknown 3\n", "renamed on the way"),
            ("up 1.0\n", "none that begins with vllm:, sglang:"),
        ],
    )
    def test_are_named_with_the_remedy(self, text: str, message: str) -> None:
        line = refused(text)
        assert re.search(message, line), line
        assert "Invalid labels" not in line

    @pytest.mark.parametrize("text", [VLLM_TEXT, SGLANG_TEXT, DP, HYBRID])
    @pytest.mark.parametrize("end", ["# EOF\n", "# EOF"])
    def test_openmetrics_is_read(self, text: str, end: str) -> None:
        assert read(text + end) == read(text)

    def test_openmetrics_is_read_as_prometheus_client_writes_it(self) -> None:
        text = VLLM_TEXT.replace("_total Cumul", " Cumul").replace("_total counter", " counter")
        text = edited(text, lambda line: line.replace("vllm:", "vllm_"))
        assert read(without(text, "_created") + "# EOF\n") == read(without(VLLM_TEXT, "_created"))

    def test_openmetrics_that_is_cut_off_is_an_error(self) -> None:
        assert "cut off" in refused((VLLM_TEXT + "# EOF\n")[:-9])

    def test_openmetrics_with_exemplars_is_read(self) -> None:
        text = edited(
            VLLM_TEXT, lambda line: f'{line} # {{trace_id="a"}} 1.0 1.5e9', only="prompt_tokens_total"
        )
        assert read(text + "# EOF\n") == read(VLLM_TEXT)

    def test_a_byte_order_mark_is_skipped(self) -> None:
        assert read("\ufeff" + DP) == read(DP)

    def test_what_is_quoted_is_put_on_one_line(self) -> None:
        two = VLLM_TEXT.replace(
            'prompt_tokens_total{engine="0",model_name="tiny"',
            'prompt_tokens_total{engine="0",model_name="a\\nb"',
        )
        assert "model_name a b, tiny" in refused(two)

    def test_windows_line_ends_are_read(self) -> None:
        assert read(VLLM_TEXT.replace("\n", "\r\n")) == read(VLLM_TEXT)

    def test_an_unknown_kind_is_an_error_of_names(self) -> None:
        with pytest.raises(MetricNamesError):
            detect_names("[]")

"""`concur calibrate`: what it prints, and that a failure leaves nothing behind."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from concur.calib.cli import app as calibrate
from concur.calib.fit.samples import Samples, write_samples
from concur.errors import ConcurError
from tests.calib.helpers import make_profile, make_provenance, make_samples


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.add_typer(calibrate, name="calibrate")
    return app


def run(app: typer.Typer, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["calibrate", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_fit_then_check_then_predict_then_report(app: typer.Typer, tmp_path: Path) -> None:
    samples, profile, page = tmp_path / "s.parquet", tmp_path / "p.json", tmp_path / "r" / "page.html"
    write_samples(make_samples(300), samples)
    assert "held out" in run(app, "fit", str(samples), "--out", str(profile))
    errors = json.loads(run(app, "check", str(profile), str(samples), "--json"))
    assert set(errors) == {"prefill", "decode", "mixed", "all"}
    assert 0 < errors["all"]["median_ape"] < errors["all"]["p95_ape"] < 0.05
    assert set(errors["all"]) == {"num_steps", "median_ape", "p95_ape", "worst_ape", "bias"}
    step = json.loads(
        run(app, "predict", str(profile), "--prefill", "512@100", "--decode", "8x900", "--json")
    )
    assert step["step_ms"] == pytest.approx(sum(step["parts_ms"].values()))
    run(app, "report", str(profile), str(samples), "--out", str(page))
    text = page.read_text()
    assert text.count("<img") == 2
    assert "held out of the fit" in text
    assert text.index('class="verdict"') < text.index("<table>")
    assert "http" not in text


def test_host_work_is_given_to_samples_of_kernels(app: typer.Typer, tmp_path: Path) -> None:
    samples, profile = tmp_path / "s.parquet", tmp_path / "p.json"
    write_samples(Samples(make_samples(300).steps, make_provenance(source="silicon")), samples)
    page = run(
        app, "fit", str(samples), "--out", str(profile), "--host-ms", "1.5", "--host-source", "our bench"
    )
    assert "host work per step: 1.500 ms, our bench" in page
    step = json.loads(run(app, "predict", str(profile), "--decode", "8x900", "--json"))
    assert step["parts_ms"]["host"] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "nope", "--decode", "1x1"], "no shipped profile is called 'nope'"),
        (["predict", "h100-sxm_qwen3-32b_tp8"], "the step computes nothing"),
        (["predict", "h100-sxm_qwen3-32b_tp8", "--decode", "x4"], "BATCHxCONTEXT"),
        (["predict", "h100-sxm_qwen3-32b_tp8", "--prefill", "0@4"], "TOKENS@CONTEXT"),
        (["predict", "none.json", "--decode", "1x1"], r"none\.json: not readable"),
        (["check", "h100-sxm_qwen3-32b_tp8", "none.parquet"], r"none\.parquet: not a readable samples file"),
        (["fit", "few.parquet", "--out", "out.json"], "shapes of steps are left to fit"),
        (["fit", "few.parquet", "--out", "out.json", "--host-ms", "1"], "say where the number is from"),
        (["fit", "few.parquet", "--out", "out.json", "--host-source", "a bench"], "go together"),
        (["fit", "few.parquet", "--out", "out"], r"a profile is a \.json file"),
        (["fit", "broken.parquet", "--out", "out.json"], r"broken\.parquet: not a readable samples file"),
        (
            ["report", "newer.json", "few.parquet", "--out", "page.html"],
            "schema_version = 2 .* update concur",
        ),
        (["predict", "nan.json", "--decode", "1x1"], r"nan\.json: coefficients\.base_s = nan"),
        (["predict", "text.json", "--decode", "1x1"], r"text\.json: no JSON"),
        (["predict", "negative.json", "--decode", "1x1"], r"coefficients\.decode_s = -1"),
    ],
)
def test_bad_input_is_one_clear_error_and_nothing_is_written(
    app: typer.Typer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_samples(make_samples(20), tmp_path / "few.parquet")
    (tmp_path / "broken.parquet").write_bytes((tmp_path / "few.parquet").read_bytes()[:300])
    good = make_profile().to_json()
    (tmp_path / "newer.json").write_text(good.replace('"schema_version": 1', '"schema_version": 2'))
    (tmp_path / "nan.json").write_text(good.replace('"base_s": 0.002', '"base_s": NaN'))
    (tmp_path / "negative.json").write_text(good.replace('"decode_s": 0.0015', '"decode_s": -1'))
    (tmp_path / "text.json").write_text("no")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConcurError, match=message):
        CliRunner().invoke(app, ["calibrate", *arguments], catch_exceptions=False)
    assert sorted(tmp_path.iterdir()) == before

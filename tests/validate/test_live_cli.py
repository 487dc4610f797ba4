"""`concur validate run` before there is a server."""

from pathlib import Path

import pytest

from concur.cli import main
from concur.validate.live import live_cli

SCENARIO = Path(__file__).parents[2] / "validate" / "scenarios" / "cpu_tiny.toml"


def test_without_vllm_it_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o"
    monkeypatch.setattr(live_cli, "find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["concur", "validate", "run", str(SCENARIO), "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("concur: vLLM is not installed here")
    assert error.count("\n") == 1
    assert not out.exists()

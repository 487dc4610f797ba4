"""Where a result came from: a commit, and whether the tree differed from it."""

import subprocess
from pathlib import Path

import pytest

from concur.sim.record import provenance
from concur.sim.record.provenance import git_commit, short_commit


def test_two_changed_trees_of_one_commit_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "sim" / "record" / "provenance.py"
    source.parent.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(source))

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=n", "-c", "user.email=e")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    def commit_with(text: str) -> str:
        source.write_text(text)
        git_commit.cache_clear()
        return git_commit() or ""

    source.write_text("a = 1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    clean, two, three = (commit_with(f"a = {number}\n") for number in (1, 2, 3))
    git_commit.cache_clear()
    assert len(clean) == 40
    assert {text.partition("+")[0] for text in (two, three)} == {clean}
    assert two != three
    assert short_commit(two).startswith(clean[:9] + "+")


def test_outside_a_checkout_it_is_unknown() -> None:
    assert short_commit(None) == "unknown"

"""What goes wrong with one peer must not stop the others, nor pass unnoticed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import compare_peers
from peers.comparisons import LLAMA, ONNXRUNTIME, OPENVINO, PEERS, Peer, Section


def fails() -> None:
    raise subprocess.CalledProcessError(1, ["pip", "install", "no-such-package"])


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What was done, on a machine where openvino cannot be installed and nothing is really done."""
    done: list[str] = []

    def install(peer: Peer) -> None:
        if peer is OPENVINO:
            fails()
        done.append(f"install {peer.key}")

    def make_model(model: str, config: Path | None) -> None:
        if model == "broken":
            fails()
        done.append(f"make {model} {config}")

    def compare(section: Section, peer: Peer, rounds: int, quiet: float) -> None:
        done.append(f"{section.name} {peer.key} {rounds} {quiet}")

    monkeypatch.setattr(compare_peers, "ROOT", tmp_path)
    for name, stand_in in {"install": install, "make_model": make_model, "compare": compare}.items():
        monkeypatch.setattr(compare_peers, name, stand_in)
    return done


def section(name: str, model: str = "model") -> Section:
    return Section(name, name, name, model, ("decode",), (LLAMA, OPENVINO, ONNXRUNTIME))


def arguments(*words: str) -> compare_peers.argparse.Namespace:
    return compare_peers.argparse.Namespace(rounds=2, quiet=0.5, config=None, peers=list(words))


def test_what_fails_is_skipped_and_told(steps: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    attempts = compare_peers.Attempts()
    sections = [section("first"), section("second", "broken"), section("third")]
    compare_peers.measure(sections, arguments("llama", "openvino", "onnxruntime"), attempts)
    assert steps == [
        *("install llama", "install onnxruntime", "make model None"),
        *("first llama 2 0.5", "first onnxruntime 2 0.5", "third llama 2 0.5", "third onnxruntime 2 0.5"),
    ]
    assert attempts.failed == ["installing openvino-genai", "making broken"]
    assert "*** SKIPPED: installing openvino-genai: Command '['pip', 'install'" in capsys.readouterr().err


def test_llama_is_installed_for_its_tools_and_measured_if_asked_for(steps: list[str]) -> None:
    compare_peers.measure([section("only")], arguments("onnxruntime"), compare_peers.Attempts())
    assert steps == ["install llama", "install onnxruntime", "make model None", "only onnxruntime 2 0.5"]


def test_figures_of_another_format_are_skipped(steps: list[str]) -> None:
    file = compare_peers.ROOT / PEERS / "figures-q4-llama.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    attempts = compare_peers.Attempts()
    assert compare_peers.read_reports(attempts) == {}
    assert attempts.failed == [f"reading {PEERS}/figures-q4-llama.json"]
    assert not steps


@pytest.mark.parametrize("work", [fails, lambda: int("x"), lambda: Path("/no/such/file").read_text()])
def test_a_failure_is_no_crash(work: Callable[[], None]) -> None:
    attempts = compare_peers.Attempts()
    assert not attempts.succeed("trying", work)
    assert attempts.succeed("trying again", lambda: None)
    assert attempts.failed == ["trying"]

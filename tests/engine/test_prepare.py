"""From a name to a compiled folder: what is compiled already, and what the compiler's process says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cupola.engine.backends.scripted import scripted_manifest
from cupola.engine.error_relay import ERROR_FD_VARIABLE, hand_over, read_error
from cupola.engine.prepare import prepare
from cupola.errors import CupolaError, EngineError, ModelError, StorageError, UnsupportedError, UsageError


def test_a_compiled_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(scripted_manifest().model_dump_json())
    folder, how = prepare(str(tmp_path))
    assert folder == tmp_path
    assert how == f"`{tmp_path}` is a compiled folder"


def test_the_compilers_error_arrives_as_what_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF and then nothing")
    with pytest.raises(CupolaError) as caught:
        prepare(str(tmp_path / "model.gguf"))
    assert isinstance(caught.value, ModelError)
    assert "model.gguf" in caught.value.message
    assert "error:" not in capfd.readouterr().err  # said once: by whoever catches it


def test_a_wrong_scheme_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        prepare("smollm2", quant="q5")


@pytest.mark.parametrize("kind", [CupolaError, UsageError, UnsupportedError, StorageError, EngineError])
def test_errors_pass_through_a_pipe(kind: type[CupolaError], monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    monkeypatch.setenv(ERROR_FD_VARIABLE, str(write_end))
    assert hand_over(kind("größer", hint="tun"))
    os.close(write_end)
    with os.fdopen(read_end, encoding="utf-8") as pipe:
        error = read_error(pipe.read())
    assert type(error) is kind
    assert (str(error), error.hint) == ("größer", "tun")


def test_without_a_pipe_nothing_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ERROR_FD_VARIABLE, raising=False)
    assert not hand_over(UsageError("x"))
    monkeypatch.setenv(ERROR_FD_VARIABLE, "999")
    assert not hand_over(UsageError("x"))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"kind": "os", "message": "x", "hint": null}'])
def test_what_cannot_be_understood_is_no_error(text: str) -> None:
    assert read_error(text) is None

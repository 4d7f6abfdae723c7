"""Conversion: what is written is what was read, aligned and whole; what goes wrong leaves nothing behind."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from checkpoint_files import MODEL, TIED, parameters_of, write_gguf
from gguf import GGMLQuantizationType as Kind
from safetensors import safe_open
from safetensors.numpy import save_file

from cupola.errors import ModelError, StorageError
from cupola.manifest import Weight
from cupola.quantize.formats import Format
from cupola.quantize.layouts import unpack
from cupola.quantize.parameter import Parameter, Role, Source
from cupola.weights import convert as module
from cupola.weights import shards
from cupola.weights.checkpoint import Checkpoint
from cupola.weights.convert import convert
from cupola.weights.gguf import GgufCheckpoint
from cupola.weights.huggingface import HuggingFaceCheckpoint


def quiet(done: int, total: int) -> None:
    """No progress bar."""


def read_back(folder: Path, weight: Weight, parameter: Parameter) -> np.ndarray:
    """The float32 matrix or vector that a written weight stands for."""
    with safe_open(folder / weight.file, framework="np") as file:
        data = file.get_tensor(weight.name)
    assert (data.shape, data.dtype.name) == (weight.shape, weight.dtype)
    if weight.format == "vector":
        return data
    rows, inputs = parameter.shape
    return unpack(data, Format(weight.format), (rows, inputs))


def expected(parameter: Parameter, tensors: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([tensors[source.name] for source in parameter.sources])


def hugging_face(tmp_path: Path) -> Checkpoint:
    MODEL.write(tmp_path / "model")
    return HuggingFaceCheckpoint(tmp_path / "model")


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        (Kind.F16, "f32"),
        (Kind.F16, "f16"),
        (Kind.BF16, "bf16"),
        *((kind, scheme) for kind in (Kind.Q4_0, Kind.Q4_1, Kind.Q8_0, Kind.Q5_0) for scheme in ("f32", "q4")),
    ],
)
def test_gguf_is_converted_without_loss(tmp_path: Path, kind: Kind, scheme: str) -> None:
    rounded = write_gguf(tmp_path / "m.gguf", kind=kind)
    checkpoint = GgufCheckpoint(tmp_path / "m.gguf")
    parameters = parameters_of(checkpoint, scheme)
    weights = convert(checkpoint, parameters, tmp_path, quiet)
    assert [weight.name for weight in weights] == [parameter.name for parameter in parameters]
    for weight, parameter in zip(weights, parameters, strict=True):
        np.testing.assert_array_equal(read_back(tmp_path, weight, parameter), expected(parameter, rounded))


@pytest.mark.parametrize(("scheme", "bound"), [("f32", 0.0), ("f16", 3e-4), ("bf16", 2e-3), ("q8", 0.01), ("q4", 0.11)])
def test_floats_are_rounded_as_the_scheme_says(tmp_path: Path, scheme: str, bound: float) -> None:
    checkpoint = hugging_face(tmp_path)
    parameters = parameters_of(checkpoint, scheme)
    weights = convert(checkpoint, parameters, tmp_path, quiet)
    for weight, parameter in zip(weights, parameters, strict=True):
        want = expected(parameter, MODEL.weights())
        error = read_back(tmp_path, weight, parameter) - want
        assert np.sqrt((error**2).mean()) <= bound * want.std() if want.ndim == 2 else not error.any()


@pytest.mark.parametrize(("dtype", "scheme"), [(np.float16, "f16"), (ml_dtypes.bfloat16, "bf16")])
def test_a_checkpoint_of_16_bits_keeps_its_own(tmp_path: Path, dtype: type, scheme: str) -> None:
    MODEL.write(tmp_path / "model")
    weights = {name: matrix.astype(dtype) for name, matrix in MODEL.weights().items()}
    save_file(weights, tmp_path / "model" / "model.safetensors")
    checkpoint = HuggingFaceCheckpoint(tmp_path / "model")
    parameters = parameters_of(checkpoint, scheme)
    wide = {name: matrix.astype(np.float32) for name, matrix in weights.items()}
    for weight, parameter in zip(convert(checkpoint, parameters, tmp_path, quiet), parameters, strict=True):
        assert weight.format == ("vector" if parameter.role is Role.VECTOR else scheme)
        np.testing.assert_array_equal(read_back(tmp_path, weight, parameter), expected(parameter, wide))


def test_a_weight_beyond_the_range_of_float16_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    MODEL.write(tmp_path / "model")
    weights = MODEL.weights()
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = 70000.0
    save_file(weights, tmp_path / "model" / "model.safetensors")
    checkpoint = HuggingFaceCheckpoint(tmp_path / "model")
    with pytest.raises(ModelError, match=r"tensor model\.layers\.1\.mlp\.up_proj\.weight: .* 70000, .* f16"):
        convert(checkpoint, parameters_of(checkpoint, "f16"), tmp_path, quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert convert(checkpoint, parameters_of(checkpoint, "bf16"), tmp_path, quiet)


@pytest.mark.parametrize(("kind", "atol"), [(Kind.Q4_0, 0), (Kind.Q4_1, 0.01)])
def test_mixed_sources_keep_their_integers_where_they_can(tmp_path: Path, kind: Kind, atol: float) -> None:
    v = "model.layers.0.self_attn.v_proj.weight"
    rounded = write_gguf(tmp_path / "m.gguf", kind=kind, kinds={v: Kind.Q8_0})
    checkpoint = GgufCheckpoint(tmp_path / "m.gguf")
    parameters = [p for p in parameters_of(checkpoint, "q4") if p.name == "0.qkv"]
    assert parameters[0].format is Format.Q8
    (weight,) = convert(checkpoint, parameters, tmp_path, quiet)
    got = read_back(tmp_path, weight, parameters[0])
    np.testing.assert_array_equal(got[-32:], rounded[v])
    np.testing.assert_allclose(got[:-32], expected(parameters[0], rounded)[:-32], atol=atol)


def test_matrices_with_and_without_minima_are_fused_without_loss(tmp_path: Path) -> None:
    v = "model.layers.0.self_attn.v_proj.weight"
    rounded = write_gguf(tmp_path / "m.gguf", kind=Kind.Q4_0, kinds={v: Kind.Q4_1})
    checkpoint = GgufCheckpoint(tmp_path / "m.gguf")
    parameters = [p for p in parameters_of(checkpoint, "q4") if p.name == "0.qkv"]
    (weight,) = convert(checkpoint, parameters, tmp_path, quiet)
    assert weight.format == "q4"
    np.testing.assert_array_equal(read_back(tmp_path, weight, parameters[0]), expected(parameters[0], rounded))


def test_chunks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "m.gguf", TIED, Kind.Q4_1)
    checkpoint = GgufCheckpoint(tmp_path / "m.gguf")
    contents = []
    for elements in (1, 16 * 64 * 3, 1 << 22):
        monkeypatch.setattr(module, "_CHUNK_ELEMENTS", elements)
        convert(checkpoint, parameters_of(checkpoint, "q4"), tmp_path, quiet)
        contents.append((tmp_path / "weights-00001.safetensors").read_bytes())
    assert contents[0] == contents[1] == contents[2]


def test_every_tensor_is_aligned_and_nothing_is_left_over(tmp_path: Path) -> None:
    checkpoint = hugging_face(tmp_path)
    weights = convert(checkpoint, parameters_of(checkpoint, "q8"), tmp_path, quiet)
    content = (tmp_path / "weights-00001.safetensors").read_bytes()
    header_size = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:header_size])
    for weight in weights:
        assert (header_size + header[weight.name]["data_offsets"][0]) % 64 == 0
    assert set(header) - {weight.name for weight in weights} == {name for name in header if name.startswith("_fill.")}
    assert header_size + max(entry["data_offsets"][1] for entry in header.values()) == len(content)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "weights-00001.safetensors"]


def test_shards_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = hugging_face(tmp_path)
    parameters = parameters_of(checkpoint, "f32")
    limit = 50_000  # less than the embedding and more than any other weight but the output
    monkeypatch.setattr(module, "split", lambda tensors: shards.split(tensors, limit))
    weights = convert(checkpoint, parameters, tmp_path, quiet)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 3
    assert sorted({weight.file for weight in weights}) == [path.name for path in files]
    for path in files:
        held = [weight for weight in weights if weight.file == path.name]
        assert len(held) == 1 or path.stat().st_size < limit + 4096
    for weight, parameter in zip(weights, parameters, strict=True):
        np.testing.assert_array_equal(read_back(tmp_path, weight, parameter), expected(parameter, MODEL.weights()))


def test_progress_counts_bytes_to_the_end(tmp_path: Path) -> None:
    checkpoint = hugging_face(tmp_path)
    calls: list[tuple[int, int]] = []
    weights = convert(checkpoint, parameters_of(checkpoint, "q4"), tmp_path, lambda *call: calls.append(call))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1][0] == calls[-1][1] == sum(np.dtype(w.dtype).itemsize * int(np.prod(w.shape)) for w in weights)
    assert len(calls) >= len(weights)


@pytest.mark.model
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process's peak memory")
def test_memory_stays_far_below_the_size_of_the_output(smollm2_gguf: Path, tmp_path: Path) -> None:
    checkpoint = GgufCheckpoint(smollm2_gguf)
    parameters = [
        Parameter(name, Role.EMBEDDING if "embed" in name else Role.LINEAR, (Source(name, info.shape),), Format.F32)
        for name, info in checkpoint.tensors.items()
        if len(info.shape) == 2 and ("embed" in name or ".mlp." in name)
    ]
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = memory_kib("VmRSS")
    weights = convert(checkpoint, parameters, tmp_path, quiet)
    peak = memory_kib("VmHWM") - before
    largest = max(np.prod(weight.shape) * 4 for weight in weights)
    written = 0
    for path in tmp_path.glob("weights*"):
        written += path.stat().st_size
        path.unlink()  # half a gigabyte: too much for the folders that pytest keeps
    assert written > 3 * largest
    assert peak < largest // 1024


def memory_kib(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    checkpoint = hugging_face(tmp_path)
    parameters = parameters_of(checkpoint, "q4")
    rest = MODEL.weights()
    del rest["model.layers.1.mlp.up_proj.weight"]
    save_file(rest, tmp_path / "model" / "model.safetensors")
    with pytest.raises(ModelError, match=r"no tensor model\.layers\.1\.mlp\.up_proj\.weight"):
        convert(HuggingFaceCheckpoint(tmp_path / "model"), parameters, tmp_path, quiet)
    assert not list(tmp_path.glob("weights*"))


def test_a_wrong_shape_is_named(tmp_path: Path) -> None:
    checkpoint = hugging_face(tmp_path)
    parameters = parameters_of(checkpoint, "q4")
    name = "model.layers.1.mlp.down_proj.weight"
    save_file(MODEL.weights() | {name: np.zeros((64, 95), np.float32)}, tmp_path / "model" / "model.safetensors")
    with pytest.raises(ModelError, match=r"down_proj\.weight of shape \[64, 95\].* demands \[64, 96\]"):
        convert(HuggingFaceCheckpoint(tmp_path / "model"), parameters, tmp_path, quiet)


def test_two_parameters_of_one_name_are_refused(tmp_path: Path) -> None:
    checkpoint = hugging_face(tmp_path)
    parameter = parameters_of(checkpoint, "q4")[0]
    with pytest.raises(ModelError, match="one name"):
        convert(checkpoint, [parameter, replace(parameter, role=Role.LINEAR)], tmp_path, quiet)


def test_values_that_are_not_finite_are_named(tmp_path: Path) -> None:
    weights = MODEL.weights()
    weights["model.layers.0.mlp.gate_proj.weight"][3, 3] = np.nan
    MODEL.write(tmp_path / "model")
    save_file(weights, tmp_path / "model" / "model.safetensors")
    checkpoint = HuggingFaceCheckpoint(tmp_path / "model")
    with pytest.raises(ModelError, match=r"layers\.0\.mlp\.gate_proj\.weight.*not finite"):
        convert(checkpoint, parameters_of(checkpoint, "q4"), tmp_path, quiet)
    assert not list(tmp_path.glob("weights*"))


def test_a_source_that_breaks_midway_leaves_nothing(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")
    checkpoint = GgufCheckpoint(tmp_path / "m.gguf")
    with checkpoint.path.open("r+b") as file:
        file.truncate(checkpoint.path.stat().st_size - 64)
    with pytest.raises(ModelError, match="truncated"):
        convert(checkpoint, parameters_of(checkpoint, "f32"), tmp_path, quiet)
    assert not list(tmp_path.glob("weights*"))


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = hugging_face(tmp_path)
    monkeypatch.setattr(module, "split", lambda tensors: shards.split(tensors, 50_000))

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(checkpoint, parameters_of(checkpoint, "f32"), tmp_path, interrupt)
    assert not list(tmp_path.glob("weights*"))


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Files of this process cannot grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("claim", [True, False], ids=["found at once", "found while writing"])
def test_a_file_that_cannot_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claim: bool) -> None:
    checkpoint = hugging_face(tmp_path)
    parameters = parameters_of(checkpoint, "f32")
    if not claim:
        monkeypatch.delattr(os, "posix_fallocate")  # as on macOS
    with (
        file_size_limit(100_000),
        pytest.raises(StorageError, match=r"weights-00001\.safetensors cannot be written: File too large"),
    ):
        convert(checkpoint, parameters, tmp_path, quiet)
    assert not list(tmp_path.glob("weights*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root; the limit on file sizes stands in for it above")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("claim", [True, False], ids=["found at once", "found while writing"])
def test_a_full_disk(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claim: bool) -> None:
    checkpoint = hugging_face(tmp_path)
    if not claim:
        monkeypatch.delattr(os, "posix_fallocate")
    with pytest.raises(StorageError, match="No space left on device") as caught:
        convert(checkpoint, parameters_of(checkpoint, "f32"), small_disk, quiet)
    assert "space" in str(caught.value.hint)
    assert not list(small_disk.iterdir())


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    checkpoint = hugging_face(tmp_path)
    parameters = [Parameter("norm", Role.VECTOR, (Source("model.norm.weight", (64,)),), Format.F32)]
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    root = os.geteuid() == 0
    tmp_path.chmod(0o755)
    if root:
        os.seteuid(65534)  # root may write anywhere, nobody may not
    try:
        with pytest.raises(StorageError, match="Permission denied"):
            module.ShardWriter(folder / "weights-00001.safetensors", [])
    finally:
        if root:
            os.seteuid(0)
    with pytest.raises(StorageError, match="No such file or directory"):
        convert(checkpoint, parameters, tmp_path / "no", quiet)

"""What a session with a GPU runs, here with a tiny shape on lavapipe: all but torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cupola.engine.backends.scripted import scripted_manifest
from cupola.engine.native_model import map_tensors
from cupola.manifest import Weight
from cupola.quantize.formats import Format
from cupola.quantize.layouts import packed_dtype, unpack, words_dtype, words_shape
from gpu.kinds import obstacle
from gpu_speed.cases import CONTEXT, Case, Figures, Roofline, Work, table
from gpu_speed.weights import write_weights
from measure_gpu import PARTLY, main


@pytest.mark.gpu
@pytest.mark.skipif(bool(obstacle("webgpu")), reason=obstacle("webgpu"))
def test_everything_but_torch_is_measured_and_torch_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--work", str(tmp_path), "--shape", "tiny"]
    limits = ["--max-step-tokens", "256", "--max-batch", "8"]
    assert main(["compile", *where, "--device", "webgpu", "--quant", "f32", *limits]) == 0
    assert not list(tmp_path.rglob("*.safetensors")), "weights are made where they are needed"
    small = ["--decode", "1", "3", "--prefill", "40", "--steps", "4", "--rounds", "2", "--copied", "65536"]
    nothing = ["--torch-python", str(tmp_path / "no-python")]
    assert main(["run", *where, "--device", "webgpu", *small, *nothing]) == PARTLY
    found = json.loads((tmp_path / "measured.json").read_text())
    assert list(found["seconds"]) == ["Cupola f32", "its steps alone, f32"]
    for seconds in found["seconds"].values():
        assert {name: len(rounds) for name, rounds in seconds.items()} == {
            "decode 1": 2,
            "decode 3": 2,
            "prefill 40": 2,
        }
        assert min(min(rounds) for rounds in seconds.values()) > 0
    assert found["roofline"]["matrix_by"] == "Cupola's own product"
    assert min(found["roofline"]["bytes_per_second"], found["roofline"]["flops"]) > 0
    assert list(found["missing"]) == ["transformers with torch"]
    assert "Not measured: transformers with torch: " in capsys.readouterr().out


def test_an_unknown_device_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "--work", str(tmp_path), "--shape", "tiny", "--device", "cpu:x86-64-v3"]) == 1
    assert "--device is `cpu:x86-64-v3`" in capsys.readouterr().err


def test_shares_of_the_roofline_are_those_of_the_bytes_and_products() -> None:
    work = Work(weight_bytes=9e9, token_bytes=1e6 / 128, layer_products=4e9, pair_products=0.0)
    decode, prefill = Case("decode", 8, steps=0), Case("prefill", 1000)
    figures = Figures(missing={"torch": "it is not there"})
    for seconds in (0.002, 0.004, 0.1):
        figures.add("ours", decode.name, seconds)
    figures.add("ours", prefill.name, 0.02)
    assert work.seconds(decode, 1e12, 1.0) == pytest.approx((9e9 + 8 * CONTEXT * 1e6 / 128) / 1e12)
    text = table([decode, prefill], Roofline(4.504e12, 8e14, "x"), {"ours": work}, figures)
    assert "| a step of 8 streams | 4.00 ms (50%) |" in text
    assert "| a prompt of 1000 tokens | 20.00 ms (50%) |" in text
    assert "Not measured: torch: it is not there." in text


@pytest.mark.parametrize("fmt", ["f32", "f16", "q8", "q4"])
def test_generated_weights_are_numbers(tmp_path: Path, fmt: str) -> None:
    shape = words_shape(Format(fmt), (300, 64))
    names = ("a", "b")
    weights = tuple(
        Weight(name=name, file="w.safetensors", format=fmt, dtype=words_dtype(Format(fmt)).name, shape=shape)
        for name in names
    )
    manifest = scripted_manifest().model_copy(update={"weights": weights})
    write_weights(tmp_path, manifest)
    for tensor in map_tensors(tmp_path, weights):
        packed = np.from_dlpack(tensor).view(packed_dtype(Format(fmt)))
        values = unpack(packed, Format(fmt), (300, 64))
        assert np.isfinite(values).all()
        assert 0.05 < np.abs(values).mean() < 0.2

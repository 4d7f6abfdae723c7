"""One folder for several machines: libraries beside shared weights, and the one that is loaded here."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import numpy as np
import pytest

from cupola.compiler.compile import compile_model
from cupola.compiler.config import CompileConfig
from cupola.compiler.detect import parse
from cupola.compiler.target import resolve_all
from cupola.engine.choice import Machine, choose
from cupola.engine.folder import read_manifest, verify_files
from cupola.errors import UsageError
from cupola.weights.source import open_checkpoint
from device_checks.forward import logits_of, manifest_of
from tiny_models import TinyModel

MODEL = TinyModel("fat", seed=8, vocab=96, tied=False)


def compile_for(source: Path, folder: Path, *targets: str) -> None:
    config = CompileConfig().with_quant("f32")
    resolved = [target for name in targets for target in resolve_all(parse(name, lambda: ())[0])]
    compile_model(open_checkpoint(str(source)), config, resolved, folder, lambda _: None)


@pytest.mark.skipif(platform.machine().lower() not in {"x86_64", "amd64"}, reason="links for x86-64 without a linker")
def test_libraries_share_the_weights_and_compute_the_same(tmp_path: Path) -> None:
    from cupola.engine.native_model import load_compiled

    MODEL.write(tmp_path / "source")
    folder = tmp_path / "fat"
    compile_for(tmp_path / "source", folder, "x86-64,x86-64-v3")
    manifest = read_manifest(folder)
    assert [library.file for library in manifest.libraries] == ["lib-x86-64.so", "lib-x86-64-v3.so"]
    assert {"lib-x86-64.so", "lib-x86-64-v3.so", "weights-00001.safetensors"} <= set(manifest.files)
    assert "lib.so" not in manifest.files
    verify_files(folder, manifest)

    old = Machine("x86_64", frozenset({"sse2"}), ())
    assert choose(manifest, old).library.file == "lib-x86-64.so"
    chosen = choose(manifest)
    if "avx2" in Machine.here(accelerators=False).flags:
        assert chosen.library.file == "lib-x86-64-v3.so"
    found = [
        logits_of(load_compiled(folder, one), one) for one in (chosen, choose(manifest_of(folder, "lib-x86-64.so")))
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_targets_with_other_pages_cannot_share_a_folder(tmp_path: Path) -> None:
    MODEL.write(tmp_path / "source")
    with pytest.raises(UsageError, match="cannot share a folder"):
        compile_for(tmp_path / "source", tmp_path / "out", "webgpu", "x86-64-v3")
    assert not (tmp_path / "out").exists()


def test_a_manifest_without_a_library_is_refused(tmp_path: Path) -> None:
    from cupola.engine.backends.scripted import scripted_manifest
    from cupola.errors import ModelError

    content = json.loads(scripted_manifest().model_dump_json())
    (tmp_path / "model.json").write_text(json.dumps({**content, "libraries": []}))
    with pytest.raises(ModelError, match="libraries"):
        read_manifest(tmp_path)

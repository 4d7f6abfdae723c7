"""What only WebGPU has as a device of TVM's runtime: errors that it tells of later, and a device that is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from driver import build_kernel, to_device
from engine_cases import TINY
from test_gpu_device import scale

from compiled import compiled_folder
from cupola.engine import native_webgpu
from cupola.engine.native_webgpu import webgpu_adapters
from cupola.errors import EngineError
from gpu.kinds import config


def test_a_kernel_that_the_driver_refuses_is_an_error_and_the_next_one_runs() -> None:
    kernel = build_kernel(scale)["kernel"]
    a = to_device(np.ones(64, np.float32))
    kernel(a, a, 2.0, 0)  # read and written at once
    with pytest.raises(RuntimeError, match=r"WebGPU validation error: .*conflicting usages"):
        a.numpy()
    b = to_device(np.zeros(64, np.float32))
    kernel(a, b, 2.0, 0)
    assert (b.numpy() == 2).all()


LOST = """
import numpy as np
import tvm
from driver import build_kernel, device, to_device
from test_gpu_device import scale
from cupola.engine.native_library import native

kernel, a, b = build_kernel(scale)["kernel"], to_device(np.ones(64, np.float32)), to_device(np.ones(64, np.float32))
native("webgpu.lose")(0)
for call in (lambda: kernel(a, b, 2.0, 0), lambda: b.numpy(), lambda: tvm.runtime.empty((4,), "int8", device()),
             lambda: device().sync()):
    try:
        call()
    except RuntimeError as error:
        print(str(error).splitlines()[0])
"""


def test_a_lost_device_is_an_error_of_every_call() -> None:
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, str(Path(here).parent)])
    result = subprocess.run(
        [sys.executable, "-c", LOST], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert result.stdout.splitlines() == 4 * ["the WebGPU device is lost: Device lost"]


LOST_IN_A_STEP = """
import sys
from pathlib import Path
from cupola.engine.native import NativeEngine, load_compiled
from cupola.engine.native_library import native
from cupola.engine.request import EngineConfig, GenerateRequest, SamplingParams
from gpu.kinds import config
from native.native_driver import Collector
from numerics.sequence import read_manifest

folder = Path(sys.argv[1])
engine = NativeEngine(load_compiled(folder, read_manifest(folder)), EngineConfig(num_pages=40))
collector = Collector(engine)
sampling = SamplingParams(temperature=0.0, seed=0, max_tokens=500)
engine.add(GenerateRequest(id=1, token_ids=(3, 4, 5), sampling=sampling))
collector.until(lambda: 1 in collector.results)
native("webgpu.lose")(0)
print(collector.until_ended([1])[1].reasons, collector.results[1].error)
engine.close()
"""


def test_a_lost_device_ends_the_requests_with_its_name_and_not_the_process(tmp_path: Path) -> None:
    TINY.write(tmp_path / TINY.name)
    on_gpu = compiled_folder(str(tmp_path / TINY.name), "f32", config("webgpu"))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", LOST_IN_A_STEP, str(on_gpu)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.startswith("['error'] ")
    assert "the WebGPU device is lost" in result.stdout


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_webgpu.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EngineError, match="not installed") as caught:
        webgpu_adapters()
    assert "cupola[webgpu]" in str(caught.value.hint)


def test_a_library_that_is_another_one_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "libwgpu_native-release.so"
    other.write_bytes(b"no library")
    script = (
        "from pathlib import Path\nfrom cupola.engine import native_webgpu\n"
        f"native_webgpu._library_path = lambda: Path({str(other)!r})\n"
        "try:\n    native_webgpu.webgpu_adapters()\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f"EngineError {other} cannot be used:")

"""What `import cupola` gives, and what it does not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cupola


def loaded_by(code: str) -> set[str]:
    script = f"import sys; {code}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_public_name_is_there() -> None:
    assert cupola.__all__ == sorted(cupola.__all__)
    assert dir(cupola) == cupola.__all__
    for name in cupola.__all__:
        assert getattr(cupola, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Motor'"):
        _ = cupola.Motor


def test_importing_the_package_loads_nothing_of_it() -> None:
    assert {name for name in loaded_by("import cupola") if name.startswith("cupola")} == {"cupola"}


def test_an_engine_never_loads_the_compiler() -> None:
    loaded = loaded_by("from cupola import Engine; Engine('scripted').close()")
    assert "cupola.engine.native" in loaded
    unwanted = ("cupola.compiler", "cupola.kernels", "cupola.models", "cupola.weights", "fastapi", "gguf")
    assert not [name for name in loaded if name.startswith(unwanted) or name == "tvm"]

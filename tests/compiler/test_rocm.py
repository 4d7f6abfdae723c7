"""AMD's device libraries: one architecture's files, whatever the folder has."""

from __future__ import annotations

from pathlib import Path

import pytest

from cupola.compiler import rocm
from cupola.errors import StorageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("803", "908", "90a", "90c", "940", "1030", "1036"):
        (tmp_path / f"oclc_isa_version_{name}.bc").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("arch", "warp", "version"), [("gfx90a", 64, "90a"), ("gfx942", 64, "940"), ("gfx1100", 32, "1036")]
)
def test_the_architectures_own_files_or_those_before_it(folder: Path, arch: str, warp: int, version: str) -> None:
    names = [Path(file).stem for file in rocm.device_libraries(folder, arch, warp)]
    assert [name for name in names if "isa_version" in name] == [f"oclc_isa_version_{version}"]
    assert [name for name in names if "wavefront" in name] == [f"oclc_wavefrontsize64_{'on' if warp == 64 else 'off'}"]
    assert names[0] == "ocml"
    assert not {"oclc_daz_opt_on", "oclc_unsafe_math_on"} & set(names), "denormal numbers and exact division stay"


def test_a_folder_without_the_architecture_is_refused(folder: Path) -> None:
    with pytest.raises(StorageError, match="gfx700"):
        rocm.device_libraries(folder, "gfx700", 64)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rocm, "bitcode_folder", lambda: None)
    with pytest.raises(StorageError) as caught:
        rocm.register("gfx90a", 64)
    assert "rocm-device-libs" in str(caught.value.hint)
    monkeypatch.setattr(rocm, "bitcode_folder", lambda: Path())
    monkeypatch.setattr(rocm, "find_linker", lambda: None)
    with pytest.raises(StorageError) as caught:
        rocm.register("gfx90a", 64)
    assert "lld-19" in str(caught.value.hint)

"""A 64-bit Arm machine out of packages: Debian's Python in a folder, wheels for it, Cupola's own library from a cross
compiler, and qemu's user emulation to run it. Nothing is installed into the system.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
EMULATOR, COMPILER = "qemu-aarch64-static", "aarch64-linux-gnu-g++"
PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6")  # with what they depend on
PLATFORMS = ("manylinux_2_34_aarch64", "manylinux_2_28_aarch64", "manylinux2014_aarch64", "manylinux_2_17_aarch64")
UNUSED = ("libtvm_compiler.so", "libtvm_runtime_cuda.so")  # most of the wheel; a machine that serves loads neither


class ArmMachine:
    """The machine in a folder; made on first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root, self._site, self._native = folder / "root", folder / "site", folder / "native"

    @staticmethod
    def missing() -> str | None:
        """The tool that is not installed; None if all are."""
        tools = {EMULATOR: "qemu-user-static", COMPILER: "g++-aarch64-linux-gnu", "dpkg": "dpkg", "cmake": "cmake"}
        return next((f"{package} is not installed" for tool, package in tools.items() if not shutil.which(tool)), None)

    def prepare(self) -> None:
        """Fetches, unpacks and compiles what is not there yet."""
        done = self._folder / "ready"
        if not done.exists():
            shutil.rmtree(self._folder, ignore_errors=True)
            self._unpack_debian()
            self._install_wheels()
            done.touch()
        self._compile()

    def python(self, *arguments: str, cpu: str) -> str:
        """What Python prints on an emulated processor, by qemu's name of it."""
        command = [EMULATOR, "-cpu", cpu, "-L", str(self._root), str(self._root / "usr/bin/python3.11"), *arguments]
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONHOME": str(self._root / "usr"),
            "PYTHONPATH": f"{REPOSITORY / 'python'}:{self._site}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "CUPOLA_NATIVE_LIBRARY": str(self._native / "libcupola_native.so"),
        }
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout

    def _unpack_debian(self) -> None:
        """Debian's packages for arm64, by an apt of our own, so that the system's does not learn of arm64."""
        state = self._folder / "apt"
        for name in ("state/lists/partial", "cache/archives/partial"):
            (state / name).mkdir(parents=True)
        (state / "state/status").touch()
        (state / "apt.conf").write_text(
            'APT::Architecture "arm64"; APT::Architectures { "arm64"; };\n'
            f'Dir::State "{state}/state"; Dir::State::status "{state}/state/status"; Dir::Cache "{state}/cache";\n'
        )
        environment = {**os.environ, "APT_CONFIG": str(state / "apt.conf")}
        subprocess.run(["apt-get", "update", "-qq"], env=environment, check=True)
        install = ["apt-get", "install", "-qq", "--download-only", "--yes", "--no-install-recommends", *PACKAGES]
        subprocess.run(install, env=environment, check=True, stdout=subprocess.DEVNULL)
        for package in sorted((state / "cache/archives").glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(package), str(self._root)], check=True)
        shutil.rmtree(state)

    def _install_wheels(self) -> None:
        pins = re.findall(r'"(apache-tvm(?:-ffi)?==[^"]+)"', (REPOSITORY / "pyproject.toml").read_text())
        platforms = [f"--platform={platform}" for platform in PLATFORMS]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += [f"--target={self._site}", "--only-binary=:all:", "--python-version=3.11", *platforms]
        tvm = next(pin for pin in pins if not pin.startswith("apache-tvm-ffi"))
        subprocess.run([*pip, "--no-deps", tvm], check=True)
        others = sorted(set(pins) - {tvm})
        subprocess.run([*pip, *others, "numpy", "pydantic", "typing_extensions"], check=True)
        for name in UNUSED:
            (self._site / "tvm/lib" / name).unlink(missing_ok=True)

    def _compile(self) -> None:
        """Cupola's native library, again after its source changed."""
        self._native.mkdir(exist_ok=True)
        toolchain = self._native / "toolchain.cmake"
        toolchain.write_text(
            f"set(CMAKE_SYSTEM_NAME Linux)\nset(CMAKE_SYSTEM_PROCESSOR aarch64)\nset(CMAKE_CXX_COMPILER {COMPILER})\n"
        )
        ffi = self._site / "tvm_ffi/lib/libtvm_ffi.so"
        configure = ["cmake", "-G", "Ninja", "-S", str(REPOSITORY), "-B", str(self._native)]
        configure += [f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", f"-DPython_EXECUTABLE={sys.executable}"]
        subprocess.run([*configure, f"-DCUPOLA_TVM_FFI={ffi}"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["cmake", "--build", str(self._native)], check=True, stdout=subprocess.DEVNULL)

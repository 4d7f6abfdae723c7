"""Runs every client against the server and writes docs/conformance.md: `make conformance`.

The environments (`build/conformance/clients`, `clients-openai2`, `node`) are made by the Makefile. Each kind of client
runs by its own runner; what they leave in `build/conformance/reports` becomes the table. Exits with 1 if one failed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

from compiled import compiled_folder  # noqa: E402
from conformance.reports import Row, Tally, all_passed, junit_tallies, purpose, table, tap_tally, versions  # noqa: E402
from serving import ServerProcess  # noqa: E402

BUILT = ROOT / "build" / "conformance"
REPORTS = BUILT / "reports"
TESTS = ROOT / "tests" / "conformance"
KEY = "conformance"
LEAST_CASES = 1000
OFFICIAL_SUITE = BUILT / "jsonschema" / "json" / "tests" / "draft2020-12"

# The package that a file of tests runs, where it is not the one behind them all.
OWN = {
    "test_disconnect": "httpx",
    "test_json_schemas": "jsonschema",
    "test_official_schemas": "jsonschema",
    "test_messages_client": "anthropic",
}
CLIENTS = {
    "test_anthropic_smoke": "anthropic",
    "test_cohere": "cohere",
    "test_langchain": "langchain-openai",
    "test_pydantic_ai": "pydantic-ai-slim",
    "test_llm_command": "llm",
}
CLIENTS_OPENAI2 = {"test_instructor": "instructor", "test_llama_index": "llama-index-llms-openai-like"}


def main() -> int:
    """Runs all; the exit code."""
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    rows = own_suite()
    with ServerProcess(f"model={compiled_folder('smollm2')}", f"encoder={compiled_folder('minilm')}") as server:
        rows += clients("clients", CLIENTS, server)
        rows += clients("clients_openai2", CLIENTS_OPENAI2, server)
        rows += node(server)
    rows += schemathesis()
    page = table(rows)
    (ROOT / "docs" / "conformance.md").write_text(page)
    print(page)
    return 0 if all_passed(rows) else 1


def own_suite() -> list[Row]:
    """`tests/conformance` at full size, in the environment of the server."""
    report = REPORTS / "own.xml"
    environment = {"CUPOLA_CONFORMANCE": "full", "CUPOLA_JSON_SCHEMA_TESTS": str(OFFICIAL_SUITE)}
    command = (sys.executable, "-m", "pytest", TESTS, "--quiet", f"--junitxml={report}", "--timeout=600")
    run("tests/conformance", command, environment)
    return pytest_rows(report, OWN, TESTS, freeze(Path(sys.executable)), otherwise="openai")


def clients(folder: str, packages: Mapping[str, str], server: ServerProcess) -> list[Row]:
    """One folder of clients in its own environment."""
    report, python = REPORTS / f"{folder}.xml", BUILT / folder.replace("_", "-") / "bin" / "python"
    # The other tests' fixtures need Cupola, which is not installed there.
    command = (python, "-m", "pytest", TESTS / folder, f"--confcutdir={TESTS / folder}", "--quiet")
    run(folder, (*command, f"--junitxml={report}"), {"CUPOLA_URL": server.url})
    return pytest_rows(report, packages, TESTS / folder, freeze(python))


def node(server: ServerProcess) -> list[Row]:
    """The packages of npm; one row that says so where npm or its registry was not there."""
    if not (BUILT / "node" / ".installed").is_file():
        return [Row("npm's clients", "", "left out: npm or its registry was not there", Tally(0, 0))]
    rows = []
    for source in sorted((TESTS / "clients_node").glob("*.mjs")):
        copy = shutil.copy(source, BUILT / "node")  # packages are looked for beside the file
        command = ("node", "--test", "--test-reporter=tap", copy)
        text = run(f"node {source.name}", command, {"CUPOLA_URL": server.url}, cwd=BUILT / "node")
        package = source.name.removesuffix(".test.mjs")
        installed = json.loads((BUILT / "node" / "node_modules" / package / "package.json").read_text())
        rows.append(Row(f"`{package}` (npm)", installed["version"], purpose(source), tap_tally(text)))
    return rows


def schemathesis() -> list[Row]:
    """Requests made from the server's own OpenAPI document, right and wrong ones; a key is needed."""
    report, tool = REPORTS / "schemathesis.xml", BUILT / "clients" / "bin" / "st"
    options = ("--api-key", KEY, "--max-context", "512", "--log-level", "warning")
    with ServerProcess("scripted", *options) as server:
        command = (tool, "--config-file", ROOT / "scripts" / "conformance" / "schemathesis.toml", "run")
        words = (f"{server.url}/openapi.json", "-H", f"Authorization: Bearer {KEY}", "--no-color")
        text = run("schemathesis", (*command, *words, "--report", "junit", "--report-junit-path", report))
    cases = int(re.findall(r"(\d+) generated", text)[-1])
    tally = sum(junit_tallies(report).values(), Tally(0, 0))
    if cases < LEAST_CASES:
        tally += Tally(0, 1)
    what = f"{cases // 1000},000 and more requests from the server's own OpenAPI document, right and wrong ones"
    return [Row("`schemathesis`", freeze(tool.with_name("python"))["schemathesis"], what, tally)]


def pytest_rows(
    report: Path, packages: Mapping[str, str], folder: Path, installed: Mapping[str, str], otherwise: str = "pytest"
) -> list[Row]:
    """A row for each file of tests."""
    rows = []
    for file, tally in sorted(junit_tallies(report).items()):
        package = packages.get(file, otherwise)
        rows.append(Row(f"`{package}`", installed[package], purpose(folder / f"{file}.py"), tally))
    return rows


def freeze(python: Path) -> Mapping[str, str]:
    """The versions in an environment."""
    command = (python, "-m", "pip", "freeze", "--all", "--disable-pip-version-check")
    return versions(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def run(
    name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> str:
    """Runs a command, shows and returns what it prints, and says how long it took."""
    print(f"\n=== {name}", flush=True)
    begin = time.monotonic()
    known = os.environ | (environment or {})
    with subprocess.Popen(
        list(map(str, command)), cwd=cwd, env=known, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    print(f"--- {name}: {time.monotonic() - begin:.0f} s", flush=True)
    return "".join(lines)


if __name__ == "__main__":
    sys.exit(main())

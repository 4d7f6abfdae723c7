"""The table of docs/conformance.md: what pytest, node and the files of tests say becomes its rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.reports import Row, Tally, all_passed, junit_tallies, purpose, table, tap_tally, versions

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.conformance.test_one" name="a"/>
<testcase classname="tests.conformance.test_one" name="b"><failure message="no"/></testcase>
<testcase classname="tests.conformance.test_two" name="c"><skipped/></testcase>
</testsuite></testsuites>"""

TAP = """TAP version 13
# Subtest: a chat
ok 1 - a chat
  ---
  duration_ms: 1
  ...
not ok 2 - a stream
    ok 3 - inner # SKIP
ok 4 - /some/openai.test.mjs
1..3
"""


def test_a_skipped_test_has_not_passed(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(JUNIT)
    assert junit_tallies(tmp_path / "report.xml") == {"test_one": Tally(1, 2), "test_two": Tally(0, 1)}


def test_tap_counts_tests_and_not_files() -> None:
    assert tap_tally(TAP) == Tally(1, 3)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.py", '"""LangChain, unchanged: prompts, tools.\n\nMore.\n"""\n', "prompts, tools"),
        ("b.py", '"""Clients that go away."""\n', "Clients that go away"),
        ("c.mjs", "// The package for JavaScript: chat, errors.\n\nimport x;\n", "chat, errors"),
    ],
)
def test_a_file_says_what_it_is_for(tmp_path: Path, name: str, text: str, expected: str) -> None:
    (tmp_path / name).write_text(text)
    assert purpose(tmp_path / name) == expected


def test_an_empty_row_and_a_failed_test_are_failures() -> None:
    good = Row("a", "1", "x", Tally(2, 2))
    assert all_passed([good])
    assert not all_passed([good, Row("b", "1", "x", Tally(0, 0))])
    assert not all_passed([good, Row("b", "1", "x", Tally(1, 2))])


def test_the_table_and_the_versions() -> None:
    assert table([Row("`openai`", versions("OpenAI==3.1\n-e .\n")["openai"], "chat", Tally(2, 3))]).endswith(
        "|---|---|---|---|\n| `openai` | 3.1 | chat | 2 of 3 |\n"
    )

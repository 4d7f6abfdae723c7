"""API keys: where they come from, and a file that changes under a running server."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cupola.errors import UsageError
from cupola.server.keys import KeyRing
from cupola.server.services import ServerSettings
from stand import open_stand


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def ring(file: Path, clock: Clock, *keys: str) -> KeyRing:
    return KeyRing(keys, file, clock)


def write(file: Path, text: str) -> None:
    """In one go, as careful operators do."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def test_a_file_holds_a_key_a_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    write(file, "# of the team\n\nfirst\n  second  \n#third\n")
    keys = ring(file, Clock(), "fixed")
    assert [keys.opens(key) for key in (b"first", b"second", b"fixed")] == [True] * 3
    assert not any(keys.opens(key) for key in (b"", b"third", b"#third", b"# of the team", b"firs", b"first2", b"\xff"))


def test_a_changed_file_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, clock = tmp_path / "keys", Clock()
    write(file, "old\n")
    keys = ring(file, clock)
    write(file, "new\n")
    assert keys.opens(b"old"), "not looked at again so soon"
    clock.now = 1.0
    with caplog.at_level(logging.INFO):
        assert keys.opens(b"new")
    assert not keys.opens(b"old")
    assert "1 API keys were read" in caplog.text
    assert "new" not in caplog.text


@pytest.mark.parametrize("harm", ["gone", "empty", "binary", "a space"])
def test_a_file_that_cannot_be_used_any_more_locks_nobody_out(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    file, clock = tmp_path / "keys", Clock()
    write(file, "old\n")
    keys = ring(file, clock)
    file.unlink()
    contents = {"empty": b"# nothing\n", "binary": b"\xff\xfe", "a space": b"two words\n"}
    if harm in contents:
        file.write_bytes(contents[harm])
    for clock.now in (1.0, 2.0, 3.0):
        assert keys.opens(b"old")
        assert not keys.opens(b"two words")
    assert "stay valid" in caplog.text
    write(file, "new\n")
    clock.now = 4.0
    assert keys.opens(b"new")


@pytest.mark.parametrize("content", [None, "", "# only comments\n", "two words\n", "schlüssel\n"])
def test_a_server_does_not_start_with_a_bad_file(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError, match="keys"):
        KeyRing((), file)


@pytest.mark.parametrize("key", ["", " ", "a b", "ü", "a\n"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match="API key"):
        KeyRing([key])


async def test_the_file_guards_the_server(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    write(file, "secret\n")
    async with open_stand(settings=ServerSettings(api_key_file=file)) as stand:
        assert (await stand.client.get("/v1/models")).status_code == 401
        for headers in ({"authorization": "Bearer secret"}, {"x-api-key": "secret"}):
            assert (await stand.client.get("/v1/models", headers=headers)).status_code == 200
        for path in ("/health", "/live", "/ready", "/"):
            assert (await stand.client.get(path)).status_code == 200

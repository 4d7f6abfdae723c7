"""`cupola targets`, and targets of `cupola compile`."""

from __future__ import annotations

import pytest
from command import cupola


def test_every_target_is_listed_with_what_this_machine_can_do_with_it() -> None:
    lines = cupola("targets").out.splitlines()
    rows = {line.split()[0]: line for line in lines[1:] if line and not line.startswith("--")}
    assert {"cpu:x86-64-v3", "cpu:aarch64+dotprod+i8mm", "cuda:sm_100", "rocm:gfx1100", "webgpu"} <= set(rows)
    assert "no code generator" in rows["vulkan"]
    assert rows["cpu:x86-64"].split()[-2:] == ["yes", "yes"]
    assert "--target auto is " in lines[-1]


@pytest.mark.parametrize("option", [("--target", "gpu"), ("--config", "cuda-q2")])
def test_a_target_or_a_configuration_that_does_not_exist_ends_the_command(option: tuple[str, str]) -> None:
    done = cupola("compile", "no-such-model", *option)
    assert done.code == 2
    assert option[1] in done.err

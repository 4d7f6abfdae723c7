"""`cupola models`: what it lists is what the registry has."""

from __future__ import annotations

import json

from command import cupola

from cupola.models.registry import ARCHITECTURES


def test_every_architecture_is_listed() -> None:
    outcome = cupola("models", "--json")
    assert outcome.code == 0
    listed = json.loads(outcome.out)
    assert [entry["name"] for entry in listed] == [architecture.name for architecture in ARCHITECTURES]
    assert all(entry["models"] and entry["model_types"] for entry in listed), "an architecture says no models"
    screen = cupola("models").out.splitlines()
    assert len(screen) == len(ARCHITECTURES) + 1
    assert any(line.split()[:3] == ["roberta,", "xlm-roberta", "embed"] for line in screen)

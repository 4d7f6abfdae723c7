"""The OpenAPI document: nothing that an endpoint takes or gives is missing in it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cupola.server.app import ROUTES
from cupola.server.services import ServerSettings
from stand import Stand, open_stand


def dictionaries(node: object) -> Iterator[dict[str, object]]:
    """All objects of a document."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from dictionaries(child)


async def test_every_operation_is_described(stand: Stand) -> None:
    document = (await stand.client.get("/openapi.json")).json()
    for route in ROUTES:
        operation = document["paths"][route.path.replace(":path", "")][route.method.lower()]
        good, bad = operation["responses"]["200"]["content"], operation["responses"]["default"]["content"]
        assert all(content["schema"] for content in good.values()), route.path
        shape = "AnthropicErrorBody" if route.path.startswith("/v1/messages") else "ErrorBody"
        assert bad["application/json"]["schema"]["$ref"].endswith(f"/{shape}")
        assert (route.method == "POST" and "{" not in route.path) == ("requestBody" in operation), route.path
        placed = {entry["name"] for entry in operation.get("parameters", ()) if entry["in"] == "path"}
        assert placed == set(re.findall(r"{(\w+)", route.path))
    assert "text/event-stream" in document["paths"]["/v1/completions"]["post"]["responses"]["200"]["content"]
    parameters = document["paths"]["/v1/responses/{response_id}/input_items"]["get"]["parameters"]
    assert {"after", "limit", "order"} < {entry["name"] for entry in parameters}


async def test_every_reference_has_its_target(stand: Stand) -> None:
    document = (await stand.client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    references = {str(node["$ref"]) for node in dictionaries(document) if isinstance(node.get("$ref"), str)}
    assert references
    assert {reference.removeprefix("#/components/schemas/") for reference in references} <= schemas.keys()


async def test_fields_that_are_accepted_and_change_nothing_are_there_too(stand: Stand) -> None:
    document = (await stand.client.get("/openapi.json")).json()
    properties = document["components"]["schemas"]["ChatCompletionRequest"]["properties"]
    assert properties["metadata"] == {"description": "Accepted and ignored."}
    assert None in properties["modalities"]["enum"]


async def test_keys_are_described_where_they_are_needed(stand: Stand) -> None:
    assert "security" not in (await stand.client.get("/openapi.json")).json()
    async with open_stand(settings=ServerSettings(api_keys=("secret",))) as locked:
        headers = {"authorization": "Bearer secret"}
        document = (await locked.client.get("/openapi.json", headers=headers)).json()
    assert document["security"] == [{"bearer": []}, {"apiKey": []}]
    assert document["components"]["securitySchemes"]["bearer"] == {"type": "http", "scheme": "bearer"}
    assert document["paths"]["/health"]["get"]["security"] == []
    assert "security" not in document["paths"]["/v1/models"]["get"]


async def test_another_method_is_told_all_that_the_path_takes(stand: Stand) -> None:
    answer = await stand.client.put("/v1/responses/one")
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET")
    assert (await stand.client.get("/v1/completions")).headers["allow"] == "POST"

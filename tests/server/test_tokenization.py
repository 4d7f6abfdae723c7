"""`/tokenize` and its kin, on the scripted model, whose tokens are bytes."""

from __future__ import annotations

import pytest

from cupola.engine.backends.scripted import CHAT_TEMPLATE
from stand import CHAT, Stand

TEXT = "naïve 日本 🙂"
MESSAGES = [{"role": "user", "content": "hi"}]
RENDERED = "<|im_start|>user\nhi<|im_end|>\n"


async def tokens(stand: Stand, **body: object) -> dict[str, object]:
    """What `/tokenize` answers."""
    response = await stand.client.post("/tokenize", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_text_there_and_back(stand: Stand) -> None:
    data = list(TEXT.encode())
    answer = await tokens(stand, prompt=TEXT, model="alias")
    limit = stand.engine.config.max_context
    assert answer == {"count": len(data), "max_model_len": limit, "tokens": data, "token_strs": None}
    back = await stand.client.post("/detokenize", json={"tokens": data})
    assert back.json() == {"prompt": TEXT}
    assert (await stand.client.post("/detokenize", json={"tokens": []})).json() == {"prompt": ""}
    spelled = (await tokens(stand, prompt="a b<|im_end|>", return_token_strs=True, add_special_tokens=False))[
        "token_strs"
    ]
    assert spelled == ["a", "Ġ", "b", "<|im_end|>"]


async def test_a_conversation_is_what_chat_reads(stand: Stand) -> None:
    for more, prompt in ((True, RENDERED + "<|im_start|>assistant\n"), (False, RENDERED)):
        answer = await tokens(stand, messages=MESSAGES, add_generation_prompt=more)
        assert (await stand.client.post("/detokenize", json={"tokens": answer["tokens"]})).json() == {"prompt": prompt}
    count = (await tokens(stand, messages=MESSAGES))["count"]
    body = {"model": "scripted", "messages": MESSAGES, "max_tokens": 1}
    assert (await stand.client.post(CHAT, json=body)).json()["usage"]["prompt_tokens"] == count
    answer = await stand.client.post(f"{CHAT}/input_tokens", json=body)
    assert answer.json() == {"object": "response.input_tokens", "input_tokens": count}


async def test_what_a_client_has_to_know_to_do_it_itself(stand: Stand) -> None:
    info = (await stand.client.get("/tokenizer_info", params={"model": "alias"})).json()
    assert info == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": stand.engine.config.max_context,
        "vocab_size": 259,
        "bos_token": info["bos_token"],
        "eos_token": "<|im_end|>",
        "pad_token": info["pad_token"],
        "chat_template": CHAT_TEMPLATE,
    }
    assert (await stand.client.get("/tokenizer_info", params={"model": "other"})).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/tokenize", {}, 400, "prompt"),
        ("/tokenize", {"prompt": "x", "messages": MESSAGES}, 400, "prompt"),
        ("/tokenize", {"prompt": "x", "tools": []}, 400, "tools"),
        ("/tokenize", {"messages": MESSAGES, "add_special_tokens": True}, 400, "add_special_tokens"),
        ("/tokenize", {"messages": [{"role": "user"}]}, 400, "messages.0"),
        ("/tokenize", {"prompt": "x", "model": "other"}, 404, "model"),
        ("/tokenize", {"prompt": "x", "continue_final_message": True}, 400, "continue_final_message"),
        ("/detokenize", {"tokens": [97, 259]}, 400, "tokens.1"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens.0"),
        ("/detokenize", {"tokens": ["a"]}, 400, "tokens.0"),
        (f"{CHAT}/input_tokens", {"model": "scripted", "messages": []}, 400, "messages"),
    ],
)
async def test_refusals_name_the_field(
    stand: Stand, path: str, body: dict[str, object], status: int, param: str
) -> None:
    answer = await stand.client.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)

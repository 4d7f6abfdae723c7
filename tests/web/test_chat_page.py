"""The chat page in a real browser, against a real server."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from chat_page import ChatPage
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from serving import ServerProcess

pytestmark = pytest.mark.browser

ARTIFACTS = Path(__file__).parents[2] / "build" / "test-artifacts"
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def brightness(chromium: webdriver.Chrome) -> float:
    """Of the page's background, 0 to 255."""
    background = chromium.execute_script("return getComputedStyle(document.body).backgroundColor")
    return sum(map(int, re.findall(r"\d+", background)[:3])) / 3


def test_a_message_is_answered_as_a_stream(chromium: webdriver.Chrome, chat_server: ServerProcess) -> None:
    page = ChatPage(chromium, chat_server.url)
    assert page.model == "a-model-with-a-rather-long-name-that-has-to-be-cut"
    assert page.element("welcome").is_displayed()
    page.screenshot(ARTIFACTS / "chat-welcome.png")
    question = "What is 338 plus one?"  # the scripted model's answer to it takes two seconds
    page.send(question)
    page.wait(lambda: page.answering and len(page.messages[-1][1]) > 3)
    early = page.messages[-1][1]
    assert not page.element("welcome").is_displayed()
    page.wait(lambda: not page.answering)
    (role, said), (other, answer) = page.messages
    assert (role, said, other) == ("user", question, "assistant")
    assert answer.startswith(early)
    assert len(answer) > len(early), "the answer did not grow before it was complete"
    shown = re.fullmatch(r"(\d+) tokens, \d+\.\d tokens/s", page.rate)
    assert shown is not None, page.rate
    assert int(shown[1]) == len(answer) + 1, "each letter is a token, and so is the end"
    page.screenshot(ARTIFACTS / "chat-answer.png")
    assert page.complaints() == []


@pytest.mark.parametrize("how", ["button", "escape"])
def test_an_answer_can_be_stopped(chromium: webdriver.Chrome, endless_server: ServerProcess, how: str) -> None:
    page = ChatPage(chromium, endless_server.url)
    page.send("Go on")
    page.wait(lambda: len(page.messages) == 2 and len(page.messages[-1][1]) > 5)
    page.screenshot(ARTIFACTS / "chat-streaming.png")
    if how == "button":
        page.element("stop").click()
    else:
        page.element("input").send_keys(Keys.ESCAPE)
    page.wait(lambda: not page.answering)
    assert page.rate.endswith("stopped")
    assert page.element("send").is_displayed()
    endless_server.wait_for(endless_server.is_idle)
    stopped = page.messages
    page.reload()
    assert page.messages == stopped
    assert page.complaints() == []


def test_the_conversation_is_kept_and_sent_again(chromium: webdriver.Chrome, chat_server: ServerProcess) -> None:
    page = ChatPage(chromium, chat_server.url)
    page.ask("First")
    page.reload()
    assert [text for role, text in page.messages if role == "user"] == ["First"]
    before = chat_server.metric("cupola:prompt_tokens_total")
    page.ask("Second")
    prompt = chat_server.metric("cupola:prompt_tokens_total") - before
    assert prompt > len("First") + len("Second") + len(page.messages[1][1])
    page.element("new-chat").click()
    assert page.messages == []
    assert page.element("welcome").is_displayed()
    page.reload()
    assert page.messages == []


def test_settings_reach_the_model(chromium: webdriver.Chrome, endless_server: ServerProcess) -> None:
    page = ChatPage(chromium, endless_server.url)
    page.element("open-settings").click()
    page.screenshot(ARTIFACTS / "chat-settings.png")
    page.element("max-tokens").send_keys("7")
    page.element("system").send_keys("Be brief.")
    page.element("system").send_keys(Keys.ESCAPE)
    page.wait(lambda: not page.element("settings").is_displayed())
    before = endless_server.metric("cupola:prompt_tokens_total")
    assert len(page.ask("x")) == 7
    assert page.rate.endswith("cut off at the longest length")
    with_system = endless_server.metric("cupola:prompt_tokens_total") - before
    page.reload()
    page.element("open-settings").click()
    assert page.element("system").get_property("value") == "Be brief."
    page.element("reset").click()
    assert page.element("system").get_property("value") == ""
    assert with_system > len("Be brief.")


def test_an_api_key_can_be_given(chromium: webdriver.Chrome, locked_server: ServerProcess) -> None:
    page = ChatPage(chromium, locked_server.url)
    page.wait(lambda: "API key" in page.text("error"))
    page.send("Hello")
    page.wait(lambda: not page.answering)
    assert page.messages == []
    page.wait(lambda: page.element("input").get_property("value") == "Hello")  # what was not sent is not lost
    page.screenshot(ARTIFACTS / "chat-error.png")
    page.element("open-settings").click()
    page.element("api-key").send_keys("secret", Keys.ENTER)
    page.wait(lambda: page.model.startswith("scripted"))
    assert not page.element("error").is_displayed()
    page.element("input").send_keys(Keys.ENTER)
    page.wait(lambda: len(page.messages) == 2 and not page.answering)


def test_a_server_that_goes_away_is_told(chromium: webdriver.Chrome) -> None:
    with ServerProcess("scripted:step_us=10000", "--log-level", "error") as server:
        page = ChatPage(chromium, server.url)
        page.send("Hello")
        page.wait(lambda: len(page.messages) == 2 and page.messages[-1][1])
    page.wait(lambda: page.element("error").is_displayed())
    assert not page.answering
    page.wait(lambda: page.messages[-1][1])
    page.send("Still there?")
    page.wait(lambda: "cannot be reached" in page.text("error"))


def test_a_message_is_edited_and_an_answer_retried(chromium: webdriver.Chrome, chat_server: ServerProcess) -> None:
    page = ChatPage(chromium, chat_server.url)
    page.ask("First")
    second = page.ask("Second")
    page.elements(".message.assistant .retry")[-1].click()
    page.wait(lambda: page.answering or page.messages[-1][1])
    page.wait(lambda: not page.answering)
    assert [text for role, text in page.messages if role == "user"] == ["First", "Second"]
    page.element("input").send_keys(Keys.ARROW_UP)
    field = page.elements(".message.user .body textarea")[-1]
    field.send_keys(Keys.ESCAPE)
    assert page.messages[2] == ("user", "Second")
    page.elements(".message.user .edit")[0].click()
    page.elements(".message.user .body textarea")[0].send_keys(" of all", Keys.ENTER)
    page.wait(lambda: len(page.messages) == 2 and page.messages[1][1] and not page.answering)
    assert page.messages[0] == ("user", "First of all")
    assert second
    page.reload()
    assert page.messages[0] == ("user", "First of all")
    assert page.complaints() == []


def test_a_conversation_goes_through_a_file(
    chromium: webdriver.Chrome, locked_server: ServerProcess, tmp_path: Path
) -> None:
    chromium.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page = ChatPage(chromium, locked_server.url)
    page.set("api-key", "secret")
    page.set("system", "Be brief.")
    page.ask("Keep this")
    kept = page.messages
    page.element("open-settings").click()
    page.element("export").click()
    page.wait(lambda: list(tmp_path.glob("chat-*.json")))
    (file,) = tmp_path.glob("chat-*.json")
    assert "secret" not in file.read_text()
    page.element("system").send_keys(Keys.ESCAPE)
    page.element("new-chat").click()
    page.element("import-file").send_keys(str(file))
    page.wait(lambda: page.messages == kept)
    page.ask("And go on")  # the key is still there
    other = tmp_path / "other.json"
    other.write_text('{"messages": 3}')
    page.element("import-file").send_keys(str(other))
    page.wait(lambda: "no conversation" in page.text("error"))
    assert page.messages[:2] == kept


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_appearance_can_be_chosen(chromium: webdriver.Chrome, chat_server: ServerProcess, theme: str) -> None:
    page = ChatPage(chromium, chat_server.url)
    page.set("theme", theme)
    page.reload()
    assert (brightness(chromium) > 128) == (theme == "light")


def test_tool_calls_are_shown_and_answered(chromium: webdriver.Chrome, chat_server: ServerProcess) -> None:
    page = ChatPage(chromium, chat_server.url)
    page.set("tools", '[{"name": "pick", "parameters": {"enum": [{"side": "left"}]}}]')
    page.set("tool-choice", "required")
    page.send("Pick a side")
    page.wait(lambda: page.elements(".call form textarea") and not page.answering)
    assert page.elements(".call .name")[0].text == "pick"
    assert json.loads(page.elements(".call code")[0].text) == {"side": "left"}
    page.screenshot(ARTIFACTS / "chat-tool-call.png")
    page.send("What now?")
    page.wait(lambda: "waits for the results" in page.text("error"))
    page.element("input").clear()
    page.set("tool-choice", "none")
    calls = len(page.elements(".call"))
    for _ in range(calls):
        form = next(form for form in page.elements(".call form") if form.is_displayed())
        form.find_element(By.TAG_NAME, "textarea").send_keys("left it is")
        form.find_element(By.TAG_NAME, "button").click()
    page.wait(lambda: len(page.messages) == calls + 3 and not page.answering)
    assert [role for role, _ in page.messages] == ["user", "assistant", *["tool"] * calls, "assistant"]
    assert page.messages[2][1] == "left it is"
    page.set("tools", "[oops")
    page.send("More")
    page.wait(lambda: "not a JSON list" in page.text("error"))
    assert page.complaints() == []


def test_reasoning_is_folded_away(chromium: webdriver.Chrome, chat_server: ServerProcess) -> None:
    page = ChatPage(chromium, chat_server.url)
    chromium.execute_script(
        """
        const chunk = (delta, finish_reason) =>
            `data: ${JSON.stringify({ choices: [{ delta, finish_reason }] })}\\n\\n`;
        const stream = chunk({ reasoning_content: "Let me " }) + chunk({ reasoning_content: "think." })
            + chunk({ content: "Done." }) + chunk({}, "stop") + "data: [DONE]\\n\\n";
        window.fetch = async () => new Response(stream);
        """
    )
    assert page.ask("Think") == "Done."
    (thought,) = page.elements(".message.assistant .reasoning")
    assert thought.is_displayed()
    assert thought.text == "Reasoning"
    thought.find_element(By.TAG_NAME, "summary").click()
    assert page.elements(".thought")[-1].text == "Let me think."


def test_images_go_with_a_message_where_the_model_takes_them(
    chromium: webdriver.Chrome, chat_server: ServerProcess, tmp_path: Path
) -> None:
    page = ChatPage(chromium, chat_server.url)
    assert not page.element("attach").is_displayed()
    chromium.execute_script(
        """
        const card = { id: "seeing", capabilities: ["chat", "images"] };
        window.sent = [];
        window.fetch = async (path, options) => {
            if (path === "v1/models") return new Response(JSON.stringify({ data: [card] }));
            window.sent.push(JSON.parse(options.body));
            const choices = [{ delta: { content: "A dot." }, finish_reason: "stop" }];
            return new Response(`data: ${JSON.stringify({ choices })}\\n\\ndata: [DONE]\\n\\n`);
        };
        """
    )
    page.set("temperature", "0")  # closing the drawer asks for the models again
    page.wait(lambda: page.element("attach").is_displayed())
    image = tmp_path / "dot.png"
    image.write_bytes(base64.b64decode(DOT))
    page.element("images").send_keys(str(image))
    page.wait(lambda: page.elements("#attached img"))
    assert page.ask("What is it?") == "A dot."
    (body,) = chromium.execute_script("return window.sent")
    picture, text = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is it?"}
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert len(page.elements(".message.user .images img")) == 1
    assert page.elements("#attached img") == []
    assert page.complaints() == []


def test_nothing_that_a_model_writes_becomes_html(chromium: webdriver.Chrome, chat_server: ServerProcess) -> None:
    ChatPage(chromium, chat_server.url)
    text = (
        "# Title <i>x</i>\n\nOne **bold <img src=x onerror=alert(1)>** and *soft* and `<b>code</b>`.\n"
        "1. first\n2. **second**\n\n- a\n- b_c_d 2 * 3 * 4\n\n```html\n<script>alert(1)</script>\n# no title\n```\n"
        "[link](javascript:alert(1)) <svg onload=alert(1)>\n```\nopen fence **stays**"
    )
    script = """
        const [text, done] = arguments;
        import("/markdown.js").then(({ renderMarkdown }) => {
            const target = document.createElement("div");
            renderMarkdown(target, text);
            const names = [...target.querySelectorAll("*")].map((node) => node.localName);
            const of = (name) => [...target.querySelectorAll(name)].map((node) => node.textContent);
            done({ names, codes: of("code"), strong: of("strong"), em: of("em"), items: of("li"), heads: of("h3") });
        }, (error) => done(String(error)));
    """
    found = chromium.execute_async_script(script, text)
    allowed = {"h3", "p", "strong", "em", "code", "ol", "ul", "li", "div", "header", "span", "button", "pre"}
    assert set(found["names"]) <= allowed
    assert found["heads"] == ["Title <i>x</i>"]
    assert found["strong"] == ["bold <img src=x onerror=alert(1)>", "second"]
    assert found["em"] == ["soft"]
    assert found["items"] == ["first", "second", "a", "b_c_d 2 * 3 * 4"]
    assert found["codes"] == ["<b>code</b>", "<script>alert(1)</script>\n# no title", "open fence **stays**"]


def test_everything_has_a_name_and_nothing_comes_from_elsewhere(
    chromium: webdriver.Chrome, chat_server: ServerProcess
) -> None:
    page = ChatPage(chromium, chat_server.url)
    page.ask("Hello")
    outside = [item for item in page.elements("button, textarea, select") if item.is_displayed()]
    assert [item.tag_name for item in outside if not item.accessible_name] == []
    page.element("open-settings").click()
    chromium.execute_script("document.querySelectorAll('details').forEach((item) => { item.open = true; })")
    inside = [item for item in page.elements("#settings :is(button, textarea, input, select)") if item.is_displayed()]
    assert [item.tag_name for item in inside if not item.accessible_name] == []
    assert (len(outside), len(inside)) == (9, 14)
    resources = chromium.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert resources
    assert all(resource.startswith(f"{chat_server.url}/") for resource in resources)
    assert chromium.find_element(By.CSS_SELECTOR, "html").get_attribute("lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 390])
def test_both_schemes_and_small_screens(
    chromium: webdriver.Chrome, chat_server: ServerProcess, scheme: str, width: int
) -> None:
    chromium.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        page = ChatPage(chromium, chat_server.url)
        page.ask("A message that is somewhat longer, so that it has to be broken on a small screen.")
        page.screenshot(ARTIFACTS / f"chat-{scheme}-{width}.png")
        overflow = chromium.execute_script("return document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0
        assert (brightness(chromium) > 128) == (scheme == "light")
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

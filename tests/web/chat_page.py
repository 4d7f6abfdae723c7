"""The chat page as its user has it: what can be read on it and done with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

_PATIENCE = 100.0  # seconds; only a failing test waits so long


class ChatPage:
    """The page of one server, opened as by a visitor who comes for the first time."""

    def __init__(self, browser: Chrome, url: str) -> None:
        self.browser = browser
        self._url = url
        browser.get(url)
        browser.execute_script("localStorage.clear()")
        browser.get_log("browser")
        self.reload()

    def reload(self) -> None:
        """Opens the page again, with what the browser remembers."""
        self.browser.get(self._url)
        self.wait(lambda: self.model != "connecting…")

    def wait(self, condition: Callable[[], object]) -> None:
        """Until the condition holds; an element of the page before a reload is no answer."""
        stale = (StaleElementReferenceException,)
        wait = WebDriverWait(self.browser, _PATIENCE, poll_frequency=0.02, ignored_exceptions=stale)
        wait.until(lambda _: condition())

    def element(self, name: str) -> WebElement:
        """By id."""
        return self.browser.find_element(By.ID, name)

    def elements(self, selector: str) -> list[WebElement]:
        """By CSS selector."""
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def text(self, name: str) -> str:
        """What can be read in an element."""
        return self.element(name).text

    def send(self, text: str) -> None:
        """Writes a message and presses Enter."""
        self.element("input").send_keys(text, Keys.ENTER)

    @property
    def model(self) -> str:
        """The model that is chosen."""
        return Select(self.element("model")).first_selected_option.text

    def set(self, name: str, value: str) -> None:
        """Gives a field of the drawer a value, as somebody who types it; opens and closes the drawer."""
        self.element("open-settings").click()
        field = self.element(name)
        self.browser.execute_script("arguments[0].closest('details')?.setAttribute('open', '')", field)
        if field.tag_name == "select":
            Select(field).select_by_value(value)
        else:
            field.clear()
            field.send_keys(value)
        self.element("system").send_keys(Keys.ESCAPE)
        self.wait(lambda: not self.element("settings").is_displayed())

    @property
    def answering(self) -> bool:
        """An answer is on its way."""
        return self.element("stop").is_displayed()

    @property
    def messages(self) -> list[tuple[str, str]]:
        """(role, text) of the conversation."""
        script = """
            const role = (item) => ["user", "assistant", "tool"].find((name) => item.classList.contains(name));
            const text = (item) => item.querySelector(".body").innerText.trim();
            return [...document.querySelectorAll(".message")].map((item) => [role(item), text(item)]);
        """
        return [(role, text) for role, text in self.browser.execute_script(script)]

    @property
    def rate(self) -> str:
        """What stands below the last answer."""
        return self.elements(".message.assistant .rate")[-1].text

    def ask(self, text: str) -> str:
        """Sends a message and waits for the whole answer."""
        count = len(self.messages)
        self.send(text)
        self.wait(lambda: len(self.messages) == count + 2 and not self.answering)
        return self.messages[-1][1]

    def complaints(self) -> list[str]:
        """What the browser's console complains about."""
        return [
            entry["message"] for entry in self.browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
        ]

    def screenshot(self, path: Path) -> None:
        """Keeps what the page looks like."""
        path.parent.mkdir(parents=True, exist_ok=True)
        assert self.browser.save_screenshot(str(path))

"""A headless Chromium for tests: what a page shows, and what it asked for and complained of."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--disable-dev-shm-usage"),
)


def started(profile: Path) -> Iterator[Chromium]:
    """A browser, for a fixture; the test is skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium to drive Chromium")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver", path=os.environ.get("CHROMEWEBDRIVER"))
    driver = driver or shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip(
            "no Chromium with its driver (Debian: apt-get install chromium chromium-driver)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    chromium = Chromium(webdriver.Chrome(options=options, service=service))
    yield chromium
    chromium.driver.quit()


class Chromium:
    """A browser with one page; all it takes are selectors, scripts and keys."""

    def __init__(self, driver: Any):
        self.driver = driver

    def show(self, file: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a file in a window of that size, for somebody who prefers dark or light."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.complaints()  # of the page before
        self.driver.get(file.as_uri())

    def do(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """The text of the first element, as it is drawn."""
        self.settle()
        return self.do("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements, hidden ones included."""
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
        return self.do(script, selector)

    def attribute(self, selector: str, name: str) -> str | None:
        script = "return document.querySelector(arguments[0]).getAttribute(arguments[1])"
        return self.do(script, selector, name)

    def visible(self, selector: str) -> bool:
        self.settle()
        script = "return Boolean(document.querySelector(arguments[0])?.checkVisibility())"
        return self.do(script, selector)

    def click(self, selector: str, text: str = "") -> None:
        """Click the first element that is drawn and has this text in it, as a hand would."""
        self.settle()
        found = self.driver.find_elements("css selector", selector)
        next(e for e in found if e.is_displayed() and text in e.text).click()

    def settle(self) -> None:
        """Wait until what a frame draws is drawn."""
        self.do("return new Promise(done => requestAnimationFrame(() => setTimeout(done)))")

    def press(self, *keys: str) -> None:
        """Keys for what has the focus, by the names of JavaScript."""
        from selenium.webdriver.common.keys import Keys

        for key in keys:
            name = {"Escape": "ESCAPE", "PageDown": "PAGE_DOWN"}.get(key, key)
            name = name.replace("Arrow", "ARROW_").upper()
            code = key if len(key) == 1 else getattr(Keys, name)
            self.driver.switch_to.active_element.send_keys(code)

    def type(self, text: str) -> None:
        self.driver.switch_to.active_element.send_keys(text)

    def choose(self, selector: str, value: str) -> None:
        """Choose in a menu."""
        script = """const menu = document.querySelector(arguments[0]); menu.value = arguments[1];
            menu.dispatchEvent(new Event("change"))"""
        self.do(script, selector, value)

    def complaints(self) -> list[str]:
        """What the console said since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self, page: Path) -> list[str]:
        """The addresses that a page asked for since the last call."""
        entries = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        sent = [e for e in entries if e["method"] == "Network.requestWillBeSent"]
        ours = [e["params"] for e in sent if e["params"]["documentURL"] == page.as_uri()]
        return [params["request"]["url"] for params in ours]

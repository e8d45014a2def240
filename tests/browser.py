"""Headless Chromium over its own pipe (DevTools protocol, no further package): what a page asks for, says, and shows.

    with Browser() as browser:
        seen = browser.read(path, width=390)     # -> dict(requests, messages, scroll_width, ..., png)
"""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests import PATIENCE

NAMES = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = next((found for name in NAMES if (found := shutil.which(name))), "")


# Every box that is cut, scrolls sideways, leaves the page, is squeezed to some letters a line, or overlaps.
BOXES = """
(() => {
  document.querySelectorAll('details').forEach(one => one.open = true);
  const found = [], wide = document.documentElement.clientWidth;
  const named = one => one.tagName + (one.id ? '#' + one.id : '') + (one.className.baseVal ?? one.className ? '.' +
    (one.className.baseVal ?? one.className) : '') + ' ' + JSON.stringify(one.textContent.trim().slice(0, 40));
  const flat = 'TR TD TH THEAD TBODY TABLE'.split(' ');
  for (const one of document.querySelectorAll('body *')) {
    if (one.closest('svg') && one.tagName !== 'svg') continue;
    const box = one.getBoundingClientRect(), style = getComputedStyle(one);
    if (!box.width || !box.height || style.display === 'inline') continue;
    if (one.scrollWidth > one.clientWidth + 1 && one.clientWidth) found.push('scrolls or is cut: ' + named(one));
    if (box.right > wide + 1 || box.left < -1) found.push('leaves the page: ' + named(one));
    const text = [...one.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent.trim()).join('');
    if (text.length > 20 && box.width < 60) found.push('squeezed: ' + named(one));
    const next = one.nextElementSibling;
    if (next && !flat.includes(one.tagName)) {
      const other = next.getBoundingClientRect();
      if (other.width && other.height && getComputedStyle(next).display !== 'inline'
          && Math.min(box.right, other.right) - Math.max(box.left, other.left) > 1.5
          && Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top) > 1.5)
        found.push('lies on its neighbour: ' + named(one));
    }
  }
  return found;
})()
"""


class Browser:
    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        theirs_in, self.out = os.pipe()
        self.back, theirs_out = os.pipe()
        high_in, high_out = os.dup(theirs_in), os.dup(theirs_out)  # 3 and 4 themselves may be among the four

        def places():
            spare_in, spare_out = os.dup(high_in), os.dup(high_out)
            os.dup2(spare_in, 3)
            os.dup2(spare_out, 4)

        self.process = subprocess.Popen(
            [PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--hide-scrollbars",
             "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={self.folder.name}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False,
            preexec_fn=places)
        for end in (theirs_in, theirs_out, high_in, high_out):
            os.close(end)
        self.count, self.rest, self.events = itertools.count(1), b"", []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *error):
        self.process.terminate()
        self.process.wait(PATIENCE)
        os.close(self.out)
        os.close(self.back)
        self.folder.cleanup()

    def call(self, method: str, **params) -> dict:
        number = next(self.count)
        message = {"id": number, "method": method, "params": params}
        if hasattr(self, "session"):
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.back], [], [], max(0, until - time.monotonic()))
            piece = os.read(self.back, 1 << 16) if ready else b""
            assert piece, "the browser gave no answer"
            self.rest += piece
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def value(self, script: str):
        """What a line of script finds in the page (the tools may run one where the page itself may not)."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def read(self, path: Path, width: int, height: int = 900, dark: bool = False) -> dict:
        """Open the file at a width; requests, console messages, the widths, and a picture of the whole page."""
        self.events.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip={
            "x": 0, "y": 0, "width": width, "height": min(size["height"], 16000), "scale": 1})
        named = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return {
            "requests": [event["params"]["request"]["url"] for event in self.events
                         if event.get("method") == "Network.requestWillBeSent"],
            "blocked": [event["params"].get("blockedReason") for event in self.events
                        if event.get("method") == "Network.loadingFailed"],
            "messages": [event["params"] for event in self.events if event.get("method") in named],
            "scroll_width": self.value("document.documentElement.scrollWidth"),
            "height": size["height"], "png": base64.b64decode(picture["data"]),
        }


def until(browser, script: str, what: str):
    """Wait until a line of script is true in the page."""
    end = time.monotonic() + PATIENCE
    while True:  # by its clock and not by its turns: those of a page on a busy machine take far more than 10 ms
        done = browser.call("Runtime.evaluate", awaitPromise=True, returnByValue=True, expression=(
            "(async () => { const end = Date.now() + 10000; while (Date.now() < end) { if (" + script + ") return true;"
            " await new Promise((done) => setTimeout(done, 10)); } return false; })()"))
        if done["result"].get("value") is True:
            return
        assert time.monotonic() < end, what
        time.sleep(0.05)  # what the script asks for may not be there yet, which is an error at once

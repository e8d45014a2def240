"""The page as one file: HTML, style, script and data joined, with a policy that lets nothing else run or load.

    frozen(trace)  -> str     for one post, to be kept;        live(text)  -> str     asks the server that gave it

The script may run because the policy names its SHA-256, and so may the style; nothing else does. Posts reach the page
as JSON in an element that no browser runs, with every `<` written as an escape, and the script makes text of them.
"""

import base64
import hashlib
import json
from functools import cache
from pathlib import Path

from glass.shown import details, shown
from glass.stages import Trace

FOLDER = Path(__file__).parent / "page"
SCRIPTS = ("base.js", "tokens.js", "way.js", "stage.js", "why.js", "adapter.js", "against.js", "bits.js", "learning.js",
           "main.js")


def frozen(trace: Trace, learnt: int = 0, run: str = "", measured: dict | None = None) -> str:
    """The page for one post, every number included; `learnt` steps of learning lie behind the model that it shows.

    run: the run's name, for people. measured: how often it is right, as `glass.measured` gives it.
    """
    every = {stage.name: details(stage) for stage in trace.stages}
    return joined(shown(trace, learnt) | {"live": False, "run": run, "measured": measured, "details": every})


def live(text: str, **more) -> str:
    """The page that asks its server about `text` first, and then about whatever is typed.

    more: `run`, its name; `measured`, how often it is right; `offered`, what a post can be held against, with words for
    people, and `saved`, which of it is the run without the steps taken here; `small`, whether that is to be opened
    unasked; `against_what` and `against_text`, which of it and which other post at the beginning.
    """
    return joined({"live": True, "run": "", "measured": None, "text": text, "offered": {}, "saved": "",
                   "small": False} | more)


def joined(data: dict) -> str:
    """The file's text."""
    style, script = parts()
    page = (FOLDER / "page.html").read_text(encoding="utf-8")
    values = {"policy": policy(data["live"]), "style": style, "script": script, "data": quoted(data)}
    for name, value in values.items():  # the data last: what stands in it is not looked at again
        page = page.replace("{" + name + "}", value, 1)
    return page


@cache
def parts() -> tuple[str, str]:
    """The style and the script; the latter's files one after another in one function, so that nothing is global."""
    script = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return (FOLDER / "style.css").read_text(encoding="utf-8"), f'"use strict";\n(() => {{\n{script}}})();\n'


def policy(live: bool) -> str:
    """A content security policy: this style and this script; requests to the page's own server, if there is one."""
    style, script = map(digest, parts())
    own = "'self'" if live else "'none'"
    return (f"default-src 'none'; style-src '{style}'; script-src '{script}'; img-src data:; connect-src {own}; "
            "base-uri 'none'; form-action 'none'")


def digest(text: str) -> str:
    """`sha256-...` of an element's text, as a policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def quoted(data: dict) -> str:
    """JSON that may stand in a script element: no `<`, and none of the two line ends that only JSON allows."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")

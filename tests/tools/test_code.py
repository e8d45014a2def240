"""tools.code: what is saved and when, who may ask, how it continues, two coders' agreement, and the page by keyboard.

Deliberate break: leave `write_rows` out of `Codes.add`, take `in [...]` of the Origin check away, put the machine's
label into `page_of`, or `open = false` out of `done` in script.js.
"""

import http.client
import json
import signal
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest

from common.errors import UserError
from common.files import ROOT
from common.page_server import MOST_BYTES, joined, serving
from data.annotators import krippendorff_alpha
from data.codebook import load_codebook
from data.posts import Columns
from tests import PATIENCE
from tests.browser import BOXES, PROGRAM, Browser, until
from tests.page_rules import faults, too_pale
from tests.programs.hostile import call, in_an_empty_folder, jsonl, refused  # noqa: F401
from tools.code.__main__ import FOLDER, CodeOptions, ended, main, page_of, sample_of, to_settle
from tools.code.codes import Codes, both, read_codes
from tools.prevalence.read import read_codes as read_shares_codes

BOOK = load_codebook()
TEXTS = ["They came here as children.", "</script><img src=x onerror=alert(1)>", "مرحبا بالعالم", "a" * 400]


@pytest.fixture
def codes(tmp_path):
    jsonl(tmp_path / "sample.jsonl", [{"id": f"p{n}", "language": "en", "text": text, "predicted": "neutral",
                                       "stratum": "1", "inclusion_probability": 0.25, "author": f"u{n}"}
                                      for n, text in enumerate(TEXTS)])
    posts = sample_of(CodeOptions(sample=str(tmp_path / "sample.jsonl")))
    return Codes(posts, BOOK.labels, "ana", tmp_path / "codes.csv")


def test_every_code_is_on_the_disk_and_the_next_start_continues(codes, tmp_path):
    codes.add(2, "neutral")
    codes.add(0, "unrelated")
    codes.add(0, "pro-immigration")  # changed
    rows = read_codes(codes.path)
    assert [(row.id, row.label, row.extra["annotator"]) for row in rows] == [
        ("p0", "pro-immigration", "ana"), ("p2", "neutral", "ana")]
    assert rows[0].extra["inclusion_probability"] == "0.25" and rows[0].extra["stratum"] == "1"
    text = codes.path.read_text(encoding="utf-8")
    assert "children" not in text and "predicted" not in text
    again = Codes(codes.posts, BOOK.labels, "ana", codes.path)
    assert again.of == {0: "pro-immigration", 2: "neutral"}
    for row, label in ((9, "neutral"), (0, "other"), ("0", "neutral"), (True, "neutral")):
        with pytest.raises(Exception, match="give the number of a post"):
            codes.add(row, label)


def test_two_coders_agree_as_far_as_they_do(codes, tmp_path):
    for row, label in enumerate(["neutral", "unrelated", "neutral", "pro-immigration"]):
        codes.add(row, label)
    ben = Codes(codes.posts, BOOK.labels, "ben", tmp_path / "ben.csv")
    for row, label in enumerate(["neutral", "unrelated", "anti-immigration"]):
        ben.add(row, label)
    alpha = krippendorff_alpha([["neutral"] * 2, ["unrelated"] * 2, ["neutral", "anti-immigration"]])
    _, said, apart, _ = ended(codes, CodeOptions(other=str(ben.path)))
    assert said.startswith("Of 3 posts that both coded, 66.7 % have the same label")
    assert f"alpha is {alpha:.3f} " in said
    assert apart.startswith("1 post to settle together") and "p2: ana “neutral”, ben “anti-immigration”." in apart
    assert ended(codes, CodeOptions(other=str(tmp_path / "carla.csv")))[1].endswith(
        "carla.csv is not there yet; with it, the agreement stands here.")
    rows, _ = both(codes, ben.path)
    assert len(rows) == 7 and {row["inclusion_probability"] for row in rows} == {"0.25"}
    words = ["--sample", "sample.jsonl", "--coder", "ana", "--out", "codes.csv", "--other", "ben.csv"]
    assert call(main, *words, "--join", "two.csv").code == 0 and len(read_codes(tmp_path / "two.csv")) == 7


def test_what_two_coders_differ_on_is_settled(codes, tmp_path):
    """Deliberate break: in tools/code/codes.py let `tied` give all posts."""
    for row, label in enumerate(["neutral", "unrelated", "neutral", "neutral"]):
        codes.add(row, label)
    ben = Codes(codes.posts, BOOK.labels, "ben", tmp_path / "ben.csv")
    for row, label in enumerate(["neutral", "neutral", "anti-immigration", "neutral"]):
        ben.add(row, label)
    first = ["--sample", "sample.jsonl", "--coder", "ana", "--out", "codes.csv", "--other", "ben.csv"]
    joined_by_hand = call(main, *first, "--join", "two.csv")
    assert "2 posts to settle together" in joined_by_hand.out and "--coder settled --other FILE" in joined_by_hand.out
    settle = ["--sample", "sample.jsonl", "--coder", "settled"]
    refused(main, *settle, says=["--coder settled", "--other"])
    refused(main, *settle, "--other", "ben.csv", says="ben.csv: has no post to settle")
    options = CodeOptions(sample="sample.jsonl", coder="settled", other="two.csv", out="third.csv")
    posts, show = to_settle(codes.posts, options)
    assert [post.id for post in posts] == ["p1", "p2"]
    third = Codes(posts, BOOK.labels, "settled", tmp_path / "third.csv")
    assert '"ana said":"unrelated","ben said":"neutral"' in page_of(third, BOOK, show)[0]
    third.add(0, "unrelated")
    assert ended(third, options)[-1].startswith("1 post to settle together")
    third.add(1, "pro-immigration")  # what neither had said
    assert call(main, *settle, "--out", "third.csv", "--other", "two.csv", "--join", "all.csv").code == 0
    kept = read_shares_codes(tmp_path / "all.csv", Columns(), BOOK, "refuse")
    assert {post.id: post.label for post in kept.posts} == {
        "p0": "neutral", "p1": "unrelated", "p2": "pro-immigration", "p3": "neutral"}
    assert {post.extra["inclusion_probability"] for post in kept.posts} == {"0.25"}
    assert kept.agreement.annotators == ("ana", "ben") and kept.agreement.overall["pairwise"] == 0.5
    refused(main, *settle, "--out", "third.csv", "--other", "all.csv", says="all.csv: has no post to settle")


def test_coders_who_differ_on_all_so_far_go_on(codes, tmp_path):
    codes.add(0, "neutral")
    Codes(codes.posts, BOOK.labels, "ben", tmp_path / "ben.csv").add(0, "unrelated")
    assert ended(codes, CodeOptions(other=str(tmp_path / "ben.csv")))[2].startswith("1 post to settle together")


def test_what_is_refused(codes, tmp_path):
    codes.add(0, "neutral")
    refused(main, says="--sample: is missing")
    refused(main, "--sample", "sample.jsonl", "--coder", "a/b", says="--coder 'a/b'")
    refused(main, "--sample", "sample.jsonl", "--coder", "ben", "--out", "codes.csv", says="coded by 'ana'")
    refused(main, "--sample", "sample.jsonl", "--show", "autor", says=["--show autor", "did you mean 'author'"])
    (tmp_path / "twice.csv").write_text("id,text,author,author\n1,a,b,c\n")
    refused(main, "--sample", "twice.csv", "--show", "author", says="has 2 columns named 'author'")
    refused(main, "--sample", "sample.jsonl", "--join", "two.csv", says="--join: joins two coders'")
    own = ["--sample", "sample.jsonl", "--coder", "ana", "--out", "codes.csv", "--other", "same.csv"]
    (tmp_path / "same.csv").write_bytes((tmp_path / "codes.csv").read_bytes())
    refused(main, *own, "--no-browser", says=["same.csv: row", "is coded by 'ana' as well", "a name of their own"])
    jsonl(tmp_path / "other.jsonl", [{"id": "x", "text": "t"}])
    refused(main, "--sample", "other.jsonl", "--coder", "ana", "--out", "codes.csv", says="is not in the sample")


def asked(address, method="POST", path="code", body=None, **headers):
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=PATIENCE)
    sent = {"Host": address.netloc, "Origin": f"http://{address.netloc}", "Content-Type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()}
    data = b"" if body is None else json.dumps(body).encode()
    connection.putrequest(method, path if path.startswith("/") else address.path + path, skip_host=True)
    for name, value in ({"Content-Length": str(len(data))} | sent).items():
        connection.putheader(name, value)
    connection.endheaders(data)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode("utf-8"), dict(answer.getheaders())
    connection.close()
    return found


def served(codes):
    def answer(what, content):
        if what == "end":
            return {"lines": ended(codes, CodeOptions())}
        codes.add(content.get("row"), content.get("label"))
        return {}

    page, policy = page_of(codes, BOOK, [])
    return serving(lambda: page, policy, answer)


def test_only_the_page_itself_may_ask(codes):
    code = {"row": 1, "label": "neutral"}
    with served(codes) as address:
        address = urlsplit(address)
        status, page, headers = asked(address, "GET", "")
        assert status == 200 and headers["Cache-Control"] == "no-store" and "default-src 'none'" in page
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert page.count("</script>") == 2 and "neutral\",\"definition" in page and "predicted" not in page
        assert asked(address, path="/wrong/code", body=code)[0] == 404
        assert asked(address, "GET", "/")[0] == 404
        assert asked(address, body=code, Host="evil.example")[0] == 404
        assert asked(address, body=code, Origin="http://evil.example")[0] == 403
        assert asked(address, body=code, Content_Type="text/plain")[0] == 403
        assert asked(address, body=code, Content_Length=str(MOST_BYTES + 1))[0] == 413
        assert asked(address, body=[1])[0] == 400 and not codes.of
        assert "give the number of a post" in asked(address, body={"row": 99, "label": "neutral"})[1]
        assert asked(address, body=code)[0] == 200 and codes.of == {1: "neutral"}


def test_the_data_end_no_element():
    page, policy = joined("<p>{policy}</p>{style}|{script}|{data}", "s", "t", {"a": "</script>{style}"})
    assert page.endswith('s|t|{"a":"\\u003c/script>{style}"}') and policy in page and "unsafe" not in policy


@pytest.mark.skipif(not PROGRAM, reason="needs chromium")
def test_a_coder_codes_by_keyboard(codes):
    with Browser() as browser, served(codes) as address:
        browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
        browser.call("Page.navigate", url=address)

        def press(key):
            for kind in ("keyDown", "keyUp"):
                browser.call("Input.dispatchKeyEvent", type=kind, key=key, text=key if len(key) == 1 else "")

        shown = "(document.querySelector('.post') || {}).textContent"
        for n, text in enumerate(TEXTS):
            until(browser, f"{shown} == {json.dumps(text)}", text)
            assert browser.value("document.documentElement.scrollWidth") <= 390
            if n < 3:
                press(str(n + 1))
        assert codes.of == {n: BOOK.labels[n] for n in range(3)}
        press("9")  # no label's key
        press("ArrowRight")  # the last post: there is none after it
        until(browser, f"{shown} == {json.dumps(TEXTS[3])}", TEXTS[3])
        press("1")
        title = "document.querySelector('h1').textContent"
        until(browser, f"{title} == 'All 4 posts are coded. Thank you.'", "the end")
        assert "4 of 4 posts coded" in browser.value("document.body.textContent")
        assert browser.value(BOXES) == []  # with the path of the codes, which is long and has no space
        whole = dict(codes.of)
        press("2")  # a key too many codes nothing
        time.sleep(0.3)
        assert codes.of == whole == {**{n: BOOK.labels[n] for n in range(3)}, 3: BOOK.labels[0]}
        press("ArrowLeft")  # back to the last post, then to the first two
        until(browser, f"{shown} == {json.dumps(TEXTS[3])}", TEXTS[3])
        for text in TEXTS[2::-1]:
            press("ArrowLeft")
            until(browser, f"{shown} == {json.dumps(text)}", text)
        press("4")  # changed, and on to the next to look at
        until(browser, f"{shown} == {json.dumps(TEXTS[1])}", TEXTS[1])
        assert codes.of == whole | {0: BOOK.labels[3]}
        assert browser.value("document.querySelectorAll('img').length") == 0
        assert browser.value("document.activeElement.className") == "post"  # what is read out next
        pressed = browser.value("[...document.querySelectorAll('.labels button')].map(one => one.ariaPressed)")
        assert pressed == [str(label == codes.of[1]).lower() for label in BOOK.labels]
        assert faults(browser.value("document.documentElement.outerHTML")) == []
        browser.value("document.querySelector('.keys input').click()")
        press("ArrowLeft")  # the keys are off
        press("4")
        time.sleep(0.3)
        assert codes.of == whole | {0: BOOK.labels[3]}
        browser.value("document.querySelector('.keys input').click()")
        for width in (390, 1200, 1600):
            browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1,
                         mobile=width < 600)
            assert browser.value(BOXES) == []
        named = ("Runtime.exceptionThrown", "Log.entryAdded")
        assert not [event for event in browser.events if event.get("method") in named]


def test_a_killed_program_loses_no_code_and_two_do_not_write_one_file(codes, tmp_path):
    words = [sys.executable, "-m", "tools.code", "--sample", str(tmp_path / "sample.jsonl"), "--coder", "ana", "--out",
             str(tmp_path / "kept.csv"), "--no-browser"]

    def started():
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        lines = [process.stdout.readline().strip()]
        while not lines[-1].startswith("http"):
            lines.append(process.stdout.readline().strip())
        return process, lines[-2], urlsplit(lines[-1])

    process, first, address = started()
    try:
        assert first.startswith("0 of 4 posts coded")
        for row, label in enumerate(BOOK.labels[:3]):
            assert asked(address, body={"row": row, "label": label})[0] == 200
        refused(main, *words[3:], says=f"process {process.pid} has been writing here")
    finally:
        process.kill()
        process.communicate()
    process, first, address = started()
    try:
        assert first.startswith("3 of 4 posts coded")
        page = asked(address, "GET", "")[1]
        assert json.dumps({str(n): label for n, label in enumerate(BOOK.labels[:3])}, separators=(",", ":")) in page
        process.send_signal(signal.SIGINT)
        assert "3 of 4 posts coded" in process.communicate(timeout=PATIENCE)[0] and process.returncode == 0
    finally:
        process.kill()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_code_that_could_not_be_written_does_not_count(codes, monkeypatch):
    codes.add(0, "neutral")

    def full(path, rows):
        raise UserError("could not be written whole")

    monkeypatch.setattr("tools.code.codes.write_rows", full)
    with pytest.raises(UserError, match="could not be written"):
        codes.add(1, "neutral")
    assert codes.of == {0: "neutral"}


def test_the_colours_of_the_page_stand_out_in_light_and_in_dark():
    """Deliberate break: in tools/code/style.css make the soft ink of the dark scheme #555555, as it is in the light."""
    css = (FOLDER / "style.css").read_text(encoding="utf-8")
    grounds = ("--paper", "--card", "--key", "--chosen")
    assert too_pale(css, dict.fromkeys(("--ink", "--soft"), grounds) | {"--wrong": ("--paper",)}, 4.5) == []
    assert too_pale(css, {"--edge": ("--paper", "--card"), "--mark": ("--card", "--paper", "--chosen")}, 3) == []

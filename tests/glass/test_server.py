"""The live page's server: who may ask, what is answered, and what another origin or host gets.

Deliberate breaks: in glass/whole.py compute `why` in any case; in common/page_server.py let `_Handler.asked` ignore
Host, drop the check of Origin in `do_POST`, or answer without a policy.
"""

import http.client
import json
import re
import threading
import time
from urllib.parse import urlsplit

import pytest

from common.errors import UserError
from common.files import ROOT
from glass import server, trace
from glass.bits import four_bit_linears, original_of, worst_block
from glass.page import digest, parts
from glass.progress import Left
from glass.server import KEPT, Answers, serving
from glass.shown import shown
from tests import PATIENCE


@pytest.fixture(scope="module")
def address(run):
    with serving(run, "first </script> post") as address:
        yield urlsplit(address)


def ask(address, method="GET", path="", body=None, **headers):
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=PATIENCE)
    sent = {"Host": address.netloc, "Origin": f"http://{address.netloc}", "Content-Type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.putrequest(method, address.path + path, skip_host=True)
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    for name, value in ({"Content-Length": str(len(data))} | sent).items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(data)
    answer = connection.getresponse()
    found = answer.status, answer.read(), dict(answer.getheaders())
    connection.close()
    return found


def test_the_page_has_a_policy_that_names_its_script_and_nothing_else(address):
    status, body, headers = ask(address)
    style, script = parts()
    page = body.decode("utf-8")
    assert status == 200 and f"<script>{script}</script>" in page and f"<style>{style}</style>" in page
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and f"script-src '{digest(script)}';" in policy and "unsafe" not in policy
    assert headers["Cache-Control"] == "no-store" and page.count("</script>") == 2


def test_it_answers_with_what_a_trace_shows(address, run):
    status, body, _ = ask(address, "POST", "trace", {"text": "They open the border."})
    assert status == 200 and json.loads(body) == json.loads(json.dumps(shown(trace(run, "They open the border."))))
    status, body, _ = ask(address, "POST", "stage", {"text": "They open the border.", "stage": "layers.1.mlp"})
    names = [tensor["name"] for tensor in json.loads(body)["tensors"]]
    assert names == ["gate", "up", "product", "written", "residual", "size"]


@pytest.mark.parametrize("path, changes, status", [
    ("trace", {"Host": "evil.example"}, 404), ("trace", {"Origin": "http://evil.example"}, 403),
    ("trace", {"Origin": None}, 403), ("trace", {"Origin": "null"}, 403),
    ("trace", {"Content_Type": "text/plain"}, 403), ("trace", {"Content_Length": "999999999"}, 413),
    ("trace", {"Content_Length": "-1"}, 413)])
def test_others_get_nothing(address, path, changes, status):
    found, body, _ = ask(address, "POST", path, {"text": "They"}, **changes)
    assert (found, body) == (status, b"")


def test_a_wrong_token_or_host_gets_no_page(address):
    other = address._replace(path="/" + "x" * len(address.path.strip("/")) + "/")
    for status, body, _ in (ask(other), ask(address._replace(path="/")), ask(address, Host="evil.example"),
                            ask(address, path="run.json"), ask(address, path="../../etc/passwd")):
        assert (status, body) == (404, b"")


@pytest.mark.parametrize("body, said", [
    ({"text": " "}, "nothing of it can be seen"), ({"text": 5}, "give a post"), ([], "no JSON object"),
    (b"{", "cannot be read"), (b"[" * 100_000, "cannot be read"), (b"\xff", "cannot be read")])
def test_what_cannot_be_answered_is_said_in_one_line(address, body, said):
    status, found, _ = ask(address, "POST", "trace", body)
    assert status == 400 and said in json.loads(found)["error"]


def test_a_step_changes_what_is_answered_and_undo_brings_it_back(address, run):
    def asked(what, **content):
        status, body, _ = ask(address, "POST", what, content)
        assert status == 200, body
        return json.loads(body)

    text, label = "They open the border.", "neutral"
    before = asked("trace", text=text)
    assert before["learning"] == [] and before["learnt"] == 0
    assert asked("step", text=text, label=label) == {"steps": 1}
    after = asked("trace", text=text)
    assert after["learnt"] == 1
    assert after["probabilities"] == pytest.approx(after["learning"][0]["after"], rel=1e-4, abs=1e-6)
    assert before["probabilities"] == pytest.approx(after["learning"][0]["before"], rel=1e-4, abs=1e-6)
    assert after["probabilities"] != before["probabilities"]
    stage = asked("stage", text=text, stage="learning.0.update.model.layers.0.self_attn.q_proj")["tensors"]
    assert stage[1]["name"] == "A_before" and len(stage[1]["values"]) == 16 and stage[1]["shape"] == [16, 256]
    assert json.loads(re.search(r'id="data">(.*?)</script>', asked("save", text=text)["page"])[1])["learnt"] == 1
    assert asked("undo") == {"steps": 0} and asked("trace", text=text) == before
    assert asked("stage", text=text, stage="learning.0.loss") == {"tensors": None}  # asked a moment too late
    for what, content, said in (("undo", {}, "no step is taken"), ("step", {"text": text, "label": 5}, "'5'"),
                                ("step", {"text": " ", "label": label}, "nothing of it can be seen")):
        status, body, _ = ask(address, "POST", what, content)
        assert status == 400 and said in json.loads(body)["error"]


def test_what_takes_long_says_how_far_it_is_and_can_be_left(run):
    answers = Answers(run)
    answers.trace("They open the border.")
    assert answers.answer("progress", {}) == {"layer": 3, "layers": 3, "pass": 1}
    first, last = run.model.model.layers[0].input_layernorm, run.model.model.layers[2].input_layernorm
    handle = last.register_forward_hook(lambda *given: print(answers.answer("leave", {})))
    try:
        assert "why" not in answers.answer("trace", {"text": "Another post."})  # this one may not be left
        with pytest.raises(Left):
            answers.answer("trace", {"text": "A third post.", "whole": True})
    finally:
        handle.remove()
    assert run.model.model.layers[0].self_attn.q_proj.scaling == 2.0 and not answers.lock.locked()
    assert not first._forward_hooks and answers.answer("trace", {"text": "A third post.", "whole": True})["why"]


def test_what_takes_longer_comes_in_two_parts(run, monkeypatch):
    """First why it is this label; then the rest, for which that is not computed again."""
    answers, post = Answers(run), {"text": "They open the border."}
    first = answers.answer("trace", post | {"whole": "why"})
    assert first["why"] and "adapter" not in first and "tax" not in first
    monkeypatch.setattr("glass.whole.why", None)
    rest = answers.answer("trace", post | {"whole": True})
    assert rest["why"] == first["why"] and {"adapter", "tax", "bits"} <= rest.keys()
    assert "why" not in answers.answer("trace", {"text": "Another post.", "whole": "all"})


def test_the_worst_block_and_the_run_before_any_step(run):
    answers, post = Answers(run), {"text": "They open the border."}
    name = "model.layers.1.mlp.down_proj"
    layer, original = four_bit_linears(run.model)[name], original_of(ROOT / "base", name)
    shown = answers.answer("bits", post | {"linear": name, "block": None})["bits"]
    assert shown["block"] == worst_block(layer, original) and shown["linear"] == name
    before = answers.answer("trace", post)["probabilities"]
    answers.answer("step", post | {"label": run.codebook.labels[2]})
    try:
        both = answers.answer("against", post | {"what": answers.saved, "other": ""})
        assert both["against"]["words"].startswith("this run as its files have it")
        now, then = both["against"]["probabilities"]
        assert now == both["probabilities"] != before and then == pytest.approx(before, rel=1e-4, abs=1e-6)
        assert both["against"]["updates"]
    finally:
        answers.answer("undo", {})
    answers.base = "/there/is/no/such/base"
    for linear, said in ((name, "its original values are not at hand"), ("model.norm", "is not among those in 4 bits")):
        with pytest.raises(UserError, match=said):
            answers.answer("bits", post | {"linear": linear, "block": None})


def test_an_unknown_stage_is_an_error_and_few_traces_are_kept(run):
    answers = Answers(run)
    with pytest.raises(UserError, match="no such question"):
        answers.answer("stage", {"text": "They", "stage": "layers.9.mlp"})
    for number in range(KEPT + 1):
        answers.trace(f"post {number}")
    assert list(answers.kept) == [f"post {number}" for number in range(1, KEPT + 1)]


def test_long_posts_through_a_large_model_are_not_kept_by_the_dozen(run, monkeypatch):
    """Of a post of 512 tokens through a model of 1B parameters, one trace has gigabytes."""
    answers = Answers(run)
    size = answers.trace("post 0").size
    tensors = trace(run, "post 0").tensors().values()
    assert size == sum(tensor.numel() * tensor.element_size() for tensor in tensors) > 1_000_000
    monkeypatch.setattr(server, "KEPT_BYTES", int(1.5 * size))
    for number in range(1, 4):
        answers.answer("against", {"text": f"post {number}", "what": "", "other": ""})
    assert list(answers.kept) == ["post 2", "post 3"]
    answers.answer("against", {"text": "post 3", "what": "", "other": "post 2"})
    assert answers.trace("post 3").size > 2 * size  # the other one's, too
    answers.trace("post 4")
    assert list(answers.kept) == ["post 4"]


def test_a_part_of_the_adapter_and_another_model_join_the_page(run):
    """Each answer is the whole page; what was asked before stays in it, and goes where nothing is chosen any more."""
    answers, post = Answers(run), {"text": "They open the border."}
    first = answers.answer("part", post | {"part": "layers.1"})
    assert list(first["adapter"]["parts"]) == ["layers.1"] and first["against"] is None
    both = answers.answer("against", post | {"what": "16-bit", "other": ""})
    assert both["against"]["words"] == "the base in 16 bits" and list(both["adapter"]["parts"]) == ["layers.1"]
    names = [tensor["name"] for tensor in answers.answer("stage", post | {"stage": "against.0"})["tensors"]]
    assert names == ["distances", "heads", "reading", "tokens"]
    page = re.search(r'id="data">(.*?)</script>', answers.answer("save", post)["page"])[1]
    saved = json.loads(page)
    assert saved["against"] == both["against"] and "against.1" in saved["details"]
    assert len(saved["adapter"]["parts"]) == 31
    assert str(run.folder.path.parent) not in page  # what a live page offers are places on this machine
    other = answers.answer("against", post | {"what": "", "other": "Wir bleiben."})
    assert other["against"]["words"] == "the same model" and other["against"]["text"] == "Wir bleiben."
    assert answers.answer("against", post | {"what": "", "other": ""})["against"] is None
    for content, said in (({"what": "/etc", "other": ""}, "offers no such model"), ({"what": 1, "other": ""}, "give"),
                          ({"what": "", "other": " "}, "nothing of it can be seen")):
        with pytest.raises(UserError, match=said):
            answers.answer("against", post | content)
    with pytest.raises(UserError, match="is no layer, kind or linear with an adapter"):
        answers.answer("part", post | {"part": "layers.7"})


def test_a_server_that_ends_leaves_off_what_it_computes(run, monkeypatch):
    """A thread that still computes when Python ends takes the program down with an abort (before 3.14)."""
    made, answers, left = server.Answers, [], []
    monkeypatch.setattr(server, "Answers", lambda *some, **more: answers.append(made(*some, **more)) or answers[0])

    def computing():
        try:
            answers[0].page("a post whose page nobody waits for " * 9)  # a person's `leave` does not end it
        except Left:
            left.append(True)

    with pytest.raises(KeyboardInterrupt), serving(run, "first post"):
        thread = threading.Thread(target=computing)
        thread.start()
        while not answers[0].progress.now["pass"]:
            time.sleep(0.01)
        answers[0].answer("leave", {})
        raise KeyboardInterrupt
    assert answers[0].lock.acquire(blocking=False)  # at once, and not when the page is made
    thread.join()
    assert left == [True]


def test_behind_the_block_no_request_computes_any_more(run, monkeypatch):
    """Two traces at once mix what they record: the numbers of the one would be the other's."""
    made, answers, holds, done = server.Answers, [], threading.Event(), []
    monkeypatch.setattr(server, "Answers", lambda *some, **more: answers.append(made(*some, **more)) or answers[0])

    def computing():
        with answers[0].lock:
            holds.set()
            time.sleep(1.5)  # longer than a server takes to end
            done.append(True)

    with serving(run, "first post"):
        thread = threading.Thread(target=computing)
        thread.start()
        holds.wait()
    assert done == [True]
    thread.join()

"""The page: frozen or live, every number under a stage that recomputes it, and hostile posts that stay text.

Deliberate breaks: leave the `<` in `quoted`, round to two digits in `numbers`, make a chip with `innerHTML`, or forget
a `data-stage`; in glass/page/learning.js take `state.step` as it was, or leave out `await asking()`.
"""

import json
import re

import numpy as np
import pytest
import torch

from common.files import ROOT
from glass import trace
from glass.adapter import every_part
from glass.against import compared
from glass.learning import AHEAD, with_steps
from glass.other import other_run
from glass.page import frozen, quoted
from glass.server import serving
from glass.verify import stored
from glass.whole import whole_trace
from lora.inject import adapters
from tests.browser import PROGRAM, Browser, until
from tests.glass.numbers_shown import numbers_without_a_stage
from tests.small import here

HOSTILE = ["<script>alert(1)</script><img src=x onerror=alert(2)>", "\u202egnp.exe\u202c {data} {script}", "x" * 10_000,
           "عبرنا النهر مع أطفالنا", "]]> <!-- --> \u2028"]
STEPS = "document.getElementById('steps').textContent"
WEIGHTS = "document.querySelectorAll('[aria-labelledby=h-learning] caption').length == 2"
browser_only = pytest.mark.skipif(not PROGRAM, reason="needs Chromium (apt-get install chromium)")


def changed_adapter(run):
    """The same with every second direction of its adapter turned around."""
    for layer in adapters(run.model).values():
        layer.lora_A = torch.nn.Parameter(layer.lora_A * torch.tensor([-1.0, 1.0]).repeat(8)[:, None], False)
    return run


@pytest.fixture(scope="module")
def found(run):
    """Whole, with every part of the adapter turned, and held against another post by another adapter."""
    two = changed_adapter(other_run(run, "16-bit"))
    one = every_part(whole_trace(trace(run, "They open the border."), ROOT / "base"))
    one = compared(one, trace(two, "Lasst sie bleiben, عبرنا"), "another adapter")
    return with_steps(run, one, "neutral")


def data_of(page: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page)[1])


def test_every_number_of_the_page_stands_in_the_file_that_is_recomputed(found):
    """Of each stage, and of the overview: to the digits that the page has, from the tensors of trace.safetensors."""
    data, (tensors, _) = data_of(frozen(found)), stored(found)
    for name, listed in data["details"].items():
        for tensor in listed:
            whole = tensors[f"{name}.{tensor['name']}"]
            assert list(whole.shape) == tensor["shape"]
            what = tensor["name"]
            if name.startswith("learning.") and tensor["row"].startswith(("row", "column")):
                place = int(tensor["row"].split()[1])
                part = whole[place] if what[0] == "B" else whole[:, place]
            elif name.startswith("learning.") and tensor["row"]:
                part = whole[-1, :16]
            else:
                part = whole if not tensor["row"] and whole.size == len(tensor["values"]) else (
                    whole[:, -1] if what in ("scores", "weights") else whole[-1])
            shown = np.array([-np.inf if value is None else value for value in tensor["values"]])
            np.testing.assert_allclose(shown, part.reshape(-1).astype(np.float64), rtol=1e-5)
    for number, layer in enumerate(data["layers"]):
        name = f"layers.{number}"
        np.testing.assert_allclose(layer["attention"], tensors[f"{name}.attention.weights"][:, -1], rtol=1e-5)
        np.testing.assert_allclose(layer["lens"], tensors[f"{name}.lens.probabilities"][0], rtol=1e-5)
        assert layer["mlp_size"] == pytest.approx(tensors[f"{name}.mlp.size"][-1], rel=1e-5)
        assert layer["attention_size"] == pytest.approx(tensors[f"{name}.attention_write.size"][-1], rel=1e-5)
    why = data["why"]
    assert why["label"] == tensors["gradient.label"]
    for kind, shown in (("tokens", "without_tokens.probabilities"), ("words", "without_words.probabilities")):
        np.testing.assert_allclose([one["without"] for one in why[kind]], tensors[shown], rtol=1e-5)
    np.testing.assert_allclose([one["slope"] for one in why["tokens"]], tensors["gradient.values"], rtol=1e-5)
    np.testing.assert_allclose(data["adapter"]["probabilities"], tensors["factors.probabilities"], rtol=1e-5)
    for part, rows in data["adapter"]["parts"].items():
        np.testing.assert_allclose(rows, tensors[f"factors.{part}.probabilities"], rtol=1e-5)
    assert len(data["adapter"]["parts"]) == len(data["adapter"]["names"]) == 3 + 7 + 21
    for name in ("tokens", "bytes", "characters", "tax"):
        np.testing.assert_allclose([one[name] for one in data["tax"]["languages"]], tensors[f"tax.{name}"], rtol=1e-5)
    for name in ("values", "A", "B"):
        np.testing.assert_allclose([one[name] for one in data["adapter"]["spectrum"]], tensors[f"spectrum.{name}"],
                                   rtol=1e-5)
    assert len(data["learning"]) == AHEAD and data["learnt"] == 0
    for step in data["learning"]:
        of = {key.removeprefix(step["name"] + "."): value for key, value in tensors.items()}
        shown = [step["losses"], step["before"], step["after"],
                 [step["norm"], step["factor"], step["rate"], step["label"]]]
        kept = [[of["loss.loss"], of["after.loss"]], of["loss.probabilities"][0], of["after.probabilities"][0],
                [of[name] for name in ("clipping.norm", "clipping.factor", "changes.rate", "loss.label")]]
        for part in "AB":
            shown += [step[f"{part}_{what}"] for what in ("gradients", "sizes", "changes")]
            kept += [of[f"{name}"] for name in (f"clipping.{part}_sizes", f"changes.{part}_sizes",
                                                f"changes.{part}_changes")]
        for one, other in zip(shown, kept, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)
    for name in ("codes", "packed", "values", "original", "error", "levels"):
        np.testing.assert_allclose(data["bits"][name], tensors[f"bits.{name}"], rtol=1e-5)
    np.testing.assert_allclose(data["probabilities"], tensors["probabilities.probabilities"][0], rtol=1e-5)


def test_every_tensor_of_the_page_is_recomputed_or_is_what_was_given(found):
    """Given are ids, places, the block's and the weights' values before: what a computation begins with."""
    facts, given = stored(found)[1], set()
    outs = {step["out"] for stage in facts["stages"] for step in stage["steps"]}
    for stage in facts["stages"]:
        given |= {name for name in stage["tensors"] if f"{stage['name']}.{name}" not in outs}
    assert given == {"ids", "positions", "answer", "places", "starts", "ends", "lengths", "label", "factors", "pieces",
                     "levels", "original", "A_before", "B_before", "A_m_before", "A_v_before", "B_m_before",
                     "B_v_before"}


def test_a_post_cannot_end_the_element_that_it_is_in():
    text = "</script><!--\u2028\u2029"
    assert "<" not in quoted({"text": text}) and json.loads(quoted({"text": text})) == {"text": text}


def test_the_program_writes_the_page_and_the_folder(tmp_path, run):
    out = here("glass", "--run", str(run.folder.path), "--text", "<b>They</b>", "--save", "page.html",
               "--verify", "check", "--learn", "neutral", "--device", "cpu", "--dtype", "float32", cwd=tmp_path)
    assert "verify.py" in out and data_of((tmp_path / "page.html").read_text("utf-8"))["text"] == "<b>They</b>"
    files = sorted(path.name for path in (tmp_path / "check").iterdir())
    assert files == ["trace.json", "trace.safetensors", "verify.py"]
    assert "needs a post" in here("glass", "--save", "page.html", cwd=tmp_path, code=2)


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@browser_only
@pytest.mark.parametrize("width, dark", [(390, False), (1200, True), (1600, False)])
def test_the_frozen_page_fits_and_asks_for_nothing(found, browser, tmp_path, width, dark):
    path = tmp_path / "page.html"
    path.write_text(frozen(found), encoding="utf-8")
    seen = browser.read(path, width, dark=dark)
    assert seen["scroll_width"] == width and seen["messages"] == []
    assert [url for url in seen["requests"] if not url.startswith(("file:", "data:"))] == []
    def opens(stage):
        browser.value(f"document.querySelector('[data-open=\"{stage.name}\"]').click()")
        browser.value("new Promise((done) => setTimeout(done, 0))")
        shown = browser.value("document.querySelector('.stage').textContent")
        assert stage.formula in shown and stage.code[0].path in shown
        assert browser.value("document.documentElement.scrollWidth") == width

    for stage in found.stages:
        if stage.name.startswith("learning."):  # of the step that is shown, below
            continue
        if stage.name.startswith("factors."):  # of the parts, the chosen one has a button
            if stage.name not in ("factors.layers.2", "factors.q_proj", "factors.layers.2.mlp.down_proj"):
                continue
            browser.value(f"{{ const p = document.getElementById('part'); p.value = '{stage.name[8:]}'; "
                          "p.dispatchEvent(new Event('change')); }")
        opens(stage)
    browser.value("{ const s = document.getElementById('why'); s.value = 1; s.dispatchEvent(new Event('change')); }")
    left = browser.value("[...document.querySelectorAll('td[data-stage=without_tokens]')].map(n => n.textContent)")
    assert [float(one.replace("−", "-")) for one in left] == pytest.approx(
        found.by_name["without_tokens"].probabilities[:, 1].tolist(), rel=0.01, abs=6e-5)
    assert browser.value("document.querySelectorAll('td[data-stage=gradient]').length") == 0
    browser.value("const s = document.getElementById('factor'); s.value = 0; s.dispatchEvent(new Event('input'))")
    moved = browser.value("[...document.querySelectorAll('[data-stage=factors] .n')].map(n => n.textContent)")
    assert moved == [f"{p:.4f}" for p in found.by_name["factors"].probabilities[0].tolist()]
    browser.value("{ const s = document.getElementById('part-factor'); s.value = 4; "
                  "s.dispatchEvent(new Event('input')); }")
    moved = browser.value("[...document.querySelectorAll('[data-stage=\"factors.layers.2.mlp.down_proj\"] .n')]"
                          ".map(n => n.textContent)")
    assert moved == [f"{p:.4f}" for p in found.by_name["factors.layers.2.mlp.down_proj"].probabilities[4].tolist()]
    keys = "document.querySelector('svg[tabindex]').dispatchEvent(new KeyboardEvent('keydown', {key: '%s'}))"
    for key in (*["ArrowUp"] * 6, "ArrowDown", *["ArrowLeft"] * 200):
        browser.value(keys % key)
    weight = found.layers[0].attention.weights[1, -1, 0]
    said = browser.value("document.querySelector('p[aria-live]').textContent")
    assert said.startswith("head 1, place 0 (special)") and said.endswith(f"weight {weight:.4f}")
    browser.value("document.getElementById('step').click()")
    until(browser, WEIGHTS, "some weights")
    shown = "[...document.querySelectorAll('td[data-stage=\"learning.0.after\"]')].map(n => n.textContent)"
    assert browser.value(shown) == [f"{p:.4f}" for p in found.by_name["learning.0.after"].probabilities[0].tolist()]
    module = "model.layers.1.mlp.up_proj"
    browser.value("{ const s = document.getElementById('learnt'); s.value = '" + module + "'; "
                  "s.dispatchEvent(new Event('change')); }")
    until(browser, WEIGHTS, "some weights")
    for part in ("loss", "after", "clipping", "changes", f"gradient.{module}", f"update.{module}"):
        opens(found.by_name[f"learning.0.{part}"])
    browser.value("document.getElementById('step').click()")
    assert browser.value(STEPS) == "2 steps taken; this page holds no further one"
    browser.value("document.getElementById('undo').click()")
    browser.value("document.getElementById('undo').click()")
    assert browser.value(STEPS) == "no step taken"
    browser.value("document.getElementById('step').click()")
    until(browser, WEIGHTS, "some weights again")
    assert numbers_without_a_stage(browser, found) == []


@browser_only
@pytest.mark.parametrize("post", HOSTILE)
def test_hostile_posts_are_text(run, browser, tmp_path, post):
    path = tmp_path / "page.html"
    path.write_text(frozen(compared(trace(run, post), trace(run, post + "!"))), encoding="utf-8")
    seen = browser.read(path, 390)
    assert seen["scroll_width"] == 390 and seen["messages"] == []
    assert browser.value("document.querySelectorAll('script').length") == 2
    assert browser.value("document.querySelectorAll('img, b').length") == 0
    assert "\u202e" not in browser.value("document.getElementById('main').textContent")


def learn(run, browser, text: str):
    """Two steps, one undone, the page saved, all undone: what the page shows is what the run then answers."""
    def labels():
        shown = browser.value("[...document.querySelectorAll('.labels .n:not(.soft)')].map(n => n.textContent)")[:4]
        return pytest.approx([float(one.replace("−", "-")) for one in shown], rel=0.01, abs=6e-5)

    def probabilities():
        return list(run.label([text])[0].probabilities.values())

    before, found = probabilities(), []
    browser.value("{ const s = document.getElementById('target'); s.value = 2; s.dispatchEvent(new Event('change')); }")
    for number, words in ((1, "1 step taken"), (2, "2 steps taken")):
        browser.value("document.getElementById('step').click()")
        until(browser, f"{STEPS} == '{words}' && document.getElementById('matrix')", f"step {number}")
        until(browser, WEIGHTS, "some weights")
        found.append(probabilities())
        assert found[-1] == labels()
    assert browser.value("document.querySelector('[aria-labelledby=h-learning] strong').textContent") == "neutral"
    browser.value("document.getElementById('unlearnt').click()")
    until(browser, "document.body.textContent.includes('B is this run as its files')", "the run before any step")
    shown = ("[...document.querySelectorAll('.both .soft')].filter(n => n.textContent == 'B')"
             ".map(n => Number(n.nextElementSibling.nextElementSibling.textContent))")
    assert browser.value(shown) == pytest.approx(before, abs=6e-5)
    until(browser, "document.activeElement.id == 'against-what'", "the comparison in view")
    browser.value("document.getElementById('undo').click()")
    until(browser, f"{STEPS} == '1 step taken' && document.getElementById('matrix')", "one undone")
    assert found[0] == labels() and found[1] != labels()
    browser.value("window.kept = null; URL.createObjectURL = (blob) => { window.kept = blob; return 'data:,'; };"
                  "document.getElementById('save').click()")
    until(browser, "window.kept && document.getElementById('save').disabled === false", "the page saved")
    page = browser.call("Runtime.evaluate", expression="kept.text()", awaitPromise=True, returnByValue=True)
    data = data_of(page["result"]["value"])
    assert data["text"] == text and data["learnt"] == 1 and [step["number"] for step in data["learning"]] == [1]
    assert data["probabilities"] == pytest.approx(found[0], rel=1e-4)
    browser.value("document.getElementById('undo').click()")
    until(browser, f"{STEPS} == 'no step taken' && document.getElementById('matrix')", "all undone")
    assert before == probabilities() == labels()


@browser_only
def test_the_live_page_follows_what_is_typed(run, browser):
    with serving(run, "first post") as address:
        browser.events.clear()
        browser.call("Page.navigate", url=address)
        until(browser, "document.querySelector('.labels')", "the first post's labels")
        browser.value("document.getElementById('keep').click()")
        browser.value("document.getElementById('post').focus(); document.getElementById('post').select()")
        browser.call("Input.insertText", text="open the border")
        until(browser, "[...document.querySelectorAll('.token')].some(n => n.textContent.includes('border'))", "typed")
        assert browser.value("document.querySelectorAll('[data-stage=probabilities].labels').length") == 2
        assert browser.value("document.querySelector('.post').textContent") == "first post"
        strong = browser.value("document.querySelector('.labels strong').textContent")
        assert strong == run.label(["open the border"])[0].label
        browser.value("document.querySelector('[data-open=\"layers.1.attention\"]').click()")
        until(browser, "document.querySelector('.stage pre mark')", "the stage's code")
        until(browser, "document.getElementById('matrix')", "the rest of the page")
        until(browser, "(() => { const b = document.getElementById('block'); "  # again if another answer came
                       "if (b.value != 9) { b.value = 9; b.dispatchEvent(new Event('change')); } return "
                       "document.querySelector('[data-stage=bits]').textContent.startsWith('Block 9 of'); })()",
              "a block")
        browser.value("document.getElementById('worst').click()")
        until(browser, "document.getElementById('block').value != 9", "the worst block")
        learn(run, browser, "open the border")
        browser.value("document.getElementById('post').select()")
        browser.call("Input.insertText", text=" ")
        until(browser, "document.querySelector('.error').textContent.includes('nothing')", "what cannot be labelled")
        named = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        said = [event["params"] for event in browser.events if event.get("method") in named]
        assert all("400" in one["entry"]["text"] for one in said) and len(said) == 1, said  # of the empty post
        asked = [event["params"]["request"]["url"] for event in browser.events
                 if event.get("method") == "Network.requestWillBeSent"]
        assert asked and all(url.startswith((address, "data:")) for url in asked)

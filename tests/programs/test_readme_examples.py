"""The lines of Python in the README and docs/python.md print what is said there, and the README's first picture shows
what the code computes.

Deliberate break: leave `optimizer.step()` out of the loop in docs/python.md, change the probability behind the README's
first lines of Python, or POST in benchmarks/overview.py without drawing again.
"""

import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from itertools import combinations

import matplotlib
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from benchmarks import overview
from common.files import ROOT
from inference import load_run
from model.layers import Linear
from model.llama import Block

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
(LINES,), (LOOP,) = (re.findall(r"```python\n(.*?)```", text, re.DOTALL) for text in (TEXT, PYTHON))
QUANTISE, LABEL = LINES.split("\n\nfrom inference ")
PICTURE = ROOT / "docs" / "overview.png"


@pytest.fixture(scope="module")
def found() -> overview.Facts:
    return overview.facts()


@pytest.fixture(scope="module")
def drawn(found):
    with matplotlib.rc_context(overview.STYLE):
        figure = overview.draw(found)
        FigureCanvasAgg(figure).draw()
    return figure


def printed(lines: str, folder) -> list[str]:
    """What the lines print, run as a person runs them, in a folder that has the clone's base."""
    for name in ("base", "data"):
        (folder / name).symlink_to(ROOT / name)
    child = subprocess.run([sys.executable, "-c", lines], cwd=folder, capture_output=True, text=True,
                           env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert child.returncode == 0, child.stderr
    return child.stdout.splitlines()


def said(lines: str) -> str:
    """What a page says, behind a line, that it prints."""
    return re.search(r"print\(.*\)  # (.+)", lines)[1]


def test_a_tensor_equals_what_bitsandbytes_makes_of_it(tmp_path):
    pytest.importorskip("bitsandbytes")
    assert printed(QUANTISE, tmp_path)[-1] == said(QUANTISE) == "True True"


def test_a_post_gets_the_label_that_the_readme_says(tmp_path):
    label, share = printed("from inference " + LABEL, tmp_path)[-1].split()
    expected, its_share = said(LABEL).split()
    assert label == expected and abs(float(share) - float(its_share)) < 0.02  # float32 sums differ between processors


def test_ten_steps_by_hand_learn_what_the_page_says(tmp_path):
    assert printed(LOOP, tmp_path)[-1] == said(LOOP)
    assert {path.name for path in (tmp_path / "by-hand").iterdir()} == {"adapter_config.json",
                                                                        "adapter_model.safetensors"}


def test_hooks_see_what_the_page_says(tmp_path, monkeypatch):
    """And what it names is there."""
    monkeypatch.chdir(tmp_path)
    run, called = load_run(ROOT / "base" / "run", device="cpu"), []
    for number, block in enumerate(run.model.model.layers):
        block.register_forward_hook(lambda *_, number=number: called.append(number))
    run.label(["They came here as children."])
    last = run.model.config.num_hidden_layers - 1
    assert called == list(range(last))
    with torch.no_grad():
        run.model(torch.tensor([run.prompt.encode("x").ids]))
    assert called[last:] == list(range(last + 1))
    for module, name in re.findall(r"`([a-z]+\.[a-z]+)\.(\w+)\(", PYTHON):
        assert callable(getattr(importlib.import_module(module), name)), name
    assert callable(Block.answer_hidden) and callable(Linear.dense_weight)


def test_readme_and_picture_are_of_the_same_post(found):
    assert f'"{overview.POST}"' in LABEL
    label, share = said(LABEL).split()
    names = [name for _, name in found.labels]
    assert abs(found.probabilities[names.index(label)] - float(share)) < 0.02
    assert max(found.probabilities) == found.probabilities[names.index(label)]


def test_the_picture_shows_what_the_code_computes(found):
    with Image.open(PICTURE) as picture:
        shown = json.loads(picture.text["Description"])
    now = json.loads(json.dumps(asdict(found)))
    assert shown.keys() == now.keys()
    for key in shown:
        close = key in ("logits", "probabilities")
        assert now[key] == (pytest.approx(shown[key], abs=0.05) if close else shown[key]), key


def test_the_picture_fits_a_phone(drawn):
    """A unit is a pixel of a screen that is 390 wide: no letter under 8 of them, nothing outside, no words on others.
    """
    renderer, margin = drawn.canvas.get_renderer(), 8 * drawn.dpi / 72
    texts = [text for text in drawn.findobj(Text) if text.get_text()]
    boxes = {text: text.get_window_extent(renderer) for text in texts}
    assert len(texts) > 40 and min(text.get_size() for text in texts) >= overview.SMALL
    inside = drawn.bbox.padded(-margin)
    assert not [text.get_text() for text, box in boxes.items() if not all(map(inside.contains, *box.corners().T))]
    assert not [(a.get_text(), b.get_text()) for a, b in combinations(texts, 2) if crosses(boxes[a], boxes[b])]


def crosses(a, b) -> bool:
    """Whether two boxes share more than a hair: a box is as high as the tallest letters of its font."""
    return min(a.x1, b.x1) - max(a.x0, b.x0) > 0.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 2


def test_the_picture_is_sharp_and_white_at_its_edge():
    with Image.open(PICTURE) as picture:
        assert picture.width == overview.PIXELS
        edge = {picture.getpixel((x, y))[:3] for x in range(picture.width) for y in (0, 8, picture.height - 1)}
    assert edge == {(255, 255, 255)}


def test_the_picture_names_files_that_exist(drawn):
    names = [text.get_text() for text in drawn.findobj(Text) if re.fullmatch(r"\w+/[\w.]+/?", text.get_text())]
    assert len(names) == 6 and not [name for name in names if not (ROOT / name).exists()]
    alt = re.search(r'<img src="docs/overview.png"[^>]*alt="([^"]+)"', TEXT)[1]
    assert not [name for name in names if name not in alt]

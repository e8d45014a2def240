"""What --help shows first: an example that works, and the six options that most people need.

Deliberate break: let `parse_options` leave the group of `FIRST` where argparse puts it; or write an example whose file
is not there.
"""

import re

import pytest

import classify
import eval as evaluation
import train
from audit import __main__ as audit
from common.files import ROOT
from study import __main__ as study
from tests.small import here
from tools import split

PROGRAMS = {"train.py": train.TrainOptions, "eval.py": evaluation.EvalOptions, "classify.py": classify.ClassifyOptions,
            "study": study.StudyOptions, "audit": audit.AuditOptions, "tools.split": split.SplitOptions}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_six_options_that_most_people_need_come_first(program, tmp_path, capsys):
    text = here(program, "--help", cwd=tmp_path)
    first, rest = text.split("what most people need:")[1].split("\noptions:")
    flags = re.findall(r"^  --(?:\[no-\])?([a-z-]+)", first, re.MULTILINE)
    assert [flag.replace("-", "_") for flag in flags] == list(PROGRAMS[program].FIRST) and len(flags) == 6
    assert not set(flags) & set(re.findall(r"^  --(?:\[no-\])?([a-z-]+)", rest, re.MULTILINE))
    assert len(text.split("what most people need:")[0].splitlines()) < 40


def test_defaults_are_shown_as_they_are_typed(tmp_path):
    """Several values apart, so that no line breaks within a word, or by commas where the option takes them so."""
    assert f"(default: {' '.join(audit.PARTS)})" in " ".join(here("audit", "--help", cwd=tmp_path).split())
    assert "(default: hi,hu)" in here("tools.pretrain.teacher", "--help", cwd=tmp_path)


def test_an_option_that_prints_texts_says_so(tmp_path):
    assert "--[no-]errors print the texts" in " ".join(here("eval.py", "--help", cwd=tmp_path).split())


def test_every_program_is_called_as_it_is_started():
    """A usage line can be copied: "tools.join" alone is no command."""
    ours = [path for top in ("audit", "benchmarks", "glass", "study", "tools") for path in (ROOT / top).rglob("*.py")]
    for path in [*ROOT.glob("*.py"), *ours]:
        for name in re.findall(r'program="([^"]+)"', path.read_text(encoding="utf-8")):
            module = re.sub("^python -m ", "", name).replace(".", "/")
            there = [f"{module}.py", f"{module}/__main__.py"] if name.startswith("python -m ") else [name]
            assert any((ROOT / one).is_file() for one in there), f"{path}: {name}"


@pytest.mark.parametrize("program", ["train.py", "eval.py", "classify.py"])
def test_examples_name_files_that_are_there(program, tmp_path):
    text = here(program, "--help", cwd=tmp_path)
    shipped = re.findall(r"(?:data|study)/[\w/.-]+", text.split("what most people need:")[0])
    assert all((ROOT / name).exists() for name in shipped)
    assert program != "train.py" or shipped

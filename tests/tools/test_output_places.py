"""A place that cannot take a file, or is another option's file, is refused before anything is read or computed.

Deliberate break: write `check_place` for `check_file` in one of the tools, or leave `others` out of it.
"""

from importlib import import_module
from pathlib import Path

import pytest

from glass.__main__ import main as glass
from tests.programs.hostile import in_an_empty_folder, refused  # noqa: F401
from tools.code.__main__ import main as code
from tools.prevalence.__main__ import main as prevalence
from tools.regression.__main__ import main as regression
from tools.sample import main as sample

READ = ("--labels", "labels.csv", "--coded", "coded.csv")  # files that are not there: reading would say so
ON = (*READ, "--posts", "posts.csv", "--outcome", "label=a", "--on", "month")
CODE = ("--sample", "sample.csv", "--other", "other.csv")
PLACES = [(prevalence, READ, "--json"), (prevalence, (*READ, "--posts", "posts.csv"), "--figure"),
          (regression, ON, "--json"), (sample, ("--labels", "labels.csv"), "--out"), (code, CODE, "--out"),
          (code, CODE, "--join"), (glass, ("--text", "a post"), "--save")]


@pytest.mark.parametrize(("main", "words", "option"), PLACES)
def test_a_folder_is_refused_before_anything_is_read(main, words, option):
    place = "there.svg" if option == "--figure" else "there.csv"
    Path(place).mkdir()
    refused(main, *words, option, place, says=f"{option} {place}: is a folder; name a file")


def test_the_root_is_a_folder_too():
    refused(prevalence, *READ, "--json", "/", says="--json /: is a folder; name a file")


@pytest.mark.parametrize(("main", "words", "option", "place", "other"), [
    (prevalence, READ, "--json", "labels.csv", "--labels"), (prevalence, READ, "--json", "./coded.csv", "--coded"),
    (prevalence, (*READ, "--json", "a.svg"), "--figure", "a.svg", "--json"),
    (regression, ON, "--json", "posts.csv", "--posts"), (code, CODE, "--out", "sample.csv", "--sample"),
    (code, CODE, "--join", "other.csv", "--other"), (code, (*CODE, "--out", "a.csv"), "--join", "a.csv", "--out")])
def test_the_file_of_another_option_is_refused(main, words, option, place, other):
    refused(main, *words, option, place, says=f": is the file of {other}, too; choose another name")


@pytest.mark.parametrize("name", ["beside", "compare", "curves", "engines", "exports", "exposure", "kernels",
                                  "profiled", "scaling", "startup"])
def test_a_benchmark_refuses_a_folder_before_it_measures(name):
    Path("there.json").mkdir()
    refused(import_module(f"benchmarks.{name}").main, "--json", "there.json",
            says="--json there.json: is a folder; name a file")

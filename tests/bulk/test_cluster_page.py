"""docs/cluster.md: its options are there, its numbers are those of the code.

Deliberate break: rename an option of bulk/options.py, or change `MOST` in inference/repeats.py.
"""

import dataclasses
import re

from bulk import watch
from bulk.options import BulkOptions
from classify import ClassifyOptions
from common.errors import UNFINISHED
from common.files import ROOT
from data.inputs import FORMATS
from finetune.options import TrainOptions
from inference import labeller, repeats
from tools.join import JoinOptions

TEXT = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")


def test_options_of_the_page_exist():
    known = {"--" + field.name.replace("_", "-") for cls in (ClassifyOptions, TrainOptions, JoinOptions)
             for field in dataclasses.fields(cls)}
    others = {"--array", "--time", "--signal", "--requeue", "--open-mode", "--constraint", "--standalone",
              "--nproc-per-node", "--slow"}  # fmt: skip
    found = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT))
    assert found <= known | others and len(found & known) > 12, found - known - others
    for field in dataclasses.fields(BulkOptions):
        if field.name not in ("prices", "api_seconds", "date_column", "report", "workers"):
            assert f"--{field.name.replace('_', '-')}" in TEXT, field.name


def test_the_job_script_is_the_same_for_some_of_its_tasks():
    """Parts that were submitted again had another number of parts. Deliberate break: $SLURM_ARRAY_TASK_COUNT in it."""
    script = TEXT[TEXT.index("#!/bin/bash") :].partition("```")[0]
    parts, = re.findall(r"--array=1-(\d+)", script)
    assert re.findall(r"--shard (\S+)", script) == [f"$SLURM_ARRAY_TASK_ID/{parts}"]


def test_numbers_of_the_page():
    said = " ".join(TEXT.split())
    assert f"last {repeats.MOST:,} different posts" in said
    assert f"at most {labeller.AIM:.0f} seconds or {labeller.WINDOW:,} posts" in said
    assert f"(of {labeller.LOST:.0f} seconds where {labeller.LEAST} posts take longer" in said
    assert f"| {UNFINISHED} | SIGTERM or SIGUSR1" in said and f"more than {BulkOptions().max_bad_rows:.0%} of".replace(
        "%", " %") in said
    assert f"(from {watch.MANY:,} posts on)" in said
    assert all(kind in FORMATS for kind in (".jsonl", ".csv", ".tsv", ".parquet"))

"""docs/moving.md: the table of other trainers' names is the one that errors tell, and its lines make posts.

Deliberate break: take a name out of `finetune.elsewhere.ELSEWHERE`.
"""

import json
import re

from common.files import ROOT
from finetune.elsewhere import ELSEWHERE

TEXT = (ROOT / "docs" / "moving.md").read_text(encoding="utf-8")


def test_the_table_is_what_errors_tell():
    rows = []
    for here, others in ELSEWHERE.items():
        option, comma, more = here.partition(",")
        told = here if " " in option else f"`--{option.replace('_', '-')}`{comma}{more}"
        rows.append(f"| {', '.join(f'`{name}`' for name in others.split())} | {told} |")
    assert "\n".join(rows) in TEXT


def test_its_lines_make_posts_of_conversations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Grüße"},
             {"role": "assistant", "content": "neutral"}]
    (tmp_path / "chat.jsonl").write_text(json.dumps({"messages": turns}) + "\n", encoding="utf-8")
    exec(re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1], {})
    assert json.loads((tmp_path / "posts.jsonl").read_text(encoding="utf-8")) == {"text": "Grüße", "label": "neutral"}

"""tools.split: every row lands on one side as it was written; what belongs together stays together.

Deliberate break that turns this red: in tools/split.py, let `one_per_post` give every row a post of its own; the labels
of one post by several people fall on both sides. Or write `post.language` instead of the column as it stands.
"""

import json
from collections import Counter

import pytest

from tests.programs.hostile import call, in_an_empty_folder, jsonl, post_rows, refused  # noqa: F401
from tools import split


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_row_is_on_one_side_with_all_its_columns(tmp_path):
    rows = [row | {"likes": n, "ratio": 0.5, "author": f"a{n % 9}", "id": f"00{n}", "none": None, "tags": ["x"]}
            for n, row in enumerate(post_rows(count=40))]  # fmt: skip
    data = jsonl(tmp_path / "posts.jsonl", rows)
    ended = call(split.main, "--data", data, "--out", "parts", "--test", "0.25", "--seed", "3")
    assert ended.code == 0, ended.err
    train, test = read(tmp_path / "parts/train.jsonl"), read(tmp_path / "parts/test.jsonl")
    assert sorted(train + test, key=lambda row: row["id"]) == sorted(rows, key=lambda row: row["id"])
    assert len(test) == 20 and set(Counter((row["language"], row["label"]) for row in test).values()) <= {2, 3}
    assert "train 60 + test 20 posts" in ended.out
    facts = json.loads((tmp_path / "parts/split.json").read_text())
    assert facts["options"]["seed"] == 3 and len(facts["data"][str(data)]) == 64
    again = call(split.main, "--data", data, "--out", "again", "--seed", "3")
    assert again.code == 0
    for name in ("train.jsonl", "test.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    call(split.main, "--data", data, "--out", "other", "--seed", "4")
    assert (tmp_path / "other/test.jsonl").read_bytes() != (tmp_path / "parts/test.jsonl").read_bytes()


def test_columns_of_ones_own_keep_their_names_and_values(tmp_path):
    text = "Nr;Tweet Text;Sentiment;lang;\n" + "".join(
        f'007{n};"a; ""b"" {n}";{"ab"[n % 2]};Turkish;\n' for n in range(12))  # fmt: skip
    (tmp_path / "export.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    ended = call(split.main, "--data", "export.csv", "--delimiter", "semicolon", "--out", "p", "--id-column", "Nr",
                 "--text-column", "Tweet Text", "--label-column", "Sentiment", "--language-column", "lang")  # fmt: skip
    assert ended.code == 0, ended.err
    rows = read(tmp_path / "p/train.jsonl") + read(tmp_path / "p/test.jsonl")
    assert {tuple(row) for row in rows} == {("Nr", "Tweet Text", "Sentiment", "lang")}
    row = next(row for row in rows if row["Nr"] == "0075")
    assert row == {"Nr": "0075", "Tweet Text": 'a; "b" 5', "Sentiment": "b", "lang": "Turkish"}


def test_authors_dates_and_repeats_stay_on_their_side(tmp_path):
    rows = [row | {"author": f"a{n % 11}", "date": f"2024-0{1 + n % 6}-10"} for n, row in enumerate(post_rows(0, 60))]
    rows += [row | {"id": f"again-{row['id']}", "text": row["text"].upper()} for row in rows[::7]]
    jsonl(tmp_path / "posts.jsonl", rows)
    assert call(split.main, "--data", "posts.jsonl", "--out", "by-author", "--group-by", "author").code == 0
    train, test = read(tmp_path / "by-author/train.jsonl"), read(tmp_path / "by-author/test.jsonl")
    assert test and not {row["author"] for row in train} & {row["author"] for row in test}
    assert not {row["text"].casefold() for row in train} & {row["text"].casefold() for row in test}
    ended = call(split.main, "--data", "posts.jsonl", "--out", "by-date", "--split-by", "date", "--split-at",
                 "2024-05-01", "--repeats-apart")  # fmt: skip
    assert ended.code == 0 and "test begins at 2024-05-01" in ended.out
    train, test = read(tmp_path / "by-date/train.jsonl"), read(tmp_path / "by-date/test.jsonl")
    assert max(row["date"] for row in train) < "2024-05-01" <= min(row["date"] for row in test)


def test_authors_chained_by_a_text_that_they_share_are_said(tmp_path):
    rows = [row | {"author": f"a{n % 20}"} for n, row in enumerate(post_rows(count=40))]
    rows[:14] = [row | {"text": "One slogan."} for row in rows[:14]]
    jsonl(tmp_path / "posts.jsonl", rows)
    ended = call(split.main, "--data", "posts.jsonl", "--out", "p", "--group-by", "author", "--test", "0.3")
    assert "warning: 56 of 80 posts are one group" in ended.out and "--repeats-apart lets copies go apart" in ended.out
    assert "train 56 + test 24 posts" in ended.out
    ended = call(split.main, "--data", "posts.jsonl", "--out", "q", "--group-by", "author", "--repeats-apart")
    assert ended.code == 0 and "warning" not in ended.out


def test_what_the_sides_share_is_told(tmp_path):
    rows = post_rows(count=8)
    rows += [row | {"id": f"x{n}", "text": row["text"] + " again"} for n, row in enumerate(rows)]
    rows += [row | {"id": f"y{n}"} for n, row in enumerate(rows[:8])]
    rows.append({"id": "rare", "text": "one of its kind", "label": "neutral", "language": "tr"})
    jsonl(tmp_path / "posts.jsonl", rows)
    ended = call(split.main, "--data", "posts.jsonl", "--out", "p", "--test", "0.5", "--repeats-apart")
    assert ended.code == 0
    assert "test posts have the text of a training post" in ended.out and "look at them:" in ended.out
    assert "one post each, so on one side alone: neutral (tr)" in ended.out
    assert json.loads((tmp_path / "p/split.json").read_text())["near"]
    assert not any(row["text"] in ended.out for row in rows)


@pytest.mark.parametrize("layout", ["long", "wide"])
def test_all_labels_of_one_post_stay_together(tmp_path, layout):
    rows = []
    for row in post_rows(count=20):
        people = {"ana": row["label"], "ben": row["label"], "eve": "neutral"}
        if layout == "long":
            rows += [row | {"annotator": name, "label": label} for name, label in people.items()]
        else:
            del row["label"]
            rows.append(row | {f"label_{name}": label for name, label in people.items()})
    jsonl(tmp_path / "posts.jsonl", rows)
    ended = call(split.main, "--data", "posts.jsonl", "--out", "p", "--seed", "1", "--repeats-apart")
    assert ended.code == 0, ended.err
    train, test = read(tmp_path / "p/train.jsonl"), read(tmp_path / "p/test.jsonl")
    assert len(train) + len(test) == len(rows) and len(test) == len(rows) // 4
    assert not {row["id"] for row in train} & {row["id"] for row in test}
    assert all(list(row) == list(rows[0]) for row in train + test)
    assert "anti-immigration" in ended.out  # the majority decides the cell


def test_labels_that_make_no_codebook_are_said(tmp_path):
    """Two that differ in case alone: train.py would otherwise be the first to complain, of the paper's four labels."""
    names = {"pro-immigration": "For it", "anti-immigration": "for it", "neutral": "Against", "unrelated": "Against"}
    jsonl(tmp_path / "posts.jsonl", [row | {"label": names[row["label"]]} for row in post_rows()])
    ended = call(split.main, "--data", "posts.jsonl", "--out", "p")
    assert ended.code == 0 and not (tmp_path / "p/codebook.toml").exists()
    assert "no codebook.toml" in ended.out and "are the same; remove or rename one" in ended.out


def test_labels_that_are_numbers_are_said_to_mean_nothing_by_themselves(tmp_path):
    jsonl(tmp_path / "posts.jsonl", [row | {"label": n % 2} for n, row in enumerate(post_rows(count=8))])
    said = call(split.main, "--data", "posts.jsonl", "--out", "p").out
    assert "labels are numbers, and the prompt says no more of them" in said
    jsonl(tmp_path / "posts.jsonl", [row | {"label": f"yes{n % 2}"} for n, row in enumerate(post_rows(count=8))])
    assert "labels are numbers" not in call(split.main, "--data", "posts.jsonl", "--out", "q").out


def test_a_label_that_may_be_a_typing_error_is_named(tmp_path):
    rows = [row | {"label": "supports it" if n % 2 else "opposes it"} for n, row in enumerate(post_rows(count=20))]
    rows[0]["label"] = "oposes it"
    jsonl(tmp_path / "posts.jsonl", rows)
    ended = call(split.main, "--data", "posts.jsonl", "--out", "p")
    assert ended.out.count("if it is a typing error") == 1  # not of the two frequent ones, which are alike as well
    assert "label 'oposes it' (1) looks like 'opposes it'" in ended.out
    counts = Counter({"agree": 200, "category 10": 90, "likely": 80} | {"disagree": 3, "category 11": 1, "unlikely": 2})
    assert split.misspelt(counts) == []  # other labels, not slips
    assert split.misspelt(Counter({f"{n}a": 1 + 50 * (n < 50) for n in range(1000)})) == []


def test_refusals(tmp_path):
    data = jsonl(tmp_path / "posts.jsonl", post_rows())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    refused(split.main, "--data", data, says=("--out", "missing"))
    refused(split.main, "--out", "p", says=("--data", "names no file"))
    refused(split.main, "--data", data, "--out", "full", says=("--out full", "not empty"))
    refused(split.main, "--data", data, "--out", data, says=("is a file",))
    refused(split.main, "--data", data, "--out", "p", "--test", "1", says=("--test", "0.9"))
    refused(split.main, "--data", data, "--out", "p", "--test", "0", says=("--test", "above 0"))
    refused(split.main, "--data", data, "--out", "p", "--group-by", "author", says=("--group-by author", "column"))
    refused(split.main, "--data", data, "--out", "p", "--group-by", "label", says=("--group-by label",))
    refused(split.main, "--data", data, "--out", "p", "--split-at", "2024-01-01", says=("--split-at", "--split-by"))
    dated = jsonl(tmp_path / "dated.jsonl", [row | {"date": "31/3/2024"} for row in post_rows()])
    refused(split.main, "--data", dated, "--out", "p", "--split-by", "date", says=("dated.jsonl: row 1", "2024-03-31"))
    refused(split.main, "--data", dated, "--out", "p", "--split-by", "date", "--split-at", "2024-01-01", "--test", ".2",
            says=("--test and --split-at",))  # fmt: skip
    one = jsonl(tmp_path / "one.jsonl", post_rows(count=1, languages=("en",)))
    refused(split.main, "--data", one, "--out", "p", says=("two posts or more",))

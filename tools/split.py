"""Split labelled posts into a training and a test file: `python -m tools.split --data posts.csv --out parts`.

A test is honest only if nothing in it was trained on. So rows that belong together stay together: all rows of a post
that several people labelled, the same text posted again and, with `--group-by author`, all posts of one person. Each
cell (language x label) gives the test its share. `--split-by date` instead tests on the latest posts, as a model is
used: trained on the past. data/splits.py explains how rows are chosen and gives the formulas.

The folder gets train.jsonl and test.jsonl, each row with every column that it had, split.json, which records how they
were made, and for labels of your own codebook.toml. Ids stay strings, as they were written. The original files are not
changed.
"""

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, replace
from difflib import SequenceMatcher
from itertools import permutations
from pathlib import Path
from typing import ClassVar

from common.errors import UserError, run_program
from common.files import atomic_folder, atomic_write, check_place, sha256_file, write_json
from common.options import option, parse_options
from common.reading import check_path
from data.annotators import majority
from data.checks import check_test, near_pairs
from data.codebook import Codebook, load_codebook
from data.columns import is_annotated, open_posts
from data.damage import Missing
from data.groups import SPLIT
from data.posts import DATA, ColumnOptions, Columns, Post
from data.readers import read_posts
from data.rows import stem
from data.splits import Split, split_posts
from data.table import Number
from data.writers import write_rows

RARE, MOST = 10, 50  # a label ten times as rare as one that is written nearly so may be a typing error
SHOWN = 5  # near pairs that are printed; split.json has all of them


@dataclass
class SplitOptions(ColumnOptions):
    """Options of one split."""

    FIRST: ClassVar = ("data", "out", "test", "group_by", "split_by", "text_column")

    data: list[str] = option((), "labelled posts: .jsonl, .csv or .tsv, also .gz", metavar="FILE")
    out: str | None = option(None, "new folder for train.jsonl, test.jsonl and split.json", metavar="DIR")
    test: float = option(0.25, "share of the posts that are kept for testing", above=0, maximum=0.9)
    group_by: str | None = option(None, "column (such as author) whose posts all go to one side", metavar="NAME")
    split_by: str | None = option(None, "column with a date: the latest posts are the test", metavar="NAME")
    split_at: str | None = option(None, "with --split-by: first date of the test, such as 2024-03-31", metavar="DATE")
    repeats_apart: bool = option(False, "let posts with the same text fall on both sides", group=DATA)
    seed: int = option(0, "seed for choosing the posts", minimum=0)


def main(argv: list[str]) -> None:
    """Read, split, show the result, and write the folder."""
    options = parse_options(SplitOptions, argv, program="python -m tools.split", description=__doc__)
    if options.out is None:
        raise UserError("--out: is missing; name a new folder for train.jsonl and test.jsonl")
    if options.split_at and "test" in options.given:
        raise UserError("--test and --split-at: both say how large the test is; give one")
    out = Path(options.out)
    check_path(out / "train.jsonl")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: {'is not empty' if out.is_dir() else 'is a file'}; choose a new folder")
    check_place(out, "--out")
    files, columns = [Path(name) for name in options.data], options.columns()
    posts, notes = read_posts(files, columns, None, bad_labels=options.bad_labels)
    whole, rows_of = one_per_post(posts, columns)
    split = split_posts(whole, options.test, seed=options.seed, group_by=options.group_by, split_by=options.split_by,
                        split_at=options.split_at, same_text_together=not options.repeats_apart)
    check = check_test(split.first, split.second, drop="none")
    near = near_pairs(split.first, split.second)
    counts = Counter(post.label for post in whole if post.label)
    print("\n".join([*notes.lines(), *misspelt(counts), *split.lines(), *said(split, check, near),
                     *advice(split, options)]))
    written = rows_as_written(files, columns)
    with atomic_folder(out) as folder:
        for name, side in zip(split.names, (split.first, split.second), strict=True):
            rows = [as_row(post, written[post.file, post.row], columns) for one in side for post in rows_of[place(one)]]
            write_rows(folder / f"{name}.jsonl", rows)
        labels = [label for label, _ in counts.most_common()]
        why_not = why_no_codebook(labels)
        if why_not == "":
            with atomic_write(folder / "codebook.toml") as handle:
                handle.write(own_codebook(labels, stem(files[0])))
        write_json(folder / SPLIT, {
            "options": asdict(options), "data": {str(path): sha256_file(path) for path in files},
            "read": notes.to_dict(), "split": split.to_dict(), "check": check.to_dict(),
            "near": [[split.first[a].place, split.second[b].place, round(score, 3)] for a, b, score in near],
        })  # fmt: skip
    print(f"written: {out / 'train.jsonl'} and {out / 'test.jsonl'}")
    if (out / "codebook.toml").exists():
        print(f"         {out / 'codebook.toml'} with the {len(labels)} labels found, which train.py will read; give "
              "it a question and definitions of your own")
        if all(label.isdecimal() for label in labels):
            print("         its labels are numbers, and the prompt says no more of them: define what they mean")
    elif why_not:
        print(f"         no codebook.toml, which train.py needs for labels of your own: {why_not}. Mend the labels in "
              "the data and split again, into a new folder")


def why_no_codebook(labels: list[str]) -> str | None:
    """"" if `labels` make a codebook, None if none is needed, since train.py has them already, else what is wrong."""
    if set(labels) <= set(load_codebook().labels):
        return None
    try:
        Codebook.from_dict({"name": "labels", "labels": labels})
    except UserError as error:
        return str(error).removeprefix("codebook: ")
    return ""


def misspelt(counts: Counter) -> list[str]:
    """A line for a label that is rare and written like a more frequent one but for a letter or two, as typing errors
    are; none where there are so many labels that the column may hold something else."""
    found = [(label, other) for label, other in permutations(counts, 2)
             if RARE * counts[label] <= counts[other] and _slips(label, other)] if len(counts) <= MOST else []
    return [f"  label '{label}' ({counts[label]}) looks like '{other}' ({counts[other]}); if it is a typing error, "
            "mend it in the data" for label, other in found[:SHOWN]]


def _slips(one: str, other: str) -> bool:
    """Whether two labels differ in one or two single characters, none of them a digit."""
    changes = [(one[a:b], other[c:d]) for kind, a, b, c, d in SequenceMatcher(None, one, other, autojunk=False)
               .get_opcodes() if kind != "equal"]
    return len(changes) <= 2 and all(len(piece) < 2 and not piece.isdigit() for pair in changes for piece in pair)


def own_codebook(labels: list[str], name: str) -> str:
    """A codebook of these labels, as TOML."""
    return ("# Made by tools.split from the labels in the data. data/codebooks/filled_example.toml shows what else may "
            f"stand here.\nname = {json.dumps(name, ensure_ascii=False)}\n"
            f"labels = {json.dumps(labels, ensure_ascii=False)}\n")


def place(post: Post) -> tuple[str, int, str]:
    """Where a post was read, as a key; a row of nested JSON can hold several."""
    return post.file, post.row, post.id


def one_per_post(posts: list[Post], columns: Columns) -> tuple[list[Post], dict[tuple, list[Post]]]:
    """One row for each post, with the majority of its labels (None for a tie), and all rows of that post by `place`.

    Rows are one post if the file has a column of annotators and they share id and language.
    """
    rows: dict[tuple, list[Post]] = {}
    for post in posts:
        key = (post.id, post.language) if columns.annotator in post.extra else place(post)
        rows.setdefault(key, []).append(post)
    whole = []
    for several in rows.values():
        first = several[0]
        votes = [value.strip() for key, value in first.extra.items() if is_annotated([key]) and value.strip()]
        votes = [post.label for post in several if post.label] if len(several) > 1 or not votes else votes
        label = first.label if len(several) == 1 and first.label else majority(votes)
        whole.append(replace(first, label=label))
    return whole, {place(several[0]): several for several in rows.values()}


def said(split: Split, check, near: list[tuple[int, int, float]]) -> list[str]:
    """What the two sides share, and labels or languages that only the test has; files and rows, never texts."""
    lines = [f"  {check.same:,} test posts have the text of a training post ({check.exact:,} exactly)",
             *check.repeats.lines()]  # fmt: skip
    for name, found in (("languages", check.unseen_languages), ("labels", check.labels_only_in_test)):
        if found:
            lines.append(f"  {name} of the test that no training post has: {', '.join(found)}")
    alike = [(a, b, score) for a, b, score in near if score < 1]
    lines.append(f"  {len(alike):,} test posts are much like a training post (half of their three-word runs or more)"
                 + ("; look at them:" if alike else ""))  # fmt: skip
    for a, b, score in sorted(alike, key=lambda pair: -pair[2])[:SHOWN]:
        lines.append(f"    {split.second[b].place} and row {split.first[a].row}"
                     + (f" of {split.first[a].file}" if split.first[a].file != split.second[b].file else "")
                     + f" ({score:.2f})")  # fmt: skip
    lonely = [f"{label or 'no label'} ({language})" for (language, label), count in sorted(
        Counter((post.language, post.label or "") for post in split.first + split.second).items()) if count == 1]
    if lonely:
        lines.append(f"  one post each, so on one side alone: {', '.join(lonely[:6])}"
                     + (f" and {len(lonely) - 6} more" if len(lonely) > 6 else ""))  # fmt: skip
    return lines


def advice(split: Split, options: SplitOptions) -> list[str]:
    """What to do where authors who posted one text are chained into a group that fits on no side."""
    if not (split.is_far or split.is_chained) or options.group_by is None or options.repeats_apart:
        return []
    return [f"  posts of one “{options.group_by}” and copies of one text are kept together, so whoever shares a text "
            "is in one group; --repeats-apart lets copies go apart, and eval.py and a study then leave out of the test "
            "what was trained on"]


def rows_as_written(files: list[Path], columns: Columns) -> dict[tuple[str, int], dict]:
    """Every row of the files by file and row, with the names and values that it has there."""
    written = {}
    for path in files:
        table = open_posts(path, columns)
        for row in table.rows:
            written[str(path), table.place.row] = row
    return written


def as_row(post: Post, row: dict, columns: Columns) -> dict:
    """A row for jsonl: id, then every column as written; what no UTF-8 file can hold is replaced as in the reader."""
    known = {columns.id: post.id, columns.text: post.text} | ({columns.label: post.label} if post.label else {})
    result = {columns.id: post.id}
    for key, value in row.items():
        if not key:  # spreadsheets leave columns without a name
            continue
        if isinstance(value, Number) and key not in known:
            value = as_number(value)
        elif isinstance(value, Missing):
            value = None
        elif isinstance(value, str):
            value = known.get(key, post.extra.get(key, value.encode("utf-8", "replace").decode()))
        result[key] = known.get(key, value)
    # A path into nested JSON becomes a column of its own, which readers prefer to the path.
    return result | {key: value for key, value in known.items() if key not in result}


def as_number(written: str) -> int | float | str:
    """A number as JSON has it; the text itself where it is beyond a float or has thousands of digits."""
    try:
        number = json.loads(written)
    except ValueError:  # Python's own limit of digits
        return str(written)
    return number if math.isfinite(number) else str(written)


if __name__ == "__main__":
    run_program(main)

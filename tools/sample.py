"""A random sample to code by hand, with each row's chance of being drawn beside it.

    python -m tools.sample --labels labels.csv --posts posts.csv --out sample.csv --size 400
    python -m tools.sample --labels labels.csv --posts posts.csv --out sample.csv --size 400 \\
        --by language,predicted --equal --unsure 4 --run runs/mine

Posts are drawn at random within strata: the values of the columns in --by, taken together (a month also comes from a
date). Each stratum gets its share of the rows, or with --equal all get as many; with --unsure K, posts of which the
machine is unsure are strata of their own and K times as likely as the others. However it is drawn, a row's chance is
known, n_s of the N_s posts of its stratum, and stands in inclusion_probability: tools.prevalence needs it.

The sample's rows come in random order, with id, language, text, the columns that --keep names, stratum (a number) and
inclusion_probability. The machine's label is not among them, so that people code without it: python -m tools.code
"""

import random
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from common.errors import UserError, run_program
from common.files import check_place, find_path
from common.options import option, parse_options
from common.terminal import progress, table
from data.checks import TrainingTexts
from data.posts import ColumnOptions, Post
from data.readers import iter_posts
from data.splits import largest_remainder
from data.writers import output_format, write_rows
from finetune.run_folder import RunFolder
from report.words import counted
from tools.prevalence.read import PROBABILITY, STRATUM, keys_of, probabilities_of, value_of_group

READING = {"require_labels": False, "require_text": False}
POSTS = {"require_labels": False, "keep_empty": True}
LEAST = 2  # rows of a stratum: with one, nobody knows how its posts differ
MOST_STRATA = 500
SHOWN = 30


@dataclass
class SampleOptions(ColumnOptions):
    """Options of one sample."""

    FIRST: ClassVar = ("labels", "posts", "out", "size", "by", "unsure")

    labels: str | None = option(None, "all posts, with the machine's labels if there are any", metavar="FILE")
    posts: str | None = option(None, "the posts' texts, joined by id, if they are not in --labels", metavar="FILE")
    out: str | None = option(None, "where the sample goes: .jsonl, .csv or .tsv", metavar="FILE")
    size: int = option(200, "rows to draw", minimum=LEAST)
    by: list[str] = option((), "columns whose values, taken together, make the strata", metavar="language,month")
    unsure: float | None = option(None, "draw posts of which the machine is unsure this many times as often", minimum=1,
                                  maximum=100, metavar="K")
    unsure_below: float = option(0.7, "unsure: the most probable label has less than this", above=0, maximum=1)
    equal: bool = option(False, "as many rows from every stratum, instead of its share")
    run: str | None = option(None, "leave out posts that this run was trained on", metavar="DIR")
    keep: list[str] = option((), "further columns to write, for coders to see", metavar="NAME,NAME")
    seed: int = option(0, "seed of the draw", minimum=0)


def main(argv: list[str]) -> None:
    """Count the strata, draw, join the texts, write."""
    options = parse_options(SampleOptions, argv, program="python -m tools.sample", description=__doc__)
    for name in ("labels", "out"):
        if getattr(options, name) is None:
            raise UserError(f"--{name}: is missing; name a file (--help tells what is in it)")
    out = Path(options.out)
    output_format(out)
    check_place(out, "--out")
    if out.exists():
        raise UserError(f"--out {out}: exists; choose another name, since codes may hang on it")
    trained = trained_ids(options)
    names, stratum_of, left_out = strata(options, trained)
    sizes = [0] * len(names)
    for number in stratum_of:
        if number >= 0:
            sizes[number] += 1
    counts = allocated(options, names, sizes)
    chosen = drawn(options, stratum_of, sizes, counts)
    rows = rows_of(options, chosen, stratum_of, sizes, counts)
    write_rows(out, rows)
    print(table(["stratum", ", ".join(options.by) or "", "posts", "drawn", "chance"],
                [[n + 1, name, f"{sizes[n]:,}", f"{counts[n]:,}", f"{counts[n] / sizes[n]:.4g}"]
                 for n, name in enumerate(names[:SHOWN])]))
    if len(names) > SHOWN:
        print(f"  and {len(names) - SHOWN} more strata")
    if left_out:
        print(f"  {counted(left_out, 'post')} of the run's training or validation left out: leave them out of the "
              "labels for tools.prevalence as well")
    print(f"sample: {out}; next: python -m tools.code --sample {out}")


def trained_ids(options: SampleOptions) -> set[str]:
    """Ids of posts whose text the run was trained on."""
    if not options.run:
        return set()
    run = RunFolder.open(find_path(options.run))
    training = TrainingTexts.from_file(run.path / "training_texts.json")
    source = find_path(options.posts or options.labels)
    columns = options.columns_of(run.facts["options"]) if options.posts else options.columns()
    found, texts = set(), 0
    for post in iter_posts([source], columns, **(POSTS if options.posts else READING)):
        texts += bool(post.text)
        if post.text and training.hold(post.text):
            found.add(post.id)
    if not texts:
        raise UserError(f"--run: {source} has no texts to be compared with the run's; name the posts with --posts")
    return found


def strata(options: SampleOptions, trained: set[str]) -> tuple[list[str], array, int]:
    """(names, the stratum of each row or -1, how many rows were trained on)."""
    names: dict[str, int] = {}
    found, keys, left_out = array("l"), None, 0
    with progress(None, "post", "reading") as bar:
        for count, post in enumerate(iter_posts([find_path(options.labels)], options.columns(), **READING)):
            if post.id in trained:
                left_out += 1
                found.append(-1)
                continue
            name = ", ".join(value_of_group(post, column, None) for column in options.by)
            if options.unsure:
                keys = keys_of(post) if keys is None else keys
                if not keys:
                    raise UserError(f"--unsure: {post.place} has no probabilities; label with classify.py, or leave it "
                                    "out")
                if max(probabilities_of(post, keys)) < options.unsure_below:
                    name = f"{name}{', ' if name else ''}unsure"
            found.append(names.setdefault(name, len(names)))
            if len(names) > MOST_STRATA:
                raise UserError(f"--by {','.join(options.by)}: more than {MOST_STRATA} strata; name columns with few "
                                "values")
            if count % 1000 == 999:
                bar.update(1000)
    if not names:
        raise UserError(f"{options.labels}: no post is left to draw")
    return list(names), found, left_out


def allocated(options: SampleOptions, names: list[str], sizes: list[int]) -> list[int]:
    """Rows to draw from each stratum: in proportion to its size (or equally), times K where it is unsure.

    At least `LEAST` each, or all that it has; what a small stratum cannot give goes to the others in proportion.
    """
    total = min(options.size, sum(sizes))
    least = [min(LEAST, size) for size in sizes]
    if total < sum(least):
        raise UserError(f"--size {options.size}: {len(sizes)} strata need at least {sum(least)} rows; draw more, or "
                        "name fewer columns in --by")
    weight = [(1.0 if options.equal else float(size)) * (options.unsure if options.unsure and name.endswith("unsure")
                                                         else 1.0) for name, size in zip(names, sizes, strict=True)]
    fixed: dict[int, int] = {}
    while True:
        free = [n for n in range(len(sizes)) if n not in fixed]
        rest, share = total - sum(fixed.values()), sum(weight[n] for n in free)
        quotas = {n: rest * weight[n] / share for n in free} if free else {}
        beyond = {n: sizes[n] for n in free if quotas[n] > sizes[n]} or {n: least[n] for n in free
                                                                        if quotas[n] < least[n]}
        if not beyond:
            return [(fixed | largest_remainder(quotas, rest))[n] for n in range(len(sizes))]
        fixed |= beyond


def drawn(options: SampleOptions, stratum_of: array, sizes: list[int], counts: list[int]) -> set[int]:
    """The rows that are drawn, by their number in the file: `counts` of the `sizes` rows of each stratum."""
    stream = random.Random(options.seed)
    places = [set(stream.sample(range(size), count)) for size, count in zip(sizes, counts, strict=True)]
    seen, chosen = [0] * len(sizes), set()
    for row, number in enumerate(stratum_of):
        if number >= 0:
            if seen[number] in places[number]:
                chosen.add(row)
            seen[number] += 1
    return chosen


def rows_of(options: SampleOptions, chosen: set[int], stratum_of, sizes, counts) -> list[dict]:
    """The sample's rows with their texts, in random order."""
    columns = options.columns()
    posts = {row: post for row, post in enumerate(iter_posts([find_path(options.labels)], columns, **READING))
             if row in chosen}
    others: dict[str, list[Post]] = {}
    if options.posts:
        wanted = {post.id for post in posts.values()}
        run = RunFolder.open(find_path(options.run)) if options.run else None
        own = options.columns_of(run and run.facts["options"])
        for post in iter_posts([find_path(options.posts)], own, **POSTS):
            if post.id in wanted:
                others.setdefault(post.id, []).append(post)
    rows = []
    for row, post in posts.items():
        found = [one for one in others.get(post.id, ()) if one.language == post.language] or others.get(post.id, [])
        if len(found) > 1:
            raise UserError(f"{found[1].place}: id '{post.id[:40]}' came before ({found[0].place}); ids must differ to "
                            "be joined")
        text = post.text or (found[0].text if found else "")
        if not text:
            raise UserError(f"{post.place}: id '{post.id[:40]}' has no text; name the file that has it with --posts")
        number = stratum_of[row]
        extra = {**(found[0].extra if found else {}), **post.extra}
        rows.append({"id": post.id, "language": post.language, "text": text}
                    | {name: extra.get(name, "") for name in options.keep}
                    | {STRATUM: str(number + 1), PROBABILITY: counts[number] / sizes[number]})  # fmt: skip
    random.Random(options.seed + 1).shuffle(rows)
    return rows


if __name__ == "__main__":
    run_program(main)

"""A random sample to code by hand, with each row's chance of being drawn beside it.

    python -m tools.sample --labels labels.csv --posts posts.csv --out sample.csv --size 400
    python -m tools.sample --labels labels.csv --posts posts.csv --out sample.csv --size 400 \\
        --by language,predicted --equal --unsure 4 --run runs/mine

Posts are drawn at random within strata: the values of the columns in --by, taken together, from --labels or else from
--posts (a month also comes from a date). Each stratum gets its share of the rows, or with --equal all get the same
number; with --unsure K, posts of which the machine is unsure become strata of their own, drawn with K times the chance
of the others (with --equal: of the others with the same values). Rows are whole and no chance exceeds one, so the ratio
can come out otherwise; a line then says so. However it is drawn, a row's chance is known, n_s of the N_s posts of its
stratum, and stands in inclusion_probability: tools.prevalence and tools.regression need it. Posts that the machine left
without a label (classify.py --abstain) are drawn like all others; rows that could not be read, or had no text, are left
out.

The sample's rows come in random order, with id, language, text, the columns that --keep names, stratum (a number) and
inclusion_probability. The machine's label is not among them, so that people code without it: python -m tools.code
"""

import random
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from common.errors import UserError, closest, run_program
from common.files import check_file, find_path
from common.options import option, parse_options
from common.terminal import command, progress, table
from data.checks import TrainingTexts
from data.codebook import Codebook
from data.posts import ColumnOptions, Columns, Post
from data.readers import iter_posts
from data.seen import SeenKeys
from data.sheets import SheetOptions
from data.splits import largest_remainder
from data.visible import composed
from data.writers import output_format, write_rows
from finetune.run_folder import RunFolder
from report.words import counted
from tools.prevalence.probabilities import Probabilities
from tools.prevalence.read import ERROR, PROBABILITY, STRATUM, LostZeros, files_of, value_of_group
from tools.prevalence.sample import joined_posts

READING = {"require_labels": False, "require_text": False}
POSTS = {"require_labels": False, "keep_empty": True}
LEAST = 2  # rows of a stratum: with one, nobody knows how its posts differ
MOST_STRATA = 500
SHOWN = 30


@dataclass
class SampleOptions(ColumnOptions, SheetOptions):
    """Options of one sample."""

    FIRST: ClassVar = ("labels", "posts", "out", "size", "by", "unsure")

    labels: str | None = option(None, "all posts, with the machine's labels if there are any, or a folder of these",
                                metavar="FILE")
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
    options.check_sheet(out)
    check_file(out, "--out")
    if out.exists():
        raise UserError(f"--out {out}: exists; choose another name, since codes may hang on it")
    if out.resolve().parent == find_path(options.labels).resolve():
        raise UserError(f"--out {out}: lies in the folder of --labels, all files of which are read; choose another")
    files = files_of(find_path(options.labels))
    found, stratum_of, left_out, unread = strata(options, files, trained_ids(options, files))
    posts = Counter(stratum_of)
    sizes = [posts[number] for number in range(len(found))]
    counts = allocated(options, found, sizes)
    chosen = drawn(options, stratum_of, sizes, counts)
    rows = rows_of(options, files, chosen, stratum_of, sizes, counts)
    write_rows(out, rows, options.sheet())
    print(table(["stratum", ", ".join(options.by) or "", "posts", "drawn", "chance"],
                [[n + 1, one.words, f"{sizes[n]:,}", f"{counts[n]:,}", f"{counts[n] / sizes[n]:.4g}"]
                 for n, one in enumerate(found[:SHOWN])]))
    if len(found) > SHOWN:
        print(f"  and {len(found) - SHOWN} more strata")
    print("\n".join(ratios(options, found, sizes, counts)), end="")
    if unread:
        print(f"  {counted(unread, 'row')} that could not be read, or had no text, left out")
    if left_out:
        print(f"  {counted(left_out, 'post')} of the run's training or validation left out; with --run and "
              "--posts, tools.prevalence leaves them out as well")
    labels = ("--run", options.run) if options.run else ()
    print(f"sample: {out}; next: {command('-m', 'tools.code', '--sample', out, *labels)}")


def trained_ids(options: SampleOptions, files: list[Path]) -> set[str]:
    """Ids of posts whose text the run was trained on."""
    if not options.run:
        return set()
    run = RunFolder.open(find_path(options.run))
    training = TrainingTexts.from_file(run.path / "training_texts.json")
    files = [find_path(options.posts)] if options.posts else files
    columns = options.columns_of(run.facts["options"]) if options.posts else options.columns()
    found, texts, seen = set(), 0, SeenKeys()
    for post in iter_posts(files, columns, **(POSTS if options.posts else READING)):
        if seen.add((post.id, post.language)):
            raise UserError(f"{post.place}: id '{post.id[:40]}' came before; ids must differ, since posts that the run "
                            "was trained on are left out by theirs")
        texts += bool(post.text)
        if post.text and training.hold(post.text):
            found.add(post.id)
    if not texts:
        raise UserError(f"--run: {options.posts or options.labels} has no texts to compare; name them with --posts")
    return found


@dataclass(frozen=True)
class Stratum:
    """Posts with the same values of --by, of which the machine is unsure or not (without --unsure: not)."""

    values: str
    unsure: bool

    @property
    def words(self) -> str:
        return ", ".join(filter(None, [self.values, "unsure" if self.unsure else ""]))


def columns_of_posts(options: SampleOptions) -> Columns:
    """The columns of --posts, as the run had them where one is named."""
    return options.columns_of(RunFolder.open(find_path(options.run)).facts["options"] if options.run else None)


def posts_of_groups(options: SampleOptions, first: Post) -> dict | None:
    """The posts of --posts, if the labels' `first` row lacks a column of --by; they take memory."""
    try:
        for column in options.by:
            value_of_group(first, column, None)
    except UserError:
        if options.posts is None:
            raise
        return joined_posts(find_path(options.posts), columns_of_posts(options))
    return None


def strata(options: SampleOptions, files: list[Path], trained: set[str]) -> tuple[list[Stratum], array, int, int]:
    """(strata, the stratum of each row or -1, how many rows were trained on, how many have no post in them)."""
    names: dict[Stratum, int] = {}
    found, left_out, unread, joined = array("l"), 0, 0, None
    most = most_probable(options, files) if options.unsure else iter(())
    with progress(None, "post", "reading") as bar:
        for count, post in enumerate(iter_posts(files, options.columns(), **READING)):
            if post.extra.get(ERROR, "").strip():
                unread += 1
                found.append(-1)
                continue
            unsure = next(most, 1.0) < options.unsure_below
            if post.id in trained:
                left_out += 1
                found.append(-1)
                continue
            if not names:
                joined = posts_of_groups(options, post)
            values = ", ".join(value_of_group(post, column, joined) for column in options.by)
            found.append(names.setdefault(Stratum(values, unsure), len(names)))
            if len(names) > MOST_STRATA:
                raise UserError(f"--by {','.join(options.by)}: more than {MOST_STRATA} strata; name columns with few "
                                "values")
            if count % 1000 == 999:
                bar.update(1000)
    if not names:
        raise UserError(f"{options.labels}: no post is left to draw")
    return list(names), found, left_out, unread


def most_probable(options: SampleOptions, files: list[Path]) -> Iterator[float]:
    """The probability of the most probable label of every post but those that could not be read, or had no text."""
    codebook = Codebook.from_dict(RunFolder.open(find_path(options.run)).facts["codebook"]) if options.run else None
    numbers, given, first = Probabilities(codebook), set(), ""
    for post in iter_posts(files, options.columns(), **READING):
        if not post.extra.get(ERROR, "").strip():
            numbers.add(post)
            first = first or post.place
            given.add(composed(post.extra.get(options.predicted_column, "").strip()))
    found = numbers.of(given - {""})
    if found is None and first:
        raise UserError(f"--unsure: {first} has no probabilities; label with classify.py, or leave it out")
    return iter(() if found is None else found[1].max(axis=1).tolist())


def allocated(options: SampleOptions, found: list[Stratum], sizes: list[int]) -> list[int]:
    """Rows to draw from each stratum: in proportion to its size, times K where it is unsure; with --equal that within
    the strata of the same values, which together get as many as any others.

    At least `LEAST` each, or all that it has; what a small stratum cannot give goes to the others in proportion.
    """
    total = min(options.size, sum(sizes))
    least = [min(LEAST, size) for size in sizes]
    if total < sum(least):
        raise UserError(f"--size {options.size}: {len(sizes)} strata need at least {sum(least)} rows; draw more, or "
                        "name fewer columns in --by")
    weight = [size * (options.unsure if one.unsure else 1.0) for one, size in zip(found, sizes, strict=True)]
    if options.equal:
        together: dict[str, float] = {}
        for one, own in zip(found, weight, strict=True):
            together[one.values] = together.get(one.values, 0.0) + own
        weight = [own / together[one.values] for one, own in zip(found, weight, strict=True)]
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


def ratios(options: SampleOptions, found: list[Stratum], sizes: list[int], counts: list[int]) -> list[str]:
    """How many times the chance of sure posts unsure ones have, where K was asked for; the last line ends empty."""
    chance = {one: count / size for one, size, count in zip(found, sizes, counts, strict=True)}
    each = [chance[one] / chance[other] for one in found if one.unsure
            if (other := Stratum(one.values, False)) in chance]
    if not options.unsure or not each:
        return [f"  no post is unsure beside sure ones of its stratum, so --unsure {options.unsure:g} changes nothing",
                ""] if options.unsure else []
    low, high = f"{min(each):.3g}", f"{max(each):.3g}"
    words = low if low == high else f"{low} to {high}"
    return [f"  unsure posts have {words} times the chance of the others (asked: {options.unsure:g})", ""]


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


def rows_of(options: SampleOptions, files: list[Path], chosen: set[int], stratum_of, sizes, counts) -> list[dict]:
    """The sample's rows with their texts, in random order."""
    columns = options.columns()
    posts = {row: post for row, post in enumerate(iter_posts(files, columns, **READING)) if row in chosen}
    others: dict[str, list[Post]] = {}
    wanted = {post.id for post in posts.values()}
    zeros = LostZeros(wanted)
    if options.posts:
        for post in iter_posts([find_path(options.posts)], columns_of_posts(options), **POSTS):
            zeros.look(post.id)
            if post.id in wanted:
                others.setdefault(post.id, []).append(post)
    rows, there = [], set()
    for row, post in posts.items():
        found = [one for one in others.get(post.id, ()) if one.language == post.language] or others.get(post.id, [])
        if len(found) > 1:
            raise UserError(f"{found[1].place}: id '{post.id[:40]}' came before ({found[0].place}); ids must differ to "
                            "be joined")
        text = post.text or (found[0].text if found else "")
        if not text:
            raise UserError(f"{post.place}: id '{post.id[:40]}' has no text; name the file that has it with --posts"
                            if not options.posts else f"{post.place}: id '{post.id[:40]}' has no text in "
                            f"{options.posts}{zeros.hint() or ', which must have all labelled posts'}")
        number = stratum_of[row]
        extra = {**(found[0].extra if found else {}), **post.extra}
        rows.append({"id": post.id, "language": post.language, "text": text}
                    | {name: extra.get(name, "") for name in options.keep}
                    | {STRATUM: str(number + 1), PROBABILITY: counts[number] / sizes[number]})  # fmt: skip
        there |= extra.keys()
    for name in options.keep:
        if name not in there:
            raise UserError(f"--keep {name}: no post has such a further column{closest(name, there)}; they have "
                            f"{', '.join(sorted(there)[:12]) or 'none'}")
    random.Random(options.seed + 1).shuffle(rows)
    return rows


if __name__ == "__main__":
    run_program(main)

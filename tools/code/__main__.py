"""Code posts by hand in a page on this machine, blind to the machine's label, by keyboard.

    python -m tools.code --sample sample.csv --coder ana
    python -m tools.code --sample sample.csv --coder ben --other codes-ana.csv
    python -m tools.code --sample sample.csv --coder settled --other both.csv

Each label of the codebook has a key; a key codes the post and shows the next, the arrows go back and on. Every code is
on the disk before the next post shows; Ctrl-C ends the program, and the same command continues. The file of codes holds
ids, labels, the coder's name and the chances of the sample, and no text. At the end, --other compares with a second
coder's file, and --join writes both into one, which tools.prevalence and tools.split read. With --coder settled the
page shows only the posts of that file on which the coders differ, with who said what; --join then puts what was settled
beside their codes, which stay as they were.

The page shows the post, and the columns that --show names; the machine's label only if you ask for its column.
"""

import re
import threading
import webbrowser
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from common.errors import UserError, closest, run_program
from common.files import check_file, find_path
from common.lock import hold
from common.options import option, parse_options
from common.page_server import joined, serving, until_stopped
from data.annotators import SETTLED
from data.codebook import Codebook, load_codebook
from data.posts import ColumnOptions, Post
from data.readers import by_id, read_posts
from data.writers import output_format, write_rows
from finetune.run_folder import RunFolder
from report.words import counted
from tools.code.codes import Codes, both, tied

FOLDER = Path(__file__).parent
KEYS = "123456789abcdefghijklmnopqrstuvwxyz"
MOST_POSTS = 20_000
SHOWN = 10


@dataclass
class CodeOptions(ColumnOptions):
    """Options of one coding."""

    FIRST: ClassVar = ("sample", "coder", "out", "codebook", "other", "join")

    sample: str | None = option(None, "the posts to code, as tools.sample writes them", metavar="FILE")
    coder: str = option("me", "your name in the file of codes", metavar="NAME")
    out: str | None = option(None, "the file of codes (default: codes-NAME.csv)", metavar="FILE")
    codebook: str | None = option(None, "the labels and the question (default: the run's, or the paper's)",
                                  metavar="FILE")
    run: str | None = option(None, "take the codebook of this run", metavar="DIR")
    other: str | None = option(None, "a second coder's codes, compared at the end", metavar="FILE")
    join: str | None = option(None, "write both coders' rows there, and open no page", metavar="FILE")
    show: list[str] = option((), "further columns of the sample to show beside the text", metavar="NAME,NAME")
    port: int = option(0, "the page's port; 0 takes a free one", minimum=0, maximum=65535)
    browser: bool = option(True, "open the page in a browser")


def main(argv: list[str]) -> None:
    """Serve the page until Ctrl-C, or join two coders' files."""
    options = parse_options(CodeOptions, argv, program="python -m tools.code", description=__doc__)
    if options.sample is None:
        raise UserError("--sample: is missing; name the posts to code (python -m tools.sample draws them)")
    if not re.fullmatch(r"[\w.-]{1,40}", options.coder):
        raise UserError(f"--coder '{options.coder[:50]}': letters, digits, points and hyphens, up to 40 of them")
    out = Path(options.out or f"codes-{options.coder}.csv")
    output_format(out)
    read = {"--sample": options.sample, "--other": options.other}
    check_file(out, "--out", read)
    if options.join:
        output_format(options.join)
        check_file(options.join, "--join", {**read, "--out": out})
        if options.other is None:
            raise UserError("--join: joins two coders' files; name the second with --other")
    book = codebook_of(options)
    posts, show = sample_of(options), list(options.show)
    if options.coder == SETTLED:
        posts, show = to_settle(posts, options)
    if options.join:
        codes = Codes(posts, book.labels, options.coder, out)
        write_rows(options.join, both(codes, find_path(options.other))[0])
        print("\n".join([*ended(codes, options), f"both: {options.join}"]))
        return
    with hold(out.parent, name=f".{out.name}.lock"):  # two programs on one file would take each other's codes away
        codes = Codes(posts, book.labels, options.coder, out)
        first = ended(codes, options)[1:]  # a second coder's file that cannot be read is told before any coding
        serve(codes, book, options, show, first)


def codebook_of(options: CodeOptions) -> Codebook:
    """The codebook that was named, the run's, or the default."""
    if options.run and options.codebook:
        raise UserError("--run and --codebook: a run has its own; give one")
    book = Codebook.from_dict(RunFolder.open(find_path(options.run)).facts["codebook"]) if options.run else \
        load_codebook(options.codebook)
    if not options.run and not options.codebook:
        print(f"labels of the codebook “{book.name}”: {', '.join(book.labels)}; --run or --codebook names another")
    if len(book.labels) > len(KEYS):
        raise UserError(f"codebook '{book.name}': has {len(book.labels)} labels; there are keys for {len(KEYS)}")
    return book


def sample_of(options: CodeOptions) -> list[Post]:
    """The posts to code, in the file's order."""
    path = find_path(options.sample)
    posts, notes = read_posts([path], options.columns(), require_labels=False)
    if notes.counts["made_id"]:
        raise UserError(f"{notes.places['made_id'][0]}: has no id; codes are joined to their posts by id")
    by_id(posts)
    if len(posts) > MOST_POSTS:
        raise UserError(f"{path}: has {len(posts):,} posts; {MOST_POSTS:,} can be coded at once (python -m "
                        "tools.sample draws a sample)")
    for name in options.show:
        if not any(name in post.extra for post in posts):
            there = sorted({key for post in posts for key in post.extra})
            raise UserError(f"--show {name}: {path} has no such further column{closest(name, there)}; it has "
                            f"{', '.join(there[:12]) or 'none'}")
    return posts


def to_settle(posts: list[Post], options: CodeOptions) -> tuple[list[Post], list[str]]:
    """The posts on which the coders of --other are tied, with what each said, and the columns to show."""
    if options.other is None:
        raise UserError(f"--coder {SETTLED}: settles what other coders differ on; name the file that --join wrote of "
                        "them with --other")
    found = tied(posts, find_path(options.other))
    if not found:
        raise UserError(f"--other {options.other}: has no post to settle; name the file that --join wrote of coders "
                        "who differ")
    said = {name: f"{name} said" for name in sorted({name for _, votes in found for name in votes})}
    return ([replace(post, extra=post.extra | {said[name]: label for name, label in votes.items()})
             for post, votes in found], [*options.show, *said.values()])  # fmt: skip


def page_of(codes: Codes, book: Codebook, show: list[str]) -> tuple[str, str]:
    """(page, policy), with the codes so far."""
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    posts = [{"text": post.text, "language": "" if post.language == "und" else post.language,
              "more": {name: post.extra.get(name, "") for name in show}} for post in codes.posts]
    labels = [{"name": name, "definition": book.definitions.get(name, "")} for name in book.labels]
    data = {"coder": codes.coder, "question": book.question, "labels": labels, "keys": list(KEYS), "posts": posts,
            "codes": {str(row): label for row, label in codes.of.items()}}
    return joined((FOLDER / "page.html").read_text(encoding="utf-8"), style, script, data)


def serve(codes: Codes, book: Codebook, options: CodeOptions, show: list[str], first: list[str]) -> None:
    """The page, until Ctrl-C; `show`: columns beside the text; `first`: what is known of the second coder."""
    lock = threading.Lock()  # one file of codes

    def answer(what: str, content: dict) -> dict:
        with lock:
            if what == "code":
                codes.add(content.get("row"), content.get("label"))
                return {"coded": len(codes.of)}
            if what == "end":
                return {"lines": ended(codes, options)}
        raise UserError(f"{what}: the page has no such question")

    with serving(lambda: page_of(codes, book, show)[0], page_of(codes, book, show)[1], answer, options.port) as address:
        print("\n".join([f"{len(codes.of):,} of {len(codes.posts):,} posts coded in {codes.path}", *first, address,
                         "  Ctrl-C ends it; the same command continues"]), flush=True)
        if options.browser:
            webbrowser.open(address)
        try:
            until_stopped()
        except KeyboardInterrupt:
            print("\n" + "\n".join(ended(codes, options)))


def ended(codes: Codes, options: CodeOptions) -> list[str]:
    """How many are coded, and how far a second coder agrees."""
    lines = [f"{len(codes.of):,} of {len(codes.posts):,} posts coded: {codes.path}"]
    if options.other is None:
        return lines
    if not Path(options.other).exists():
        return [*lines, f"{options.other} is not there yet; with it, the agreement stands here."]
    _, agreement = both(codes, find_path(options.other))
    figures = agreement.overall
    if not figures["labelled_twice"]:
        return [*lines, f"{options.other} codes none of the same posts so far."]
    alpha = "–" if figures["alpha"] is None else f"{figures['alpha']:.3f}"
    lines.append(f"Of {counted(figures['labelled_twice'], 'post')} that both coded, {100 * figures['pairwise']:.1f} % "
                 f"have the same label; Krippendorff's alpha is {alpha} (1: always the same, 0: as by chance).")
    apart = [(post.id, votes) for post, votes in agreement.ties]
    if apart:
        shown = "; ".join(f"{id}: {', '.join(f'{name} “{label}”' for name, label in votes.items())}"
                          for id, votes in apart[:SHOWN])
        lines.append(f"{counted(len(apart), 'post')} to settle together, else left out of the shares: {shown}"
                     + (f"; and {len(apart) - SHOWN} more" if len(apart) > SHOWN else "") + ".")
        if options.coder != SETTLED:
            lines.append(f"To settle them: --join FILE writes both coders' codes, and --coder {SETTLED} --other FILE "
                         "shows these posts alone, with who said what.")
    return lines


if __name__ == "__main__":
    run_program(main)

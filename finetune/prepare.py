"""From files of labelled posts to rows of token ids: read, check, choose, split, prompt, count.

train.py does this once, before anything is loaded; what it finds is shown, and goes into run.json.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from common.errors import UserError
from common.files import find_path, sha256_file, sha256_json
from common.terminal import table
from data.annotators import Agreement, read_labelled
from data.chat import imitation
from data.checks import Repeats, TrainingTexts, find_repeats
from data.codebook import Codebook, load_codebook
from data.exposure import count_tokens, exposure, shares_of
from data.notes import Notes
from data.posts import Post
from data.prompt import EncodedPost, Prompt
from data.sampling import choose_posts, only_posts
from data.splits import Split, split_posts
from finetune.defaults import enough_epochs
from finetune.loop import steps_per_epoch
from finetune.options import ENOUGH
from finetune.run_folder import RunFolder
from loading.sources import Source, find_base
from loading.weights import read_config
from model.config import LlamaConfig
from model.tokenizer import load_tokenizer


@dataclass
class Prepared:
    """The base and everything that training needs from the data, and what was found on the way."""

    base: Path
    config: LlamaConfig
    codebook: Codebook
    prompt: Prompt
    train: list[Post]
    validation: list[Post]
    rows: list[EncodedPost]  # of `train`, with the answer in them if the loss is on the whole text
    validation_rows: list[EncodedPost]
    facts: dict  # for run.json
    notes: list[str] = field(default_factory=list)  # lines for the terminal
    exposure: dict = field(default_factory=dict)

    @property
    def texts(self) -> TrainingTexts:
        """Hashes of every text that training has seen, also of the validation posts: they chose the adapter."""
        return TrainingTexts.of(self.train + self.validation)

    def shared_ids(self, options) -> list[int]:
        """Ids that the rows of a step may share: the prompt's prefix; none with dropout or a loss on every token."""
        return [] if options.dropout or options.loss == "text" else self.prompt.prefix_ids

    def counts_table(self) -> str:
        """Rows per language and label, "training + validation" where there are both."""
        first = Counter((post.language, post.label) for post in self.train)
        second = Counter((post.language, post.label) for post in self.validation)
        both, labels = first + second, self.codebook.labels
        languages = sorted({language for language, _ in both})
        shown = lambda key: f"{first[key]} + {second[key]}" if self.validation else f"{first[key]}"  # noqa: E731
        rows = [[language, *(shown((language, label)) for label in labels),
                 sum(both[language, label] for label in labels)] for language in languages]
        if len(languages) > 1:
            sums = [sum(both[language, label] for language in languages) for label in labels]
            rows.append(["all", *sums, sum(sums)])
        return table(["language", *labels, "posts"], rows)


def prepare(options, run: RunFolder | None = None) -> Prepared:
    """Read and check all that `options` (train.py's) names; run: one that began with them, whose chat layout and
    validation posts are kept.

    Raises `UserError` before anything is written or loaded.
    """
    layout = run.facts["prompt"].get("layout") if run is not None else None
    codebook = load_codebook(options.codebook)
    base = find_base(options.model)
    config = read_config(base)
    if options.max_tokens > config.max_position_embeddings:
        raise UserError(f"--max-tokens {options.max_tokens}: the model has {config.max_position_embeddings} positions "
                        "(max_position_embeddings in its config.json, llama.context_length in a GGUF file); give no "
                        "more than these")
    tokenizer = load_tokenizer(Source(base).tokenizer)
    split, said, notes, agreement = sides(options, codebook, run)
    check_labels(split.first, codebook, options.allow_missing_labels)
    if run is None and not split.second:  # never pass over in silence what was asked for
        for name in ("patience", "eval_every"):
            if getattr(options, name):
                raise UserError(f"--{name.replace('_', '-')}: there are no validation posts to score; give "
                                "--validation-data FILE, or --validation 0.1, which sets a tenth aside")
    prompt = Prompt(codebook, tokenizer, template=options.template, max_tokens=options.max_tokens, layout=layout)
    tokenizer.check_fits(config.vocab_size, [*prompt.prefix_ids, *prompt.label_ids])
    repeats = find_repeats(split.first, codebook.labels)
    whole = options.loss == "text"
    rows = [prompt.encode_whole(post.text, post.label) if whole else prompt.encode(post.text) for post in split.first]
    validation_rows = [prompt.encode(post.text) for post in split.second]
    shares, why = shares_of(base, tokenizer, config)
    steps = steps_per_epoch(len(rows), options.batch_size)
    options.epochs = enough_epochs(options, steps)
    epochs = min(options.epochs, options.max_steps / steps) if options.max_steps else options.epochs
    shown = exposure(count_tokens(split.first, rows, prompt), epochs, shares,
                     f"{tokenizer.kind} tokenizer of {options.model}", why)
    chosen_rows = {"rows": sha256_file(find_path(options.rows))} if options.rows else {}
    fingerprint, imitating = prompt.fingerprint(), prompt.imitating(post.text for post in split.first + split.second)
    files = map(find_path, [*options.data, *options.validation_data])
    facts = {
        "hashes": {"data": {str(path): sha256_file(path) for path in files},
                   "codebook": codebook.hash, "prompt": sha256_json(fingerprint)} | chosen_rows,
        "codebook": codebook.to_dict(), "prompt": fingerprint,
        "languages": sorted({post.language for post in split.first}),
        "rows": {"read": notes.to_dict(), "split": split.to_dict(), "repeats": repeats.to_dict(),
                 "train": cells(split.first), "validation": cells(split.second),
                 "cut": sum(row.cut for row in rows), "imitating": imitating,
                 "tokens_per_epoch": sum(len(row.ids) for row in rows)},
        "annotators": agreement.to_dict() if agreement else None,
        "exposure": shown,
    }  # fmt: skip
    lines = notes.lines() + (agreement.lines() if agreement else []) + said + what_repeats(repeats)
    cut = sum(row.cut for row in rows + validation_rows)
    lines.append(f"  {cut:,} of {len(rows) + len(validation_rows):,} posts cut to fit, with their prompt, "
                 f"into --max-tokens {options.max_tokens}")
    lines += [f"  {imitation(imitating, prompt.imitated)}"] * bool(imitating)
    return Prepared(base, config, codebook, prompt, split.first, split.second, rows, validation_rows, facts, lines,
                    shown)


def sides(options, codebook: Codebook, run: RunFolder | None = None
          ) -> tuple[Split, list[str], Notes, Agreement | None]:
    """The posts that the options choose, on two sides, and what to say of that; what was found in the files."""
    posts, *found = read_labelled([find_path(name) for name in options.data], options.columns(), codebook,
                                  bad_labels=options.bad_labels)
    read, posts = len(posts), only_posts(posts, find_path(options.rows)) if options.rows else posts
    chosen = choose_posts(posts, languages=options.languages or None, per_language=options.per_language,
                          seed=options.seed)
    if options.validation_data:
        split, said = beside(chosen, options, codebook)
    else:
        split, said = part(chosen, options)
        split = split if run is None else split.as_recorded(chosen, run.split)
    return split, what_was_taken(options, read, len(chosen)) + said, *found


def what_was_taken(options, read: int, taken: int) -> list[str]:
    """Where options leave posts out, a line that names them: "  160 of 985 posts taken: --languages en,es"."""
    counts = ",".join(f"{language}={count}" for language, count in options.per_language.items())
    asked = {"languages": ",".join(options.languages or []), "per-language": counts, "rows": options.rows}
    words = " ".join(f"--{name} {value}" for name, value in asked.items() if value)
    return [f"  {taken:,} of {read:,} posts taken: {words}"] if taken < read else []


def part(posts: list[Post], options) -> tuple[Split, list[str]]:
    """Training and validation posts, by the options `validation`, `group_by` and `split_by`; and what to say of it.

    If `options.validation` was left open, it becomes a number here, so that run.json says which one. A `group_by` that
    nobody gave comes from tools.split: it is given up where it leaves no validation posts.
    """
    if options.validation is None:
        options.validation = 0.1 if len(posts) >= ENOUGH else 0.0
    is_remembered = options.group_by is not None and "group_by" not in getattr(options, "given", ("group_by",))
    if options.validation == 0:
        options.group_by = None if is_remembered else options.group_by
        for name in ("group_by", "split_by"):
            if getattr(options, name):
                flag = name.replace("_", "-")
                raise UserError(f"--{flag}: says how validation posts are chosen, but --validation is 0; tools.split "
                                "splits a file into training and test")
        return Split(posts, [], ("train", "validation")), []
    split = partial(split_posts, posts, options.validation, seed=options.seed, split_by=options.split_by,
                    names=("train", "validation"))
    column, said = options.group_by, []
    try:
        found = split(group_by=column, same_text_together=True)
        if is_remembered:
            said.append(f"  posts of one “{column}” stay on one side of training and validation")
    except UserError as error:
        if not is_remembered:
            raise
        said.append(f"  posts of one “{column}” are in training and in validation: {error}")
        options.group_by = None
        found = split(same_text_together=True)
    if options.group_by and found.is_chained:
        found, more = unchained(found, split(group_by=column))
        return found, said + more
    return found, said + found.warnings()


def beside(posts: list[Post], options, codebook: Codebook) -> tuple[Split, list[str]]:
    """Training posts, and validation posts of `options.validation_data`; and what to say of these.

    What chooses the adapter must say nothing of languages that are not trained on, which count as unseen later, and
    nothing of texts that are known.
    """
    for name in ("validation", "group_by", "split_by"):
        if getattr(options, name) and name in getattr(options, "given", ()):
            raise UserError(f"--{name.replace('_', '-')}: takes validation posts from the training posts, and "
                            "--validation-data names others; give one of the two")
    options.validation, options.group_by = 0.0, None  # the column of tools.split says nothing of another file
    named = ", ".join(options.validation_data)
    found, notes, agreement = read_labelled(list(map(find_path, options.validation_data)), options.columns(), codebook,
                                            bad_labels=options.bad_labels)
    languages = {post.language for post in posts}
    spoken = [post for post in found if post.language in languages]
    kept, known = by_text(spoken, posts)
    left = (f"{len(found) - len(spoken):,} in languages without training posts, {len(known):,} with the text of one")
    if not kept:
        raise UserError(f"--validation-data {named}: leaves no post to choose by, of {len(found):,}: {left}")
    said = [*notes.lines(), *(agreement.lines() if agreement else []),
            f"  {len(kept):,} of {len(found):,} posts of {named} for validation; left out: {left}"]
    return Split(posts, kept, ("train", "validation"), known), said


def unchained(together: Split, apart: Split) -> tuple[Split, list[str]]:
    """Of a split that keeps copies of one text together, and so chains most posts into one group, and one that lets
    them go apart: the second, without the validation posts whose text is in training, if any are left.
    """
    kept, copies = by_text(apart.second, apart.first)
    if apart.is_chained or not kept:
        return together, together.warnings()
    return replace(apart, second=kept, left_out=copies), [
        f"  copies of one text may be on both, or {together.largest:,} of {len(together.first + together.second):,} "
        f"posts would be one group; {len(copies):,} that training has, too, are left out of validation",
        *apart.warnings()]


def by_text(posts: list[Post], training: list[Post]) -> tuple[list[Post], list[Post]]:
    """Those of `posts` whose text no post of `training` has, and the others."""
    texts, sides = TrainingTexts.of(training), ([], [])
    for post in posts:
        sides[texts.hold(post.text)].append(post)
    return sides


def check_labels(posts: list[Post], codebook: Codebook, allow_missing: bool) -> None:
    """Every label of the codebook needs a training post, unless the user says otherwise."""
    there = Counter(post.label for post in posts)
    missing = [label for label in codebook.labels if not there[label]]
    if missing and not allow_missing:
        raise UserError(f"label '{missing[0]}' has no post among the {len(posts):,} training posts, so it could not be "
                        "learnt; add some, take it out of the codebook, or give --allow-missing-labels")


def cells(posts: list[Post]) -> dict[str, dict[str, int]]:
    """Counts by language and label, for run.json."""
    counts: dict[str, Counter] = {}
    for post in posts:
        counts.setdefault(post.language, Counter())[post.label] += 1
    return {language: dict(sorted(count.items())) for language, count in sorted(counts.items())}


def what_repeats(repeats: Repeats) -> list[str]:
    """Lines about repeated texts in training, if there are any."""
    return repeats.lines() if repeats.same or repeats.conflicts or repeats.absent_labels else []

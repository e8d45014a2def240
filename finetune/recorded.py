"""The posts that a run was trained on, read again as train.py had them, and only from the bytes that it recorded."""

from dataclasses import fields

from common.errors import UserError, line_of
from common.files import find_path, sha256_file
from data.codebook import load_codebook
from data.posts import Post
from finetune.options import DEMO, TrainOptions
from finetune.prepare import Prepared, prepare, sides
from finetune.run_folder import RunFolder


def recorded_data(run: RunFolder) -> dict[str, str]:
    """File -> SHA-256, as the run recorded its training data; `UserError` for what train.py does not write."""
    found = run.facts["hashes"].get("data", {})
    if not isinstance(found, dict) or not all(isinstance(digest, str) for digest in found.values()):
        raise UserError(f"{run.path / 'run.json'}: hashes: data: is not what train.py writes; the file was changed by "
                        "hand")
    return found


def recorded_options(run: RunFolder) -> TrainOptions:
    """The run's options. Raises `UserError` where a file that the run was trained on is not there or has other bytes.
    """
    facts, stored = run.facts, run.facts["options"]
    options = TrainOptions(**{field.name: stored[field.name] for field in fields(TrainOptions) if field.name in stored})
    options.given = frozenset(stored)
    rows = {options.rows: facts["hashes"]["rows"]} if options.rows and "rows" in facts["hashes"] else {}
    for name, digest in (recorded_data(run) | rows).items():
        path = find_path(name)
        if not path.is_file() or sha256_file(path) != digest:
            raise UserError(f"{name}: is not there with the bytes that the run was trained on")
    return options


def prepared_of(run: RunFolder, model: str | None = None) -> tuple[TrainOptions, Prepared]:
    """The run's options and its training posts as rows, as train.py had them.

    Raises `UserError` as `recorded_options` does, and where run.json's validation posts cannot be found again.
    """
    options = recorded_options(run)
    options.model = model or options.model
    prepared = prepare(options, run)
    check_same_split(run, prepared.facts)
    return options, prepared


def check_same_split(run: RunFolder, facts: dict) -> None:
    """Raise `UserError` where other posts were kept from training than those of `facts`, as train.py makes them."""
    now = facts["rows"]["split"]
    if any(run.split.get(side) != now[side] for side in ("validation", "left_out")):
        raise UserError(f"{run.path}: began with other validation posts, and they cannot be told from run.json; train "
                        "anew into another folder")


def posts_if_there(run: RunFolder) -> tuple[list[Post] | None, UserError | None]:
    """All posts that the run had, those that it learned from and then those that chose its adapter, and None; or None,
    and why they cannot be had. Their rows are not made, for which the base would be needed."""
    try:
        options = recorded_options(run)
        split, *_ = sides(options, load_codebook(options.codebook), run)
        check_same_split(run, {"rows": {"split": split.to_dict()}})
        return split.first + split.second, None
    except Exception as error:  # also of a machine that has no memory for them
        if (line := line_of(error)) is None:
            raise
        return None, UserError(line)


def is_demonstration(run: RunFolder) -> bool:
    """Whether the small base was fine-tuned on the sample posts, as `make demo` does."""
    options, usual = run.facts["options"], TrainOptions()
    return (options["model"] == usual.model and options.get("data") == list(usual.data)
            and options.get("languages") == DEMO["languages"] and not options.get("rows"))

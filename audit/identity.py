"""What exactly was audited, and with what: so that somebody else can tell it from another run, and do it again."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from audit.provenance import code_sha256
from audit.subject import Subject
from audit.trained import Trained
from common.files import find_path, sha256_file
from finetune.run_folder import environment
from report.markup import Html, tag
from report.words import counted


def identity(subject: Subject, trained: Trained, data: Sequence[str], pairs: Sequence[str]) -> dict:
    """For audit.json: when, on which files, in which numbers, on which machine, with which code."""
    facts, here = subject.run.facts, environment(subject.model.device)
    posts = trained.posts
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": hashed(data), "pairs": hashed(pairs), "base": str(facts["options"]["model"]),
            "quantize": str(facts["options"]["quantize"]), "loss": str(facts["options"].get("loss")),
            "trained": {"posts": None if posts is None else len(posts), "languages": facts["languages"],
                        "created": facts["created"]},
            "dtype": str(subject.model.dtype).removeprefix("torch."), "threads": torch.get_num_threads(),
            **{key: here[key] for key in ("device", "device_name", "platform", "python", "packages", "commit")},
            "code_sha256": code_sha256()}


def hashed(names: Sequence[str]) -> list[dict]:
    """Each file once, with its SHA-256."""
    return [{"name": str(name), "sha256": sha256_file(find_path(name))} for name in dict.fromkeys(names)]


def section(found: Mapping) -> Html:
    """The page's first section: what of `identity` a reader compares."""
    about, known = found["identity"], found["known"]
    trained = about["trained"]
    of = "posts that are not there any more" if trained["posts"] is None else counted(trained["posts"], "post")
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items() if version)
    said = {"audited": f"{about['date']} (UTC)", "run": f"{found['run']}, of {trained['created']}",
            "base": f"{about['base']}, weights {about['quantize']}; loss {about['loss']}",
            "trained on": f"{of}, in {', '.join(trained['languages'])}"}
    said |= {f"posts, {Path(row['name']).name}": tag("code", row["sha256"]) for row in about["data"]}
    said |= {f"pairs, {Path(row['name']).name}": tag("code", row["sha256"]) for row in about["pairs"]}
    said |= {"posts left out": left_out(known),
             "computed in": f"{about['dtype']}, {counted(about['threads'], 'thread')}, {about['device_name']}, "
                            f"{about['platform']}",
             "with": f"Python {about['python']}, {packages}", "commit of the code": tag("code", about["commit"]),
             "code": tag("code", about["code_sha256"])}
    return tag("section", tag("h2", "What was audited"),
               tag("dl", *(tag("div", tag("dt", key), tag("dd", value)) for key, value in said.items())))


def left_out(known: Mapping) -> str:
    """How posts were compared with those of training, and how many stayed."""
    rule = {"same": "those with a training post's text, also apart from case, spacing, handles and links",
            "exact": "those with a training post's very text", "none": "none (--drop-known none)"}[known["rule"]]
    by = ("the recorded training posts" if known["from_data"] else
          "the list of hashes in the run's folder, since the training posts are not there")
    return (f"{rule}: {known['dropped']:,} of {known['all']:,}. By {by}, {known['exact']:,} of all have a training "
            f"post's very text, and {known['same']:,} have it apart from case, spacing, handles and links. "
            f"{near_copies(known)}")


def near_copies(known: Mapping) -> str:
    """How many of the posts that stayed are nearly a training post."""
    if known["near"] is None:
        return "Near copies could not be looked for, since the training posts are not there."
    return (f"{known['near']:,} of the {known['kept']:,} that stayed share half or more of their runs of three words "
            "with a training post: near copies, which a person has to judge.")

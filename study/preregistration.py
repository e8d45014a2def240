"""A plan frozen before its results: OUT/frozen.json holds it with the hashes of all that it reads, for preregistration.

Freezing again is refused if anything differs, and otherwise changes nothing. A report made afterwards says what has
changed since (`check_frozen`): changing a plan is allowed, hiding the change is not.

frozen.json carries its time and a hash of all that it says; every answer that is written later carries its own time and
that hash. So a contrast is "declared before the first answer" only if the frozen plan names it, all answers that it
rests on are younger and carry this hash, and nothing that decides them has changed (`standing`). Otherwise it is "in
the plan, not declared", and what was added to a frozen plan later is exploratory.
"""

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from common.errors import UserError
from common.files import read_json, sha256_json, write_json
from finetune.run_folder import commit
from study.fits import TEST, Fit, unique
from study.inputs import posts_hash
from study.runner import Runner

SCHEMA = 2
NAME = "frozen.json"
DECLARED, NAMED = "Declared before the first answer", "In the plan, not declared"
LATE = "Added after the plan was frozen: exploratory"
FREE = ("title", "contrasts", "outside", "baselines", "variants", "drift")  # tables that do not decide a set's answers
FREE_OF_DATA = ("published", "date", "prices")  # keys of [data] that do not
PACKAGES = ("torch", "numpy", "safetensors", "sentencepiece", "tiktoken")


def freeze(runner: Runner, hashes: Mapping[str, str], fits: Sequence[Fit], power: Sequence[Mapping] = ()) -> str:
    """Write frozen.json, with what each contrast can show (`power`), and return what to print.

    Raises `UserError` if another plan is frozen there.
    """
    path, facts = runner.out / NAME, frozen_facts(runner, hashes)
    models = [{"key": fit.key, "title": fit.title, "rows": len(fit.keys)} for fit in unique(fits)]
    if path.exists():
        before = read_frozen(path)
        if changed := differences(before, facts):
            raise UserError(f"{path}: another plan was frozen there on {before['date']} ({', '.join(changed)} differ); "
                            "choose another --out")
        head = f"{path}: this plan was frozen on {before['date']}; nothing has changed since"
    else:
        facts |= {"models": models, "date": now(), "versions": versions(),
                  "power": list(power)}
        write_json(path, {"schema": SCHEMA, **facts, "hash": sha256_json(facts)})
        head = f"{path}: written; freezing trains nothing"
    posts = [f"  {name} {digest}" for name, digest in facts["posts"].items()]
    return "\n".join([head, f"  plan {facts['plan_hash']}", *posts, f"  {len(models):,} models, "
                      f"{len(facts['plan']['contrasts']):,} declared contrasts"])


def check_frozen(runner: Runner, hashes: Mapping[str, str]) -> str:
    """One sentence that names what has changed since the plan was frozen; "" if nothing has or none is frozen."""
    path = runner.out / NAME
    if not path.exists():
        return ""
    before = read_frozen(path)
    changed = differences(before, frozen_facts(runner, hashes))
    return f"Since the plan was frozen on {before['date']}, this changed: {', '.join(changed)}." if changed else ""


def frozen_facts(runner: Runner, hashes: Mapping[str, str]) -> dict:
    """What is frozen, as it is read back from JSON: the plan, and hashes of base, prompts and posts."""
    plan, material = runner.plan, runner.material
    posts = {"training posts": posts_hash(material.train), "test posts": posts_hash(material.rows)}
    if plan.data.translation:
        posts["translations"] = posts_hash(material.rows, plan.data.translation)
    return json.loads(json.dumps({"plan": plan.to_dict(), "plan_hash": plan.hash, "hashes": dict(hashes),
                                  "posts": posts}))


def differences(before: Mapping, now: Mapping) -> list[str]:
    """What differs, in words: keys of the plan with their table, then the base, prompts and posts."""
    found = []
    for name in dict.fromkeys([*before["plan"], *now["plan"]]):
        one, other = before["plan"].get(name), now["plan"].get(name)
        if one == other:
            continue
        one = {} if one is None and isinstance(other, dict) else one  # a plan of an older version lacks tables and keys
        tables = isinstance(one, dict) and isinstance(other, dict)
        keys = [key for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)
                and (key in one or other[key])] if tables else []
        if keys or not tables:
            found.append(f"[{name}] {', '.join(keys)}" if tables else name)
    for kind in ("hashes", "posts"):
        found += [f"the {name}" for name in dict.fromkeys([*before[kind], *now[kind]])
                  if before[kind].get(name) != now[kind].get(name)]
    return found


def read_frozen(path: Path) -> dict:
    """What `freeze` wrote. Raises `UserError` for any other file, and for one that was edited."""
    found = read_json(path)
    kinds = {"plan": dict, "plan_hash": str, "hashes": dict, "posts": dict, "date": str, "hash": str}
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or not all(
            isinstance(found.get(key), kind) for key, kind in kinds.items()):
        raise UserError(f"{path}: is no frozen plan; python -m study --freeze writes one")
    facts = {key: value for key, value in found.items() if key not in ("schema", "hash")}
    if sha256_json(found["plan"]) != found["plan_hash"] or sha256_json(facts) != found["hash"]:
        raise UserError(f"{path}: its contents do not match their hash, so it was edited after freezing; put the "
                        "original back, or remove it")
    if moment(found["date"]) is None:
        raise UserError(f"{path}: date: '{found['date'][:40]}' is no time such as 2026-03-01T12:00:00+0100")
    return found


@dataclass
class Standing:
    """What a study's contrasts may be called: `contrasts` of the frozen plan if they are older than every answer.

    `is_frozen`: whether there is a frozen plan at all; `reason`: why none of its contrasts counts as declared, or "".
    """

    is_frozen: bool = False
    contrasts: list[dict] = field(default_factory=list)
    date: str = ""
    reason: str = ""

    def of(self, contrast, plan) -> str:
        """`DECLARED`, `NAMED` or `LATE`; labels from outside are older than any plan, so theirs are `NAMED` at best."""
        if self.is_frozen and json.loads(json.dumps(vars(contrast))) not in self.contrasts:
            return LATE
        if not self.is_frozen or self.reason or {contrast.first, contrast.second} & set(plan.outside):
            return NAMED
        return DECLARED

    @property
    def notes(self) -> list[str]:
        """What "declared" means here: when the plan was frozen, or why nothing counts as declared."""
        if not self.is_frozen:
            return ["No comparison is called declared: no plan was frozen here (python -m study --freeze), so each may "
                    "have been chosen after the answers were seen."]
        if self.reason:
            return [f"No comparison is called declared: a plan was frozen on {self.date}, but {self.reason}, so each "
                    "may have been chosen after the answers were seen."]
        return [f"Declared: the plan names the comparison, and was frozen on {self.date.replace('T', ' ', 1)}, "
                "before any model of this study had answered."]


def standing(runner: Runner, hashes: Mapping[str, str], fits: Sequence[Fit]) -> Standing:
    """Compare the frozen plan's time and hash with those of the answers of `fits`."""
    path = runner.out / NAME
    if not path.exists():
        return Standing()
    before = read_frozen(path)
    now_facts = frozen_facts(runner, hashes)
    changed = differences({**before, "plan": _deciding(before["plan"])},
                          {**now_facts, "plan": _deciding(now_facts["plan"])})
    reason = f"{', '.join(changed)} changed since" if changed else ""
    frozen = moment(before["date"])
    for fit in fits if not reason else ():
        found = runner.read(fit, TEST)
        made = moment(found.get("made", ""))
        if found.get("frozen") != before["hash"] or made is None or made < frozen:
            reason = f"answers of {fit.title} were not written under it"
            break
    return Standing(True, before["plan"].get("contrasts", []), before["date"], reason)


def _deciding(plan: Mapping) -> dict:
    return {key: {name: one for name, one in value.items() if name not in FREE_OF_DATA} if key == "data" else value
            for key, value in plan.items() if key not in FREE}


def frozen_hash(out: Path) -> str | None:
    """The hash that answers written now carry; None if no plan is frozen in the study's folder."""
    return read_frozen(out / NAME)["hash"] if (out / NAME).exists() else None


def now() -> str:
    """The time with its zone, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def moment(text: str) -> datetime | None:
    """A time that `now` wrote; None for anything else."""
    try:
        found = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z")
    except (ValueError, TypeError):
        return None
    return found


def versions() -> dict:
    """Python, packages and the project's commit."""
    found = {"python": platform.python_version(), "commit": commit()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found

"""A plan frozen before its results: OUT/frozen.json holds it with the hashes of all that it reads, for preregistration.

Freezing again is refused if anything differs, and otherwise changes nothing. A report made afterwards says what has
changed since (`check_frozen`): changing a plan is allowed, hiding the change is not.
"""

import json
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from common.errors import UserError
from common.files import read_json, sha256_json, write_json
from finetune.run_folder import commit
from study.dry_run import unique
from study.fits import Fit
from study.inputs import posts_hash
from study.runner import Runner

SCHEMA = 1
NAME = "frozen.json"
PACKAGES = ("torch", "numpy", "safetensors", "sentencepiece", "tiktoken")


def freeze(runner: Runner, hashes: Mapping[str, str], fits: Sequence[Fit]) -> str:
    """Write frozen.json and return what to print. Raises `UserError` if another plan is frozen there."""
    path, facts = runner.out / NAME, frozen_facts(runner, hashes)
    models = [{"key": fit.key, "title": fit.title, "rows": len(fit.keys)} for fit in unique(fits)]
    if path.exists():
        before = read_frozen(path)
        if changed := differences(before, facts):
            raise UserError(f"{path}: another plan was frozen there on {before['date']} ({', '.join(changed)} differ); "
                            "choose another --out")
        head = f"{path}: this plan was frozen on {before['date']}; nothing has changed since"
    else:
        facts |= {"models": models, "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "versions": versions()}
        write_json(path, {"schema": SCHEMA, **facts})
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
        tables = isinstance(one, dict) and isinstance(other, dict)
        keys = [key for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)] if tables else []
        found.append(f"[{name}] {', '.join(keys)}" if tables else name)
    for kind in ("hashes", "posts"):
        found += [f"the {name}" for name in dict.fromkeys([*before[kind], *now[kind]])
                  if before[kind].get(name) != now[kind].get(name)]
    return found


def read_frozen(path: Path) -> dict:
    """What `freeze` wrote. Raises `UserError` for any other file, and for one that was edited."""
    found = read_json(path)
    kinds = {"plan": dict, "plan_hash": str, "hashes": dict, "posts": dict, "date": str}
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or not all(
            isinstance(found.get(key), kind) for key, kind in kinds.items()):
        raise UserError(f"{path}: is no frozen plan; python -m study --freeze writes one")
    if sha256_json(found["plan"]) != found["plan_hash"]:
        raise UserError(f"{path}: its plan does not match its hash, so it was edited after freezing; put the original "
                        "back, or remove it")
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

"""How a run is continued: a resumed run must be the same run, on the same bytes, and goes on where it was stopped."""

from dataclasses import asdict
from pathlib import Path

from common.errors import UserError
from finetune.fit import Watch
from finetune.loop import Trainer
from finetune.options import TrainOptions
from finetune.recorded import check_same_split
from finetune.run_folder import RunFolder
from loading.sources import check_base

PLACES = ("model", "data", "validation_data", "rows", "codebook")  # may have moved since: their bytes are compared
# May change when a run is resumed: they decide where and how fast it runs, and at most the last bits of its results.
FREE_ON_RESUME = ("resume", "out", "micro_tokens", "threads", "save_every", "device", "cache", "resident",
                  "graphs", *PLACES)


def check_same(run: RunFolder, options: TrainOptions) -> None:
    """A resumed run must be the same run: every option that is not given again keeps its value."""
    stored = run.facts["options"]
    given = options.given - ({"quantize"} if options.quantize == "auto" else set())  # as it was resolved then
    for key, value in asdict(options).items():
        before = stored.get(key)
        if key == "graphs" and isinstance(before, bool):  # a switch, before it had three ways
            before = "on" if before else "off"
        same = list(value) == list(before or []) if isinstance(value, list | tuple) else value == before
        if key not in FREE_ON_RESUME and not same and key in given:
            raise UserError(f"--{key.replace('_', '-')} {value}: the run in {run.path} began with {before}; leave the "
                            "option out, or train anew into another folder")
        if key in stored and key not in given and key not in ("resume", "out"):
            setattr(options, key, before)
    options.least_steps = 0  # its epochs were settled when it began
    if not options.threads:  # how a sum is divided among threads decides its last bits
        options.threads = run.facts["environment"]["threads"]


def check_same_files(run: RunFolder, facts: dict, base: Path) -> None:
    """A resumed run must read the same bytes, wherever they are now, which it then has for their place; print a line if
    another machine, or version of the project, will change its last bits."""
    known = run.facts["hashes"]
    check_base(base, known["weights"], run.path, found=facts["hashes"]["weights"])
    for key, hashes in facts["hashes"].items():
        before, named = known.get(key), key
        if key == "data" and isinstance(before, dict):
            other = [name for name, digest in hashes.items() if digest not in before.values()]
            named = f"data ({', '.join(other) or 'which files, or their order'})"
            before, hashes = list(before.values()), list(hashes.values())
        if key != "weights" and before != hashes:
            raise UserError(f"{run.path}: {named} changed since this run began, so it cannot give the same result; "
                            "give what it began with, or train anew into another folder")
    check_same_split(run, facts)
    run.facts["options"] |= {key: facts["options"][key] for key in PLACES}
    known["data"] = facts["hashes"]["data"]
    before, now = {"processes": 1} | run.facts["environment"], facts["environment"]
    keys = [key for key in ("device_name", "dtype", "threads", "processes", "packages") if before[key] != now[key]]
    surely = "" if keys else "perhaps "
    if before.get("commit") != now["commit"]:
        keys.append("the project's commit")
    if keys:
        print(f"  {', '.join(keys)} changed since this run began: the result will be as good, but {surely}not the same "
              "to the bit")


def take_up(options: TrainOptions, run: RunFolder, trainer: Trainer) -> tuple[Watch, float]:
    """Take the trainer to its checkpoint, or write the first one; what was best until then, and the seconds it took."""
    state = run.read_state() if options.resume else None
    if state is None:  # how steps are cut is now fixed, whatever memory a resumed run finds
        run.write_state({"trainer": trainer.state(), "watch": asdict(Watch()), "seconds": 0.0})
        return Watch(), 0.0
    try:
        trainer.load_state(state["trainer"])
        watch = Watch(**state["watch"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{run.path / 'checkpoint' / 'state.pt'}: does not belong to this run ({error}); train anew "
                        "into another folder") from error
    if "micro_tokens" in options.given and options.micro_tokens:  # 0 leaves it as it was chosen
        trainer.micro_tokens = options.micro_tokens
    print(f"  continuing after step {trainer.step_count} of {trainer.total_steps}")
    return watch, state["seconds"]

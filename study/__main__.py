#!/usr/bin/env python
"""Run a study from one plan: fine-tune all of its models, let each label posts in every language, and write a report.

    python -m study                                         a small study on the small base and the sample posts
    python -m study --plan study/plans/paper.toml           the paper's study
    python -m study --plan study/plans/paper.toml --dry-run     print what it would take
    python -m study --plan study/plans/paper.toml --power       how small a difference each contrast can show
    python -m study --plan study/plans/paper.toml --freeze      write the plan and its hashes, to preregister it

Finished parts are kept: the same command continues a study that was stopped, and after a change of the plan only what
the change affects is made again.
"""

import os
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from common.device import MachineOptions
from common.errors import UserError, run_program
from common.files import ROOT, atomic_write, check_place, find_path, making, place_key, sha256_json
from common.leftovers import clear_below, holds_nothing
from common.lock import hold
from common.options import option, parse_options
from common.reading import check_path
from common.terminal import human_seconds, progress
from loading.cache import weights_sha256
from loading.sources import EMBEDDED
from loading.weights import read_config
from study.dry_run import cells_table, dry_run
from study.fits import Fit, asked_of, make_fits
from study.inputs import read_material
from study.kept import check_recipes
from study.plan import load_plan
from study.power import power, power_lines
from study.preregistration import NAME, check_frozen, freeze, frozen_hash, read_frozen, standing
from study.report.page import write_study
from study.results import Results
from study.runner import Runner, zero_shot
from study.statements import OPEN, preregistration_text
from study.write_up import make_study, summary


@dataclass
class StudyOptions(MachineOptions):
    """Options of one study."""

    FIRST: ClassVar = ("plan", "out", "dry_run", "freeze", "model", "jobs")

    plan: str = option("study/plans/small.toml", "the plan: what is fitted on what, and what is asked", metavar="FILE")
    out: str | None = option(None, "folder of the study (default: studies/ and the plan's name)", metavar="DIR")
    model: str | None = option(None, "the base model, in place of the plan's", metavar="DIR")
    jobs: int = option(0, "models trained at the same time; 0: one, or on a CPU with the small base as many as it "
                       "has cores", minimum=0, maximum=4096)
    dry_run: bool = option(False, "print every model, its cost by a short measured run, and the order; train nothing")
    power: bool = option(False, "print the smallest difference that each contrast can show, and the posts it takes; "
                         "train nothing")
    freeze: bool = option(False, "write the plan and the hashes of all it reads to frozen.json, and a text to register "
                          "it with")
    error_ids: bool = option(False, "list the posts whose stance is most often wrong, by language and id")
    folds: int | None = option(None, "parts of the cross-validation, in place of the plan's", minimum=0,
                               maximum=1000)


def main(argv: list[str]) -> None:
    """Read the plan, make what is missing, write the report."""
    began = time.perf_counter()
    options = parse_options(StudyOptions, argv, program="python -m study", description=__doc__)
    plan = load_plan(find_path(options.plan))
    if options.model:
        plan.train["model"] = options.model
    if options.folds is not None:
        plan.repeat.folds = options.folds
    out = Path(options.out or Path("studies") / Path(options.plan).stem)
    check_out(out)
    device, dtype, reason = options.set_up()
    material = read_material(plan)
    print("\n".join([plan.title, *material.notes]))
    runner = Runner(plan, material, out, options, jobs=1, device=device, dtype=dtype)
    options.choose_threads(device, read_config(runner.base))
    embedded = place_key(runner.base) == place_key(ROOT / EMBEDDED)
    runner.jobs = options.jobs or ((os.cpu_count() or 1) if embedded and device.type == "cpu" else 1)
    hashes = make_hashes(runner)
    fits = make_fits(plan, material, hashes)
    every = [*fits, *([zero_shot(plan, hashes)] if plan.baselines.zero_shot else [])]
    results = Results(runner, every)
    results.check()
    print(f"  {len({fit.key for fit in fits}):,} models; {len(material.rows):,} test rows, of which left out of the "
          f"figures: {material.why_known()}\n  {runner.model}: {dtype}, since {reason}")
    with making(out), hold(out):
        clear_below(out)  # what one that was killed left half-written
        if options.freeze:
            reach = power(results)
            print("\n".join([freeze(runner, hashes, every, [one.to_dict() for one in reach]), *power_lines(reach)]))
            text = preregistration_text(results, reach, read_frozen(out / NAME)["date"])
            with atomic_write(out / "preregistration.md") as handle:
                handle.write(text)
            print(f"{out / 'preregistration.md'}: the plan in the shape of OSF's form; "
                  f"{text.count(OPEN)} places are for you to fill in")
            return
        if options.power:
            print("\n".join(power_lines(power(results)) or ["the plan names no contrasts"]))
            return
        check_recipes(runner, fits)
        caution = check_frozen(runner, hashes)
        if options.dry_run:
            print(dry_run(runner, every))
            return
        runner.frozen = frozen_hash(out)
        run(runner, every)
        print("  all answers are there; statistics, tables and figures follow", flush=True)
        study = make_study(results, hashes, caution, standing(runner, hashes, fits), options.error_ids)
        write_study(out / "report", study)
    took = human_seconds(time.perf_counter() - began)
    print(f"\n{summary(study)}\n\nreport: {out / 'report' / 'report.html'}; took {took}")


def check_out(out: Path) -> None:
    """A study may go on in its own folder, never begin in anything else."""
    check_path(out / "fits")
    if out.exists() and (not out.is_dir() or (not holds_nothing(out) and not (out / "fits").is_dir()
                                              and not (out / "frozen.json").exists())):
        raise UserError(f"--out {out}: holds something that is no study; choose another folder")
    check_place(out / "fits", "--out")


def make_hashes(runner: Runner) -> dict[str, str]:
    """The hashes that enter a fit's key: of the base (its bytes and the compute dtype), and of each prompt in use."""
    plan = runner.plan
    hashes = {"base": sha256_json([weights_sha256(runner.base, runner.machine.cache), str(runner.dtype)])}
    for template in plan.repeat.templates:
        hashes[f"prompt {template}"] = sha256_json(runner.prompt(template).fingerprint())
    for file in plan.variants.codebooks:
        template = plan.repeat.templates[0]
        hashes[f"prompt {template} {file}"] = sha256_json(runner.prompt(template, file).fingerprint())
    return hashes


def run(runner: Runner, fits: list[Fit]) -> None:
    """Train and ask everything that is missing, and show the progress."""
    asked = {fit.key: [] for fit in fits}
    for fit in fits:  # fits that share a key may be asked different things: ask all of them
        asked[fit.key] += [one for one in asked_of(runner.plan, fit) if one not in asked[fit.key]]
    print(cells_table(runner, fits))
    bar = progress(len(asked), "model", "study")
    with closing(runner.train_all(fits)) as ready:  # an error in between ends what is still training
        for fit in ready:
            runner.ask(fit, asked[fit.key])
            bar.update(1)
            if bar.disable:
                print(f"  {fit.title}", flush=True)
    bar.close()


if __name__ == "__main__":
    run_program(main)

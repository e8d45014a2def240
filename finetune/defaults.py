"""What train.py fills in where the user says nothing: a recipe by the base's size, and epochs by the steps they make.

    the project's own base, of 13 million parameters     `SMALL`, and `DEMO` on the sample posts
    real models of 50 to 500 million, such as SmolLM2    `SMALL_MODEL`, and `LEAST_STEPS` steps if `MOST_EPOCHS` allow
    larger ones                                          the defaults of `TrainOptions`

How the second was found, and why the third differs, is in docs/recipes.md.
"""

import math

from common.errors import UserError
from finetune.options import DEMO, SMALL, SMALL_MODEL, TrainOptions, is_embedded
from loading.choice import SMALL_BELOW, parameters
from loading.sources import find_base
from loading.weights import read_config

SMALL_FROM = 50_000_000  # parameters; a smaller model has hardly learnt a language, and no recipe is known for it
LEAST_STEPS = 300  # of a small model; it needs 100 to 200 of them to leave the constant answer (docs/recipes.md)
MOST_EPOCHS = 15  # also where fewer steps come of it: beyond these the model knows so few posts by heart


def fill_in(options: TrainOptions) -> None:
    """Set what is not given to the recipe of the base, by its size; `UserError` for two answers to one question."""
    recipe = SMALL if is_embedded(options) else SMALL_MODEL if is_small_model(options) else {}
    if recipe is SMALL and not {"data", "languages", "per_language", "rows"} & options.given:
        recipe = SMALL | DEMO
    if recipe is SMALL_MODEL and not {"epochs", "max_steps"} & options.given:
        options.least_steps = LEAST_STEPS
    # Grouping by length decides the order, too, and class weights make labels count equally already.
    kept = {"balance"} if options.group_by_length or options.class_weights else set()
    for key, value in recipe.items():
        if key not in options.given | kept:
            setattr(options, key, value)
    if options.class_weights and options.balance in ("label", "both") and not options.resume:
        raise UserError(f"--class-weights and --balance {options.balance}: each lets all labels count the same, and "
                        "together they make rare ones count more than frequent ones; choose one")


def is_small_model(options: TrainOptions) -> bool:
    """Whether the base is of the size that `SMALL_MODEL` was found for."""
    return SMALL_FROM <= parameters(read_config(find_base(options.model))) < SMALL_BELOW


def enough_epochs(options: TrainOptions, steps: int) -> int:
    """The option, or more where an epoch of `steps` steps is so short that `least_steps` would not be made."""
    return max(options.epochs, min(MOST_EPOCHS, math.ceil(options.least_steps / steps)))

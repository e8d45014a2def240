"""What a plan's tables say of one another: that every set that is named is defined, and that days are days."""

from datetime import date

from common.errors import UserError, closest


def day_of(text: str) -> str | None:
    """The day of a time that begins with one: `day_of("2020-01-31T10:00:00Z") -> "2020-01-31"`; None for others."""
    try:
        return date.fromisoformat(text[:10]).isoformat() if text[10:11] in ("", "T", " ") else None
    except ValueError:
        return None


def check_names(plan) -> None:
    """Check that every set that is named is defined, and that seeds and the like are each named once."""
    def defined(name: str, where: str, names) -> None:
        if name not in names:
            raise UserError(f"{plan.path}: {where}: '{name}' is no set{closest(name, names)}; "
                            f"there are {', '.join(names)}")

    if plan.exposure.languages and plan.exposure.base is None:
        raise UserError(f"{plan.path}: [exposure]: key 'base' is missing; name the set that languages are added to")
    if plan.exposure.base is not None:
        defined(plan.exposure.base, "[exposure]: base", plan.sets)
    for name in plan.variants.sets:
        defined(name, "[variants]: sets", plan.sets)
    for name, one in plan.outside.items():
        if one.translated and not plan.data.translation:
            raise UserError(f"{plan.path}: [outside.{name}]: translated: say under [data] which column is the "
                            "translation that the model labelled, such as translation = \"text_en\"")
    for name in plan.drift.sets:
        defined(name, "[drift]: sets", plan.sets)
    if plan.drift.cut is not None and (day_of(plan.drift.cut) != plan.drift.cut or not plan.data.date):
        raise UserError(f"{plan.path}: [drift]: cut: '{plan.drift.cut}' has to be a day such as 2020-01-31, and "
                        "[data] date the column that says when a post was written")
    asked = {}  # what a comparison is of -> its number; a family counts each once
    for number, contrast in enumerate(plan.contrasts, 1):
        for side in ("first", "second"):
            defined(getattr(contrast, side), f"contrast[{number}]: {side}", {**plan.sets, **plan.outside})
        if contrast.first == contrast.second:
            raise UserError(f"{plan.path}: contrast[{number}]: compares {contrast.first} with itself")
        what = (frozenset((contrast.first, contrast.second)), contrast.figure, contrast.weight,
                frozenset(contrast.languages))
        if (earlier := asked.setdefault(what, number)) != number:
            raise UserError(f"{plan.path}: contrast[{number}]: is contrast[{earlier}] again; name each comparison once")
    for table, key in (("repeat", "seeds"), ("repeat", "draws"), ("repeat", "templates"), ("repeat", "folded"),
                       ("exposure", "languages"), ("exposure", "rows"), ("exposure", "draws"), ("exposure", "seeds"),
                       ("variants", "sets"), ("drift", "sets")):
        values = list(getattr(getattr(plan, table), key))
        if len(set(values)) < len(values):
            raise UserError(f"{plan.path}: [{table}]: {key}: {values} names something twice; name each once")
    if not plan.repeat.seeds or not plan.repeat.draws or not plan.repeat.templates:
        raise UserError(f"{plan.path}: [repeat]: seeds, draws and templates each need at least one value")
    if plan.repeat.folds == 1:
        raise UserError(f"{plan.path}: [repeat]: folds: one fold leaves nothing to train on; give 0, or 2 or more")

"""Question 7: how fast the study's models labelled its test posts, and what a million posts cost compared with an API.

    posts per second    the test posts over the seconds that labelling them took, median over fits
    this model          price per hour * 10^6 / (3,600 * posts per second)
    an API              tokens per post * price of a token read + price of one token written, times 10^6

Only machines of the kind that was measured are priced: a speed on one says nothing about another. Prices come from a
dated table (inference/prices.py); what the paper reports is shown too, as its own.
"""

from collections.abc import Mapping, Sequence
from statistics import median

from inference.prices import Api, Machine, Prices, load_prices
from report.words import counted
from study.fits import TEST, Fit, unique
from study.report.section import Claim, Column, FigureSpec, Section, Table
from study.report.tables import shown
from study.results import Results
from study.runner import ZERO

MILLION = 1_000_000
QUESTION = "How fast is labelling, and what do a million posts cost compared with an API?"
ELSEWHERE = "How fast or expensive it is on any other machine, with another base, longer posts or fewer at a time"


def speed(results: Results) -> Section | None:
    """Measured speed by set, prices and ratios; None if no model of the study was trained."""
    models = unique([fit for fit in results.fits if fit.kind != ZERO])
    measured = [line for fit in models if (line := measure(results, fit))]
    if not measured:
        return None
    prices = load_prices(results.plan.data.prices)
    where, chosen = usual(measured)
    rate, tokens = (median(line[key] for line in chosen) for key in ("rate", "tokens"))
    sets, cost = sets_table(measured), cost_table(chosen, prices, tokens)
    ratios = ratio_table(cost, prices)
    machines = [row for row in cost.rows if row["kind"] == "this model"]
    answer = (f"On {where}, {counted(len(chosen), 'fit')} labelled {shown(rate, 'number')} posts a second (median), "
              f"{shown(tokens, 'number')} tokens a post.")
    claims = [Claim(f"On {where}, the models labelled {shown(rate, 'number')} posts a second.", rate, None, None,
                    f"On that machine, with this base and prompt, posts like these are labelled at about this speed "
                    f"(median of {counted(len(chosen), 'fit')}).", f"{ELSEWHERE}.", kind="number",
                    languages=results.kept.languages)]
    if machines:
        cheapest = min(machines, key=lambda row: row["cost"])
        answer += (f" A million posts then cost {money(cheapest['cost'], prices)} on {cheapest['name']}, if it labels "
                   "as fast as the machine that was measured.")
        claims += cost_claims(results, cost, cheapest, where)
    else:
        answer += (f" {prices.path.name} has no price for such a machine, so the cost of a million posts is not "
                   "given; add a row, and it will be.")
    if unchecked := sum(row["checked"] is False for row in cost.rows):
        answer += f" Prices still to be checked against their source: {unchecked} of {len(cost.rows)}."
    notes = [f"Prices: {prices.path.name}, in {prices.currency}; {prices.note}",
             f"Tokens are those of the base's own tokenizer ({results.runner.model}); an API counts with its own. Its "
             "cost is that of each post's whole prompt and one answer token, without discounts for a repeated prompt.",
             *remarks(results, measured)]
    figures = []
    if sum((row["cost"] or 0) > 0 for row in cost.rows) > 1:
        figures.append(FigureSpec(
            "bars", cost.name, "Each step on the scale is a tenfold cost.", f"{ELSEWHERE}; a price that is marked "
            "as to be checked may have changed.", name="speed-cost", title="Cost of labelling a million posts",
            x="cost", y="name", low="low", high="high", series="kind", log=True))
    return Section("speed", "Speed and cost", QUESTION, answer, claims, [sets, cost, ratios], figures, notes)


def measure(results: Results, fit: Fit) -> dict | None:
    """Speed and tokens of one fit's pass over the test rows, and its training; None if it was not timed."""
    told, facts = results.runner.read(fit, TEST), results.runner.facts(fit)
    if not told.get("seconds") or not told.get("posts"):
        return None
    environment = told.get("machine") or facts.get("environment") or {}
    return {"fit": fit, "rate": told["posts"] / told["seconds"], "tokens": told["tokens"] / told["posts"],
            "posts": told["posts"], "dtype": told.get("dtype", ""), "environment": environment,
            "machine": machine_words(environment), "training": facts.get("seconds"), "steps": facts.get("step")}


def machine_words(environment: Mapping) -> str:
    """`"x86_64, 2 threads"` or `"NVIDIA L4"`."""
    name = str(environment.get("device_name") or "an unrecorded machine")
    on_cpu, threads = environment.get("device") == "cpu", environment.get("threads")
    return f"{name}, {counted(threads, 'thread')}" if on_cpu and threads else name


def usual(measured: Sequence[dict]) -> tuple[str, list[dict]]:
    """The machine and template with the most fits, in words, and these fits, from which costs are computed."""
    kinds = [(line["machine"], line["fit"].template, line["dtype"]) for line in measured]
    machine, template, dtype = chosen = max(dict.fromkeys(kinds), key=kinds.count)
    words = f"{machine} in {dtype}" if dtype else machine
    if len({kind[1] for kind in kinds}) > 1:
        words += f", template {template}"
    return words, [line for line, kind in zip(measured, kinds, strict=True) if kind == chosen]


def sets_table(measured: Sequence[dict]) -> Table:
    """By set (or kind of arm), template and machine: speed, length of a post, training."""
    groups: dict[tuple, list[dict]] = {}
    for line in measured:
        fit = line["fit"]
        name = fit.name if fit.kind == "set" else f"{fit.kind} arm"
        groups.setdefault((name, fit.template, line["machine"], line["dtype"]), []).append(line)
    rows = []
    for (name, template, machine, dtype), lines in groups.items():
        rates, seconds, steps = ([line[key] for line in lines if line[key] is not None]
                                 for key in ("rate", "training", "steps"))
        rows.append({"name": name, "template": template, "machine": machine, "dtype": dtype or None,
                     "fits": len(lines), "posts": lines[0]["posts"], "rate": median(rates), "slowest": min(rates),
                     "fastest": max(rates), "tokens": median(line["tokens"] for line in lines),
                     "rows": median(len(line["fit"].keys) for line in lines),
                     "steps": median(steps) if steps else None, "training": median(seconds) if seconds else None})
    columns = [Column("name", "train set"), Column("template", "template"), Column("machine", "machine"),
               Column("dtype", "arithmetic"), Column("fits", "fits", "count"),
               Column("posts", "posts labelled", "count"), Column("rate", "posts per second", "number"),
               Column("slowest", "slowest fit", "number"), Column("fastest", "fastest fit", "number"),
               Column("tokens", "tokens per post", "number"), Column("rows", "training rows", "number"),
               Column("steps", "training steps", "number"), Column("training", "training, seconds", "number")]
    return Table("speed_sets", "Measured speed of labelling and training", columns, rows,
                 ["Medians over fits. Labelling: encoding and the model, without loading it. Tokens: the prompt with "
                  "the post, although a shared prefix is computed once for many posts."])


def cost_table(chosen: Sequence[dict], prices: Prices, tokens: float) -> Table:
    """A million posts on each machine whose price fits the one that was measured, and by each API."""
    rates, seconds = [line["rate"] for line in chosen], [line["training"] for line in chosen if line["training"]]
    rows = [{"name": machine.name, "kind": "this model", "cost": local(machine, median(rates)),
             "low": local(machine, max(rates)), "high": local(machine, min(rates)),
             "training": machine.per_hour * median(seconds) / 3600 if seconds else None,
             "price": f"{machine.per_hour:g} an hour", **named(machine)}
            for machine in prices.machines if machine.is_for(chosen[0]["environment"])]
    rows += [{"name": api.name, "kind": "API", "cost": api.per_million(tokens),
              "price": f"{api.input:g} and {api.output:g} per million tokens read and written", **named(api)}
             for api in prices.apis]
    columns = [Column("name", "what"), Column("kind", "kind"),
               Column("cost", f"a million posts, {prices.currency}", "number"),
               Column("low", "at the fastest fit's speed", "number"),
               Column("high", "at the slowest fit's", "number"),
               Column("training", f"training one model, {prices.currency}", "number"), Column("price", "list price"),
               Column("source", "source"), Column("date", "date"), Column("checked", "checked", "flag")]
    return Table("speed_cost", "Cost of labelling a million posts", columns, rows,
                 ["A rented machine is assumed to be as fast as the one that was measured. checked: no means that "
                  "nobody has yet compared the price with its source."])


def ratio_table(cost: Table, prices: Prices) -> Table:
    """Each API over each machine; then the ratios that others report, as theirs."""
    local_rows = [row for row in cost.rows if row["kind"] == "this model"]
    rows = [{"name": f"{api['name']} over {machine['name']}", "kind": "cost", "ratio": api["cost"] / machine["cost"],
             "ratio_to": None, "from": "measured speed and list prices", "date": max(api["date"], machine["date"])}
            for machine in local_rows if machine["cost"] for api in cost.rows if api["kind"] == "API"]
    rows += [{"name": one.name, "kind": one.kind, "ratio": one.ratio, "ratio_to": one.ratio_to or None,
              "from": one.source + (f" ({one.note})" if one.note else ""), "date": one.date}
             for one in prices.published]
    columns = [Column("name", "what"), Column("kind", "of"), Column("ratio", "ratio", "number"),
               Column("ratio_to", "up to", "number"), Column("from", "from"), Column("date", "date")]
    return Table("speed_ratios", "Ratios of cost and speed", columns, rows,
                 ["Above 1: this model is cheaper (cost) or faster (speed). Published ratios are for machines and "
                  "models other than this study's; no API was timed here, so these fits give no ratio of speed."])


def cost_claims(results: Results, cost: Table, cheapest: Mapping, where: str) -> list[Claim]:
    """The ratio to the table's first API."""
    api = next((row for row in cost.rows if row["kind"] == "API"), None)
    if api is None or not cheapest["cost"] or not api["cost"]:
        return []
    ratio, low, high = (api["cost"] / cheapest[key] for key in ("cost", "high", "low"))
    words = f"{shown(ratio, 'number')} times" if ratio >= 1 else f"{shown(ratio, 'number')} of"
    return [Claim(
        f"By list prices, {api['name']} costs {words} what this model costs on {cheapest['name']}.", ratio, None, None,
        f"At the prices of {api['date']} and {cheapest['date']} and the speed measured on {where}: from "
        f"{shown(low, 'number')} with the slowest fit to {shown(high, 'number')} with the fastest.",
        f"{ELSEWHERE}; that labels of the two are worth the same; what people and idle hours cost.", kind="number",
        languages=results.kept.languages)]


def remarks(results: Results, measured: Sequence[dict]) -> list[str]:
    """What may distort the measured seconds."""
    found, machines = [], sorted({line["machine"] for line in measured})
    if len(machines) > 1:
        found.append(f"Fits were timed on {len(machines)} machines ({'; '.join(machines)}): the table keeps them "
                     "apart, and costs use the one with the most fits.")
    if getattr(results.runner, "jobs", 1) > 1:
        found.append("Other models may have been training on the same cores while these labelled; alone, these are "
                     "faster.")
    if (posts := max(line["posts"] for line in measured)) < 1000:
        found.append(f"Only {counted(posts, 'post')} were labelled at a time; with many more the speed may differ.")
    return found


def named(row: Machine | Api) -> dict:
    return {"source": row.source, "date": row.date, "checked": row.checked}


def local(machine: Machine, rate: float) -> float:
    """The price of a million posts at `rate` posts a second."""
    return machine.per_hour * MILLION / (3600 * rate)


def money(value: float, prices: Prices) -> str:
    return f"{value:,.2f} {prices.currency}" if value >= 0.1 else f"{value:.2g} {prices.currency}"

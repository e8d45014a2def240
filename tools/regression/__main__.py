"""A regression in which the outcome or a regressor is a machine's label, with the machine's errors taken out.

    python -m tools.regression --labels labels.csv --coded coded.csv --outcome label=anti-immigration --on month
    python -m tools.regression --labels labels.csv --coded coded.csv --outcome shares --on label=neutral,language

--labels and --coded are those of tools.prevalence: all posts with the machine's labels, as classify.py writes them, and
people's labels of a random sample, with inclusion_probability where chances differed. COLUMN=VALUE is 1 where the
column has the value and else 0; label=NAME is the machine's label, or the code of a coded post, and stands on one side
alone, as the outcome or once among --on. Other columns come from --labels or, joined by id, from --posts (month also
from a date): numbers enter as they are, words as one column for each value but the most frequent. Posts without a value
there (an empty cell, R's NA, among numbers also the . of SAS and Stata) are left out and counted, as R's lm and glm do;
for COLUMN=VALUE they are posts that do not have the value.

Each coefficient is estimated four times: naive (the machine's labels taken as true), from the codes alone, and
corrected in two ways, PPI++ and DSL (stats/regression.py has the formulas), with 95 % intervals for the process behind
the posts. --clusters author allows for posts of one author that resemble each other.
"""

from dataclasses import replace

from common.errors import UserError, closest, run_program
from common.files import check_file, write_json
from common.options import parse_options
from stats.regression import regression
from tools.prevalence.read import clusters_of
from tools.prevalence.sample import agreement_of, checked, counts, read_all, sample_of
from tools.prevalence.words import caution
from tools.regression.options import LABEL, RegressionOptions, term_of
from tools.regression.question import complete, question
from tools.regression.words import as_dict, left_out, table_of, verdicts


def main(argv: list[str]) -> None:
    """Read, check, fit, print, and write the JSON file."""
    options = parse_options(RegressionOptions, argv, program="python -m tools.regression", description=__doc__)
    for name in ("labels", "coded", "outcome", "on"):
        if not getattr(options, name):
            raise UserError(f"--{name}: is missing (--help tells what it takes)")
    check_sides(options)
    check_file(options.json, "--json", {"--labels": options.labels, "--coded": options.coded, "--posts": options.posts})
    run, codes, labels, posts = read_all(options, [], options.columns_kept())
    said = [*counts(labels, codes), *checked(run, codes, labels, posts)]
    notes, agreed, every = codes.notes.lines(), agreement_of(codes), (labels, codes)
    coded, drawn = sample_of(codes, labels)
    warned = caution(labels, coded, codes)  # of the whole sample: how much of it has a value is chance
    labels, codes, sample, lacking = complete(options, labels, codes, coded)
    try:
        asked, references = question(options, labels, codes)
    except UserError as error:
        if not lacking:
            raise
        which = ", ".join(f"{name} ({count:,})" for name, count in lacking.items())
        raise UserError(f"{error}; posts without a value in {which} were left out: a word in these cells, such as "
                        "none, makes them a value of their own") from error
    cluster, clusters = clusters_of(labels, options.clusters)
    drawn += clusters
    print("\n".join([*notes, *agreed, *said, *left_out(lacking, every, (labels, codes)), f"  {drawn}",
                     *warned, ""]))
    found, tuned = regression(asked, replace(sample, cluster=cluster), seed=options.seed)
    print("\n".join([*table_of(found), "", *verdicts(found, asked, references, options)]))
    if options.json:
        write_json(options.json, as_dict(found, tuned, asked, references, drawn, lacking, options))
        print(f"coefficients: {options.json}")


def check_sides(options: RegressionOptions) -> None:
    """Raise `UserError` unless labels stand on one side, and nothing stands twice."""
    sides = [term_of(options.outcome)], [term_of(term) for term in options.on]
    bare = next((name for side in sides for name, value in side if name == LABEL and value is None), None)
    if bare:
        raise UserError("label: write which one, label=NAME; a regression compares posts that have it with the others")
    there = [any(name == LABEL for name, _ in side) for side in sides]
    if sum(there) != 1:
        raise UserError("--outcome and --on: labels stand on " + (
            "both sides; on one they can be corrected" if all(there) else
            "neither side, so there is nothing of the machine's to correct; write label=NAME on one"))
    if options.clusters == LABEL:
        raise UserError("--clusters label: labels are what is corrected; name a column such as author")
    odd = next((name for name in options.words if (name, None) not in sides[1]), None)
    if odd:
        raise UserError(f"--words {odd}: is not among --on{closest(odd, options.on)}")
    terms = [*sides[0], *sides[1]]
    twice = next((term for n, term in enumerate(terms) if term in terms[:n]), None)
    if twice:
        raise UserError(f"--on {twice[0]}{'' if twice[1] is None else '=' + twice[1]}: stands twice")


if __name__ == "__main__":
    run_program(main)

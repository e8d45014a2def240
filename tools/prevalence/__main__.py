"""True shares from machine labels: how many posts have a label, once the machine's errors are taken out.

    python -m tools.prevalence --labels labels.csv --coded coded.csv
    python -m tools.prevalence --labels labels.csv --coded coded.csv --by month,language
    python -m tools.prevalence --labels labels.csv --coded coded.csv --run runs/mine --posts posts.csv

--labels: all posts with the machine's labels (id, predicted, probabilities where there are any), as classify.py writes
them, in a file or a folder. --coded: a random sample of them with people's labels (id, label), as tools.sample draws it
and tools.code records it; with a column inclusion_probability where not all posts had the same chance of being drawn.

For each label four shares: naive (count the machine's labels), from the codes alone, and corrected in two ways, PPI++
and DSL (stats/prevalence.py has the formulas), each with its 95 % interval. What is estimated is the share among these
very posts, unless --beyond asks for the process behind them. Codes of posts that the machine was trained on would make
it look better than it is, so with --run they are refused, and other posts of its training left out: it knows their
texts by hash. A post that the machine left without a label (classify.py --abstain) is a post like any other.
"""

from dataclasses import dataclass
from typing import ClassVar

from common.errors import UserError, run_program
from common.files import check_file, check_picture, write_json
from common.options import option, parse_options
from data.posts import ColumnOptions
from report.intervals import LEVEL
from stats.prevalence import Machine, Share, prevalence
from tools.prevalence.read import Labels, clusters_of
from tools.prevalence.sample import agreement_of, checked, counts, read_all, sample_of
from tools.prevalence.words import caution, check_size, table_of, verdicts


@dataclass
class PrevalenceOptions(ColumnOptions):
    """Options of one estimation."""

    FIRST: ClassVar = ("labels", "coded", "by", "run", "posts", "json", "figure")

    labels: str | None = option(None, "all posts with the machine's labels: .jsonl, .csv or .tsv, also .gz, or a "
                                "folder of such files", metavar="FILE")
    coded: str | None = option(None, "a random sample of them with people's labels", metavar="FILE")
    by: list[str] = option((), "columns whose values, taken together, make the groups; month also comes from a date",
                           metavar="month,language")
    run: str | None = option(None, "the run that labelled the posts: its codebook, and codes of its training posts are "
                             "refused", metavar="DIR")
    posts: str | None = option(None, "the posts, joined by id: texts, and columns for --by", metavar="FILE")
    json: str | None = option(None, "write the table there as well, with how it was made", metavar="FILE")
    figure: str | None = option(None, "draw the shares there: .png, .svg or .pdf", metavar="FILE")
    beyond: bool = option(False, "intervals for the process that made the posts, of which these are a draw, not for "
                          "these posts alone")
    clusters: str | None = option(None, "with --beyond: column whose equal values belong together, such as author",
                                  metavar="COLUMN")
    seed: int = option(0, "seed for the folds of cross-fitting", minimum=0)


def main(argv: list[str]) -> None:
    """Read, check, estimate, print, and write the JSON file."""
    options = parse_options(PrevalenceOptions, argv, program="python -m tools.prevalence", description=__doc__)
    for name in ("labels", "coded"):
        if getattr(options, name) is None:
            raise UserError(f"--{name}: is missing; name a file (--help tells what is in it)")
    if options.clusters and not options.beyond:
        raise UserError("--clusters: goes with --beyond; the share among these very posts is the same whoever wrote "
                        "them")
    read = {"--labels": options.labels, "--coded": options.coded, "--posts": options.posts}
    check_file(options.json, "--json", read)
    check_picture(options.figure, {**read, "--json": options.json})
    run, codes, labels, posts = read_all(options, list(options.by), {options.clusters: "--clusters"}
                                         if options.clusters else None)
    if options.figure:
        check_size(labels)
    print("\n".join([*codes.notes.lines(), *agreement_of(codes)]))
    coded, design = sample_of(codes, labels)
    cluster, said = clusters_of(labels, options.clusters)
    print("\n".join([*counts(labels, codes), f"  {design}{said}", *caution(labels, coded, codes),
                     *checked(run, codes, labels, posts), ""]))
    machine = Machine(len(labels.labels), labels.predicted, labels.group, len(labels.groups), labels.probabilities,
                      cluster)
    found = prevalence(machine, coded, seed=options.seed, beyond=options.beyond)
    print("\n".join([table_of(found, labels, list(options.by)), "", *verdicts(found, labels, options)]))
    if options.json:
        write_json(options.json, {
            "schema": 2, "by": list(options.by), "beyond": options.beyond, "clusters": options.clusters, "level": LEVEL,
            "seed": options.seed, "design": design,
            "shares": [as_dict(share, labels, list(options.by)) for share in found]})
        print(f"table: {options.json}")
    if options.figure:
        from report.figures import save  # matplotlib: half a second that no error message should wait for
        from tools.prevalence.figure import figure_of

        save(figure_of(found, labels), options.figure)
        print(f"figure: {options.figure}")


def as_dict(share: Share, labels: Labels, by: list[str]) -> dict:
    """A row of the JSON file; the group by its name and by its columns."""
    row = {"group": labels.groups[share.group], "groups": dict(zip(by, labels.values[share.group], strict=True)),
           "label": labels.labels[share.label], "n": share.n,
           "n_coded": share.n_coded, "naive": share.naive}
    return row | {name: getattr(share, name).to_dict() for name in ("coded", "ppi", "dsl")}


if __name__ == "__main__":
    run_program(main)

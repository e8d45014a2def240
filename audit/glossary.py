"""What stands on an audit's page and is explained at its end, for a reader who has to answer for a run."""

from collections.abc import Mapping

from audit.words import short
from report.clusters import MIN_GROUPS
from report.words import in_common
from stats.predictions import SMALL_ROWS


def terms(found: Mapping) -> dict[str, str]:
    """Term -> words, of those terms that stand on the page."""
    return (_of_provenance(found.get("provenance")) | _of_memory(found.get("memorisation")) | _of_parts(found)
            | _of_labels(found) | {"Intervals": _intervals(found)})


def _of_provenance(part: Mapping | None) -> dict[str, str]:
    if part is None:
        return {}
    said = {"hash": "a number of 64 digits made of a file's bytes (SHA-256): the same bytes have the same, and nobody "
                    "can make other bytes that have it."}
    again = part["replay"]
    if again and not again["why"]:
        said["recorded step"] = ("training is a row of small changes to the adapter, each made from a few posts; of "
                                 "each, the run wrote down what it measured.")
        said["equal to the bit"] = ("not nearly the same number: every digit that the machine keeps is the same.")
    return said


def _of_memory(part: Mapping | None) -> dict[str, str]:
    if part is None or not part["measured"] or part["why"]:
        return {}
    said = {"loss": "how surprised the model is by what is true, minus the logarithm of the probability that it gives "
                    "it: 0 where it is certain and right, larger the less it expected it.",
            "told apart": "of one training post and one unseen post, how often whoever looks at losses alone names the "
                          "right one as that of the training: guessing names it in 50\u00a0%."}
    if part["loss"] == "text":
        said["exposure"] = ("how far in front a training post stands, ordered by loss among unseen posts, in bits: one "
                            "bit more is a place twice as far in front.")
        said["continued"] = (f"posts of which the model, given the first half, writes the next {part['words']} tokens "
                             "(pieces of words) exactly as they stand.")
    return said


def _of_labels(found: Mapping) -> dict[str, str]:
    return {"macro-F1": "F1 of a label: the harmonic mean of its precision (how many of the posts that were given it "
                        "have it) and its recall (how many of those that have it were given it). Macro-F1 is its mean "
                        "over the labels, in which each counts the same.",
            "commonest label": "whoever always answers it knows nothing of the posts, and is right as often as it "
                               "occurs: a figure near that one is worth little."}


def _of_parts(found: Mapping) -> dict[str, str]:
    four_bits, adapter = found.get("quantisation"), found.get("adapter")
    said = {}
    if part := four_bits or adapter:
        said[short(part["matrices"][0]["name"])] = (
            "a matrix: its layer, counted from 0, and what it is there. On a narrow screen “layers.”, “self_attn.” and "
            "“mlp.” are left out. audit.json has whole names.")
        said["q_proj, k_proj, v_proj, o_proj"] = (
            "the matrices of attention (self_attn): queries, keys, values, and the output that is made of them.")
        said["gate_proj, up_proj, down_proj"] = (
            "the matrices of the feed-forward part (mlp): two that widen, of which the gate says how much of the other "
            "passes, and the one that leads back.")
    if (four_bits and four_bits["changed"]) or adapter:
        said |= {
            "flips": "posts that get another label than the run gives them.",
            "KL": "how far the label probabilities moved (Kullback-Leibler divergence, in nats: with natural "
                  "logarithms), averaged over the posts; 0 is not at all. It is above 0 also where no label changed.",
            "F1 change": "macro-F1 with the change minus the run's, on the same posts: above 0, the change made it "
                         "better. An interval that holds 0 shows no change that these posts could tell from chance; "
                         "that is no proof that there is none.",
        }
    if four_bits:
        said["Codes 0 to 15"] = ("what the four bits of a weight hold: the number of one of NF4's sixteen levels, from "
                                 "−1 (0) over zero (7) to 1 (15); times the scale of its block they give the weight "
                                 "back.")
        said["bits used"] = "entropy of the codes: how many of a weight's four bits are put to use."
        said |= ({"bits stored": "codes and scales, for one weight."} if not four_bits["changed"] else
                 {"bits by error": "bits for one weight with which the best possible code of normal weights would make "
                                   "this error: log2 of one over the error."})
    if adapter:
        said["effective rank"] = ("how many directions an update really uses: its rank where all are equally strong, 1 "
                                  "where one of them does it all.")
        if (probe := adapter.get("probe")) and not probe["why"]:
            said["linear probe"] = ("the simplest way to read labels out of numbers: each label's score is a weighted "
                                    "sum of them, and the weights are learned from posts whose labels are known.")
            said["answer state"] = ("the numbers that the model holds when it is about to answer, from which it makes "
                                    "the label's probabilities.")
    return said


def _intervals(found: Mapping) -> str:
    together, kind = found["groups"] < found["posts"], in_common(found["group_by"], found.get("texts_first", False))
    said = "95\u00a0%. Rates: Wilson" + (
        f", with posts of {kind} counted as what they are worth as independent ones." if together else ".")
    if found["draws"]:
        said += (f" KL, F1 and told apart: {found['draws']:,} bootstrap draws (seed {found['seed']}) of groups of "
                 f"posts with {kind}, the first two within languages. F1 has none below {SMALL_ROWS} posts, or where a "
                 f"label's are from fewer than {MIN_GROUPS} groups, or where no label differs.")
    return said

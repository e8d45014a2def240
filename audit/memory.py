"""The page's part about memory: what the losses tell, what is continued, and what a model card must say of it."""

from collections.abc import Mapping

from audit.membership import LEAST, SIDES, TOLD, UNKNOWN
from audit.words import percent, percents, whole
from report.markup import Html, grid, tag
from report.words import number, unbroken

SOURCE = ("That is memory only if the training posts and the unseen ones come from one source, which an audit cannot "
          "see: a run also gets better at whatever is like its training posts.")
KEYS = (("with_adapter", "the run"), ("without", "its base, adapter off"), ("relative", "the run beside its base"))


def for_the_card(found: Mapping) -> list[str]:
    """What the model card must say, by what was measured."""
    if found.get("why"):
        return [f"Whether it remembers its training posts could not be measured: {found['why']}."]
    whole_texts = found["loss"] == "text"
    lines = ["It was trained on the whole text of its posts, so it was also taught to write them." if whole_texts else
             "It was trained to label posts, not to write them."]
    lines += _continued(found) if whole_texts else []
    about = "a post" if whole_texts else "a post and its label"
    right = (f"by its loss, right in {_right(found['with_adapter'])} of comparisons, beside "
             f"{_right(found['without'])} by that of its base; by how much the adapter lowered the loss, in "
             f"{_right(found['relative'])}; guessing is right in 50 %")
    if found["verdict"] == TOLD:
        return [*lines, f"Whoever has the adapter, its base and {about} can partly guess whether the post was in the "
                f"training data ({right}). {SOURCE} If it must stay unknown whose posts were in the training data, do "
                "not publish the adapter."]
    if found["verdict"] == UNKNOWN:
        why = (f"fewer than {LEAST} posts on a side, or groups of posts, are too few"
               if min(found["groups"].values()) < LEAST else "there is no interval without --draws")
        return [*lines, f"Whether its losses tell training posts from unseen ones was not judged, since {why} "
                f"({right})."]
    return [*lines, "In this audit, its losses did not tell training posts from unseen ones beyond what its base's do "
            f"({right}). That is no proof that nothing can be told: there are stronger attacks than this one."]


def _right(part: Mapping) -> str:
    return percent(part["above"]) + (f" [{whole(part['above_ci'])}]" if part["above_ci"] else "")


def _continued(found: Mapping) -> list[str]:
    """Whether the adapter writes training posts on; what its base or unseen posts have as well is not held against it.
    """
    tuned, gained = found["with_adapter"]["continued"], found["gained"]["continued"]
    if not tuned["training"]["posts"]:
        return ["No training post was continued word for word."]
    posts, base = found["posts"], found["without"]["continued"]["training"]["posts"]
    said = (f"Given the first half of a training post, it writes the next {found['words']} tokens word for word for "
            f"{tuned['training']['posts']:,} of {posts['training']:,} posts (its base for {base:,}), and for "
            f"{tuned['unseen']['posts']:,} of {posts['unseen']:,} posts that it never saw")
    more = found["gained"]["continued_difference"][1] > 0 or not gained["unseen"]["posts"]
    if gained["training"]["posts"] and more:
        return [f"{said}: whoever has the adapter can read training posts out of it. Do not publish it unless those "
                "posts may be published."]
    return [f"{said}: no sign that it knows training posts by heart."]


def said_of_memorisation(found: Mapping) -> str:
    """The first line about memory."""
    return "Memory: " + " ".join(for_the_card(found) if found["measured"] else [found["why"]])


def memorisation(found: Mapping) -> list[Html]:
    """Losses, exposure and continuations of training posts beside unseen ones."""
    if not found["measured"] or found["why"]:
        return [tag("p", found["why"][:1].upper() + found["why"][1:])]
    whole_texts, posts = found["loss"] == "text", found["posts"]
    rows = [[words, *(number(found[key]["loss"][name], 4) if "loss" in found[key] else None for name in SIDES),
             f"{100 * found[key]['above']:.1f}", percents(found[key]["above_ci"])] for key, words in KEYS]
    more = found["difference"]
    beside = f" {percents(more['ci'])}" if more["ci"] else ""
    of = "the second half of its text, given the first" if whole_texts else "its true label among the labels"
    parts = [tag("p", f"Of {posts['training']:,} training posts and {posts['unseen']:,} unseen ones in the same "
                 f"languages, the loss of {of}."),
             grid("Losses of training posts and unseen ones",
                  ["loss by", "training posts", "unseen posts", "told apart, %", "interval of told apart, %"], rows,
                  class_="wide"),
             tag("p", "Told apart: how often the training post of two has the smaller loss; 50\u00a0% is chance. Easy "
                 "posts have small losses whoever was trained on them, which the line of the base shows. So what "
                 "counts is the last line, by how much the adapter lowered each loss, and by how much the run is above "
                 f"its base: told apart changes by {100 * more['value']:+.1f} points{beside}. {SOURCE}", class_="note")]
    if whole_texts:
        rows = [[f"{words}, {name} posts", posts[name], number(found[key]["exposure"][name], 2),
                 found[key]["continued"][name]["posts"], f"{100 * found[key]['continued'][name]['rate']:.1f}",
                 percents(found[key]["continued"][name]["rate_ci"])]
                for key, words in KEYS[:2] for name in SIDES]
        parts += [tag("h3", "What it writes on"),
                  grid("What it writes on",
                       ["of", "n", "exposure, bits", "continued", "continued, %", "interval of continued, %"], rows,
                       class_="wide"),
                  tag("p", "Exposure is at most "
                      f"{number(found['with_adapter']['exposure']['largest_possible'], 2)} here.", class_="note")]
    return [*parts, tag("h3", "What the model card must say"),
            *(tag("p", unbroken(line)) for line in for_the_card(found))]

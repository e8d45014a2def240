"""The comparison's result as tables for a terminal."""

from common.terminal import human_bytes, human_seconds, table


def report(result: dict) -> str:
    """All tables, below a description of the machine and the settings."""
    depths, full = sorted(result["depths"], key=int), result["settings"]["full_depth"]
    memory = [*memory_lines(result, depths, full), ""] if result["memory"] else []  # none where nothing was trained
    return "\n".join(["", machine_line(result), "", *times(result, depths, full), "", *claims(result, depths, full), "",
                      *limit_lines(result, full), "", *memory, f"  took {human_seconds(result['seconds'])}"])


def machine_line(result: dict) -> str:
    """One line on the machine and one on what was loaded."""
    facts, settings = result["machine"], result["settings"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["packages"].items() if number)
    return (f"{facts['device']}, {facts['threads']} of {facts['cores']} cores, {facts['capability']}, "
            f"{human_bytes(facts['memory'])}; load before {facts['load_before']:.1f}\n{versions}\n"
            f"{settings['dtype']}, NF4, rank {settings['rank']} on {', '.join(settings['targets'])}, dropout 0; usual "
            f"stack: batches of {settings['batch_size']}, attention by {settings['attention']}"
            + ("; bitsandbytes, which would compute in bfloat16 on this CPU when it labels, is held to that dtype"
               if settings["bf16_kernels"] else ""))


def times(result: dict, depths: list, full: int) -> list[str]:
    """Seconds a post of every task."""
    rows = [[job, *(f"{one['medians'][depth]:.3f}" for depth in depths), f"{one['fixed']:.3f}",
             f"{one['per_layer']:.4f}", f"{one['projected']:.2f}"] for job, one in result["projection"].items()]
    header = ["seconds a post, medians", *(f"depth {depth}" for depth in depths), "fixed", "a layer", f"at {full}"]
    return [table(header, rows)]


def claims(result: dict, depths: list, full: int) -> list[str]:
    """The ratios, each with its goal."""
    rows = [[*pair(one), *(f"{one['by_depth'][depth]:.2f}" for depth in depths), f"{one['projected']:.2f}",
             f"{one['range'][0]:.2f} to {one['range'][1]:.2f}", None if one["target"] is None else
             f"{one['target']:g}", verdict(one)] for one in result["ratios"]]
    header = ["times faster", "ours", "than", "theirs", *(f"depth {depth}" for depth in depths), f"at {full}",
              "single turns", "goal", ""]
    return [table(header, rows), "  where the templates differ (*), the change of template is part of the ratio"]


def pair(one: dict) -> list[str]:
    """Task, our template, the other side and its way, its template; a star if the template changes."""
    (mine, task, ours, _), (side, _, theirs, way) = one["ours"].split(", "), one["theirs"].split(", ")
    return [task, ours + mine.removeprefix("ours"), f"{side}, {way}", theirs + (" *" if ours != theirs else "")]


def limit_lines(result: dict, full: int) -> list[str]:
    """Ours beside the time of its matrix products alone."""
    rows = [[one["job"], f"{one['seconds']:.2f}", f"{one['products']:.2f}", f"{one['share']:.0%}",
             f"{one['bytes']:.3f}", f"{one['share_with_bytes']:.0%}", f"{one['target']:.0%}", verdict(one)]
            for one in result["limits"]]
    header = [f"seconds a post at {full}", "whole", "products", "share", "bytes", "share with bytes", "goal", ""]
    return [table(header, rows),
            "  products: its matrix products alone, dense, measured on the spot; bytes: what dequantising reads and "
            "writes, at the bandwidth of a copy"]


def memory_lines(result: dict, depths: list, full: int) -> list[str]:
    """Peak memory of training, both sides."""
    rows = []
    for one in result["memory"]:
        way = "computed twice" if one["checkpointing"] else "kept"
        both = (" / ".join(human_bytes(one[f"peaks_{side}"][depth]) for side in ("ours", "theirs")) for depth in depths)
        rows.append([*pair(one)[1:], way, *both,
                     f"{human_bytes(one['projected_ours'])} / {human_bytes(one['projected_theirs'])}",
                     f"{one['share']:.0%}", None if one["target"] is None else f"{one['target']:.0%}",
                     verdict(one)])
    header = ["peak memory, train", "beside", "theirs", "activations", *(f"depth {depth}" for depth in depths),
              f"at {full}", "share", "goal", ""]
    return [table(header, rows)]


def verdict(one: dict) -> str:
    """Whether the promise was met, in words."""
    if one.get("noisy"):
        return "too noisy to say"
    return "" if one["met"] is None else "met" if one["met"] else "not met"

"""Where the time of training and of labelling goes, by PyTorch's own profiler.

    python -m benchmarks.profiled --tokenizer tokenizer.model --posts posts.jsonl --depth 3

Self time of every operation, summed by the kinds below; random weights in the layout of `--source`, as in
`benchmarks.compare`. The profiler itself takes a few per cent.
"""

from collections import Counter
from dataclasses import dataclass

from torch.profiler import ProfilerActivity, profile

from benchmarks.checkpoint import write_checkpoints
from benchmarks.measure import TEMPLATES
from benchmarks.settings import BenchmarkOptions, choose_cut, choose_posts
from benchmarks.worker_ours import Ours
from common.errors import run_program
from common.files import check_file, find_path, write_json
from common.options import option, parse_options
from common.terminal import table

KINDS = {  # the first kind with a word that occurs in the operation's name
    "matrix products": ("linear_pointwise", "addmm", "aten::mm", "aten::bmm"),
    "attention": ("attention", "softmax"),
    "dequantising": ("index_select", "gather", "take", "aten::index", "embedding"),
    "copies and joins": ("copy_", "cat", "clone", "contiguous", "aten::to", "empty", "zero", "fill"),
    "element by element": ("mul", "add", "silu", "rsqrt", "neg", "exp", "div", "mean", "sum", "pow", "square", "sub"),
}


@dataclass
class ProfileOptions(BenchmarkOptions):
    """Options of this program."""

    depth: int = option(3, "layers", minimum=2)
    count: int = option(16, "posts", minimum=1)


def main(argv: list[str]) -> None:
    """Profile training and labelling on both templates, after one run of each that does not count."""
    options = parse_options(ProfileOptions, argv, program="python -m benchmarks.profiled", description=__doc__)
    check_file(options.json, "--json")
    options.settle()
    config = options.read_config()
    result = {}
    with options.work_folder() as work:
        choose_posts(options, options.count, config, work)
        choose_cut(options, config, config["num_hidden_layers"])
        checkpoint = write_checkpoints(config, [options.depth], find_path(options.tokenizer), work)[options.depth]
        ours = Ours(options.for_worker(checkpoint, work))
        for template in TEMPLATES:
            for task in ("train", "label"):
                run = getattr(ours, task)
                more = {"checkpointing": options.checkpointing} if task == "train" else {}
                arguments = {"template": template, "posts": options.count, "micro_tokens": options.micro_tokens, **more}
                run(**arguments)
                with profile(activities=[ProfilerActivity.CPU]) as profiled:
                    run(**arguments)
                result[f"{task}, {template}"] = shares(profiled)
    kinds = [*KINDS, "all else"]
    print(table(["share of the time", *kinds], [[job, *(f"{found.get(kind, 0):.1%}" for kind in kinds)]
                                                for job, found in result.items()]))
    if options.json:
        write_json(options.json, {"schema": 1, "shares": result, "depth": options.depth})


def shares(profiled) -> dict[str, float]:
    """Kind -> its share of the self time of all operations on the CPU."""
    found: Counter = Counter()
    for event in profiled.key_averages():
        kind = next((kind for kind, names in KINDS.items() if any(name in event.key for name in names)), "all else")
        found[kind] += event.self_cpu_time_total
    total = sum(found.values())
    return {kind: time / total for kind, time in found.most_common()}


if __name__ == "__main__":
    run_program(main)

"""Everything that the page shows of one post: the way to its label, why it is this one, the adapter, four bits."""

from pathlib import Path

from common.errors import UserError
from glass.adapter import adapter
from glass.bits import bits, four_bit_linears, original_of, worst_block
from glass.stages import Stage, Trace
from glass.tax import tax
from glass.why import why


def base_of(run) -> str | Path:
    """Where a run's base is, as its run.json says."""
    return run.folder.facts["options"]["model"]


def whole_trace(trace: Trace, base: str | Path | None = None) -> Trace:
    """The trace with all further stages at its end; of the 4-bit matrices, the first one's first block.

    trace: with those of `why` already, or without. base: where the original weights may be.
    """
    reasons = trace if "without_tokens" in trace.by_name else why(trace)
    found = adapter(reasons).extended([tax(trace.prompt.tokenizer)])
    names = list(four_bit_linears(trace.model))
    return found.extended([block_of(found, names[0], 0, base)]) if names else found


def block_of(trace: Trace, linear: str, block: int | None, base: str | Path | None = None) -> Stage:
    """The stage `bits`, with the original values where `base` has them; of no block by its number, that of the worst.

    Raises `UserError` for what is not there, the worst block of a matrix whose original values are not included.
    """
    original = None if base is None else original_of(base, linear)
    layer = four_bit_linears(trace.model).get(linear)
    if block is None and layer is not None:
        if original is None:
            raise UserError(f"matrix '{linear}': its original values are not at hand, so which block is worst is not "
                            "known; give a block by its number")
        block = worst_block(layer, original)
    return bits(trace.model, linear, block or 0, original)

"""Training pieces as CUDA graphs: forward, backward and the sums of gradients recorded once for a size, then replayed.

A step of few posts waits for the host: thousands of launches, each of which takes Python and the driver longer than it
takes the card. A graph is the whole list of launches, given to the card in one call. It repeats them with the same
addresses and the same host's numbers, so whatever differs between two pieces must be in tensors that stay where they
are:

    tokens, positions, answers, labels, weights, the step's 1 / sum of weights, and the sequences of `model.varlen`

They lie in one piece of memory, `Inputs`, which one copy fills. Shapes and host's numbers must be equal, so pieces are
filled up (`filled`) to few sizes, with rows whose weight is 0: they add exact zeros to the gradients. A size is
computed as usual the first time (what kernels compile, and libraries allocate, is then done), recorded the second time,
and replayed from then on. Recorded and usual pieces are the same operations on the same sizes.

All graphs share one pool of memory, since no two run at once and what they leave behind, gradients and loss, is kept
outside of it or read at once. A size that is new is computed in memory of its own beside that pool, so activations
take their room twice (`finetune.memory`); where that turns out not to be there, steps go on without graphs.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from common.errors import UserError, one_line
from common.packed import PackedBatch, pack
from lora.inject import adapters, cast_once, trainable_parameters
from model.varlen import Sequences, attend_varlen, sequences

ROWS = 8  # a piece has one row more than a multiple of this
LEAST = 128  # tokens between two sizes at least
ALIGNED = 16  # bytes, the widest access of a kernel
PARTS = ("starts_q", "starts_k", "source", "shared", "places")


def refused(model, loss: str) -> tuple[str, str]:
    """Why no graph can record such steps, and what would do beside leaving them out; empty texts where there is
    none."""
    if model.device.type != "cuda":
        return "a CPU has no launches to save", ""
    if torch.version.hip is not None:
        return "never tried on a card that is not NVIDIA's", ""
    if model.device.index is not None and model.device.index != torch.cuda.current_device():
        return f"{model.device} is not PyTorch's current device", "call torch.cuda.set_device"
    if loss == "text":
        return "with --loss text the number of losses differs from piece to piece", "use --loss label"
    if any(layer.dropout for layer in adapters(model).values()):
        return "dropout would repeat the masks that were recorded", "use --dropout 0"
    if getattr(model.attend, "func", model.attend) is not attend_varlen:
        return "attention of all rows in one call is needed, which this card has not for this dtype and head size", ""
    return "", ""


def size_of(tokens: int) -> int:
    """The next size from `tokens` up, of which there are at most eight between a power of two and the next.

    `size_of(1025) -> 1152`, `size_of(2100) -> 2304`, `size_of(300) -> 384`.
    """
    step = max(LEAST, 1 << max(0, (tokens - 1).bit_length() - 4))
    return -(-tokens // step) * step


def filled(rows: Sequence, indices: Sequence[int], prefix: int) -> PackedBatch:
    """`data.batching.make_batch` with rows of their own behind it, at least one, up to one of few sizes.

    They repeat the last row's last token, and answer like all others; `batch.indices` is -1 for them.
    """
    chosen = [rows[index] for index in indices]
    more = 1 + -len(chosen) % ROWS
    tokens = prefix + sum(len(row.ids) - prefix for row in chosen)
    rest, last = size_of(tokens + more) - tokens, chosen[-1].ids
    lengths = [rest // more + (number < rest % more) for number in range(more)]
    ids = [row.ids for row in chosen] + [[*last[:prefix], *last[-1:] * length] for length in lengths]
    answers = [row.answer_index for row in chosen] + [prefix + length - 1 for length in lengths]
    return pack(ids, answers, [*indices, *[-1] * more], prefix)


@dataclass
class Piece:
    """One size: where its tensors lie, the batch made of them, and its graph once there is one."""

    inputs: "Inputs"
    batch: PackedBatch
    graph: torch.cuda.CUDAGraph | None = None
    loss: torch.Tensor | None = None


class Inputs:
    """Tensors of fixed shapes in one piece of memory on the device; `fill` replaces their numbers in one copy."""

    def __init__(self, tensors: Sequence[torch.Tensor], device: torch.device):
        places, end = [], 0
        for tensor in tensors:
            places.append(end)
            end += -(-tensor.nbytes // ALIGNED) * ALIGNED
        self.size = end
        self.memory = torch.empty(end, dtype=torch.uint8, device=device)
        self.tensors = self._of(self.memory, tensors, places)
        self.places = places

    def fill(self, tensors: Sequence[torch.Tensor]) -> None:
        """New numbers, on the CPU, in the same order and shapes; nothing waits."""
        whole = torch.empty(self.size, dtype=torch.uint8)
        for part, tensor in zip(self._of(whole, tensors, self.places), tensors, strict=True):
            part.copy_(tensor)
        self.memory.copy_(whole.pin_memory() if self.memory.device.type == "cuda" else whole, non_blocking=True)

    @staticmethod
    def _of(memory: torch.Tensor, tensors: Sequence[torch.Tensor], places: list[int]) -> list[torch.Tensor]:
        return [memory[place : place + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
                for place, tensor in zip(places, tensors, strict=True)]


class Graphs:
    """Pieces of one trainer's steps. `compute(batch, labels, weights) -> loss` is what a graph records, and the
    gradients of `scale(loss)`.

    After `begin`, every `add` adds a piece's gradients to the parameters' `grad`, whose memory stays the same. If there
    is no memory for a piece beside what is recorded, a warning says so, and it and all further ones are computed
    (`given_up`), to the same bits. Raises `UserError` if the card cannot record a piece, after which PyTorch is not fit
    to go on.
    """

    def __init__(self, model, compute, scale):
        self.model, self.compute, self.scale, self.given_up = model, compute, scale, False
        self.parameters = list(trainable_parameters(model).values())
        self.sums = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.pieces: dict[tuple, Piece] = {}
        self.pool = None  # of memory, the first graph's

    def begin(self) -> None:
        """A new step: gradients of zero."""
        torch._foreach_zero_(self.sums)
        for parameter, total in zip(self.parameters, self.sums, strict=True):
            parameter.grad = total

    def add(self, rows: Sequence, indices: Sequence[int], prefix: int, labels: torch.Tensor, weights: torch.Tensor,
            total: float) -> torch.Tensor:
        """The piece's share of the step's loss, a scalar that is valid until the next piece.

        labels (R,) int64 and weights (R,) of the rows `indices`, on the CPU; total: what the step's sum is divided by.
        """
        batch = filled(rows, indices, prefix)
        more = len(batch.indices) - len(indices)
        asked = batch.layout.with_queries(self.model.asked(batch))
        found = [sequences(layout, torch.device("cpu")) for layout in (batch.layout, asked)]
        tensors = [batch.tokens, batch.positions, batch.answer_index, torch.cat([labels, labels.new_zeros(more)]),
                   torch.cat([weights, weights.new_zeros(more)]), weights.new_tensor(1 / total),
                   *(part for one in found for part in _parts(one))]
        bounds = [(_power(one.longest_q), _power(one.longest_k), one.causal, one.complete) for one in found]
        key = (prefix, *bounds, *((tensor.dtype, tensor.shape) for tensor in tensors))
        is_new = key not in self.pieces
        try:
            if is_new:
                self.pieces[key] = self._piece(batch, asked, found, bounds, tensors)
            piece = self.pieces[key]
            piece.inputs.fill(tensors)
            if is_new or self.given_up:
                return self._computed(piece)
            self._replay(piece)
            return piece.loss
        except torch.OutOfMemoryError:
            self.pieces.pop(key, None)
            if self.given_up or (is_new and self.pool is None):  # nothing is recorded: the piece itself is too large
                raise
        self._give_up()  # after the handler: the error, whose traceback holds the failed try's tensors, is gone
        return self.add(rows, indices, prefix, labels, weights, total)

    def _give_up(self) -> None:
        """Free what was recorded, and record no more."""
        warnings.warn("memory ran out while steps were recorded as CUDA graphs: they are computed launch after launch "
                      "from here on", stacklevel=3)
        self.given_up, self.pool = True, None
        self.pieces.clear()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _piece(self, batch, asked, found: list[Sequences], bounds, tensors) -> Piece:
        """Memory for a size, and a batch whose tensors, those of its layouts included, lie there."""
        inputs = Inputs(tensors, self.model.device)
        rest = iter(inputs.tensors[6:])
        for layout, one, (longest_q, longest_k, *_) in zip((batch.layout, asked), found, bounds, strict=True):
            parts = {name: next(rest) for name in PARTS if getattr(one, name) is not None}
            fixed = replace(one, longest_q=longest_q, longest_k=longest_k, **parts)
            layout.keep(("sequences", self.model.device), fixed)
        tokens, positions, answers = inputs.tensors[:3]
        return Piece(inputs, replace(batch, tokens=tokens, positions=positions, answer_index=answers))

    def _computed(self, piece: Piece) -> torch.Tensor:
        """Forward, backward, and the gradients' sums."""
        _, _, _, labels, weights, share, *_ = piece.inputs.tensors
        with cast_once(self.model, self.model.dtype):
            loss = self.compute(piece.batch, labels, weights) * share
            gradients = torch.autograd.grad(self.scale(loss), self.parameters)
        torch._foreach_add_(self.sums, gradients)
        return loss.detach()

    def _replay(self, piece: Piece) -> None:
        """Give the card a piece's graph, which is recorded first if there is none."""
        try:
            if piece.graph is None:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=self.pool):
                    piece.loss = self._computed(piece)
                piece.graph, self.pool = graph, self.pool or graph.pool()
            piece.graph.replay()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            said = one_line((str(error).splitlines() or [""])[0], 200)
            raise UserError(f"--graphs: a step could not be recorded on this card ({said}); go on with --resume "
                            "--graphs off") from error


def _parts(found: Sequences) -> list[torch.Tensor]:
    return [part for name in PARTS if (part := getattr(found, name)) is not None]


def _power(count: int) -> int:
    """The next power of two: kernels take a bound for the longest sequence, and a looser one costs nothing."""
    return 1 << max(0, count - 1).bit_length()

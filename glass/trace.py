"""One post on its way to a label, in stages: tokens, embedding, every layer, the label's probabilities.

    t = trace(run, "I came here as a child.")       run: what `inference.load_run` gives
    t.stages                                        in the order of computation
    t.layers[1].attention.weights                   (H, T, T)

The numbers are those of the run's own labelling: the post goes through `Labeller`, as in the programs, and what passes
by is recorded (`glass/record.py`). Three things are computed beside it, by the code shown with them: the attention's
scores and weights, since the fast path never holds them; the rotation's angles; and the labels' probabilities if
reading stopped after a layer (the logit lens, nostalgebraist 2020). The last layer computes the answer's row alone
(`Block.answer_hidden`), so its queries, weights and what it writes have one row.
"""

import torch

from common.device import as_loaded, best_threads
from common.errors import UserError
from common.packed import Layout
from data.cells import mend
from data.visible import is_empty
from glass.record import Attended, recording
from glass.source import code
from glass.stages import ANSWER, Stage, Step, Trace
from glass.tokens import tokens_of
from inference.labeller import Labeller
from model.attention import Attention, attend_softmax, visible
from model.layers import MLP, RMSNorm, swiglu
from model.llama import Block, LlamaForCausalLM, LlamaModel
from model.rope import inverse_frequencies, rotate, rotation


def trace(run, text: str, threads: int = 0) -> Trace:
    """Label `text` with `run` and keep every stage. Raises `UserError` for a text in which nothing can be seen,
    and for anything but a run.

    threads: CPU threads, of this and of what is computed for the trace later; 0 chooses by the model's size.
    """
    if not (hasattr(run, "model") and hasattr(run, "prompt")):
        raise UserError(f"run: is of type {type(run).__name__}; give what inference.load_run returns")
    text = readable(text)
    model, prompt = run.model, run.prompt
    row = prompt.encode(text)
    with best_threads(model.config, threads), as_loaded(model):
        with recording(model) as seen:
            probabilities = Labeller(model, prompt).give([row])()[0]
        return _Maker(run, text, row, seen, probabilities).trace(threads)


def readable(text, where: str = "text") -> str:
    """The post as the readers of files would give it. Raises `UserError` where nothing of it can be seen."""
    if not isinstance(text, str):
        raise UserError(f"{where}: is of type {type(text).__name__}; give a string")
    text = mend(text)
    if is_empty(text):
        raise UserError(f"{where}: nothing of it can be seen, so it has no label; give a post with words")
    return text


class _Maker:
    """Puts what was recorded into stages."""

    def __init__(self, run, text, row, seen, probabilities):
        self.model, self.prompt, self.seen, self.row = run.model, run.prompt, seen, row
        self.text, self.found = prompt_text(self.prompt, text, row), probabilities
        self.config, self.length = self.model.config, len(row.ids)
        self.label_ids = torch.tensor(self.prompt.label_ids, device=self.model.device)
        self.stages: list[Stage] = []

    def trace(self, threads: int) -> Trace:
        labels = self.prompt.codebook.labels
        self.begin()
        for layer in range(self.config.num_hidden_layers):
            self.layer(layer)
        self.end()
        named = dict(zip(labels, self.found.tolist(), strict=True))
        return Trace(self.text, self.row.cut, tokens_of(self.prompt, self.row.ids), labels[int(self.found.argmax())],
                     named, self.stages, self.model, self.prompt, threads=threads)

    def add(self, name, title, formula, tensors, code, *steps):
        # Clones: what is kept must not hold on to the memory of a whole batch, and a probe can learn from it.
        with torch.inference_mode(False):
            tensors = {key: tensor.detach().clone() for key, tensor in tensors.items()}
        self.stages.append(Stage(name, title, formula, tensors, code, steps))

    def rows(self, x: torch.Tensor, answer_only: bool = False) -> torch.Tensor:
        """Without what filled up the batch: the row's T tokens, or, in the last layer, the answer's one."""
        return x[: 1 if answer_only else self.length]

    def begin(self):
        model, config = self.model, self.config
        ids = torch.tensor(self.row.ids)
        positions = torch.arange(self.length)
        self.add("tokens", "Tokens", "ids = tokenizer(prompt with the post); the label is read at the last",
                 {"ids": ids, "positions": positions, "answer": torch.tensor(self.row.answer_index)},
                 (code(type(self.prompt).encode, "self._ids(text)"), code(type(self.prompt)._raw, "tokenizer.encode")))
        self.add("embedding", "Embedding", "x = E[ids]", {"x": self.rows(self.seen.outputs["model.embed_tokens"]).to(
            model.dtype)}, (code(LlamaModel.forward, "self.embed_tokens(tokens)"),),
            Step("rows", "embedding.x", ("weights.embedding_rows", "weights.embedding_ids", "tokens.ids")))
        frequencies = model.model.frequencies(model.device)
        cos, sin = rotation(positions.to(model.device), frequencies, model.dtype)
        scaling = config.rope_scaling
        settings = {"theta": config.rope_theta, "size": config.head_dim, "scaling": None if scaling is None else {
            name: getattr(scaling, name) for name in ("factor", "low_freq_factor", "high_freq_factor",
                                                      "original_max_position_embeddings")}}
        self.add("rotation", "Rotation", "angle = p f_i,  f_i = theta^(-2 i / h), slow ones stretched as in Llama 3",
                 {"frequencies": frequencies, "cos": cos, "sin": sin},
                 (code(inverse_frequencies, "1.0 / (config.rope_theta"), code(rotation, "angles =")),
                 Step("frequencies", "rotation.frequencies", (), settings),
                 Step("cosine", "rotation.cos", ("tokens.positions", "rotation.frequencies")),
                 Step("sine", "rotation.sin", ("tokens.positions", "rotation.frequencies")))

    def layer(self, number: int):
        name, module = f"layers.{number}", f"model.layers.{number}"
        last = number == self.config.num_hidden_layers - 1
        at = ANSWER if last else ""  # the last layer's rows, but for keys and values, are the answer's alone
        before = f"layers.{number - 1}.mlp.residual" if number else "embedding.x"
        whole = Block.answer_hidden if last else Block.forward
        self.norm(f"{name}.input_norm", "Norm before attention", f"{module}.input_layernorm", before,
                  code(whole, "self.input_layernorm(x)"), False)
        self.project(name, module, at)
        self.attention(f"{name}.attention", self.seen.attention[number], last)
        written = self.rows(self.seen.outputs[f"{module}.self_attn.o_proj"], last)
        residual = self.rows(self.seen.inputs[f"{module}.post_attention_layernorm"], last)
        self.add(f"{name}.attention_write", "Attention writes", "written = out W_o^T;  residual = x + written;  "
                 "size = |written|", {"written": written, "residual": residual, "size": length(written)},
                 (code(whole, "self_attn" if not last else "attention.o_proj", "residual=x"),
                  *(() if last else (code(Attention.forward, "self.o_proj("),))),
                 Step("linear", f"{name}.attention_write.written", (f"{name}.attention.out",),
                      {"linear": f"{module}.self_attn.o_proj"}),
                 Step("add", f"{name}.attention_write.residual", (before + at, f"{name}.attention_write.written")),
                 Step("length", f"{name}.attention_write.size", (f"{name}.attention_write.written",)))
        self.norm(f"{name}.mlp_norm", "Norm before the MLP", f"{module}.post_attention_layernorm",
                  f"{name}.attention_write.residual", code(whole, "self.post_attention_layernorm("), last)
        self.mlp(name, module, last, whole)
        self.lens(number)

    def norm(self, name, title, module, source, calling, answer_only):
        out = self.rows(self.seen.outputs[module], answer_only)
        self.add(name, title, "y = g x / sqrt(mean(x^2) + eps)", {"out": out},
                 (calling, code(RMSNorm.plain, "scale =", "return self.weight")),
                 Step("rms_norm", f"{name}.out", (source, f"weights.{module}"), {"eps": self.config.rms_norm_eps}))

    def project(self, name, module, at):
        attended = self.seen.attention[int(name.split(".")[1])]
        one = Attention.queries if at else Attention.forward
        two = Attention.keys_values if at else Attention.forward
        heads = {"q": self.config.num_attention_heads, "k": self.config.num_key_value_heads,
                 "v": self.config.num_key_value_heads}
        for short, title, formula, function in (
                ("q", "Queries", "q = rotate(x W_q^T)", one), ("k", "Keys", "k = rotate(x W_k^T)", two),
                ("v", "Values", "v = x W_v^T", two)):
            place = at if short == "q" else ""
            turned = () if short == "v" else (f"rotation.cos{place}", f"rotation.sin{place}")
            tensor = self.rows(getattr(attended, short), bool(place))
            self.add(f"{name}.{title.lower()}", title, formula, {short: tensor},
                     (code(function, f"self.{short}_proj"), *((code(rotate, "torch.cat"),) if turned else ())),
                     Step("heads", f"{name}.{title.lower()}.{short}", (f"{name}.input_norm.out{place}", *turned),
                          {"linear": f"{module}.self_attn.{short}_proj", "heads": heads[short]}))

    def attention(self, name, attended: Attended, last: bool):
        out = self.rows(attended.out, last)
        scores, weights = scores_and_weights(self.rows(attended.q, last), self.rows(attended.k))
        layer = name.removesuffix(".attention")
        self.add(name, "Attention", "scores = q k^T / sqrt(h), -inf for later tokens;  weights = softmax(scores);  "
                 "out = weights v", {"scores": scores, "weights": weights, "out": out},
                 (code(attend_softmax, "scores =", "weights =", "out.append"), code(visible, "return")),
                 Step("scores", f"{name}.scores", (f"{layer}.queries.q", f"{layer}.keys.k")),
                 Step("softmax", f"{name}.weights", (f"{name}.scores",)),
                 Step("mix", f"{name}.out", (f"{name}.weights", f"{layer}.values.v")))

    def mlp(self, name, module, last, whole):
        outputs, inputs = self.seen.outputs, self.seen.inputs
        gate, up, written = (self.rows(outputs[f"{module}.mlp.{part}_proj"], last) for part in ("gate", "up", "down"))
        number = int(name.split(".")[1])
        after = "model.norm" if last else f"model.layers.{number + 1}.input_layernorm"
        stage = f"{name}.mlp"
        self.add(stage, "The MLP writes", "product = silu(y W_gate^T) * (y W_up^T);  written = product W_down^T;  "
                 "residual = h + written;  size = |written|",
                 {"gate": gate, "up": up, "product": self.rows(inputs[f"{module}.mlp.down_proj"], last),
                  "written": written, "residual": self.rows(inputs[after], last), "size": length(written)},
                 (code(MLP.forward, "self.down_proj"), code(swiglu, "silu(gate)"), code(whole, "self.mlp(")),
                 *(Step("linear", f"{stage}.{part}", (f"{name}.mlp_norm.out",), {"linear": f"{module}.mlp.{part}_proj"})
                   for part in ("gate", "up")),
                 Step("swiglu", f"{stage}.product", (f"{stage}.gate", f"{stage}.up")),
                 Step("linear", f"{stage}.written", (f"{stage}.product",), {"linear": f"{module}.mlp.down_proj"}),
                 Step("add", f"{stage}.residual", (f"{name}.attention_write.residual", f"{stage}.written")),
                 Step("length", f"{stage}.size", (f"{stage}.written",)))

    def lens(self, number: int):
        name, source = f"layers.{number}.lens", f"layers.{number}.mlp.residual"
        residual = self.stages[-1].residual[-1:]  # (1, D): of the last layer, or of all tokens the last, the answer's
        hidden = self.model.model.norm(residual)
        logits = self.model.label_logits(hidden, self.label_ids)
        at = ANSWER if number < self.config.num_hidden_layers - 1 else ""
        self.add(name, "If reading stopped here", "probabilities = softmax(norm(residual) . rows of the labels)",
                 {"hidden": hidden, "logits": logits, "probabilities": logits.softmax(-1)},
                 (code(LlamaForCausalLM.label_logits, "return"), code(_Maker.lens, "hidden =", "logits =")),
                 Step("rms_norm", f"{name}.hidden", (source + at, "weights.model.norm"),
                      {"eps": self.config.rms_norm_eps}),
                 Step("dot", f"{name}.logits", (f"{name}.hidden", "weights.label_rows")),
                 Step("softmax", f"{name}.probabilities", (f"{name}.logits",)))

    def end(self):
        last = f"layers.{self.config.num_hidden_layers - 1}.mlp.residual"
        self.norm("final_norm", "Last norm", "model.norm", last, code(LlamaModel.forward, "return self.norm(x)"), True)
        logits = self.model.label_logits(self.stages[-1].out, self.label_ids)
        self.add("logits", "Dot products with the rows of the labels", "logit_c = hidden . E[label token c]",
                 {"logits": logits}, (code(LlamaForCausalLM.label_logits, "rows,", "return"),),
                 Step("dot", "logits.logits", ("final_norm.out", "weights.label_rows")))
        self.add("probabilities", "Probabilities of the labels", "p = softmax(logits) over the labels alone",
                 {"probabilities": torch.from_numpy(self.found)[None]}, (code(Labeller.give, "logits.softmax"),),
                 Step("softmax", "probabilities.probabilities", ("logits.logits",)))


def length(x: torch.Tensor) -> torch.Tensor:
    """Euclidean length of each row, in at least float32: (N, D) -> (N,)."""
    return torch.linalg.vector_norm(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)


def prompt_text(prompt, text: str, row) -> str:
    """The post as it went into the row: without its end if it was cut."""
    return prompt.shorten(text)[0] if row.cut else text


def scores_and_weights(q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`attend_softmax`'s scores and weights: (Q, H, h), (T, K, h) -> 2 x (H, Q, T), the last Q tokens of one row."""
    keys = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)  # (T, H, h)
    scores = torch.einsum("thd,shd->hts", q, keys) * q.shape[-1] ** -0.5  # (H, Q, T)
    seen = Layout.rectangle(1, len(k)).mask(len(q), len(k), q.device)
    scores = scores.masked_fill(~seen, float("-inf"))
    return scores, scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(q.dtype)

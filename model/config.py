"""A checkpoint's `config.json`, read strictly: every key is understood, known to be harmless, or an error.

Two dialects are in use. transformers 4 writes `rope_theta` beside `rope_scaling: {...}` and `torch_dtype`;
transformers 5 writes `rope_parameters: {rope_theta, rope_type, ...}` and `dtype`. Both are read; if a file holds both,
they must agree. A key that is neither understood nor on the list of harmless ones could change the mathematics, so it
is refused by name instead of dropped: a model that silently computes something else is worse than one that does not
load.
"""

from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.files import read_json

# Keys that record how a file was made, or concern generation or other libraries; none of them affects the logits.
_HARMLESS = {
    "architectures", "_name_or_path", "transformers_version", "use_cache", "initializer_range", "pad_token_id",
    "unk_token_id", "sep_token_id", "decoder_start_token_id", "bos_token", "eos_token", "unsloth_version",
    "unsloth_fixed", "_attn_implementation_autoset", "attn_implementation", "_attn_implementation", "torch_dtype",
    "dtype", "tokenizer_class", "task_specific_params", "output_attentions", "output_hidden_states", "return_dict",
    "id2label", "label2id", "problem_type", "finetuning_task", "is_decoder", "is_encoder_decoder", "model_max_length",
    "chunk_size_feed_forward", "prefix", "is_llama_config", "transformers.js_config", "auto_map", "_commit_hash",
    "base_model_name_or_path", "license", "torchscript", "max_sequence_length", "gradient_checkpointing",
    "_flash_attn_2_enabled", "keys_to_ignore_at_inference", "use_bfloat16", "tf_legacy_loss",
    "pretraining_tp",  # computes a product in slices: the same to rounding
    # How text is generated, which files of before generation_config.json hold, whatever the values:
    "max_length", "max_new_tokens", "min_length", "min_new_tokens", "do_sample", "early_stopping", "num_beams",
    "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff",
    "eta_cutoff", "repetition_penalty", "encoder_repetition_penalty", "length_penalty", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "output_scores", "output_logits",
    "return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values", "penalty_alpha",
    "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens", "renormalize_logits",
}  # fmt: skip
# Keys that would change the mathematics, with the only values that this block implements.
_FIXED = {
    "num_local_experts": (None,),
    "num_experts": (None,),
    "sliding_window": (None,),
    "use_sliding_window": (False,),
    "hidden_act": ("silu", "swish"),
    "attention_dropout": (0, 0.0),
    "rope_interleaved": (False,),
    "partial_rotary_factor": (1, 1.0),
    "add_cross_attention": (False,),
    "tie_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
    "cross_attention_hidden_size": (None,),
    "output_router_logits": (False,),
    "model_type": ("llama",),  # last: what makes another family's block another is the better answer
}
# Beyond any model's: what is built of such a size would fill memory, or time, before a tensor is looked at.
LARGEST = 2**24
_LARGEST = {"num_hidden_layers": 1000, "n_layers": 1000, "num_attention_heads": 2**13, "n_heads": 2**13,
            "num_key_value_heads": 2**13, "n_kv_heads": 2**13, "head_dim": 2**13, "max_position_embeddings": 2**40}
_DTYPES = ("float32", "float16", "bfloat16", "float64")
FULL = "full_attention"


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's scaling of the rotary frequencies; see `rope.inverse_frequencies` for the formula."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class LlamaConfig:
    """The numbers that define the decoder; names as in the checkpoint's `config.json`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-5  # Llama 3's; a file without the key means 1e-6, transformers' default
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    max_position_embeddings: int = 2048
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    bos_token_id: int | None = None
    eos_token_id: tuple[int, ...] = ()
    dtype: str | None = None  # the dtype that the file gives for its weights
    quantization: dict | None = None  # `quantization_config` unchanged, for the loader

    @classmethod
    def from_file(cls, path: str | Path, rope_scaling: dict | None = None) -> "LlamaConfig":
        """Read `config.json` at `path`; `rope_scaling` is used only if the file has none. Raises `UserError`."""
        raw = read_json(path)
        if not isinstance(raw, dict):
            raise UserError(f"{path}: holds a {type(raw).__name__}; a config.json is one object with keys")
        return cls.from_dict(raw, str(path), rope_scaling)

    @classmethod
    def from_dict(cls, raw: dict, where: str = "config", rope_scaling: dict | None = None) -> "LlamaConfig":
        """Check every key of `raw`; errors begin with `where` and name the key."""
        read = Reader(raw, where)
        for key, allowed in _FIXED.items():
            if raw.get(key, allowed[0]) not in allowed:
                raise UserError(f"{where}: {key}: {raw[key]!r} is not supported; this is the Llama block with {key} "
                                f"= {allowed[0]!r}")
        if "model_type" not in raw:
            raise UserError(f"{where}: model_type is missing; 'llama' was expected")
        hidden = read.integer("hidden_size")
        heads = read.integer("num_attention_heads")
        kv_heads = read.integer("num_key_value_heads", heads)
        if raw.get("head_dim") is None and hidden % heads:
            raise UserError(f"{where}: hidden_size {hidden} is not a multiple of num_attention_heads {heads}, and "
                            "there is no head_dim")
        head_dim = read.integer("head_dim", hidden // heads)
        if heads % kv_heads:
            raise UserError(f"{where}: num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
        if head_dim % 2:
            raise UserError(f"{where}: head_dim {head_dim} is odd; rotary embedding rotates pairs")
        theta, scaling = read.rope(rope_scaling)
        layers = read.integer("num_hidden_layers")
        read.layer_types(layers)
        config = cls(
            vocab_size=read.integer("vocab_size"), hidden_size=hidden,
            intermediate_size=read.integer("intermediate_size"), num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim,
            rms_norm_eps=read.number("rms_norm_eps", 1e-6), rope_theta=theta, rope_scaling=scaling,
            max_position_embeddings=read.integer("max_position_embeddings", 2048),
            tie_word_embeddings=read.boolean("tie_word_embeddings", False),
            attention_bias=read.boolean("attention_bias", False), mlp_bias=read.boolean("mlp_bias", False),
            bos_token_id=next(iter(read.token_ids("bos_token_id")), None),
            eos_token_id=read.token_ids("eos_token_id"), dtype=read.dtype(), quantization=read.quantization(),
        )  # fmt: skip
        unknown = sorted(set(raw) - read.used - _HARMLESS - set(_FIXED))
        if unknown:
            raise UserError(f"{where}: unknown key '{unknown[0]}': it might change the mathematics, so it is not "
                            "ignored; remove it from the file if you know that it does not")
        return config

    @property
    def linear_weights(self) -> int:
        """Weights of the layers' linears, with each of which every token is multiplied: L D (h (2 H + 2 K) + 3 F)."""
        heads = 2 * (self.num_attention_heads + self.num_key_value_heads)  # queries and output, keys and values
        return self.num_hidden_layers * self.hidden_size * (heads * self.head_dim + 3 * self.intermediate_size)

    def to_dict(self) -> dict:
        """The same numbers as a transformers 4 `config.json`, which every reader understands."""
        scaling = self.rope_scaling
        return {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "vocab_size": self.vocab_size, "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size, "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads, "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim, "rms_norm_eps": self.rms_norm_eps, "rope_theta": self.rope_theta,
            "rope_scaling": None if scaling is None else {"rope_type": "llama3", **vars(scaling)},
            "max_position_embeddings": self.max_position_embeddings, "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": self.attention_bias, "mlp_bias": self.mlp_bias, "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id[0] if len(self.eos_token_id) == 1 else list(self.eos_token_id) or None,
            "torch_dtype": self.dtype or "float32",
        }  # fmt: skip


class Reader:
    """Takes typed values out of the raw object and remembers which keys it has understood."""

    def __init__(self, raw: dict, where: str):
        self.raw, self.where, self.used = raw, where, set()

    def _value(self, key: str, default):
        self.used.add(key)
        value = self.raw.get(key)
        if value is None and default is None:
            raise UserError(f"{self.where}: {key} is missing")
        return default if value is None else value

    def integer(self, key: str, default: int | None = None) -> int:
        return self._whole(key, self._value(key, default), _LARGEST.get(key, LARGEST))

    def number(self, key: str, default: float | None) -> float:
        return self._positive(key, self._value(key, default))

    def _whole(self, name: str, value, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{self.where}: {name}: {value!r} is not a whole number above 0")
        if value > most:
            raise UserError(f"{self.where}: {name}: {value:,} is beyond any model's; at most {most:,} is read")
        return value

    def _positive(self, name: str, value) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise UserError(f"{self.where}: {name}: {value!r} is not a number above 0")
        return float(value)

    def boolean(self, key: str, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise UserError(f"{self.where}: {key}: {value!r} is not true or false")
        return value

    def token_ids(self, key: str) -> tuple[int, ...]:
        self.used.add(key)
        value = self.raw.get(key)
        ids = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
            raise UserError(f"{self.where}: {key}: {value!r} is not a token id or a list of them")
        return tuple(ids)

    def layer_types(self, layers: int) -> None:
        """A kind of attention for each layer: the file may say it, where it is the full one everywhere."""
        self.used.add("layer_types")
        value = self.raw.get("layer_types")
        if value is None:
            return
        others = [kind for kind in value if kind != FULL] if isinstance(value, list) else [value]
        if others:
            raise UserError(f"{self.where}: layer_types: {others[0]!r} is not supported; every layer here is {FULL}")
        if len(value) != layers:
            raise UserError(f"{self.where}: layer_types has {len(value)} layers, num_hidden_layers {layers}; one of "
                            "the two is wrong")

    def dtype(self) -> str | None:
        names = {str(self.raw[key]).removeprefix("torch.") for key in ("dtype", "torch_dtype") if self.raw.get(key)}
        if len(names) > 1:
            raise UserError(f"{self.where}: dtype and torch_dtype disagree: {' and '.join(sorted(names))}")
        for name in names:
            if name not in _DTYPES:
                raise UserError(f"{self.where}: dtype: '{name}' is not one of {', '.join(_DTYPES)}")
        return next(iter(names), None)

    def quantization(self) -> dict | None:
        self.used |= {"quantization_config", "quantization"}
        if self.raw.get("quantization") is not None:
            raise UserError(f"{self.where}: quantization: its weights are packed as MLX packs them, which is not read; "
                            "give the 16-bit model, or one in bitsandbytes' 4 bits (NF4)")
        value = self.raw.get("quantization_config")
        if value is not None and not isinstance(value, dict):
            raise UserError(f"{self.where}: quantization_config: {value!r} is not an object")
        return value

    def rope(self, given: dict | None) -> tuple[float, RopeScaling | None]:
        """theta and scaling from either dialect; the scaling from `given` if the file has none."""
        self.used |= {"rope_theta", "rope_scaling", "rope_parameters"}
        old, new = self.raw.get("rope_scaling"), self.raw.get("rope_parameters")
        for key, value in (("rope_scaling", old), ("rope_parameters", new)):
            if value is not None and not isinstance(value, dict):
                raise UserError(f"{self.where}: {key}: {value!r} is not an object")
        written = [self._positive("rope_theta", source["rope_theta"]) for source in (self.raw, old or {}, new or {})
                   if source.get("rope_theta") is not None]
        if len(set(written)) > 1:
            raise UserError(f"{self.where}: rope_theta occurs twice, with different values: {sorted(written)}")
        theta = written[0] if written else 10000.0
        found = [self._scaling(key, value) for key, value in (("rope_scaling", old), ("rope_parameters", new)) if value]
        if len(found) == 2 and found[0] != found[1]:
            raise UserError(f"{self.where}: rope_scaling and rope_parameters disagree; keep the one that is right")
        scaling = found[0] if found else None
        if scaling is None and given is not None:
            scaling = self._scaling("rope_scaling (given by the caller)", given)
        return theta, scaling

    def _scaling(self, key: str, value: dict) -> RopeScaling | None:
        kinds = {str(value[name]) for name in ("rope_type", "type") if name in value}
        if len(kinds) > 1:
            raise UserError(f"{self.where}: {key}: rope_type and type disagree")
        kind = kinds.pop() if kinds else "default"
        rest = {k: v for k, v in value.items() if k not in ("rope_type", "type", "rope_theta")}
        if kind not in ("default", "llama3"):
            raise UserError(f"{self.where}: {key}: rope_type '{kind}' is not supported; default and llama3 are")
        names = list(RopeScaling.__dataclass_fields__) if kind == "llama3" else []
        if kind == "default" and rest.get("partial_rotary_factor") == 1.0:
            rest.pop("partial_rotary_factor")
        for name in rest:
            if name not in names:
                raise UserError(f"{self.where}: {key}: unknown key '{name}' for rope_type '{kind}'")
        if kind == "default":
            return None
        *numbers, window = names
        factor, low, high = (self._positive(f"{key}: {name}", rest.get(name)) for name in numbers)
        if high <= low:
            raise UserError(f"{self.where}: {key}: high_freq_factor must be above low_freq_factor")
        return RopeScaling(factor, low, high, self._whole(f"{key}: {window}", rest.get(window),
                                                          _LARGEST["max_position_embeddings"]))

"""The same model for transformers and peft, built from ours in memory: no checkpoint is written, no weight differs."""

import torch

from lora.inject import adapters, replace, trainable_parameters


def peer(ours, in_four_bits: bool = False):
    """transformers' model with the very weights of `ours`, and peft's adapter with its values on the same linears.

    What is not in 4 bits shares its memory with ours; the adapter is a copy. In 16 bits, `ours` in NF4 is dequantised.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig as TheirConfig
    from transformers import LlamaForCausalLM as Theirs
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config, scaling = ours.config, ours.config.rope_scaling
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if scaling is not None:
        rope |= {"rope_type": "llama3", "factor": scaling.factor, "low_freq_factor": scaling.low_freq_factor,
                 "high_freq_factor": scaling.high_freq_factor,
                 "original_max_position_embeddings": scaling.original_max_position_embeddings}
    theirs = TheirConfig(
        hidden_size=config.hidden_size, intermediate_size=config.intermediate_size, vocab_size=config.vocab_size,
        num_hidden_layers=config.num_hidden_layers, num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads, head_dim=config.head_dim, rms_norm_eps=config.rms_norm_eps,
        max_position_embeddings=config.max_position_embeddings, rope_parameters=rope,
        tie_word_embeddings=config.tie_word_embeddings, attn_implementation="sdpa", dtype=ours.dtype,
        bos_token_id=1, eos_token_id=2)  # fmt: skip
    with torch.device("meta"):
        model = Theirs(theirs)
    model.model.rotary_emb = LlamaRotaryEmbedding(theirs).to(ours.device)
    for name, module in dict(ours.named_modules()).items():
        if name.endswith(".base"):
            continue
        if hasattr(module, "lora_A"):
            replace(model, name, linear(module.base, ours.dtype, in_four_bits))
        elif isinstance(getattr(module, "weight", None), torch.nn.Parameter):
            weight = module.weight.data if module is not ours.model.embed_tokens else module.weight.data.to(ours.dtype)
            model.get_submodule(name).weight = torch.nn.Parameter(weight, requires_grad=False)
    model.tie_weights()
    model.is_loaded_in_4bit = in_four_bits
    own = adapters(ours)
    first = next(iter(own.values()))
    model = get_peft_model(model, LoraConfig(r=first.r, lora_alpha=first.alpha, use_rslora=first.rslora,
                                             target_modules=list(own), lora_dropout=0.0, task_type="CAUSAL_LM"))
    start = trainable_parameters(ours)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            plain = name.removeprefix("base_model.model.").replace(".default.weight", "")
            parameter.data = start[plain].detach().clone().to(ours.device)
    return model


def linear(base, dtype: torch.dtype, in_four_bits: bool) -> torch.nn.Module:
    """bitsandbytes' layer over the same bytes and scales, or a dense one over what they stand for."""
    shape = (base.out_features, base.in_features)
    if not in_four_bits:
        with torch.device("meta"):
            dense = torch.nn.Linear(base.in_features, base.out_features, bias=False)
        dense.weight = torch.nn.Parameter(base.dense_weight(dtype), requires_grad=False)
        return dense
    from bitsandbytes.functional import QuantState, get_4bit_type
    from bitsandbytes.nn import Linear4bit, Params4bit

    quant_state = QuantState(absmax=base.absmax, shape=torch.Size(shape), dtype=dtype, blocksize=64, quant_type="nf4",
                             code=get_4bit_type("nf4", device=base.packed.device, blocksize=64))
    with torch.device("meta"):
        layer = Linear4bit(base.in_features, base.out_features, bias=False, compute_dtype=dtype, quant_type="nf4")
    layer.weight = Params4bit(base.packed.view(-1, 1), requires_grad=False, quant_state=quant_state, blocksize=64,
                              quant_type="nf4", bnb_quantized=True)
    layer.weight.module = layer
    layer.quant_state = quant_state
    return layer

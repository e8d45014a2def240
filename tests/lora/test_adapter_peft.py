"""Adapters of PEFT's own making: which modules a config means, and what is refused in words that lead on.

Deliberate break: let `AdapterConfig._excluded` read a string as a list of one, or let `AdapterConfig.modules` narrow
whole names by their layer's number; the drawn configs turn red.
"""

import random

import pytest

from common.errors import UserError
from lora.adapter import AdapterConfig, load_adapter
from lora.inject import adapters, linears
from tests.small import random_model
from tests.tiny import reference_model

peft = pytest.importorskip("peft")
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture
def model():
    return random_model(vocab_size=131, hidden_size=48, num_hidden_layers=3)


def test_which_modules_is_what_peft_says(model):
    """Drawn configs, module by module, beside PEFT's own function; what it refuses to build is not asked."""
    from peft.tuners.tuners_utils import check_target_module_exists

    names, draw = list(linears(model)), random.Random(5)
    lists = [ALL, ["q_proj", "v_proj"], ["self_attn.k_proj", "model.layers.1.mlp.up_proj"], ["proj"], ["1.mlp.up_proj"]]
    words = ["k_proj", "model.layers.0.mlp.up_proj", r".*layers\.[02]\..*", r".*k_proj", "layers.1", r".*\.(k|o)_proj",
             r"model\.layers\.1\.self_attn", "all-linear", "model.layers.[01].mlp.up_proj", ""]
    seen = set()
    for _ in range(300):
        targets = draw.choice([*lists, r".*(q|up)_proj", r".*layers\.1.*proj"])
        exclude = draw.choice([None, draw.choice(words), draw.sample(words, 2), [draw.choice(words)]])
        layers = draw.choice([None, None, 1, [0, 2], []]) if isinstance(targets, list) else None
        pattern = draw.choice([None, "layers", ["h", "layers"], ["h"]]) if layers not in (None, []) else None
        theirs = peft.LoraConfig(target_modules=targets, exclude_modules=exclude, layers_to_transform=layers,
                                 layers_pattern=pattern)
        right = [name for name in names if check_target_module_exists(theirs, name)]
        layers, pattern = ([value] if isinstance(value, int | str) else value or () for value in (layers, pattern))
        ours = AdapterConfig(8, 8.0, 0.0, targets, exclude=exclude or (), layers=layers, layers_pattern=pattern)
        assert ours.modules(names) == right, (theirs.target_modules, exclude, layers, pattern)
        seen.add(tuple(right))
    assert len(seen) > 15


def save_theirs(folder, rows=131, save_embedding_layers=True, **settings):
    """An adapter that PEFT made beside a base of `rows` tokens."""
    base = reference_model(tie_word_embeddings=False)
    base.resize_token_embeddings(rows)
    config = peft.LoraConfig(**({"target_modules": ["q_proj"], "task_type": "CAUSAL_LM"} | settings))
    peft.get_peft_model(base, config).save_pretrained(folder, save_embedding_layers=save_embedding_layers)


MERGE = "let PEFT merge the adapter into its base (merge_and_unload)"
WITH_EMBEDDINGS = {
    "lm_head.weight is the output head of a changed vocabulary, (140, 48) where the model has 131": dict(rows=140),
    "lm_head.weight is the output head, saved whole with the adapter, which is not read; if it was not": {},
    "modules_to_save = ['lm_head', 'embed_tokens']: the adapter brings these modules whole": dict(
        modules_to_save=["lm_head", "embed_tokens"]),
    "trainable_token_indices = [5]: the adapter brings rows of the embedding": dict(trainable_token_indices=[5]),
    "adapts the output head, which is not read": dict(target_modules=["q_proj", "lm_head"],
                                                      save_embedding_layers=False),
    "lora_embedding_A adapts the embedding, which": dict(target_modules=["q_proj", "embed_tokens"],
                                                         save_embedding_layers=False),
    "use_dora = True is not supported": dict(use_dora=True),
}


@pytest.mark.parametrize("message", WITH_EMBEDDINGS)
def test_adapters_with_more_than_linears_are_refused_in_words_that_lead_on(model, tmp_path, message):
    save_theirs(tmp_path / "a", **WITH_EMBEDDINGS[message])
    with pytest.raises(UserError) as caught:
        load_adapter(model, tmp_path / "a")
    assert message in str(caught.value) and MERGE in str(caught.value) and not adapters(model)

"""The memory estimate against the peak that a fine-tune really takes, in processes of their own, on random weights.

Deliberate break: in `finetune/memory.py` leave the norms' inputs (`2 * size * wide`) out, or count a full piece instead
of the one that the posts make (`full = Piece(tokens)`); the slow cases turn red, the second also in the short one.
"""

import sys

import pytest

from tests.finetune.measured import measure

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")

WITHIN = 0.25
SMOLLM2 = dict(model_type="llama", vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
               num_attention_heads=9, num_key_value_heads=3, head_dim=64, tie_word_embeddings=True)
LLAMA_1B = dict(model_type="llama", vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=4,
                num_attention_heads=32, num_key_value_heads=8, head_dim=64, tie_word_embeddings=True)  # of 16 layers
TINY = dict(model_type="llama", vocab_size=2000, hidden_size=256, intermediate_size=1024, num_hidden_layers=6,
            num_attention_heads=4, num_key_value_heads=2, head_dim=64, tie_word_embeddings=True)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [SMOLLM2, LLAMA_1B], ids=["SmolLM2", "Llama 3.2-1B, 4 layers"])
@pytest.mark.parametrize(("dtype", "quantize", "posts", "checkpointing"), [
    ("bfloat16", "none", 16, False), ("float32", "none", 24, False),
    ("bfloat16", "nf4", 24, False), ("float32", "nf4", 16, True),
])
def test_the_estimate_is_within_a_quarter_of_the_peak(layout, dtype, quantize, posts, checkpointing):
    found = measure(config=layout, dtype=dtype, quantize=quantize, posts=posts, micro_tokens=8192,
                    checkpointing=checkpointing)
    assert (1 - WITHIN) * found["peak"] < found["expected"] < (1 + WITHIN) * found["peak"], found
    assert found["before"] == found["expected"]  # what a choice is made by, before anything is loaded


def test_the_estimate_of_a_tiny_layout():
    found = measure(config=TINY, dtype="float32", quantize="none", posts=24, micro_tokens=8192, checkpointing=False)
    assert (1 - WITHIN) * found["peak"] < found["expected"] < (1 + WITHIN) * found["peak"], found
    assert found["before"] == found["expected"] and found["plan"]["tokens"] < 2500

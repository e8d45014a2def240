"""Checks of chapter 2: what `model/rope.py` gives is right."""

import math

import torch

from learn.check import Task, Wrong
from model.config import LlamaConfig
from model.rope import inverse_frequencies, rotate, rotation

LLAMA = {"model_type": "llama", "vocab_size": 8, "hidden_size": 128, "intermediate_size": 8, "num_hidden_layers": 1,
         "num_attention_heads": 1}
KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def trials_rotate() -> list[tuple]:
    draw = torch.Generator().manual_seed(2)
    return [(torch.randn(h, generator=draw), position, 100.0 ** -(torch.arange(h // 2) / (h // 2)))
            for h, position in ((8, 3), (6, 1), (4, 11), (8, 0))]


def right_rotate(x, position, frequencies):
    return rotate(x.view(1, 1, -1), rotation(torch.tensor([position]), frequencies, torch.float32)).view(-1)


def turned(x, angle):
    first, second = x.chunk(2)
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()])


def neighbours(x, position, frequencies):
    pairs = turned(torch.cat([x[0::2], x[1::2]]), position * frequencies)
    return torch.stack(pairs.chunk(2), dim=1).view(-1)


def woven(x, position, frequencies):
    return torch.stack(turned(x, position * frequencies).chunk(2), dim=1).view(-1)


def in_degrees(x, position, frequencies):
    return turned(x, position * frequencies * math.pi / 180)


def mirrored(x, position, frequencies):
    angle, (first, second) = position * frequencies, x.chunk(2)
    return torch.cat([first * angle.cos() + second * angle.sin(), second * angle.cos() + first * angle.sin()])


def one_after_the_other(x, position, frequencies):
    angle, (first, second) = position * frequencies, x.chunk(2)
    first = first * angle.cos() - second * angle.sin()
    return torch.cat([first, second * angle.cos() + first * angle.sin()])


def exchanged(x, position, frequencies):
    angle, (first, second) = position * frequencies, x.chunk(2)
    return torch.cat([first * angle.sin() - second * angle.cos(), second * angle.sin() + first * angle.cos()])


def trials_scaled() -> list[tuple]:
    given = (32.0, 1.0, 4.0, 8192), (8.0, 2.0, 5.0, 64)
    return [(10.0 ** -(power / 4), *scaling) for scaling in given for power in range(20)]


def right_scaled(f, *scaling):
    """The project's own function, made to meet this frequency: pair 1 of a head of four has f = theta^(-1/2)."""
    config = LlamaConfig.from_dict(LLAMA | {"head_dim": 4, "rope_theta": max(f, 1e-9) ** -2, "rope_scaling": {
        "rope_type": "llama3"} | dict(zip(KEYS, scaling, strict=True))})
    return float(inverse_frequencies(config)[1])


def share(f, low, high, window):
    return min(1.0, max(0.0, (window * f / (2 * math.pi) - low) / (high - low)))


def share_of_wavelength(f, low, high, window):
    """The share if one goes over in a straight line between wavelengths, not between how often a pair comes round."""
    longest, shortest, own = window / low, window / high, 2 * math.pi / f
    return min(1.0, max(0.0, (longest - own) / (longest - shortest)))


def swapped_share(*given):
    inside = share(*given)
    return 1 - inside if 0 < inside < 1 else inside


def blend(f, factor, part):
    return part * f + (1 - part) * f / factor


TASKS = (
    Task("rotate_vector", trials_rotate, right_rotate, (
        Wrong(woven, "the pairs are turned rightly, but the two numbers of each come back side by side; they belong "
                     "where they came from, at i and i + h / 2"),
        Wrong(neighbours, "neighbours are paired, (0, 1), (2, 3) and so on. That is the order in Meta's own files; "
                          "here number i goes with number i + h / 2"),
        Wrong(lambda x, position, f: turned(x, -position * f),
              "the vector is turned the other way round: the signs of the two sines are exchanged"),
        Wrong(lambda x, position, f: turned(x, f), "every position turns by the same angle; multiply by the position"),
        Wrong(lambda x, position, f: turned(x, (position + 1) * f),
              "the vector is turned one position too far. Positions are counted from 0, and there nothing turns"),
        Wrong(lambda x, position, f: turned(x, (position - 1) * f),
              "the vector is turned one position too little; at position 1 it is turned once already"),
        Wrong(lambda x, position, f: turned(x, position / f),
              "the angle is the position divided by the frequency; it is the product of the two"),
        Wrong(in_degrees, "the angles are taken as degrees; these are radians, as sine and cosine want them"),
        Wrong(one_after_the_other, "the second number of a pair is made from the first one's new value; keep the old "
                                   "value until both are made"),
        Wrong(exchanged, "sine and cosine are exchanged: at position 0, where nothing turns, the cosine is 1"),
        Wrong(mirrored, "both sines have a plus. Then lengths change: in one of the two numbers it has to be a minus"),
        Wrong(lambda x, position, f: x, "nothing is turned: this is the vector as it came"),
    ), tolerance=1e-5),
    Task("scaled_frequency", trials_scaled, right_scaled, (
        Wrong(lambda f, factor, low, high, window: f / factor,
              "all pairs are slowed. The fast ones have to stay, or near neighbours can no longer be told apart"),
        Wrong(lambda f, factor, low, high, window: blend(f, factor, float(window * f / (2 * math.pi) > high)),
              "between `low` and `high` nothing goes over smoothly: pairs there are slowed by the whole factor"),
        Wrong(lambda f, factor, low, high, window: blend(f, factor, float(window * f / (2 * math.pi) >= low)),
              "between `low` and `high` nothing goes over smoothly: pairs there stay as they are"),
        Wrong(lambda f, factor, low, high, window: blend(f, factor, 1 - share(f, low, high, window)),
              "fast and slow are exchanged: the fast pairs are slowed and the slow ones stay"),
        Wrong(lambda f, factor, low, high, window: blend(f, factor, swapped_share(f, low, high, window)),
              "fast and slow pairs are right, but between `low` and `high` the mixture is the wrong way round: near "
              "`high` the pair has to be almost as it was"),
        Wrong(lambda f, factor, low, high, window: blend(f, factor, share_of_wavelength(f, low, high, window)),
              "between `low` and `high` the line is straight in the wavelength. It has to be straight in how often a "
              "pair comes round, which is the window divided by the wavelength"),
        Wrong(lambda f, factor, low, high, window: blend(f, 1 / factor, share(f, low, high, window)),
              "the slow pairs are multiplied by the factor, so they become faster; divide by it"),
        Wrong(lambda f, factor, low, high, window: blend(f, factor, share(2 * math.pi * f, low, high, window)),
              "how often a pair comes round is the window times f, divided by a full circle, 2 pi; the circle is "
              "missing"),
    ), tolerance=1e-6),
)

"""Figures of small languages, partially pooled: the fewer rows a language has, the more it is drawn to the mean.

With 25 rows a language's accuracy is uncertain by 19 points, and the best and the worst of a dozen such languages are
mostly a matter of luck. A model of all languages at once estimates how much they differ beyond luck, and from that each
language's figure. The raw figure is always given beside the pooled one.

Rates (accuracy, recall, specificity) follow a beta-binomial model. Language i has k_i of n_i right,

    k_i ~ Binomial(n_i, p_i),    p_i ~ Beta(m c, (1 - m) c),    m uniform on (0, 1), c^(-1/2) uniform on (0, 1),

the hyperprior of Gelman et al., Bayesian Data Analysis, 3rd edition, section 5.3, cut at c = 1. It was chosen over a
normal model of logits because 25 of 25 has no logit but needs no correction here, and because everything has a closed
form given (m, c): E[p_i] = (k_i + m c) / (n_i + c). m and c are summed out over a grid, not set to their likeliest
values: with a dozen languages the likeliest spread is often exactly zero, which would make all languages equal with
certainty.

Other figures (F1) follow the normal model with known variances v_i, from the bootstrap over clusters:

    y_i ~ Normal(theta_i, v_i),    theta_i ~ Normal(mu, tau^2),    mu and tau uniform

(the same book, section 5.4; uniform in tau after Gelman 2006, Bayesian Analysis 1, 515-533), theta_i within [0, 1].
If every row of a cell is right, its bootstrap has no spread; its variance is then that of a rate with two right and two
wrong rows added (Agresti and Coull 1998, The American Statistician 52, 119-126).

For rates, k_i and n_i are as many as the language's rows are worth where some belong together (report/clusters.py), as
in Wilson's interval; the bootstrap draws clusters. The languages are taken as exchangeable: before seeing the data,
none is expected to be better than another. All sums are on fixed grids in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, pi, prod

import numpy

from report.clusters import worth_of
from report.counts import views
from report.intervals import LEVEL, percentiles, wilson
from stats.corrected import are_alike
from stats.predictions import QUESTIONS, Predictions, figure_of, resampled

FEWEST = 3  # with fewer languages, nothing can be estimated about how languages differ
MEANS, SPREADS = (numpy.arange(100) + 0.5) / 100, (numpy.arange(60) + 0.5) / 60  # m, and c^(-1/2)
TAUS = (numpy.arange(400) + 0.5) / 800  # a figure within [0, 1] has a standard deviation of at most 1/2
LOGITS = numpy.linspace(-12, 12, 1201)
UNIT = numpy.linspace(0, 1, 2001)


@dataclass(frozen=True)
class Pooled:
    """G pooled figures: value, low, high, kept (G,) float64; the languages' mean and standard deviation.

    `kept`: the weight of the raw figure in the pooled one, near 1 with many rows and near 0 with few. `centre` and
    `spread` are (median, low, high) of the languages' mean and of their standard deviation beyond luck.
    """

    value: numpy.ndarray
    low: numpy.ndarray
    high: numpy.ndarray
    kept: numpy.ndarray
    centre: tuple[float, float, float]
    spread: tuple[float, float, float]


def pool_rates(right: Sequence[float], rows: Sequence[float], level: float = LEVEL) -> Pooled:
    """The beta-binomial model for `right` of `rows` in each of G >= 3 languages, with posterior intervals."""
    k, n = (numpy.asarray(x, dtype=numpy.float64)[:, None] for x in (right, rows))
    m, c = (axis.ravel() for axis in numpy.meshgrid(MEANS, SPREADS**-2.0, indexing="ij"))
    best = _x_log_x(k) + _x_log_x(n - k) - _x_log_x(n)  # the highest possible log likelihood: keeps exp() in range
    marginal = _log_beta(k + m * c, n - k + (1 - m) * c) - _log_beta(m * c, (1 - m) * c) - best  # (G, grid)
    weight = _weights(marginal.sum(0))
    held = weight > 1e-7 * weight.max()
    m, c, weight, marginal = m[held], c[held], weight[held], marginal[:, held]
    log_p, log_q = -numpy.logaddexp(0, -LOGITS), -numpy.logaddexp(0, LOGITS)
    a, b = (m * c)[:, None], ((1 - m) * c)[:, None]
    prior = numpy.exp(a * log_p + b * log_q - _log_beta(a, b))  # (grid, X): density of the logit given m and c
    density = numpy.exp(k * log_p + (n - k) * log_q - best) * ((weight * numpy.exp(-marginal)) @ prior)
    low, high = _quantiles(density, LOGITS, level)
    return Pooled(((k + m * c) / (n + c)) @ weight, _expit(low), _expit(high), (n / (n + c)) @ weight,
                  _three(m, weight, level), _three(numpy.sqrt(m * (1 - m) / (c + 1)), weight, level))


def pool_values(values: Sequence[float], variances: Sequence[float]) -> Pooled:
    """The normal model for figures within [0, 1] of G >= 3 languages and their sampling variances, all above 0."""
    y, v = (numpy.asarray(x, dtype=numpy.float64)[:, None] for x in (values, variances))
    total = v + TAUS**2  # (G, T)
    mean_variance = 1 / (1 / total).sum(0)
    mu = (y / total).sum(0) * mean_variance
    weight = _weights((numpy.log(mean_variance) - numpy.log(total).sum(0) - ((y - mu) ** 2 / total).sum(0)) / 2)
    kept = TAUS**2 / total
    middle, variance = kept * y + (1 - kept) * mu, kept * v + (1 - kept) ** 2 * mean_variance  # (G, T)
    density = numpy.stack([(w * numpy.exp(-((UNIT[:, None] - t) ** 2) / (2 * s)) / numpy.sqrt(s)).sum(1)
                           for t, s, w in zip(middle, variance, [weight] * len(y), strict=True)])
    low, high = _quantiles(density, UNIT, LEVEL)
    centre = (weight * numpy.exp(-((UNIT[:, None] - mu) ** 2) / (2 * mean_variance)) / numpy.sqrt(mean_variance)).sum(1)
    return Pooled(density @ UNIT / density.sum(1), low, high, kept @ weight,
                  _three(UNIT, centre / centre.sum(), LEVEL), _three(TAUS, weight, LEVEL))


def partially_pooled(model: Predictions, figure: str, languages: Sequence[str] | None = None,
                     draws: int = 10_000, seed: int = 0) -> tuple[list[dict], Pooled | None]:
    """Each language's figure, raw and pooled, as rows of a table; and the `Pooled`, None with fewer than 3 languages.

    A row: language, n (rows that count), small, raw, raw_low, raw_high (Wilson, or bootstrap for an F1), pooled, low,
    high, kept; None for what cannot be estimated. `draws` and `seed` are for the bootstrap. Raises `UserError` for an
    unknown figure.
    """
    rows, table, pairs = model.rows, [], []
    languages = list(languages or rows.languages)
    drawn = None if _is_rate(figure) else _bootstrap(model, figure, languages, draws, seed)
    for code in languages:
        chosen = rows.language == code
        counts = model.counts(chosen)
        raw = float(figure_of(figure, counts, rows.grouping))
        line = dict.fromkeys(("raw", "raw_low", "raw_high", "pooled", "low", "high", "kept"))
        table.append({"language": code, "n": int(chosen.sum()), "small": bool(rows.is_small(chosen)), **line})
        if numpy.isnan(raw):
            continue
        if drawn is None:
            hits, counted = rate_counts(figure, counts_of_rows(model, chosen), rows.grouping)
            inside = counted > 0
            pair = worth_of(hits[inside], rows.clusters[chosen][inside])
            table[-1]["n"], (low, high) = int(counted.sum()), wilson(*pair)
        else:
            values, n = drawn[code][~numpy.isnan(drawn[code])], table[-1]["n"]
            low, high = percentiles(values[:, None])[:, 0].tolist()
            varies = len(values) > 0 and not are_alike(values)  # else one cluster, or none that is wrong: no interval
            low, high = (low, high) if varies else (None, None)
            pair = (raw, values.var() if varies else (raw * n + 2) * ((1 - raw) * n + 2) / (n + 4) ** 3)
        table[-1].update(raw=raw, raw_low=low, raw_high=high)
        pairs.append((table[-1], pair))
    if len(pairs) < FEWEST:
        return table, None
    pooled = (pool_rates if drawn is None else pool_values)(*zip(*(pair for _, pair in pairs), strict=True))
    for index, (line, _) in enumerate(pairs):
        line.update(pooled=float(pooled.value[index]), low=float(pooled.low[index]), high=float(pooled.high[index]),
                    kept=float(pooled.kept[index]))
    return table, pooled


def rate_counts(figure: str, counts: numpy.ndarray, grouping) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(right rows, rows in all), each (...,), of counts (..., F), for an accuracy, a recall or a specificity."""
    question, _, kind = figure.rpartition(".")
    table = views(counts, grouping)[QUESTIONS[question]]
    if kind == "accuracy":
        return numpy.trace(table, axis1=-2, axis2=-1), table.sum((-2, -1))
    side = 0 if kind == "recall" else 1
    return table[..., side, side], table[..., side, :].sum(-1)


def counts_of_rows(model: Predictions, chosen: numpy.ndarray) -> numpy.ndarray:
    """Each chosen row as a vector of counts of its own, (n, F) float64."""
    indices = model.indices[chosen]
    found = numpy.zeros((len(indices), model.rows.grouping.width + 1))  # -1, which counts nowhere, is the last
    numpy.put_along_axis(found, indices, 1, axis=1)
    return found[:, :-1]


def _is_rate(figure: str) -> bool:
    return figure.rpartition(".")[2] in ("accuracy", "recall", "specificity")


def _bootstrap(model: Predictions, figure: str, languages, draws: int, seed: int) -> dict[str, numpy.ndarray]:
    """The figure of each language in `draws` resampled test sets: code -> (draws,)."""
    parts = [{code: figure_of(figure, counts[:, 0], model.rows.grouping) for code, counts in chunk.items()}
             for chunk in resampled([model], languages, draws, seed)]
    return {code: numpy.concatenate([part[code] for part in parts]) for code in languages}


def _x_log_x(x: numpy.ndarray) -> numpy.ndarray:
    return x * numpy.log(numpy.where(x > 0, x, 1))


def _log_beta(a, b) -> numpy.ndarray:
    """log B(a, b), elementwise."""
    return _log_gamma(a) + _log_gamma(b) - _log_gamma(a + b)


def _log_gamma(x: numpy.ndarray) -> numpy.ndarray:
    """log Gamma(x) for x > 0, elementwise to 1e-9: Stirling's series at x + 8 (numpy has none of its own)."""
    y = x + 8
    series = 1 / (12 * y) - 1 / (360 * y**3) + 1 / (1260 * y**5)
    return (y - 0.5) * numpy.log(y) - y + log(2 * pi) / 2 + series - numpy.log(prod(x + k for k in range(8)))


def _expit(x):
    return 1 / (1 + numpy.exp(-x))


def _weights(log_weight: numpy.ndarray) -> numpy.ndarray:
    weight = numpy.exp(log_weight - log_weight.max())
    return weight / weight.sum()


def _quantiles(density: numpy.ndarray, grid: numpy.ndarray, level: float) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The two ends of the central interval of each density (G, X), given at the points of an even grid (X,)."""
    total = numpy.cumsum(density, axis=1) - density / 2  # half a cell on either side of its point
    low, high = (numpy.array([numpy.interp(edge * line[-1], line, grid) for line in total])
                 for edge in ((1 - level) / 2, (1 + level) / 2))
    return low, high


def _three(values: numpy.ndarray, weight: numpy.ndarray, level: float) -> tuple[float, float, float]:
    """Median and central interval of weighted values."""
    order = numpy.argsort(values)
    total = numpy.cumsum(weight[order]) - weight[order] / 2
    return tuple(float(numpy.interp(edge, total, values[order])) for edge in (0.5, (1 - level) / 2, (1 + level) / 2))

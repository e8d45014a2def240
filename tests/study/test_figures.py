"""The study's figures: what they print is what their tables hold, legible on every shade, in grey, with gaps.

Deliberate breaks: return black always from `ink_on`, or let `scatter` place an unlisted language at zero.
"""

import numpy
import pytest
from matplotlib.colors import to_hex, to_rgb

from report.colours import contrast, ink_on
from report.figures import SHADES, svg
from study.report.figures import figure_of, interval_picture, reach_of
from study.report.looks import BOTH_WAYS, PALETTE, shading
from study.report.section import Claim, Column, FigureSpec, Table
from study.report.tables import short
from tests.study.made_study import made_study

FIGURES = {spec.name: (spec, table) for table, spec in made_study().figures}


def words_of(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def test_every_kind_is_drawn_with_and_without_rows():
    for spec, table in FIGURES.values():
        figure_of(spec, table)
    for name in ("exposure-curves", "share-scatter", "by-language", "cost-bars", "topic-contrasts-forest",
                 "bins-reliability", "transfer"):
        spec, table = FIGURES[name]
        one = Table(table.name, table.title, table.columns, table.rows[:1])
        assert svg(figure_of(spec, one), name).startswith("<svg")


def test_a_matrix_prints_the_table_s_values_outlines_and_hatches():
    spec, table = FIGURES["transfer"]
    figure = figure_of(spec, table)
    printed = words_of(figure)
    values = [short(row["f1"], "rate") for row in table.rows]
    assert printed[::2] == values and printed[1::2] == [str(row["n"]) for row in table.rows]
    patches = figure.axes[0].patches
    assert sum(bool(patch.get_hatch()) for patch in patches) == sum(
        row["small"] and row["f1"] is not None for row in table.rows)
    assert sum(patch.get_linewidth() == 1.9 for patch in patches) == sum(row["seen"] for row in table.rows)


def test_ink_is_legible_on_every_shade():
    for shades in (SHADES, BOTH_WAYS):
        for share in numpy.linspace(0, 1, 257):
            assert contrast(shades(share), ink_on(shades(share))) >= 4.5  # WCAG's least for text
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_shades_run_evenly_about_zero_and_get_darker():
    shade, low, high = shading([-0.02, 0.07], "difference")
    assert (low, high) == (-0.1, 0.1) and to_hex(shade(0.0)) == to_hex(BOTH_WAYS(0.5))
    shade, low, high = shading([0.44, 0.92], "rate")
    assert (low, high) == (0.4, 1.0)
    grey = [contrast(shade(v), "#ffffff") for v in numpy.linspace(low, high, 20)]
    assert grey == sorted(grey)
    assert to_rgb(shading([0, 1], "rate")[0](1)) == to_rgb(SHADES(1.0))  # an int would be an index


def test_neighbours_of_the_palette_differ_in_grey_or_by_marker():
    from study.report.looks import DASHES, HATCHES, MARKERS

    assert len(set(MARKERS)) == len(PALETTE) == len(DASHES) == len(set(HATCHES))


def test_unlisted_languages_stand_apart_from_the_scale():
    spec, table = FIGURES["share-scatter"]
    figure = figure_of(spec, table)
    strip, main = figure.axes[:2]
    assert {text.get_text() for text in strip.texts} == {"ar", "hi", "tr"}
    assert {text.get_text() for text in main.texts} == {"en", "es", "de", "fr", "hu", "id", "it", "ko", "pl", "pt"}
    assert main.get_xscale() == "log" and min(x for line in main.lines for x in line.get_xdata()) > 0.02
    assert "not zero" in figure.axes[-2].get_xlabel()


def test_labels_of_points_lie_over_no_other_label():
    figure = figure_of(*FIGURES["share-scatter"])
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for ax in figure.axes for text in ax.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_curves_stand_evenly_with_the_ratio_above():
    figure = figure_of(*FIGURES["exposure-curves"])
    first = figure.axes[0]
    assert [label.get_text() for label in first.get_xticklabels()] == ["0", "5", "10", "25", "75"]
    above = {ax.get_xlabel() for ax in figure.axes[6:]}
    assert above == {"exposure ratio: not known", "exposure ratio, ×10⁻¹⁰"}


def test_a_log_scale_has_points_not_bars_and_what_is_missing_is_a_dash():
    figure = figure_of(*FIGURES["cost-bars"])
    assert not figure.axes[0].patches and "–" in words_of(figure) and "1,043" in words_of(figure)
    assert figure_of(*FIGURES["speed-bars"]).axes[0].patches


def test_forest_prints_the_intervals_of_its_table():
    spec, table = FIGURES["topic-contrasts-forest"]
    printed = words_of(figure_of(spec, table))
    assert printed[0] == "+0.071 [+0.001, +0.121]" and printed[-1] == "not estimable"


def test_small_pictures_share_one_scale():
    claims = [Claim("a", 0.07, 0.01, 0.13, "", ""), Claim("b", -0.02, -0.26, 0.2, "", "")]
    assert reach_of(claims) == 0.3 and reach_of([]) == 0.05
    picture = interval_picture(claims[0], 0.3)
    assert 'cx="194.1"' in picture  # 14 + 292 * (0.07 + 0.3) / 0.6
    assert "−0.3" in picture and "95 % interval +0.010 to +0.130" in picture
    assert interval_picture(Claim("c", None, None, None, "", ""), 0.3) is None
    assert 'class="zero"' not in interval_picture(Claim("r", 0.5, 0.4, 0.6, "", "", "rate"), 0.3)


def test_text_of_any_script_stays_text_in_svg():
    table = Table("t", "", [Column("y", "이름"), Column("x", "अंतर", "difference"), Column("low", "", "difference"),
                            Column("high", "", "difference")],
                  [{"y": "العربية $a_b$", "x": 0.1, "low": 0.0, "high": 0.2}])
    text = svg(figure_of(FigureSpec("forest", "t", "", "", x="x", y="y", low="low", high="high"), table), "t")
    assert "العربية $a_b$" in text and "अंतर" in text

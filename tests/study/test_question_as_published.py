"""The authors' regressions in a study: opt-in, with the known values where the paper's rows are at hand.

Deliberate break: in study/questions/as_published.py leave the caveats out of `models_table`, or count a post once for
every model in `labels_table`.
"""

import itertools

import pytest

from common.errors import UserError
from study.inputs import read_material
from study.plan import load_plan
from study.questions.as_published import as_published
from study.report.figures import figure_of
from tests.study.fake_study import PLAN, fake_results, table

HEAD = "model,language,split,translation,label,predicted,correct"
LABELS = ("pro-immigration", "anti-immigration", "neutral", "unrelated")


def invented():
    """Rows of three models, two languages and two parts, right in turns that no term explains without error."""
    cells = itertools.product(("en", "es", "multi"), ("en", "de"), ("train", "test"), ("none", "good", "bad"), LABELS,
                              range(5))
    return [f"{model},{language},{split},{translation},{label},{label},{int((7 * k + number) % 5 > 1)}"
            for k, (model, language, split, translation, label, number) in enumerate(cells)]


def section(tmp_path, path):
    return as_published(fake_results(tmp_path, f'{PLAN}[data]\npublished = "{path}"\n'))


def test_without_published_rows_there_is_no_section(tmp_path):
    assert as_published(fake_results(tmp_path)) is None


def test_all_four_stand_beside_their_caveats(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([HEAD, *invented()]) + "\n", encoding="utf-8")
    found = section(tmp_path, path)
    assert found.exploratory and not found.claims and "not to be believed" in found.answer
    lines = table(found, "published_models").rows
    assert [line["model"] for line in lines] == ["1", "2", "3", "4"]
    assert all("as independent" in line["caveat"] and line["formula"].startswith("Correct ~ Model") for line in lines)
    assert "Share_Unrelated" in lines[2]["left_out"] and lines[3]["n"] == 3 * 2 * 2 * 2 * 4 * 5
    assert any("one value per language" in note for note in found.notes)
    assert any("model 6" in note and "glmer" in note for note in found.notes)  # what the script has beyond these
    assert any("memory, not skill" in note for note in found.notes)
    sizes = {(row["model"], row["split"], row["translation"]): row for row in table(found, "published_sizes").rows}
    assert len(sizes) == 18 and sizes["en", "train", "none"]["n"] == 2 * 4 * 5
    labels = table(found, "published_labels").rows
    assert {row["n"] for row in labels} == {5} and len(labels) == 2 * 2 * 4  # once, not once for every model
    assert figure_of(found.figures[0], table(found, "published_first")).axes


def test_known_values_on_the_papers_rows(tmp_path, shared_data):
    found = section(tmp_path, shared_data / "immigration" / "published_rows.csv")
    values = {row["name"]: row["value"] for row in table(found, "published_first").rows}
    for name, value in (("labelunrelated", 1.3785), ("Languagepl", -0.9564), ("Train_Testtest", -0.2156),
                        ("TranslationQualitygood", -0.3273), ("Modelmulti", 0.2701)):
        assert values[name] == pytest.approx(value, abs=6e-5)
    assert {row["model"] for row in table(found, "published_others").rows} == {"2", "3", "4"}


@pytest.mark.parametrize("text, words", [
    ("", "is empty|has no"), (HEAD + "\n", "has no rows"), ("model,language\nen,de\n", "column 'split' is missing"),
    (f"{HEAD}\nen,de,test,none,neutral,neutral,2\n", "row 2: correct: '2' is not 0 or 1"),
    (f"{HEAD}\nen,de,test,none,,neutral,1\n", "row 2: column 'label' is missing or empty")])
def test_wrong_files_end_in_one_line(tmp_path, text, words):
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8")
    (tmp_path / "plan.toml").write_text(f'{PLAN}[data]\npublished = "{tmp_path}/rows.csv"\n', encoding="utf-8")
    with pytest.raises(UserError, match=words):
        read_material(load_plan(tmp_path / "plan.toml"))

import numpy as np
import pytest
from evaluated import item, run, table

from common.handlers.scores import Scores
from common.metrics.intervals import rows_with_intervals
from common.metrics.statistics import Record, mean_of_cases
from common.report.page import Section


class Brightness(Scores):
    """Keeps the mean of each slice; of cases without a label nothing is known."""

    title = "Brightness"

    def examine(self, item, output):
        if output.get("label") is not None:
            means = output["anomaly"][0].mean((0, 1)).tolist()
            slices = [{"case": item["case"], "slice": z, "mean": mean} for z, mean in enumerate(means)]
            row = {"case": item["case"], "patient": item["patient"], "mean": float(np.mean(means))}
            yield Record(item["case"], item["patient"], row, slices)

    def summarise(self):
        statistics = {"mean": mean_of_cases([record.row["mean"] for record in self.records])}
        rows = rows_with_intervals([record.patient for record in self.records], statistics, self.num_resamples)
        return rows, {"brightness": rows[0]["value"]}


def test_records_are_kept_by_case_and_the_evaluator_has_the_metrics():
    scores = Brightness()
    state = run([item("b"), item("c", with_label=False), item("a")], scores).state
    assert [record.case for record in scores.records] == ["a", "b"]
    assert state.metrics["brightness"] == scores.rows[0]["value"] > 0


def test_there_is_a_table_of_slices_of_patients_and_of_the_run(tmp_path):
    run([item("b", patient="x"), item("a")], Brightness(str(tmp_path), num_resamples=10))
    assert [(row["case"], row["patient"]) for row in table(tmp_path / "per_patient.csv")] == [("a", "a"), ("b", "x")]
    assert [row["case"] for row in table(tmp_path / "per_slice.csv")] == ["a"] * 4 + ["b"] * 4
    (row,) = table(tmp_path / "summary.csv")
    assert row["metric"] == "mean"
    assert float(row["low"]) <= float(row["value"]) <= float(row["high"])


def test_what_has_no_slices_has_no_table_of_slices(tmp_path):
    scores = Brightness(str(tmp_path))
    scores.records = [Record("a", "a", {"case": "a"}, [])]
    scores.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["per_patient.csv"]


def test_where_nothing_is_known_nothing_is_written_or_shown(tmp_path):
    scores = Brightness(str(tmp_path / "eval"))
    state = run([item(with_label=False)], scores).state
    assert scores.rows == scores.sections() == []
    assert "brightness" not in state.metrics
    assert not (tmp_path / "eval").exists()


def test_the_page_has_the_summary_and_a_row_a_case():
    scores = Brightness()
    run([item("b"), item("a")], scores)
    summary, cases = scores.sections()
    assert (summary.title, summary.rows) == ("Brightness", scores.rows)
    assert (cases.title, [row["case"] for row in cases.rows]) == ("Brightness by case", ["a", "b"])


def test_details_stand_between_the_summary_and_the_cases():
    class Detailed(Brightness):
        def details(self):
            return [Section("Details")]

    scores = Detailed()
    run([item()], scores)
    assert [section.title for section in scores.sections()] == ["Brightness", "Details", "Brightness by case"]


def test_key_metrics_are_said_first_with_their_interval():
    class Keyed(Brightness):
        key_metrics = ("mean", "not measured")

    scores = Keyed(num_resamples=10)
    run([item("b", patient="x"), item("a")], scores)
    (tile,) = scores.tiles()
    assert tile.name == "mean"
    assert tile.note.startswith("95 % interval")


def test_an_evaluation_of_cases_without_labels_says_so(caplog):
    class Blind(Brightness):
        def examine(self, item, output):
            return []

    silent, asked = Blind(), Blind(num_resamples=10)
    run([item()], silent)
    assert not silent.sections()
    assert "label" not in caplog.text
    run([item()], asked)
    assert "No case has a label" in caplog.text
    (section,) = asked.sections()
    assert "CASE_label" in section.text[0]


def test_a_second_run_starts_afresh():
    scores = Brightness()
    run([item("b"), item("a")], scores).run()
    assert len(scores.records) == 2


def test_what_is_examined_and_summarised_must_be_said():
    with pytest.raises(TypeError, match="examine"):
        Scores()

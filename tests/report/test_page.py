import base64
from html.parser import HTMLParser

import numpy as np
import pytest

from common.report import page
from common.report.page import (
    Picture,
    Section,
    Stack,
    Tile,
    format_cell,
    in_words,
    seen_from,
    versions,
    without_folders,
    write_page,
)

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HOSTILE = """<script>alert("1")</script> & 'Müller' < 3"""


class Reader(HTMLParser):
    """Collects what a browser would see: tags, attributes, and the text below each tag."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], {}

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]

    def handle_data(self, data):
        if data.strip():
            self.texts.setdefault(self.tags[-1], []).append(data.strip())


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def full_section(text):
    return Section(text, [text], [{text: text, "number": 3}], [Picture(text, PNG)])


@pytest.fixture
def hostile(tmp_path):
    """A page on which everything that can be called something is called something hostile."""
    tiles = [Tile(HOSTILE, HOSTILE, HOSTILE)]
    write_page(tmp_path / "report.html", HOSTILE, [full_section(HOSTILE)], HOSTILE, HOSTILE, tiles)
    return tmp_path / "report.html"


def test_a_page_needs_nothing_beside_it(hostile):
    text, reader = hostile.read_text(encoding="utf-8"), read(hostile)
    assert not {"link", "iframe", "object", "embed", "base"} & set(reader.tags)
    addresses = [value for _, name, value in reader.attributes if name in ("src", "href", "srcset", "data")]
    assert addresses
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert "url(" not in text
    assert "@import" not in text
    assert "http" not in text


def test_names_are_text_and_never_markup(hostile):
    reader = read(hostile)
    assert "script" not in reader.tags
    for tag in ("title", "h1", "h2", "p", "th", "td", "dt", "dd", "figcaption"):
        assert HOSTILE in reader.texts[tag]
    assert ("img", "alt", HOSTILE) in reader.attributes


def test_pictures_come_out_as_they_went_in(hostile):
    (source,) = [value for _, name, value in read(hostile).attributes if name == "src"]
    assert base64.b64decode(source.partition(",")[2]) == PNG


def test_sections_stand_in_their_order_and_empty_ones_are_left_out(tmp_path):
    sections = [Section("Cases", rows=[{"case": "a"}]), Section("Failed"), Section("Notes", text=["none"])]
    write_page(tmp_path / "report.html", "t", sections)
    assert read(tmp_path / "report.html").texts["h2"] == ["Cases", "Notes"]


def test_a_table_has_a_heading_and_all_its_rows(tmp_path):
    write_page(tmp_path / "report.html", "t", [Section("s", rows=[{"case": "a", "ml": 1}, {"case": "b", "ml": 2}])])
    reader = read(tmp_path / "report.html")
    assert reader.texts["th"] == ["case", "ml"]
    assert reader.texts["td"] == ["a", "1", "b", "2"]


def test_columns_that_no_row_fills_are_left_out(tmp_path):
    rows = [{"case": "a", "ml": np.nan, "site": "", "note": None, "zero": 0}, {"case": "b", "ml": 2.0} | EMPTY]
    write_page(tmp_path / "report.html", "t", [Section("s", rows=rows)])
    reader = read(tmp_path / "report.html")
    assert reader.texts["th"] == ["case", "ml", "zero"]
    assert reader.texts["td"] == ["a", "–", "0", "b", "2", "0"]


def test_rows_that_say_nothing_and_a_column_that_says_it_again_are_left_out(tmp_path):
    rows = [{"case": "a", "patient": "a", "ml": 1.5}, {"case": "b", "patient": "b", "ml": 2.5}]
    metrics = [{"metric": "found", "value": 1.5}, {"metric": "in cm²", "value": np.nan}]
    write_page(tmp_path / "report.html", "t", [Section("s", rows=rows), Section("m", rows=metrics)])
    reader = read(tmp_path / "report.html")
    assert reader.texts["th"] == ["case", "ml", "metric", "value"]
    assert reader.texts["td"] == ["a", "1.5", "b", "2.5", "found", "1.5"]


def test_numbers_that_happen_to_be_equal_are_all_shown(tmp_path):
    write_page(tmp_path / "report.html", "t", [Section("s", rows=[{"members": 1, "draws": 1}])])
    assert read(tmp_path / "report.html").texts["th"] == ["members", "draws"]


EMPTY = {"site": "", "note": None, "zero": 0}


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("lesion_ml", "lesion, ml"),
        ("p95_outside", "95th percentile outside"),
        ("dice_low", "Dice from (95 %)"),
        ("hd95_mm", "HD95, mm"),
        ("mask, % of the organ", "mask, % of the organ"),
        ("ml", "ml"),
    ],
)
def test_columns_have_names_in_words(column, words):
    assert in_words(column) == words


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/somebody/ct.nii.gz: damaged", "ct.nii.gz: damaged"),
        ("expected a volume, got '/a/b c/d.nii'.", "expected a volume, got 'b c/d.nii'."),
        ("3 mm/pixel, cases/a.nii and 1 / 2", "3 mm/pixel, cases/a.nii and 1 / 2"),
        ("/ct.nii.gz", "ct.nii.gz"),
    ],
)
def test_where_files_lay_is_not_told(text, left):
    assert without_folders(text) == left


def test_a_path_beside_the_folder_of_the_page_is_told_from_there(tmp_path):
    assert seen_from(tmp_path / "eval", str(tmp_path / "models" / "model.pt")) == "../models/model.pt"
    assert seen_from(tmp_path / "eval", "/elsewhere/models/model.pt") == "model.pt"
    assert seen_from("/eval", "/home/somebody/model.pt") == "model.pt"
    assert seen_from(tmp_path / "eval", "[1, 2]") == "[1, 2]"


def test_tiles_stand_above_the_sections(tmp_path):
    write_page(tmp_path / "report.html", "t", [Section("s", ["text"])], tiles=[Tile("cases", "3", "of 4")])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.index("cases") < text.index(">3<") < text.index("of 4") < text.index("<h2>s")


def test_a_folded_section_opens_by_its_heading(tmp_path):
    write_page(tmp_path / "report.html", "t", [Section("open", ["a"]), Section("shut", ["b"], folded=True)])
    reader = read(tmp_path / "report.html")
    assert reader.tags.count("details") == 1
    assert [tag for tag in reader.tags if tag in ("h2", "summary", "details")] == ["h2", "details", "summary", "h2"]


def test_slices_to_leaf_through_lie_beside_the_page(tmp_path):
    stack = Stack("slices", ["a b#1/slices/000.png", "a b#1/slices/001.png"], 2.5)
    write_page(tmp_path / "report.html", "t", [Section("s", stacks=[stack])])
    sources = [value for _, name, value in read(tmp_path / "report.html").attributes if name == "src"]
    assert sources == ["a%20b%231/slices/000.png", "a%20b%231/slices/001.png"]


def test_numbers_are_aligned_and_words_are_not(tmp_path):
    write_page(tmp_path / "report.html", "t", [Section("s", rows=[{"case": "a", "ml": np.float64(1.5)}])])
    assert [attribute for attribute in read(tmp_path / "report.html").attributes if attribute[0] == "td"] == [
        ("td", "class", "number")
    ]


def test_without_a_notice_there_is_no_box(tmp_path):
    write_page(tmp_path / "report.html", "t", [])
    assert ("p", "class", "notice") not in read(tmp_path / "report.html").attributes


def test_a_page_takes_the_place_of_the_old_one_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "report.html"
    for title in ("old", "new"):
        write_page(path, title, [])
    assert read(path).texts["h1"] == ["new"]
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, "0.123"),
        (-0.5, "-0.5"),
        (12.345, "12.3"),
        (np.float64(0.98765), "0.988"),
        (1e-6, "1e-06"),
        (7, "7"),
        (123456, "123456"),
        (np.int64(7), "7"),
        (0.0, "0"),
        (-2.0, "-2"),
        (-0.0, "0"),
        (1234567, "1234567"),
        (999.96, "1000"),
        (0.9999999, "1"),
        (0.99996, "0.99996"),
        (float("nan"), "–"),
        (np.nan, "–"),
        (float("inf"), "inf"),
        (True, "True"),
        (None, "None"),
        ("3.14159", "3.14159"),
    ],
)
def test_a_cell_is_short_and_tells_numbers_from_words(value, shown):
    assert format_cell(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(1523.7, "1524"), (-1000.4, "-1000"), (23456.7, "23457")])
def test_large_numbers_have_no_exponent(value, shown):
    assert format_cell(value) == shown


def test_versions_name_what_a_result_depends_on():
    rows = {row["package"]: row["version"] for row in versions()}
    assert rows["Python"].startswith("3.")
    assert {"monai", "torch", "numpy"} <= set(rows)


def test_a_package_that_is_not_there_has_no_version(monkeypatch):
    monkeypatch.setattr(page, "PACKAGES", ("numpy", "no-such-package"))
    assert [row["package"] for row in versions()] == ["Python", "numpy"]

from common.studies.tables import on_page


def test_on_the_page_an_interval_stands_beside_its_number():
    row = {"method": "ours", "dice": 0.5, "dice_low": 0.25, "dice_high": 0.75, "threshold": 3.0}
    assert on_page(row) == {"method": "ours", "dice": "0.500 [0.250, 0.750]", "threshold": 3.0}

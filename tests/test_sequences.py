import pytest

from common.sequences import SEQUENCES, known_sequence, sequence_in

NAMES = {
    "p1_t1": ("t1", "p1"),
    "flair-study_p1_t2": ("t2", "flair-study_p1"),
    "p1_T2_FLAIR": ("flair", "p1"),
    "p1_T2-FLAIR": ("flair", "p1"),
    "p1_t1_post": ("t1ce", "p1"),
    "p1_T1W-GD": ("t1ce", "p1"),
    "p1_T1w+Gd": ("t1ce", "p1"),
    "post_t1_p1": ("t1ce", "p1"),
    "p1_post_op_t1": ("t1", "p1_post_op"),
    "p1_t1_post_op": ("t1", "p1_post_op"),
    "p1_t1_pre": ("t1", "p1"),
    "sub-01_ses-2_ce-gad_T1w": ("t1ce", "sub-01_ses-2"),
    "sub-01_ce-gad_acq-ax_T1w": ("t1ce", "sub-01"),
    "sub-01_acq-ax_T1w": ("t1", "sub-01"),
    "sub-01_FLAIR": ("flair", "sub-01"),
    "BraTS-GLI-00001-000-t2f": ("flair", "BraTS-GLI-00001-000"),
    "BraTS19_2013_10_1_t1ce": ("t1ce", "BraTS19_2013_10_1"),
    "BraTS19_2013_10_1_seg": ("label", "BraTS19_2013_10_1"),
    "brats_001_t1gd_080_w": ("t1ce", "brats_001_080_w"),
    "T1": ("t1", ""),
    "dwi_p1": (None, "dwi_p1"),
    "segment1_p2t1": (None, "segment1_p2t1"),
}


@pytest.mark.parametrize(("name", "told"), NAMES.items(), ids=NAMES)
def test_a_name_tells_its_sequence_and_its_case(name, told):
    assert sequence_in(name) == told


def test_a_sequence_is_known_by_its_own_name():
    assert [known_sequence(name.upper()) for name in SEQUENCES] == list(SEQUENCES)


@pytest.mark.parametrize(
    ("word", "sequence"),
    [("T1-Gd", "t1ce"), ("T2-FLAIR", "flair"), (" t1gd ", "t1ce"), ("CT", None), ("p1_t1", None), ("seg", None)],
)
def test_a_word_of_dataset_json_is_a_sequence_or_none(word, sequence):
    assert known_sequence(word) == sequence

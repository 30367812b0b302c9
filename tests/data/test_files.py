import subprocess
import sys
from textwrap import dedent

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    EnsureChannelFirst,
    EnsureChannelFirstd,
    Invertd,
    LoadImage,
    LoadImaged,
    Orientationd,
    SaveImaged,
)
from nibabel.affines import from_matvec
from PIL import Image
from scipy.spatial.transform import Rotation

from ci import ROOT
from ci.dicom_series import write_series
from common.data.dicom import read_series
from common.data.files import CaseReader, CaseWriter, FitCased, LoadCased, SaveMapsd
from common.files import BadFileError
from common.transforms.channels import NameCased

VOLUME = np.random.default_rng(0).integers(-1000, 400, (8, 7, 6)).astype(np.int16)
SPACING = np.diag([0.7, 0.9, 5.0])
OBLIQUE = Rotation.from_euler("xyz", [20, -10, 35], degrees=True).as_matrix()
AFFINES = {
    "RAS": from_matvec(SPACING, [-90, -70, -300]),
    "LPS": from_matvec(SPACING @ np.diag([-1, -1, 1]), [90, 70, -300]),
    "left-handed": from_matvec(SPACING @ np.diag([-1, 1, 1]), [90, -70, -300]),
    "sagittal": from_matvec(SPACING[[2, 0, 1]], [1, 2, 3]),
    "oblique": from_matvec(OBLIQUE @ SPACING, [-90, 20, 12.5]),
    "oblique, LPS": from_matvec(OBLIQUE @ SPACING @ np.diag([-1, -1, 1]), [90, 70, 12.5]),
    "sheared": from_matvec([[0.7, 0, 0], [0, 0.9, 1.3], [0, 0, 5]], [90, 70, -300]),
}
VOXELS = {
    "volume": VOLUME,
    "2-D": VOLUME[..., 0],
    "volume of one slice": VOLUME[..., :1],
    "one slice along X": VOLUME[:1],
    "one frame": VOLUME[..., None],
}
# MONAI cannot turn a slice that is not axial; checks.py refuses it.
TURNED = {f"{v}-{a}": (VOXELS[v], AFFINES[a]) for v in VOXELS for a in AFFINES if (v, a) != ("2-D", "sagittal")}


def loading():
    return Compose([LoadImaged("image", reader=CaseReader), EnsureChannelFirstd("image"), NameCased("image")])


def saving(folder, **options):
    return SaveImaged(
        "image",
        output_dir=folder,
        output_postfix="anomaly",
        writer=CaseWriter,
        resample=False,
        print_log=False,
        **options,
    )


def there_and_back(folder, voxels, affine, case="a", **options):
    """Write an image, load it, save it as a bundle does, and return what is then on the disk."""
    nib.save(nib.Nifti1Image(voxels, affine), folder / "in.nii.gz")
    saving(folder / "out", **options)(loading()({"image": str(folder / "in.nii.gz"), "case": case}))
    return nib.load(folder / "out" / case / f"{case}_anomaly.nii.gz")


@pytest.mark.parametrize("size", [(8, 7, 6), (8, 7)])
def test_several_channels_become_the_fourth_axis_and_come_back(tmp_path, size):
    channels = torch.arange(4 * np.prod(size)).view(4, *size).float()
    image = MetaTensor(channels, affine=AFFINES["oblique"], meta={"filename_or_obj": "a.nii.gz"})
    saving(tmp_path)({"image": image})
    path = tmp_path / "a" / "a_anomaly.nii.gz"
    written = nib.load(path)
    assert written.shape == (*size, *[1] * (3 - len(size)), 4)
    np.testing.assert_allclose(written.affine, AFFINES["oblique"], atol=1e-4)
    again = EnsureChannelFirst()(LoadImage(reader=CaseReader)(path))
    np.testing.assert_array_equal(again.reshape(channels.shape), channels)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("voxels", VOXELS.values(), ids=VOXELS)
def test_a_result_has_the_affine_of_its_image(tmp_path, voxels, affine):
    # Headers hold float32.
    np.testing.assert_allclose(there_and_back(tmp_path, voxels, affine).affine, affine, atol=1e-4)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("voxels", VOXELS.values(), ids=VOXELS)
def test_a_result_has_the_shape_and_the_values_of_its_image(tmp_path, voxels, affine):
    expected = voxels[..., 0] if voxels.ndim == 4 else voxels
    np.testing.assert_array_equal(np.asarray(there_and_back(tmp_path, voxels, affine).dataobj), expected)


@pytest.mark.parametrize(("voxels", "affine"), TURNED.values(), ids=TURNED)
def test_an_image_turned_for_the_network_comes_back_as_it_was(tmp_path, voxels, affine):
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "in.nii.gz")
    turning = Compose([loading(), Orientationd("image", axcodes="RAS", labels=None)])
    turned = turning({"image": str(tmp_path / "in.nii.gz"), "case": "a"})
    saving(tmp_path)(Invertd("image", transform=turning, orig_keys="image")(turned))
    back = nib.load(tmp_path / "a" / "a_anomaly.nii.gz")
    np.testing.assert_array_equal(np.asarray(back.dataobj).squeeze(), voxels.squeeze())
    np.testing.assert_allclose(back.affine, affine, atol=1e-4)


def test_values_are_kept_in_float32_unless_another_type_is_asked_for(tmp_path):
    assert there_and_back(tmp_path, VOLUME, AFFINES["LPS"]).get_data_dtype() == np.float32


def test_masks_can_be_uint8(tmp_path):
    image = there_and_back(tmp_path, (VOLUME > 0).astype(np.int16), AFFINES["LPS"], output_dtype=np.uint8)
    assert image.get_data_dtype() == np.uint8


@pytest.mark.parametrize("case", ["with spaces", "Bauch ✓ März", "a.b", "1.2.840"])
def test_a_result_is_called_as_its_case_whatever_that_is(tmp_path, case):
    assert there_and_back(tmp_path, VOLUME, AFFINES["LPS"], case).shape == VOLUME.shape


@pytest.mark.parametrize("affine", ["LPS", "oblique", "sagittal"])
def test_a_folder_with_a_dicom_series_is_loaded_in_hu_with_its_affine(tmp_path, affine):
    write_series(tmp_path / "CT", VOLUME, AFFINES[affine])
    image = loading()({"image": str(tmp_path / "CT")})["image"]
    voxels, read_affine = read_series(tmp_path / "CT")
    np.testing.assert_array_equal(image[0], voxels)
    np.testing.assert_allclose(image.affine, read_affine)


def test_a_folder_and_a_file_can_be_told_from_what_cannot_be_read(tmp_path):
    suffixes = [CaseReader().verify_suffix(str(path)) for path in (tmp_path, "a.nii", "a.NPY", "a.png", "a.txt")]
    assert suffixes == [True, True, True, True, False]


@pytest.mark.parametrize("name", ["a.png", "a.npy", "a.JPEG"])
def test_a_film_is_read_as_it_hangs_and_its_result_lies_on_it(tmp_path, name):
    """The letter that marks the patient's right is at the upper left."""
    rows = np.full((40, 30), 100, np.uint8)
    rows[:8, :8] = 255
    if name == "a.npy":
        np.save(tmp_path / name, rows)
    else:
        Image.fromarray(rows).save(tmp_path / name)
    turning = Compose([loading(), Orientationd("image", axcodes="RAS", labels=None)])
    turned = turning({"image": str(tmp_path / name), "case": "a"})
    seen = turned["image"][0].numpy()  # to the patient's right, and up
    assert (seen[-8:, -8:] > 240).all()
    assert (seen[:-16, :-16] < 110).all()
    saving(tmp_path)(Invertd("image", transform=turning, orig_keys="image")(turned))
    back = nib.load(tmp_path / "a" / "a_anomaly.nii.gz")
    np.testing.assert_allclose(back.get_fdata().T, rows, atol=0 if name != "a.JPEG" else 8)
    np.testing.assert_array_equal(back.affine, np.diag([-1, -1, 1, 1]))


def test_a_film_is_not_warned_of():
    """In a process of its own, since pytest resets the filters."""
    code = """
        import torch
        from monai.data import MetaTensor
        from monai.transforms import Orientation
        import common.data.files
        Orientation(axcodes="RAS", labels=None)(MetaTensor(torch.zeros(1, 4, 5)))
    """
    command = [sys.executable, "-c", dedent(code)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert "axcodes" not in done.stderr


@pytest.fixture
def stopping(monkeypatch):
    """Let the disk be full after half of a file."""

    def save(image, filename):
        with open(filename, "wb") as file:
            file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(nib, "save", save)


def written(path, voxels=VOLUME):
    """Write a volume as ``SaveImaged`` does."""
    writer = CaseWriter()
    writer.set_data_array(voxels[None].astype(np.float32))
    writer.set_metadata({"affine": AFFINES["LPS"]})
    writer.write(path)
    return path


@pytest.mark.usefixtures("stopping")
def test_an_interrupted_write_leaves_no_file_of_the_final_name(tmp_path):
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path / "a.nii.gz")
    assert not (tmp_path / "a.nii.gz").exists()


def test_an_interrupted_write_leaves_the_old_file(tmp_path, request):
    before = written(tmp_path / "a.nii.gz").read_bytes()
    request.getfixturevalue("stopping")
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path / "a.nii.gz", VOLUME + 1)
    assert (tmp_path / "a.nii.gz").read_bytes() == before


def test_a_write_leaves_nothing_but_its_file(tmp_path):
    written(tmp_path / "a.nii.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]


def test_a_name_without_gz_is_written_without_compression(tmp_path):
    path = written(tmp_path / "a.nii")
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), VOLUME)


def test_maps_are_saved_under_their_names_and_masks_as_whole_numbers(tmp_path):
    image = MetaTensor(torch.from_numpy(VOLUME[None].astype(np.float32)), affine=torch.from_numpy(AFFINES["oblique"]))
    item = {"image": image, "anomaly": image / 7, "mask": image > 0, "healthy": torch.cat([image, image])}
    named = NameCased()({**item, "case": "a"})
    for key in ("anomaly", "mask", "healthy"):
        named[key].meta["filename_or_obj"] = named["image"].meta["filename_or_obj"]
    SaveMapsd(["anomaly", "mask", "healthy"], tmp_path, {"healthy": "synthetic"})(named)
    saved = {path.name: nib.load(path) for path in (tmp_path / "a").iterdir()}
    assert set(saved) == {"a_anomaly.nii.gz", "a_mask.nii.gz", "a_synthetic.nii.gz"}
    assert saved["a_anomaly.nii.gz"].get_data_dtype() == np.float32
    assert saved["a_mask.nii.gz"].get_data_dtype() == np.uint8
    assert saved["a_synthetic.nii.gz"].shape == (*VOLUME.shape, 2)
    np.testing.assert_array_equal(saved["a_mask.nii.gz"].get_fdata(), VOLUME > 0)
    np.testing.assert_allclose(saved["a_mask.nii.gz"].affine, AFFINES["oblique"], atol=1e-6)


def test_what_a_case_has_is_loaded_channel_first(tmp_path):
    nib.save(nib.Nifti1Image(VOLUME, AFFINES["LPS"]), tmp_path / "a.nii.gz")
    path = str(tmp_path / "a.nii.gz")
    case = LoadCased()({"image": [path, path], "label": path, "case": "a"})
    assert case["image"].shape == (2, *VOLUME.shape)
    assert case["label"].shape == (1, *VOLUME.shape)
    assert set(case) == {"image", "label", "case"}


def test_a_file_that_cannot_be_read_is_not_tried_with_other_readers(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"none")
    with pytest.raises(BadFileError, match=r"a.nii.gz: expected a readable NIfTI file"):
        LoadImage(reader=CaseReader)(tmp_path / "a.nii.gz")


def test_files_of_one_image_may_differ_by_rounding_and_no_more(tmp_path):
    affine = AFFINES["LPS"]
    for name, moved in (("a", 0), ("b", 0.01), ("c", 1)):
        nib.save(nib.Nifti1Image(VOLUME, affine + moved * np.eye(4)[:, [3, 0, 1, 2]]), tmp_path / f"{name}.nii")
    paths = [str(tmp_path / f"{name}.nii") for name in "abc"]
    assert LoadImage(reader=CaseReader)(paths[:2]).shape == (2, *VOLUME.shape)
    with pytest.raises(BadFileError, match=r"c.nii: expected the affine of .*a.nii"):
        LoadImage(reader=CaseReader)(paths)


def test_one_sequence_with_a_fourth_axis_of_length_1_is_the_same_image(tmp_path):
    for name, voxels in (("a", VOLUME), ("b", VOLUME[..., None])):
        nib.save(nib.Nifti1Image(voxels, AFFINES["LPS"]), tmp_path / f"{name}.nii")
    image = LoadImage(reader=CaseReader)([str(tmp_path / f"{name}.nii") for name in "aba"])
    assert image.shape == (3, *VOLUME.shape)


def meta(voxels, affine="LPS", name="a_label.nii"):
    return MetaTensor(torch.as_tensor(voxels).float(), affine=AFFINES[affine], meta={"filename_or_obj": name})


def test_the_volumes_that_an_item_names_are_left_of_its_image():
    image = meta(np.stack([VOLUME, VOLUME + 1, VOLUME + 2]))
    fitted = FitCased()({"image": image, "channels": [2, 0]})
    torch.testing.assert_close(fitted["image"].as_tensor(), image.as_tensor()[[2, 0]])
    assert "channels" not in fitted


@pytest.mark.parametrize("key", ["organ", "label"])
@pytest.mark.parametrize("other", [meta(VOLUME[None], "RAS"), meta(VOLUME[None, 1:])], ids=["affine", "shape"])
def test_a_mask_that_lies_elsewhere_once_it_is_loaded_stops_the_case(key, other):
    with pytest.raises(BadFileError, match=rf"{key} of a: expected the .* of the image"):
        FitCased()({"image": meta(VOLUME[None]), key: other, "case": "a"})


def test_a_label_of_other_values_is_refused_in_training_too():
    item = {"image": meta(VOLUME[None]), "label": meta(VOLUME[None] % 3)}
    assert FitCased()(item)["label"] is item["label"]
    with pytest.raises(BadFileError, match=r"a_label.nii: expected a mask of the values 0, 1, got also 2"):
        FitCased({"1": "lesion"})(item)


def test_a_mask_that_a_run_does_not_load_stays_a_path():
    assert FitCased()({"image": meta(VOLUME[None]), "wanted": "a_wanted.nii"})["wanted"] == "a_wanted.nii"


def test_of_a_mask_of_several_organs_the_one_that_is_asked_for_is_left():
    image = MetaTensor(torch.zeros(1, 2, 2, 1), affine=torch.eye(4))
    organ = MetaTensor(torch.tensor([[0.0, 2], [3, 5]])[None, ..., None], affine=torch.eye(4))
    fitted = FitCased(organ_labels=[2, 3])({"image": image, "organ": organ})["organ"]
    assert fitted[0, ..., 0].tolist() == [[0, 1], [1, 0]]
    assert fitted.dtype == organ.dtype
    assert FitCased()({"image": image, "organ": organ})["organ"] is organ


def test_a_description_stands_in_the_header(tmp_path):
    image = MetaTensor(torch.zeros(1, 2, 2, 2), affine=torch.eye(4), meta={"filename_or_obj": "a.nii.gz"})
    SaveMapsd(["map", "mask"], str(tmp_path), descriptions={"map": "SYNTHETIC"})({"map": image, "mask": image})
    header = nib.load(tmp_path / "a" / "a_map.nii.gz").header
    assert header["descrip"].item() == b"SYNTHETIC"
    assert nib.load(tmp_path / "a" / "a_mask.nii.gz").header["descrip"].item() == b""

"""A case gives the same results in the world however it is stored, and MR however bright it is."""

import nibabel as nib
import numpy as np
import pytest
from bundle_runs import BUNDLES, ROOT, demo_cases, outputs, predictions
from monai.bundle import create_workflow
from nibabel.affines import from_matvec

from ci import bundle_parser
from ci.recipes import find_bundle, recipe_of
from ci.robustness.ct import TURN
from ci.robustness.films import FILM, ROWS, film, turned_by_exif
from ci.robustness.inputs import Scan, nifti
from ci.robustness.judging import in_ras
from common.data.files import MASKS
from common.sequences import sequence_in
from common.transforms.channels import image_stem

pytestmark = pytest.mark.slow
SCANS = [bundle for bundle in BUNDLES if recipe_of(bundle).modality in ("CT", "MR")]
"""Those whose demonstration are volumes."""
MR = [bundle for bundle in SCANS if recipe_of(bundle).modality == "MR"]
ORIGINAL = "as it is"
BRIGHTER = {"fourfold": 4.0, "an eighth": 0.125}
"""Powers of two, which change no digit."""


def demo_scan(bundle):
    """Return two slices with lesions of a demonstration, all slices where a network looks at volumes."""
    item, volumes = demo_cases(bundle)[0], len(bundle_parser(bundle, "inference").get_parsed_content("patch_size")) == 3
    first = nib.load(item["image"][0])
    masks = {f"_{key}": np.asarray(nib.load(item[key]).dataobj) for key in ("organ", "label") if key in item}
    names = [sequence_in(image_stem(path))[0] for path in item["image"]]
    images = {
        f"_{name}" if name else "": np.asarray(nib.load(path).dataobj)
        for name, path in zip(names, item["image"], strict=True)
    }
    k = int(masks["_label"].sum((0, 1)).argmax())
    shift = np.eye(4)
    shift[2, 3] = k = 0 if volumes else min(k, first.shape[2] - 2)
    last = first.shape[2] if volumes else k + 2
    return Scan(images, masks, first.affine).reshaped(lambda voxels: voxels[:, :, k:last], first.affine @ shift)


def stored_otherwise(scan):
    """Return a scan stored in several ways, by name; its voxels are the same wherever they lie."""
    oblique = scan.at(from_matvec(TURN @ scan.affine[:3, :3], scan.affine[:3, 3]))
    return {
        ORIGINAL: scan,
        **{f"stored as {codes}": scan.turned(codes) for codes in ("LAS", "LPS", "PIR", "SAL")},
        "oblique": oblique,
        "oblique, stored as LPS": oblique.turned("LPS"),
        "8-byte floats": scan.changed(lambda voxels: voxels.astype(np.float64)),
        "trailing axis": scan.reshaped(lambda voxels: voxels[..., None], scan.affine),
    }


def as_bright(scan, *factors):
    """Return a scan whose sequences are multiplied by a factor each, in turn."""
    images = zip(scan.images.items(), np.resize(factors, len(scan.images)), strict=True)
    return scan._replace(images={name: np.float32(voxels * factor) for (name, voxels), factor in images})


def results(data, out, *layers):
    """Run a bundle on a folder and return what it says of each case, by name of the case and of the result."""
    configs = [str(ROOT / "bundles" / layers[0] / "configs" / f"{name}.json") for name in layers[1:]]
    options = {**recipe_of(layers[0]).fast["inference"], "dataset_dir": str(data), "output_dir": str(out)}
    workflow = create_workflow(
        "ConfigWorkflow", config_file=configs, workflow_type="infer", logging_file=False, **options
    )
    workflow.run()
    workflow.finalize()
    found = {case: {"said": (numbers[:, None, None], np.eye(4))} for case, numbers in predictions(out).items()}
    for folder in filter(lambda path: path.is_dir(), out.iterdir()):
        images = {name: nib.load(folder / f"{folder.name}_{name}.nii.gz") for name in outputs(layers[0])}
        found[folder.name] = {k: (image.get_fdata(), image.affine) for k, image in images.items()}
    return found


def in_the_world(image):
    voxels, affine = image
    return in_ras(voxels if voxels.ndim == 4 else voxels[..., None], affine)


@pytest.fixture(scope="module", params=SCANS)
def case(request, tmp_path_factory):
    """Return a bundle, a case stored in several ways and of several brightness, and what is said of each."""
    bundle, folder = request.param, tmp_path_factory.mktemp("stored")
    scans = stored_otherwise(demo_scan(bundle))
    if bundle in MR:
        scans |= {name: as_bright(scans[ORIGINAL], factor) for name, factor in BRIGHTER.items()}
        scans["near"] = as_bright(scans[ORIGINAL], 1.7, 0.31, 0.013, 123.4)
    for name, scan in scans.items():
        nifti(scan, name=name)(folder / "data")
    return bundle, scans, results(folder / "data", folder / "out", bundle, "inference")


def test_results_are_equal_in_the_world_bit_for_bit(case):
    _, scans, found = case
    assert set(found) == set(scans)
    for name in set(scans) - {"near"}:
        for result in found[ORIGINAL]:
            ours, affine = in_the_world(found[name][result])
            expected = scans["oblique" if name.startswith("oblique") else ORIGINAL].affine
            scale = BRIGHTER.get(name, 1) if result == "healthy" else 1
            theirs = scale * in_the_world(found[ORIGINAL][result])[0]
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{name}, {result}")
            if result != "said":
                np.testing.assert_allclose(affine, expected, atol=1e-3)


def test_there_is_something_to_compare(case):
    _, _, found = case
    assert all(result[0].any() for result in found[ORIGINAL].values())


def test_results_hardly_depend_on_the_scale_of_an_mr(case):
    bundle, _, found = case
    if bundle not in MR:
        pytest.skip("a CT has a scale")
    for result in found[ORIGINAL]:
        ours, theirs = (found[name][result][0] for name in ("near", ORIGINAL))
        if result in MASKS:
            assert 2 * np.sum(ours * theirs) >= 0.98 * np.sum(ours + theirs)
        elif result != "healthy":  # which has the scale of the image
            assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] >= 0.999


def test_films_give_the_same_results_however_they_are_stored(tmp_path):
    bundle, *overlays = find_bundle("X-ray", "chest")
    written = {
        "picture": film(),
        "array": film(ROWS, ".npy"),
        "floats": film(ROWS.astype(np.float64), ".npy"),
        "fourfold": film(ROWS * np.float32(4), ".npy"),
        "turned": turned_by_exif,
    }
    for name, write in written.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        write(tmp_path / "data" / name)
    found = results(tmp_path / "data", tmp_path / "out", bundle, "inference", *overlays)
    original = found["picture_image"]
    assert len(found) == len(written)
    for name, images in found.items():
        for result in ("anomaly", "mask"):
            assert images[result][0].shape == FILM.images[""].shape
            np.testing.assert_array_equal(images[result][0], original[result][0], err_msg=name)

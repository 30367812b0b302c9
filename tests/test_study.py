"""What a bundle's recipe wants compared can be made."""

from functools import partial

import pytest

from ci import ROOT, bundle_names, bundle_parser
from ci.recipes import recipe_of
from ci.study import KINDS, plans_named, study
from common.studies.detection import BEFORE_THE_FILTER, DetectionPlan
from common.studies.patients import Made, PatientsPlan, trained_by
from common.studies.plan import methods
from common.studies.segmentation import SegmentationPlan, samples_of
from common.studies.training import Arm, Synthesizer, TrainingPlan, folder_of

RECIPES = {name: recipe_of(name) for name in bundle_names()}
STUDIES = {name: dict(recipe.study) for name, recipe in RECIPES.items() if recipe.study}
TRAININGS = [
    pytest.param(name, recipe.plan(plan), id=f"{name}-{plan}")
    for name, recipe in RECIPES.items()
    for plan in ("study", *recipe.studies)
    if recipe.plan(plan).get("kind") == "training"
]

OF_PATIENTS = [
    pytest.param(name, recipe.plan(plan), id=f"{name}-{plan}")
    for name, recipe in RECIPES.items()
    for plan in recipe.studies
    if recipe.plan(plan).get("kind") == "patients"
]


def of_kind(kind):
    return [name for name, study in STUDIES.items() if study["kind"] == kind]


def plan_of(bundle, kind):
    return kind(**{key: value for key, value in STUDIES[bundle].items() if key not in ("kind", "patients")})


@pytest.mark.parametrize("bundle", STUDIES)
def test_each_bundle_has_a_study_of_a_kind_that_is_known(bundle):
    study = STUDIES[bundle]
    assert study["kind"] in {*KINDS, "training"}
    patients = study.get("data", {"": study.get("patients")}).values()
    assert any(each.get("testing", 0) > 0 or each.get("cells", {}).get("testing") for each in patients)


@pytest.mark.parametrize("bundle", [*of_kind("detection"), *of_kind("segmentation")])
def test_it_is_known_where_scores_count(bundle):
    parser = bundle_parser(bundle, "inference", region=STUDIES[bundle]["region"])
    assert callable(parser.get_parsed_content("region"))


@pytest.mark.parametrize("bundle", of_kind("detection"))
def test_every_row_and_every_setting_of_anomaly_maps_can_be_made(bundle):
    plan = plan_of(bundle, DetectionPlan)
    for method in methods([*plan.rows, *plan.tuning], plan.shared):
        parser = bundle_parser(bundle, method.config, **{**BEFORE_THE_FILTER, **method.settings})
        inferer = parser.get_parsed_content(method.inferer)
        assert getattr(inferer, "median_radius", 0) == 0, method  # what segments has no filter


@pytest.mark.parametrize("bundle", of_kind("detection"))
def test_a_row_is_compared_with_one_that_there_is(bundle):
    plan = plan_of(bundle, DetectionPlan)
    names = {method.name for method in methods(plan.rows, plan.shared)}
    assert {method.against for method in methods(plan.rows, plan.shared)} <= names | {""}


@pytest.mark.parametrize("bundle", of_kind("segmentation"))
def test_every_segmenter_can_be_made(bundle, tmp_path):
    compared = methods(plan_of(bundle, SegmentationPlan).rows)
    for draws in samples_of(partial(bundle_parser, bundle), compared, tmp_path, 10):
        inferer = draws.members.parser.get_parsed_content(draws.members.inferer_id)
        assert inferer.with_members
        assert (inferer.num_samples > 1) == (draws.compared > 1)


def taught_alike(bundle, plan):
    """Whether weights that come with overlays were trained by a plan that deals the same patients."""
    plans = [RECIPES[bundle].plan(name) for name in RECIPES[bundle].studies]
    alike = [each for each in plans if each.get("data") == plan.data and each.get("overlays") == plan.overlays]
    return any(each.get("trainings") for each in alike)


@pytest.mark.parametrize(("bundle", "plan"), OF_PATIENTS)
def test_every_row_of_patients_can_be_made_and_its_parts_are_trained(bundle, plan):
    plan = PatientsPlan(**{key: value for key, value in plan.items() if key != "kind"})
    compared, overlays = methods([*plan.rows, *plan.tuning], plan.shared), plan.overlays
    trained = {training["config"] for training in plan.trainings}
    published = not trained and (all("phantom" in data for data in plan.data.values()) or taught_alike(bundle, plan))
    for method in compared:
        parser = bundle_parser(bundle, method.config, *overlays, **{**BEFORE_THE_FILTER, **method.settings})
        known = bundle_parser(bundle, method.config, *overlays).config.keys()
        assert {key.partition("::")[0] for key in method.settings} <= known
        assert callable(parser.get_parsed_content(method.inferer))
        assert method.control or published or trained_by(method.config) in trained
    for training in plan.trainings:
        known = bundle_parser(bundle, training["config"], *overlays).config.keys()
        assert {f"train_{part}" for part in training.get("parts", ())} | training["settings"].keys() <= known
    assert all(("real" in data) != ("phantom" in data) for data in plan.data.values())
    for made in (Made(**fields) for fields in plan.made.values()):
        known = bundle_parser(made.bundle, "inference", *made.overlays).config
        assert {"write_dataset", "dataset_split"} | made.settings.keys() <= known.keys()


def test_every_table_of_real_patients_has_controls():
    controls = {}
    for name, recipe in RECIPES.items():
        for plan in recipe.studies:
            if recipe.plan(plan).get("kind") == "patients":
                found = methods(recipe.plan(plan)["rows"], recipe.plan(plan).get("shared"))
                controls.setdefault(plan, []).extend(f"{name}: {m.name}" for m in found if m.control)
    assert controls
    assert all(controls.values())


def test_a_plan_has_what_its_base_has_but_for_what_it_says_and_what_is_null():
    recipe = recipe_of(next(iter(STUDIES)))._replace(
        study={"kind": "one", "rows": [1], "patients": {"testing": 2}},
        studies={"other": {"base": "study", "kind": "two", "patients": None}},
    )
    assert recipe.plan("other") == {"kind": "two", "rows": [1]}


def learns_from(data):
    """Return what there is to learn from in a data set: patients, cells of sites, or the lists of real ones."""
    return data.get("cells", data).get("training") or data.get("target") or data["lists"]


@pytest.mark.parametrize(("bundle", "plan"), TRAININGS)
def test_every_arm_has_its_data_and_sets_keys_that_there_are(bundle, plan):
    plan = TrainingPlan(**{key: value for key, value in plan.items() if key != "kind"})
    arms = [Arm(**arm) for arm in plan.arms]
    assert len({folder_of(ROOT, arm.name) for arm in arms} | set(plan.data)) == len(arms) + len(plan.data)
    assert plan.reference in {"", *(arm.name for arm in arms)}
    for arm in arms:
        overlays = (*plan.overlays, *arm.overlays)
        assert set(arm.tests) <= plan.data.keys()
        assert {*arm.tried, *plan.evaluation} <= bundle_parser(bundle, "inference", *overlays).config.keys()
        if arm.train:
            known = bundle_parser(bundle, arm.config, *(overlays if arm.config == "train" else ())).config
            assert learns_from(plan.data[arm.train])
            assert plan.taught(arm).keys() <= known.keys()
    assert {arm.synthesizer for arm in arms} - {""} == set(plan.synthesizers)
    for each in (Synthesizer(**made) for made in plan.synthesizers.values()):
        theirs = bundle_parser(each.bundle, "train").config
        assert f"train_{each.part}" in theirs
        assert each.settings.keys() <= theirs.keys()
        assert learns_from(plan.data[each.train])


@pytest.mark.parametrize("name", ["ellipses", "chest"])
def test_what_several_bundles_compare_is_trained_on_the_same_data(name):
    plans = plans_named(name)
    assert len(plans) > 1
    assert all(plans_named(bundle) == {} for bundle in RECIPES)
    first, *others = plans.values()
    assert all((plan["data"], plan["measures"]) == (first["data"], first["measures"]) for plan in others)
    arms = [arm["name"] for plan in plans.values() for arm in plan["arms"]]
    assert len(arms) == len(set(arms))


def test_of_what_several_bundles_compare_some_may_be_taken():
    whole = plans_named("chest")
    first, *_, last = whole
    assert plans_named("chest", (last, first)) == {last: whole[last], first: whole[first]}
    assert plans_named("chest", first) == {first: whole[first]}
    with pytest.raises(ValueError, match=r"expected bundles with a plan chest, .*, got nothing"):
        plans_named("chest", ["nothing"])


def test_a_plan_without_settings_to_tune_is_refused_before_the_work(tmp_path):
    plans = [(bundle, plan) for bundle, recipe in RECIPES.items() for plan in recipe.studies]
    bundle, plan = next(pair for pair in plans if not RECIPES[pair[0]].plan(pair[1]).get("tuning"))
    with pytest.raises(ValueError, match=f"settings can be tuned, that of {bundle}/{plan} has no"):
        study(bundle, str(tmp_path), plan=plan, tune=True)

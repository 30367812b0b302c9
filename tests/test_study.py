"""Each row of a study is something that can be run."""

import pytest
from monai.utils import ensure_tuple

from ci import bundle_parser
from ci.study import STUDIES


@pytest.mark.parametrize("bundle", STUDIES)
def test_every_row_and_every_setting_can_be_made(bundle):
    plan = STUDIES[bundle]
    radius = list(ensure_tuple(bundle_parser(bundle, "inference").get_parsed_content("median_radius")))
    for method in [*plan.methods(radius), *plan.tuning()]:
        parser = bundle_parser(bundle, method.config, **plan.answer_settings, **method.settings)
        assert callable(parser.get_parsed_content(method.inferer)), method

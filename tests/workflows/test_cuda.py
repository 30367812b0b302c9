"""Each bundle on a CUDA device: networks as on a CPU, and a training step in mixed precision."""

import json

import pytest
import torch
from bundle_runs import BUNDLES, ROOT
from monai.handlers import from_engine

from ci import bundle_parser
from common.checkpoints import load_parts

pytestmark = [pytest.mark.gpu, pytest.mark.parametrize("bundle", BUNDLES)]


def test_the_shipped_network_says_what_it_says_on_a_cpu(bundle):
    parser = bundle_parser(bundle, "inference")
    network = parser.get_parsed_content("network_def").eval()
    load_parts(network, parser.get_parsed_content("model_path"))
    metadata = json.loads((ROOT / "bundles" / bundle / "configs" / "metadata.json").read_text())
    form = metadata["network_data_format"]["inputs"]["image"]
    image = torch.rand(2, form["num_channels"], *form["spatial_shape"])
    with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        on_cpu = network(image)
        on_gpu = network.to("cuda")(image.to("cuda")).cpu()
    torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-4, atol=1e-4)  # float32 sums in another order


def test_a_training_step_in_mixed_precision_is_finite(bundle, tmp_path):
    options = {"device": torch.device("cuda"), "amp": True, "max_epochs": 1, "output_dir": str(tmp_path)}
    parser = bundle_parser(bundle, "train", **options, **{"train::handlers": []})
    network, trainer = (parser.get_parsed_content(name) for name in ("network", "train::trainer"))
    load_parts(network, parser.get_parsed_content("model_path"))  # a fresh one says 0 in any precision
    trainer.run()
    assert torch.as_tensor(from_engine("loss", first=True)(trainer.state.output)).isfinite()
    assert all(weight.isfinite().all() for weight in network.parameters())

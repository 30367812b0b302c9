"""The first step of a training in one of several processes, with draws that are fixed by slice."""

import os
from zlib import crc32

import torch
from torch import Tensor

from ci import bundle_parser
from common.checkpoints import load_parts


class DrawnBySlice:
    """What a bundle makes of a batch, each slice by itself in float64, with draws that depend on its pixels alone."""

    def __init__(self, prepare_batch):
        self.prepare_batch = prepare_batch

    def __call__(self, batchdata, *args, **kwargs):
        prepared = []
        for index, image in enumerate(batchdata["image"]):
            torch.manual_seed(crc32(image.numpy().tobytes()))
            one = {key: value[index : index + 1] for key, value in batchdata.items()}
            exact = {key: value.double() if isinstance(value, Tensor) else value for key, value in one.items()}
            prepared.append(self.prepare_batch(exact, *args, **kwargs))
        return together(prepared)


def together(parts):
    """Return nested tensors of several batches as those of one."""
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    if isinstance(parts[0], dict):
        return {key: together([part[key] for part in parts]) for key in parts[0]}
    return tuple(together(each) for each in zip(*parts, strict=True))


def first_step(rank, bundle, processes, batch, port, folder):
    """Validate the shipped weights, train a step from them, and keep metrics and gradient; in one of some processes."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    layers = ["multi_gpu_train"] if processes > 1 else []
    fixed = {"train::preprocessing": "@validate::preprocessing", "train::handlers": []}
    sizes = {"volumes_per_batch": batch // processes, "max_epochs": 1}
    parser = bundle_parser(bundle, "train", *layers, dataset_dir=str(folder), output_dir=str(folder), **sizes, **fixed)
    parser.get_parsed_content("initialize")
    network = parser.get_parsed_content("network_def").double()
    load_parts(network, parser.get_parsed_content("model_path"))  # a fresh one says 0, and most gradients are 0
    trainer, evaluator = (parser.get_parsed_content(name) for name in ("train::trainer", "validate::evaluator"))
    trainer.prepare_batch = evaluator.prepare_batch = DrawnBySlice(trainer.prepare_batch)
    evaluator.run()
    trainer.run()
    assert trainer.state.iteration == 1
    if rank == 0:
        gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        torch.save({"gradients": gradients, "metrics": evaluator.state.metrics}, folder / f"{processes}.pt")
    if processes > 1:
        parser.get_parsed_content("finalize")

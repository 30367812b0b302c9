"""Copy the numbers that tests compare with out of a folder of reference recordings: ``python -m ci.record_golden SRC``.

The recordings were made with the authors' own programs (openai/guided-diffusion 22e0df8, andreas128/RePaint 8e2a055)
and MONAI 1.6.1, with tables in double precision; only numbers are kept. ``tests/golden/README.md`` describes each file.
"""

import json
from pathlib import Path

import fire
import numpy as np

from . import ROOT

GOLDEN = ROOT / "tests" / "golden"


def record(src: str) -> None:
    """Write ``tests/golden`` from a folder with ``gdpi_difftumor`` and ``guided_diffusion``."""
    gdpi, guided = Path(src) / "gdpi_difftumor", Path(src) / "guided_diffusion"
    GOLDEN.mkdir(parents=True, exist_ok=True)

    schedules = np.load(gdpi / "repaint_schedules.npz")
    checksums = {
        name: entry["sha256"]
        for name, entry in _read(gdpi / "repaint_schedules.json").items()
        if isinstance(entry, dict)
    }
    np.savez_compressed(GOLDEN / "repaint_schedules.npz", **{name: schedules[name] for name in schedules.files})
    noise = _read(gdpi / "noise_schedules.json")
    oracle = _read(gdpi / "repaint_gaussian_oracle.json")
    mask = _read(gdpi / "ame_real_ct.json")["example_ct_sm + example_seg"]
    _write("repaint_checksums.json", checksums)
    _write(
        "noise_schedules.json",
        {
            name.removeprefix("gdpi_"): noise[name]
            for name in (
                "gdpi_linear_T1000_respaced250",
                "oracle_respacing_test_target_mean0.1_std0.2",
                "gdpi_normalisation_4mu_minus_1_mu_per_cm",
            )
        },
    )
    _write("repaint_gaussian_oracle.json", oracle)
    _write("adaptive_mask_real_ct.json", mask)

    shapes, blend = _read(gdpi / "shapes_synthetic_organs.json"), _read(gdpi / "blend_latentmask_hinge.json")
    counts = _read(gdpi / "param_counts.json")
    kinds = {"total_mm3": "total_volume_mm3", "lesion_mm": "lesion_equiv_diameter_mm"}
    kinds["raw_mm"] = "raw_equiv_diameter_mm"
    _write(
        "tumour_synthesis.json",
        {
            "shapes": {
                size: {
                    kind: {key: found[name][key] for key in ("n", "mean", "p5", "p95")} for kind, name in kinds.items()
                }
                for size, found in shapes["patch96_full"].items()
            },
            "hinge": blend["hinge"],
            "nsd_2mm": {name: entry["ref"] for name, entry in _read(gdpi / "nsd_2mm.json").items()},
            "parameters": {name: counts[name] for name in ("unet3d_params", "encoder", "decoder", "pre_post")},
            "cosine": {steps: noise[f"difftumor_cosine_T{steps}"] for steps in (1, 2, 4, 10)},
        },
    )

    tables, steps = np.load(guided / "schedule.npz"), np.load(guided / "c_psample.npz")
    np.savez_compressed(GOLDEN / "schedules.npz", **{name: tables[name][::37] for name in tables.files})
    kept = [n for n in steps.files if not n.startswith(("ddim50", "full_i10_", "full_i500_"))]
    np.savez_compressed(GOLDEN / "ancestral.npz", **{name: steps[name] for name in kept})
    loss = np.load(guided / "d_loss.npz")
    kept = [n for n in loss.files if not n.startswith("seg")]
    np.savez_compressed(GOLDEN / "hybrid_vlb.npz", **{name: loss[name] for name in kept})
    kept = [n for n in loss.files if n.startswith("seg")]
    np.savez_compressed(GOLDEN / "segmentation.npz", **{name: loss[name] for name in kept})
    weights = np.load(guided / "weights.npz")
    np.savez_compressed(GOLDEN / "tiny_unet.npz", **{name: weights[name] for name in weights.files})
    single, loops = np.load(guided / "steps.npz"), np.load(guided / "ab_anomaly.npz")
    kept = [n for n in loops.files if n.startswith("L20_") and not n.endswith("_all")]
    recorded = {name: single[name] for name in single.files} | {name: loops[name] for name in kept}
    np.savez_compressed(GOLDEN / "ddim.npz", **recorded)
    cdm = np.load(guided / "e_cdm.npz")
    kept = [name for name in cdm.files if not name.endswith(("_noisy", "_a", "_b", "_batchnorm"))]
    np.savez_compressed(GOLDEN / "condition_difference.npz", **{name: cdm[name] for name in kept})
    networks = np.load(guided / "network.npz")
    np.savez_compressed(GOLDEN / "guided_networks.npz", **{name: networks[name] for name in networks.files})
    _write("guided_network_keys.json", _read(guided / "network_keys.json"))


def _read(path: Path) -> dict:
    return json.loads(path.read_text())


def _write(name: str, content: dict) -> None:
    (GOLDEN / name).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    fire.Fire(record)

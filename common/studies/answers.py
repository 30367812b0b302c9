"""What methods answer for cases; a study keeps it, so that it can be continued."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser
from numpy.typing import NDArray

from ..checkpoints import load_parts
from ..files import replacing
from .cases import Case, Configs
from .plan import Method


class Answers:
    """Channels of what a method answers for a case; an answer that lies in the folder is not made again.

    Args:
        configs: of the bundle.
        method: that answers.
        folder: of the answers; each method has a folder in it, named after all that it is made of.
        channels: of the result.
        settings: keys of the config, below those of the method.
        seed: where the method draws.
    """

    def __init__(
        self,
        configs: Configs,
        method: Method,
        folder: Path,
        channels: int | slice,
        settings: dict[str, Any],
        seed: int | None = None,
    ) -> None:
        given = {} if seed is None else {"seed": seed}
        self.parser: ConfigParser = configs(method.config, **{**settings, **method.settings, **given})
        made_from = json.dumps(self.parser.config).encode()
        self.model_path = Path(self.parser.get_parsed_content("model_path"))
        digest = hashlib.sha256(made_from + self.model_path.read_bytes()).hexdigest()[:12]
        self.folder = folder / f"{method.inferer.split('::')[0]}_{digest}"
        self.inferer_id, self.channels = method.inferer, channels
        self.inferer: Any = None

    def __call__(self, case: Case) -> NDArray[np.float32]:
        """Return the channels of the answer, shape (X, Y, Z) or (K, X, Y, Z)."""
        path = self.folder / f"{case.name}.npz"
        if not path.is_file():
            answer = self.made(case)
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                np.savez_compressed(temporary, answer=answer)
        return np.load(path)["answer"]

    def made(self, case: Case) -> NDArray[np.float32]:
        """Return what the inferer answers, with the weights of the config."""
        if self.inferer is None:
            self.inferer = self.parser.get_parsed_content(self.inferer_id)
            self.network = self.parser.get_parsed_content("network")
            self.inferer.progress = False
            load_parts(self.network, str(self.model_path))
            self.network.eval()
        inputs = case.inputs.to(self.parser.get_parsed_content("device"))
        return self.inferer(inputs, self.network)[0][self.channels].cpu().numpy()

"""A folder that is here, or one that the Hub has."""

import re
from pathlib import Path

from transformer.errors import CheckpointError

_PATTERNS = ("*.json", "*.safetensors", "*.spm", "*.model")


def local_folder(name: str) -> Path:
    """Returns the folder `name`, downloaded first if it is not here but may be on the Hub.

    Raises:
      CheckpointError: if there is no such folder, and none can be downloaded.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise CheckpointError(f"{name}: no such folder; give one that save_pretrained wrote, or OWNER/NAME")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(
            f"{name}: no such folder, and to look for it on the Hub needs huggingface_hub: "
            "pip install huggingface_hub"
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=list(_PATTERNS)))
    except (OSError, ValueError) as error:
        message = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{name}: could not be downloaded: {message}") from None

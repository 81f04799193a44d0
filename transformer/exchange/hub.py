"""Folders that the Hub has, and ours brought there; who asks is known to huggingface_hub, and told nobody."""

import re
from pathlib import Path

from transformer.errors import CheckpointError, UserError

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PATTERNS = ("*.json", "*.spm", "*.model", "merges.txt", "*.safetensors")


def local_folder(name: str, pickles: bool = False) -> Path:
    """Returns the folder `name`, downloaded first if it is not here but may be on the Hub.

    Args:
      name: of a folder, or OWNER/NAME.
      pickles: PyTorch's files are downloaded too.

    Raises:
      CheckpointError: if there is no such folder, and none can be downloaded.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not _NAME.fullmatch(name):
        raise CheckpointError(f"{name}: no such folder; give one that save_pretrained wrote, or OWNER/NAME")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(
            f"{name}: no such folder, and to look for it on the Hub needs huggingface_hub: "
            "pip install huggingface_hub"
        ) from None
    try:
        patterns = [*_PATTERNS, "pytorch_model*.bin"] if pickles else list(_PATTERNS)
        folder = Path(snapshot_download(name, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        message = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{name}: could not be downloaded: {message}") from None
    if not pickles and not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{name}: the Hub has no safetensors of it; it may have PyTorch's pickles, which can run code: "
            "where you trust them, add --allow_pickle"
        )
    return folder


def push(folder: str | Path, name: str, private: bool) -> str:
    """Brings an exported folder to the Hub; what is there already and the same is not sent again.

    Args:
      folder: that `export` wrote.
      name: OWNER/NAME; made if there is none.
      private: whether a new one is seen by its owner only.

    Returns:
      The address of the commit.

    Raises:
      CheckpointError: if it is no export, or the Hub refuses.
      UserError: if huggingface_hub is not installed.
    """
    folder = Path(folder)
    if not (folder / "README.md").is_file() or (folder / "checkpoints").exists():
        raise CheckpointError(f"{folder}: is no export; write one first: transformer export FORM --model ...")
    if not _NAME.fullmatch(name):
        raise CheckpointError(f"--to: '{name}' is no name on the Hub; give OWNER/NAME")
    try:
        import huggingface_hub
    except ImportError:
        raise UserError("huggingface_hub is not installed: pip install 'transformer[hub]'") from None
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    try:
        hub = huggingface_hub.HfApi()
        hub.create_repo(name, private=private, exist_ok=True)
        commit = hub.upload_folder(repo_id=name, folder_path=folder, commit_message="transformer push")
    except Exception as error:  # of HTTP, of the network and of the library: many kinds
        message = " ".join(str(error).split())
        if token := huggingface_hub.get_token():
            message = message.replace(token, "...")
        raise CheckpointError(f"{name}: could not be pushed: {message[:300]}") from None
    return str(commit.commit_url)

"""SentencePiece models of strangers, tried out in a process of their own: a damaged one may crash it."""

import subprocess
import sys
from pathlib import Path

from transformer.errors import CheckpointError

_SECONDS = 20  # a sound one of 250,000 pieces takes 0.2
# Standard input -> exit status 0 if the model can be read, cuts text into pieces and joins them again.
_PROGRAM = """
import resource, sys
import sentencepiece
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
try:
    p = sentencepiece.SentencePieceProcessor(model_proto=sys.stdin.buffer.read())
    listed = [p.id_to_piece(i) for i in range(p.get_piece_size())]
    p.decode([*p.encode("A \u00e4\u4e00\U0001f600 1.", out_type=str), *listed[:1000]])
except Exception as error:
    print(" ".join(str(error).split())[:200])
    sys.exit(1)
"""


def try_sentencepiece(path: Path, model: bytes) -> None:
    """Loads and uses a serialised model elsewhere first.

    Raises:
      CheckpointError: if that fails, in whatever way.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _PROGRAM], input=model, capture_output=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise CheckpointError(f"{path}: loading it did not end in {_SECONDS} s; get it anew") from None
    if done.returncode:
        ended = f"loading it ended its process with status {done.returncode}"
        message = done.stdout.decode("utf-8", "replace").strip() or ended
        raise CheckpointError(f"{path}: not a SentencePiece model: {message}; get it anew")

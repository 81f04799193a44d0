"""Training: set-up and resume, in the order in which a user's mistakes are cheapest to find.

Order: processes agree -> mesh -> lock -> data -> model, optimizer and state (new or restored) -> loop.
Whatever the user can have got wrong is found before anything is compiled.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable
from pathlib import Path

import jax
from jax.sharding import Mesh

import transformer
from transformer.config import Config
from transformer.config_mapping import flat
from transformer.data.pipeline import row_lengths
from transformer.data.tokenizer import Tokenizer
from transformer.io.allocator import keep_freed_memory
from transformer.io.checkpoint_folder import check_run
from transformer.io.devices import check_attention, check_lengths, check_sizes, make_mesh, one_step_at_a_time
from transformer.io.goodput import Goodput
from transformer.io.lock import locked
from transformer.io.processes import Processes
from transformer.io.standard_error import say
from transformer.io.workdir import Workdir
from transformer.run.loop import Run
from transformer.run.prepare import PreparedData, prepare_data
from transformer.run.signals import StopRequest


def say_nothing(message: str) -> None:
    """Leaves the line to the first process."""


def train(
    config: Config, root: str, strict_restore: bool = False, processes: Processes | None = None
) -> None:
    """Trains, or continues to train, the run in folder `root`.

    Args:
      config: the run.
      root: its folder, which all processes see; made if missing.
      strict_restore: refuse to continue if the newest checkpoint is damaged, instead of taking the
        newest sound one.
      processes: from `processes.start`; None: this one alone.

    Raises:
      UserError: of the kind and exit code that fit. After SIGTERM or Ctrl-C everything is saved
        first; it is then Preempted or Interrupted.
    """
    one_step_at_a_time()
    processes = processes or Processes()
    workdir, goodput = Workdir(root), Goodput()
    note = say if processes.first else say_nothing
    leave = processes.leave if processes.count > 1 else None
    with processes, StopRequest(leave) as stop, contextlib.ExitStack() as held:
        processes.agree({**{key: repr(value) for key, value in flat(config).items()}, **_versions()})
        mesh = make_mesh(config.mesh)
        keep_freed_memory(mesh)
        check_attention(mesh, config.model)
        check_lengths(mesh.shape, config.model, row_lengths(config.data, config.row_length))
        if processes.first:
            check_run(workdir)
            held.enter_context(locked(workdir.root, note))
            for line in workdir.check_config(config):
                note(f"changed: {line}")
        with goodput.spent("preparing data"), stop.at_once():
            data = _prepare(config, workdir, mesh, processes, note)
        # On one device there is nothing to constrain.
        with jax.set_mesh(mesh) if mesh.size > 1 else contextlib.nullcontext():
            run = Run(config, workdir, data, mesh, stop, goodput, note, strict_restore)
            try:
                run.loop()
            finally:
                run.close()


def _prepare(
    config: Config, workdir: Workdir, mesh: Mesh, processes: Processes, note: Callable[[str], None]
) -> PreparedData:
    """Lets the first process write what the others then read, and compares what they read."""

    def check(tokenizer: Tokenizer) -> None:
        check_sizes(mesh.shape, config.model, tokenizer.vocabularies)

    data = prepare_data(config, workdir, note, check) if processes.first else None
    if data is not None:
        workdir.seal(config, data.tokenizer.digest)
        workdir.save_config(config)
    processes.barrier("data")
    data = data or prepare_data(config, workdir, note)
    files = json.loads(workdir.corpus_file.read_text(encoding="utf-8"))
    processes.agree({"tokenizer": data.tokenizer.digest, **{f["path"]: f["sha256"] for f in files}})
    return data


def _versions() -> dict[str, str]:
    """Returns what must be the same in every process besides the configuration."""
    package = Path(transformer.__file__).parent
    code = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        code.update(file.read_bytes())
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "code of transformer": code.hexdigest()[:16],
    }

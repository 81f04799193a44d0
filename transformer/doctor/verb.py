"""`transformer doctor`: what would go wrong on this machine, before a run finds out."""

import argparse
import os
from collections.abc import Iterator, Sequence

from transformer.doctor.findings import Finding
from transformer.errors import ConfigError, did_you_mean
from transformer.io.standard_error import say

_PROBLEM = 1  # exit code


def add_doctor(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verb `doctor`; `args.run(args)` returns the exit code, `args.overrides` are read too."""
    p = verbs.add_parser(
        "doctor",
        help="check this machine, or prove that a stopped run continues exactly",
        description="Checks devices, versions, driver, libraries and the start of several processes; with "
        "--config also data files, disk space and write speed. `doctor resume` trains 2K steps with and "
        "without a stop and compares batches, losses and arrays.",
        usage="transformer doctor [--config FILE] [--workdir DIR] [--config.SECTION.KEY=VALUE ...]\n"
        "       transformer doctor resume --config FILE [--steps K] [--mesh DATAxFSDPxTENSOR]\n"
        "                                 [--workdir DIR] [--config.SECTION.KEY=VALUE ...]",
        epilog="exit code 1: there is a problem; 4: the continued run differs",
    )
    p.add_argument("what", nargs="?", metavar="resume", help="compare a stopped run with one that was not")
    p.add_argument("--config", metavar="FILE", help="recipe of a run")
    p.add_argument("--workdir", metavar="DIR", help="its folder; resume: where to keep both runs")
    p.add_argument("--steps", type=int, default=6, metavar="K", help="resume: steps before the stop (6)")
    p.add_argument("--mesh", metavar="DATAxFSDPxTENSOR", help="resume: mesh to continue on")
    p.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    for word in args.overrides:
        if word.startswith("-") and not word.startswith("--config."):
            guess = did_you_mean(word.partition("=")[0], ("--config", "--workdir", "--steps", "--mesh"))
            raise ConfigError(f"{word}: unknown argument{guess}")
    if args.what == "resume":
        if args.config is None:
            raise ConfigError("doctor resume: needs --config FILE, for example configs/quickstart.py")
        from transformer.doctor.resume import resume

        for line in resume(args.config, args.overrides, args.steps, args.mesh, args.workdir):
            print(line, flush=True)
        return 0
    if args.what is not None:
        guess = did_you_mean(args.what, ("resume",))
        raise ConfigError(f"doctor {args.what}: unknown{guess}; overrides look like --config.data.seed=1")
    if args.mesh is not None:
        raise ConfigError("--mesh: belongs to doctor resume")
    return doctor(args.config, args.overrides, args.workdir)


def doctor(recipe: str | None, overrides: Sequence[str], root: str | None) -> int:
    """Prints a report on this machine; returns the exit code.

    Args:
      recipe: file of a configuration; None: only what concerns every run.
      overrides: of the command line.
      root: folder of the run, which may not exist yet; None: the current one.

    Raises:
      UserError: if the configuration cannot be used.
    """
    problems = 0
    for finding in _examine(recipe, overrides, root):
        print(finding.line(), flush=True)
        problems += finding.status == "problem"
    return _PROBLEM if problems else 0


def _examine(recipe: str | None, overrides: Sequence[str], root: str | None) -> Iterator[Finding]:
    # JAX is loaded late or in children only: it may be what is broken.
    from transformer.doctor.checks import check_host
    from transformer.doctor.children import check_sum, find_devices
    from transformer.doctor.host import Host
    from transformer.io.workdir import Workdir
    from transformer.recipes import load_config

    if recipe is None and overrides:
        raise ConfigError(f"{overrides[0]}: needs --config FILE")
    origin = Workdir(root).load_origin() if root else None  # as `train` does
    config = load_config(recipe, overrides, origin and origin.settings) if recipe is not None else None
    say("asking JAX for its devices ...")
    host = Host(find_devices(os.environ))
    yield from check_host(host)
    if host.devices.platform:
        say("starting two processes ...")
        yield check_sum(os.environ)
    else:
        yield Finding("skipped", "two processes", "JAX cannot be used")
    if config is None:
        yield Finding("skipped", "run", "data, disk and checkpoints are looked at with --config FILE")
    elif not host.devices.platform:
        yield Finding("skipped", "run", "JAX cannot be used")
    else:
        import jax

        from transformer.doctor.needs import check_config

        say("looking at the data and the disk ...")
        jax.config.update("jax_platforms", "cpu")  # only shapes are needed
        yield from check_config(config, root)

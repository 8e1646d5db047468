"""The jobs from a terminal: ``cryorefine JOB --option value``.

Every flag is made from the job's ``Options``; nothing is described here a second time. What the
job says goes to standard output, bars to standard error.
"""

from __future__ import annotations

import argparse
import difflib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from cryorefine import __version__
from cryorefine.compute.blas import prefer_wide_kernels
from cryorefine.compute.memory import keep_freed_memory
from cryorefine.compute.start import end_at_once, load_less, search_garbage_rarely
from cryorefine.errors import UserError, UserWarningMessage
from cryorefine.jobs.base import JobAborted, describe, flag_of
from cryorefine.jobs.command import add_options, options_from
from cryorefine.jobs.registry import JOBS, load
from cryorefine.jobs.workflow import WORKFLOWS
from cryorefine.terminal import project_table, summary, watch

_BRIEF = ("mask-create", "postprocess", "ctf-refine", "reconstruct-particle")
"""Jobs of seconds, of which a good part would go to fresh memory."""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Parameters
    ----------
    words : sequence of str, optional
        The words after the program's name; those of this process by default.

    Returns
    -------
    int
        0 when all went well, 2 after a mistake in the input, 130 when the job was stopped.
    """
    prefer_wide_kernels()
    own_process = words is None
    if own_process:
        search_garbage_rarely()
    words = list(sys.argv[1:] if words is None else words) or ["--help"]
    if words[0] in _BRIEF:
        keep_freed_memory()
    warnings.showwarning = _show_warning
    try:
        arguments, unknown = _parser(words).parse_known_args(words)
        if unknown:
            raise UserError(_unknown(arguments.job, unknown[0]))
        _run(arguments)
        sys.stdout.flush()
    except UserError as error:
        print(f"cryorefine: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, JobAborted) as error:
        print(f"cryorefine: {error or 'stopped from the keyboard'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); keep Python from saying so again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    finally:
        if own_process:
            end_at_once()
    return 0


class _Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong with the words, instead of listing fifty options first."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="cryorefine",
        usage="cryorefine [-h] [--version] JOB --option value ...",
        description="High-resolution cryo-EM refinement: from particles and a rough map to a sharpened map.",
        epilog="cryorefine JOB --help shows every option of a job.",
        # The longest name of a job has its summary beside it, not below.
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28),
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"cryorefine {__version__}")
    # The long metavar also makes room for the names of the jobs beside their descriptions.
    commands = parser.add_subparsers(
        prog="cryorefine", title="jobs", metavar="JOB --option value ...", dest="job", required=True
    )
    for name in JOBS if not words or words[0] not in JOBS else words[:1]:
        module = load(name)
        job = commands.add_parser(
            name,
            help=module.JOB.summary,
            description=f"{module.JOB.summary}.",
            usage=f"cryorefine {name} --option value ...",
            allow_abbrev=False,
        )
        if name in words[:1]:
            add_options(job, module.Options)
    run = commands.add_parser(
        "run",
        help="Run a job file written by RELION 3.1, 4 or 5, or by cryorefine",
        description="Run the job that a job.star describes.",
        allow_abbrev=False,
    )
    run.add_argument("job_file", type=Path, metavar="job.star", help="the job file")
    run.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="where the results go [default: the folder of the job file]",
    )
    following = commands.add_parser(
        "next",
        help="Tell how far a project has come, and the command of the next step",
        description="List the steps of the workflow as they stand in a project, and print the command of the "
        "next one with the reason of each value; nothing is changed.",
        allow_abbrev=False,
    )
    following.add_argument(
        "--workflow",
        choices=WORKFLOWS,
        default="",
        help="which workflow [default: that of the newest job]",
    )
    project = commands.add_parser(
        "project",
        help="List the jobs of a project, also of RELION's",
        description="List the jobs of a project, the newest first; nothing is changed.",
        allow_abbrev=False,
    )
    for command in (following, project):
        command.add_argument(
            "folder",
            type=Path,
            nargs="?",
            default=Path(),
            metavar="FOLDER",
            help="the folder of the project [default: the current one]",
        )
    return parser


def _unknown(job: str, word: str) -> str:
    """Return what to say about a word that is no option of a job."""
    flags = ["--output"] if job == "run" else []
    if job in JOBS:
        flags = [flag_of(name, field) for name, (_, field) in describe(load(job).Options).items()]
    near = difflib.get_close_matches(word.partition("=")[0], flags, n=1)
    remedy = f"did you mean {near[0]}" if near else f"see cryorefine {job} --help"
    return f"{job} has no option {word}; {remedy}{'?' if near else '.'}"


def _run(arguments: argparse.Namespace) -> None:
    if arguments.job == "project":
        from cryorefine.jobs.project import read_project

        for line in project_table(read_project(arguments.folder)):
            print(line)
        return
    if arguments.job == "next":
        from cryorefine.jobs.workflow_plan import plan_lines, read_plan

        for line in plan_lines(read_plan(arguments.folder, arguments.workflow)):
            print(line)
        return
    if arguments.job == "run":
        from cryorefine.jobs.relion_job import read_job

        file = read_job(arguments.job_file, output=arguments.output)
        for notice in file.notices:
            print(f"Warning: {notice}")
        module, options = load(file.name), file.options
    else:
        module = load(arguments.job)
        options = options_from(arguments, module.Options)
    load_less()
    running = module.run(options)
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _stop)
    for line in summary(watch(running)):
        print(line)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    if issubclass(category, UserWarningMessage):
        print(f"Warning: {message}")
    else:
        print(f"{category.__name__}: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

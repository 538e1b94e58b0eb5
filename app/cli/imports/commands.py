"""The commands of `cherry import`."""

from __future__ import annotations

import typer

from app.cli.imports.openai_evals import openai_evals
from app.cli.imports.openai_jobs import openai_jobs
from app.cli.imports.rlvr import rlvr

cli = typer.Typer(help="Data, jobs and evals of other services.", no_args_is_help=True)
cli.command("openai-jobs")(openai_jobs)
cli.command("openai-evals")(openai_evals)
cli.command("openai-job", hidden=True)(openai_jobs)
cli.command()(rlvr)

"""Graders that commands are given: read, and built in this process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.connect import without_service
from app.cli.output import CliError

if TYPE_CHECKING:
    from graders import Grader, GraderInvalid, GraderSpec


def parse_here(raw: dict[str, Any], path: Path) -> GraderSpec:
    """Reads a grader, for use in this process. Raises `CliError`."""
    from graders import GraderInvalid, parse_grader

    without_service()
    try:
        return parse_grader(raw)
    except GraderInvalid as fault:
        raise invalid(path, fault) from None


def build_here(raw: dict[str, Any], path: Path) -> tuple[GraderSpec, Grader]:
    """Builds the grader in this process. Raises `CliError`."""
    from app.grading.services import grader_services
    from graders import GraderInvalid, build_grader

    spec = parse_here(raw, path)
    try:
        return spec, build_grader(spec, grader_services())
    except GraderInvalid as fault:
        raise invalid(path, fault) from None


def invalid(path: Path, fault: GraderInvalid) -> CliError:
    """Returns the error of a command whose grader is not valid."""
    return CliError(f"{path} is not a valid grader: {fault.told}")

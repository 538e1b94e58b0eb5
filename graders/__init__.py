"""Graders: a sample and a dataset row in, a grade out.

A pure library. `build_grader(spec)` gives a `Grader`; `grader.grade(sample, item)` gives a `Grade`
that is either a value or a named failure, never a silent zero.
"""

from graders.build import build_grader
from graders.spec import GraderSpec, dump_grader, has_path, item_paths, parse_grader
from graders.types import Failure, FailureKind, Grade, Grader, GraderInvalid, Sample, TokenUsage

__all__ = [
    "Failure",
    "FailureKind",
    "Grade",
    "Grader",
    "GraderInvalid",
    "GraderSpec",
    "Sample",
    "TokenUsage",
    "build_grader",
    "dump_grader",
    "has_path",
    "item_paths",
    "parse_grader",
]

"""Lists what graders may import beside the standard library.

Loaded on both sides: standard library only.
"""

from __future__ import annotations

MODULES = {
    "numpy": ("numpy", "numpy.linalg", "numpy.random"),
    "scipy": ("scipy.optimize", "scipy.spatial.distance", "scipy.special", "scipy.stats"),
    "sympy": ("sympy", "sympy.parsing.sympy_parser"),
    "pandas": ("pandas",),
    "rapidfuzz": ("rapidfuzz", "rapidfuzz.distance"),
    "sklearn": ("sklearn.feature_extraction.text", "sklearn.metrics.pairwise"),
    "rouge_score": ("rouge_score.rouge_scorer",),
    "deepdiff": ("deepdiff",),
    "jsonschema": ("jsonschema",),
    "pydantic": ("pydantic",),
    "yaml": ("yaml",),
    "nltk": ("nltk.translate.bleu_score", "nltk.tokenize"),
    "sqlparse": ("sqlparse",),
}
"""OpenAI's packages by the name that is imported, with the modules a fork-server loads ahead."""

_STANDARD = """
ast base64 bisect collections copy csv dataclasses datetime decimal difflib enum fractions functools hashlib
heapq io itertools json math operator random re statistics string textwrap traceback typing unicodedata
"""
STANDARD = tuple(_STANDARD.split())
"""Loaded ahead by every fork-server."""

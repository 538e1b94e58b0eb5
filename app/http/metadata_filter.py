"""Reads `metadata[key]=value` out of a query, by which lists are filtered."""

from __future__ import annotations

import re

from starlette.requests import Request

from app.errors import BadRequest

METADATA_FILTER = re.compile(r"metadata\[(.*)\]", re.DOTALL)
MAX_PAIRS = 16


def metadata_filter(request: Request) -> dict[str, str] | None:
    """Returns the pairs of the query; an empty mapping for `metadata=null`, None for no filter."""
    pairs: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if named := METADATA_FILTER.fullmatch(name):
            pairs[named[1]] = value
    if len(pairs) > MAX_PAIRS:
        raise BadRequest(f"At most {MAX_PAIRS} metadata pairs can be asked for.", param="metadata")
    if pairs:
        return pairs
    return {} if request.query_params.get("metadata") == "null" else None

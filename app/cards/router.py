"""Serves cards and frontiers of jobs, and the public keys of cards."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from app.cards import keys
from app.cards import service as cards
from app.cards.points import points
from app.cards.schemas import CardKeyList, CardOut, Frontier
from app.http.transaction import CurrentCaller, Db, KeptRoute
from app.jobs import service as jobs
from app.settings import get_settings

router = APIRouter(prefix="/v1/fine_tuning", tags=["fine-tuning"], route_class=KeptRoute)

OURS = {"x-cherry": True}
MARKDOWN = "text/markdown"
Format = Annotated[
    Literal["json", "markdown"], Query(description="`json` is what is signed; `markdown` is for people.")
]


@router.get("/card_keys", openapi_extra=OURS)
def list_card_keys(_: CurrentCaller, db: Db) -> CardKeyList:
    """The public keys of this service's cards, newest first: that which signs, and all before it."""
    return CardKeyList.of(keys.every(db))


@router.get(
    "/jobs/{job_id}/card",
    response_model=CardOut,
    responses={200: {"content": {MARKDOWN: {"schema": {"type": "string"}}}}},
    openapi_extra=OURS,
)
def retrieve_card(job_id: str, caller: CurrentCaller, db: Db, format: Format = "json") -> Response:
    """What a job was made of and what became of it, signed once it is over."""
    card = cards.card_of(db, jobs.get(db, caller.project_id, job_id), get_settings())
    if format == "markdown":
        return Response(card.markdown, media_type=MARKDOWN)
    return Response(card.document, media_type="application/json")


@router.get("/jobs/{job_id}/frontier", openapi_extra=OURS)
def retrieve_frontier(job_id: str, caller: CurrentCaller, db: Db) -> Frontier:
    """Reward over the base against KL of every checkpoint, of those whose files were dropped too."""
    job = jobs.get(db, caller.project_id, job_id)
    return Frontier.holding(job, points(db, job))

"""Which completions share a forward pass, and where their tokens lie."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.training.support import group_of
from workers.training.base.types import Prompt
from workers.training.passes.packed_attention import Segment, Tile, make_tiles
from workers.training.passes.packing import (
    PackedCompletion,
    make_batches,
    padded_rows,
    per_completion,
    spread,
)

CPU = torch.device("cpu")


def completions_with(*groups):
    """Groups as (prompt tokens, completion lengths); every token id occurs once."""
    packed, next_id = [], 0

    def ids(n):
        nonlocal next_id
        next_id += n
        return tuple(range(next_id - n, next_id))

    for row, (prompt_tokens, lengths) in enumerate(groups):
        prompt = Prompt(row, {}, ids(prompt_tokens))
        group = group_of(prompt, *[ids(n) for n in lengths])
        packed += [PackedCompletion(prompt, completion) for completion in group.completions]
    return packed


def test_the_stream_holds_each_prompt_once_and_no_last_token():
    (batch,) = make_batches(completions_with((3, [2, 1, 3]), (2, [2])), 100, CPU)
    assert batch.token_ids.tolist() == [[0, 1, 2, 3, 6, 7, 9, 10, 11]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 3, 4, 0, 1, 2]]
    assert batch.targets.tolist() == [3, 4, 5, 6, 7, 8, 11, 12]
    assert batch.token_ids[0, batch.predictors].tolist() == [2, 3, 2, 2, 6, 7, 10, 11]
    assert batch.segments == (Segment(0, 3, (1, 0, 2)), Segment(6, 2, (1,)))
    assert batch.lengths.tolist() == [2, 1, 3, 2]
    assert (batch.n_tokens, batch.n_forwarded, batch.reach) == (8, 9, 5)


def test_given_tokens_are_read_and_not_predicted():
    chosen, plain = completions_with((3, [4, 2]))
    inner = (False, True, True, False)
    given_last = replace(plain.completion, given=(False, True))
    packed = [PackedCompletion(chosen.prompt, replace(chosen.completion, given=inner))]
    packed.append(PackedCompletion(chosen.prompt, given_last))
    (batch,) = make_batches(packed, 100, CPU)
    assert batch.token_ids.tolist() == [[0, 1, 2, 3, 4, 5, 7]]
    assert batch.targets.tolist() == [3, 6, 7]
    assert batch.token_ids[0, batch.predictors].tolist() == [2, 5, 2]
    assert batch.lengths.tolist() == [2, 1]
    rows = [(ids.tolist(), ids[places].tolist()) for ids, places in padded_rows(batch)]
    assert rows == [([0, 1, 2, 3, 4, 5], [2, 5]), ([0, 1, 2, 7], [2])]


def test_padded_rows_are_the_same_completions():
    (batch,) = make_batches(completions_with((3, [2, 1, 3]), (2, [2])), 100, CPU)
    rows = [(ids.tolist(), ids[places].tolist()) for ids, places in padded_rows(batch)]
    assert rows == [
        ([0, 1, 2, 3], [2, 3]),
        ([0, 1, 2], [2]),
        ([0, 1, 2, 6, 7], [2, 6, 7]),
        ([9, 10, 11], [10, 11]),
    ]


def test_values_are_cut_by_completion():
    (batch,) = make_batches(completions_with((3, [2, 1, 3])), 100, CPU)
    assert [part.tolist() for part in per_completion(batch.targets, batch)] == [[3, 4], [5], [6, 7, 8]]


def test_a_group_over_the_budget_is_split_evenly_with_its_prompt_in_each_part():
    packed = completions_with((10, [8, 8, 8, 8]))
    batches = make_batches(packed, 30, CPU)
    assert [batch.indices for batch in batches] == [(0, 2), (1, 3)]
    assert [batch.segments[0].prompt for batch in batches] == [10, 10]


def test_rows_of_their_own_count_the_prompt_for_each_completion():
    packed = completions_with((10, [8, 8, 8, 8]))
    batches = make_batches(packed, 36, CPU, repeats_prompts=True)
    assert [batch.indices for batch in batches] == [(0, 2), (1, 3)]
    assert len(make_batches(packed, 72, CPU, repeats_prompts=True)) == 1
    assert len(make_batches(packed, 71, CPU, repeats_prompts=True)) == 2


def test_whole_groups_stay_together_where_they_fit():
    packed = completions_with((5, [5, 5]), (5, [5, 5]), (5, [5, 5]), (5, [5, 5]))
    batches = make_batches(packed, 32, CPU)
    assert [len(batch.segments) for batch in batches] == [2, 2]


def test_completions_of_one_prompt_share_it_although_others_lie_between():
    first, second = completions_with((5, [2, 2]), (5, [2, 2]))[:2], completions_with((6, [2, 2]))
    (batch,) = make_batches([first[0], second[0], first[1], second[1]], 100, CPU)
    assert batch.indices == (0, 2, 1, 3)
    assert len(batch.segments) == 2


groups_of_lengths = st.lists(
    st.tuples(st.integers(1, 30), st.lists(st.integers(1, 20), min_size=1, max_size=6)),
    min_size=1,
    max_size=5,
)


@given(groups=groups_of_lengths, budget=st.integers(1, 120))
def test_batches_lose_nothing_and_stay_within_the_budget(groups, budget):
    packed = completions_with(*groups)
    batches = make_batches(packed, budget, CPU)
    assert sorted(i for batch in batches for i in batch.indices) == list(range(len(packed)))
    for batch in batches:
        found = [tuple(part.tolist()) for part in per_completion(batch.targets, batch)]
        assert found == [packed[i].completion.tokens for i in batch.indices]
        assert batch.n_forwarded <= budget or len(batch.indices) == 1


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=20), room=st.integers(-10, 100))
def test_spreading_keeps_bins_within_their_room_and_few(sizes, room):
    bins = spread(sizes, room)
    assert sorted(i for chosen in bins for i in chosen) == list(range(len(sizes)))
    loads = [sum(sizes[i] for i in chosen) for chosen in bins]
    assert all(load <= room or len(chosen) == 1 for load, chosen in zip(loads, bins, strict=True))
    halved = sorted(loads)[:2]
    assert len(bins) == 1 or sum(halved) > room or len(bins) <= -(-sum(sizes) // room) + 1


def visible(segments, rows):
    """What each token of the stream may look at, by the tiles: pairs of places."""
    pairs, starts = set(), []
    for tile in make_tiles(segments, rows):
        starts.append((sum(n for _, n in starts), tile.tokens))
        first = starts[-1][0]
        at = first
        for run in tile.runs:
            pairs |= {(q, k) for q in range(at, at + run) for k in range(at, q + 1)}
            at += run
        for seen in tile.sees:
            start, n = starts[seen]
            pairs |= {(q, k) for q in range(first, first + tile.tokens) for k in range(start, start + n)}
    return pairs


@given(groups=groups_of_lengths, rows=st.integers(1, 40))
def test_tiles_let_a_token_see_its_prompt_and_its_own_completion_so_far(groups, rows):
    (batch,) = make_batches(completions_with(*groups), 10**6, CPU)
    expected, at = set(), 0
    for segment in batch.segments:
        prompt = range(at, at + segment.prompt)
        expected |= {(q, k) for q in prompt for k in prompt if k <= q}
        at = prompt.stop
        for n in segment.completions:
            own = range(at, at + n)
            expected |= {(q, k) for q in own for k in [*prompt, *own] if k <= q}
            at = own.stop
    assert visible(batch.segments, rows) == expected


def test_short_completions_share_a_tile_and_a_long_one_is_cut():
    tiles = make_tiles([Segment(0, 5, (2, 0, 3, 9))], 4)
    assert tiles == [
        Tile(5, (), (5,)),
        Tile(2, (0,), (2,)),
        Tile(3, (0,), (3,)),
        Tile(4, (0,), (4,)),
        Tile(4, (0, 3), (4,)),
        Tile(1, (0, 3, 4), (1,)),
    ]
    assert make_tiles([Segment(0, 5, (2, 2))], 4)[1] == Tile(4, (0,), (2, 2))
    assert make_tiles([Segment(0, 5, (3,))], 4) == [Tile(8, (), (8,))]

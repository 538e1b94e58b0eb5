"""What a GPU would be asked for stays within the bars of docs/benchmarks.md ("What a GPU is asked to do")."""

from __future__ import annotations

import pytest

from benchmarks.gpu_counts import memory, passes, sampling


def test_logits_of_a_pass_are_made_in_few_pieces_where_a_card_has_room() -> None:
    assert [memory.logit_pieces(free) for free in memory.FREE] == [10, 5, 5]


def test_rows_side_by_side_and_their_cache_follow_the_card() -> None:
    rooms = [memory.room(memory.LARGE, card * 10**9) for card in memory.CARDS]
    assert [room.rows for room in rooms] == sorted({room.rows for room in rooms})
    for room, card in zip(rooms, memory.CARDS, strict=True):
        assert room.size <= 0.25 * card * 1e9


@pytest.mark.long
def test_sampling_stays_within_its_bars(tmp_path) -> None:
    found = sampling.measure(tmp_path)
    assert found.kernels_a_layer <= 20
    assert found.first.captured <= 12
    assert found.next.eager + found.next.captured <= 2
    for call in (found.next, found.greedy, found.stopped):
        assert call.waits <= 1 + 1 / call.steps  # the last may be superfluous
        assert call.other_waits <= 2
        assert call.kernels_outside * call.steps <= 200  # for the prompts, however many tokens follow


@pytest.mark.long
def test_an_update_makes_no_masks_and_waits_for_what_a_pass_is_told_not_for_its_layers(tmp_path) -> None:
    found = passes.measure(tmp_path)
    assert found.mask_bytes == 0
    assert found.waits <= 16
    deeper = passes.measure(tmp_path, layers=4)
    assert deeper.waits == found.waits
    assert deeper.copied_bytes == found.copied_bytes


@pytest.mark.long
def test_an_adapter_in_bf16_saves_four_tenths_of_what_a_pass_keeps() -> None:
    before = {memory.SMALL: 32e9, memory.LARGE: 148e9}
    for shape, kept in before.items():
        assert memory.activations(shape) < 0.6 * kept

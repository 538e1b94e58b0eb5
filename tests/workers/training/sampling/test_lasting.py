"""Caches of whole contexts: what they take of memory, and what they keep."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.workers.training.families import make_family
from workers.training.model.adapter_rows import AdapterRows
from workers.training.sampling.lasting import LastingDecoder
from workers.training.sampling.lazy_memory import LazyMemory
from workers.training.sampling.prompt_pieces import Piece


def held() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_memory_is_taken_where_it_is_written_to_and_given_back() -> None:
    memory = LazyMemory()
    before = held()
    zeros = memory.zeros((4, 64, 1 << 24), torch.float32)  # 16 GiB
    assert held() - before < 32 << 20
    zeros[1, 3] = 1
    assert held() - before > 60 << 20
    memory.give_back(zeros[1, 3])
    assert held() - before < 32 << 20
    assert zeros[1, 3, ::4096].sum() == 0


@pytest.mark.parametrize("changes", [{}, {"attention_bias": True, "mlp_bias": True}], ids=["panels", "slots"])
@torch.inference_mode()
def test_pieces_give_the_states_of_the_whole(changes: dict[str, bool]) -> None:
    model = make_family("llama", **changes)
    decoder = LastingDecoder(model, 4, 200, AdapterRows(model), 0)
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randint(90, (n,), generator=generator).tolist() for n in (100, 77))
    whole = [model.model(input_ids=torch.tensor([ids])).last_hidden_state[0] for ids in (one, other)]
    found: list[list[torch.Tensor]] = [[], []]
    for pieces in (
        [Piece(3, 0, one[:5]), Piece(0, 0, other[:31])],
        [Piece(0, 31, other[31:32]), Piece(3, 5, one[5:80])],
        [Piece(3, 80, one[80:]), Piece(0, 32, other[32:])],
    ):
        for piece, states in zip(pieces, decoder.read(pieces, None), strict=True):
            found[piece.slot == 0].append(states[: len(piece.ids)])
    for pieces_of, expected in zip(found, whole, strict=True):
        torch.testing.assert_close(torch.cat(pieces_of), expected, atol=2e-5, rtol=1e-4)
    kept = decoder.keep(3, 90)
    decoder.restore(5, kept, 83)
    states = decoder.read([Piece(5, 83, one[83:])], None)
    torch.testing.assert_close(states[0], whole[0][83:], atol=2e-5, rtol=1e-4)


def test_a_system_that_reserves_little_has_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = LazyMemory.zeros

    def few(self: LazyMemory, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        if torch.Size(shape).numel() > 1 << 20:
            raise OSError("Cannot allocate memory")
        return zeros(self, shape, dtype)

    monkeypatch.setattr(LazyMemory, "zeros", few)
    model = make_family("llama")
    decoder = LastingDecoder(model, 64, 256, AdapterRows(model), 0)
    assert 1 < decoder.rows < 64
    assert decoder.prompt_slots == 2 * decoder.rows

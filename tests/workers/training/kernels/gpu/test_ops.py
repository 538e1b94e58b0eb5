"""The operations of a decode step: as torch wants them, and by hand."""

import pytest
import torch

from workers.training.kernels.gpu import ops, plain, trial

WIDTHS = trial.Widths(heads=4, kv_heads=2, head=16, hidden=32, gate=48)
DTYPES = (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operations_keep_the_contract_of_torch(dtype):
    """Opcheck: arguments change only where it is said, and shapes follow without computing."""
    for name, arguments in trial.trials(WIDTHS, dtype, torch.device("cpu")):
        checked = ("test_schema", "test_faketensor")
        assert set(torch.library.opcheck(getattr(ops, name), arguments, test_utils=checked).values()) == {
            "SUCCESS"
        }, name


def attended(rows, heads, kv_heads, width):
    """What `plain.decode_attention` is given, and each row's keys and values one after the other."""
    generator = torch.Generator().manual_seed(3)

    def numbers(*shape):
        return torch.randn(shape, generator=generator)

    prompts, own = (
        [numbers(n, kv_heads, columns, width) for _ in range(2)] for n, columns in ((2, 7), (rows, 5))
    )
    lengths, columns = torch.tensor([7, 3]), torch.tensor([4, 0, 2])
    group, source, place = [1, 0, 1], torch.tensor([1, 0, 0, 0, 2, 0]), torch.tensor([3, 0, 4])
    query = numbers(rows, heads, width)
    whole = [
        [
            torch.cat([p[group[b], :, : lengths[group[b]]], o[b, :, : columns[b] + 1]], 1)
            for p, o in zip(prompts, own, strict=True)
        ]
        for b in range(rows)
    ]
    return (query, *prompts, *own, lengths, columns, source, place, 7, 5, width**-0.5), whole


def test_attention_is_that_over_prompt_and_own_columns_together():
    arguments, whole = attended(3, 6, 2, 8)
    found = plain.decode_attention(*arguments)
    for row, (keys, values) in enumerate(whole):
        expected = torch.nn.functional.scaled_dot_product_attention(
            arguments[0][row][:, None], keys.repeat_interleave(3, 0), values.repeat_interleave(3, 0)
        )
        torch.testing.assert_close(found[row], expected.flatten(), atol=1e-5, rtol=1e-5)


def test_a_spare_row_attends_to_its_own_columns_and_changes_no_other():
    arguments, _ = attended(3, 6, 2, 8)
    expected = plain.decode_attention(*arguments)
    spare = list(arguments)
    spare[8] = torch.tensor([3, 0, 0])  # row 2 names the place of row 1
    found = plain.decode_attention(*spare)
    assert torch.equal(found[:2], expected[:2])
    assert found[2].isfinite().all()


def test_a_trial_tells_of_an_operation_that_is_off():
    assert trial.fault_of(WIDTHS, torch.bfloat16, torch.device("cpu")) is None
    tried = dict(trial.trials(WIDTHS, torch.float32, torch.device("cpu")))

    def twice(gate_up):
        return 2 * plain.gated_silu(gate_up)

    assert trial.apart(twice, plain.gated_silu, tried["gated_silu"]) == pytest.approx(1)
    assert trial.apart(ops.gated_silu, plain.gated_silu, tried["gated_silu"]) == 0

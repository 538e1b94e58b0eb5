"""The operations of a decode step on a real GPU: against their plain twins, and replayed from a graph."""

from functools import partial

import pytest
import torch

from tests.workers.training.families import make_family
from tests.workers.training.sampling.test_decode_attention import CACHE_SIZE
from tests.workers.training.sampling.test_gpu_decoder import ROWS
from workers.training.kernels.gpu.trial import Widths, fault_of
from workers.training.sampling.decode_attention import decode
from workers.training.sampling.decode_step import exact_step
from workers.training.sampling.decoders import slot_cache
from workers.training.sampling.graphed.gpu_decoder import GpuDecoder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

WIDTHS = (
    Widths(heads=14, kv_heads=2, head=64, hidden=896, gate=4864),
    Widths(heads=28, kv_heads=4, head=128, hidden=3584, gate=18944),
    Widths(heads=32, kv_heads=32, head=80, hidden=2560, gate=10240),
    Widths(heads=8, kv_heads=1, head=256, hidden=2048, gate=16384),
)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_operations_compute_what_their_plain_twins_do(widths, dtype):
    assert fault_of(widths, dtype, torch.device("cuda", 0)) is None


@torch.inference_mode()
def test_a_step_gives_the_modules_logits_also_when_it_is_replayed():
    model = make_family("qwen3").to("cuda")
    cache = slot_cache(model, CACHE_SIZE)
    ids = torch.arange(4, device="cuda")
    step, function = exact_step(ROWS, ids), GpuDecoder(model).decode
    expected = partial(decode, model)(cache, step)
    torch.testing.assert_close(function(cache, step), expected, atol=1e-3, rtol=1e-3)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        found = function(cache, step)
    found.zero_()
    graph.replay()
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)

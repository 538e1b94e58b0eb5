"""The device made of CPU memory refuses what a GPU refuses and counts what a GPU is slow at."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from scripts.gpu.as_if_cuda import CUDA, as_if_cuda
from scripts.gpu.device import Device
from workers.training.base import device_memory
from workers.training.sampling.graphed.graphs import CudaGraph, Graphs

MIB = 1 << 20


@pytest.fixture
def device() -> Iterator[Device]:
    with as_if_cuda(total=64 * MIB) as found:
        yield found


@torch.library.custom_op("cherry_tests::twice_and_one", mutates_args=())
def twice_and_one(x: Tensor) -> Tensor:
    return x * 2 + 1


def test_values_are_those_of_the_cpu_and_the_device_is_said_to_be_cuda(device):
    x = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    y = (x.cuda() @ x.to("cuda").T).softmax(-1)
    assert y.device == CUDA
    assert y.is_cuda
    assert torch.equal(y.cpu(), (x @ x.T).softmax(-1))


def test_gradients_are_those_of_the_cpu(device):
    torch.manual_seed(0)
    layer, x = nn.Linear(5, 3), torch.randn(4, 5)
    layer(x).square().sum().backward()
    expected = layer.weight.grad.clone()
    there = copy.deepcopy(layer).to("cuda")
    there.zero_grad()
    there(x.to("cuda")).square().sum().backward()
    assert there.weight.grad.device == CUDA
    assert torch.equal(there.weight.grad.cpu(), expected)


def test_tensors_of_two_devices_are_refused_and_single_numbers_are_not(device):
    x = torch.ones(3, device="cuda")
    assert (x * torch.tensor(2.0)).tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(RuntimeError, match=r"same device.*test_as_if_cuda\.py"):
        x + torch.ones(3)
    with pytest.raises(TypeError, match="numpy"):
        x.numpy()


def test_each_kind_of_wait_is_counted_where_it_was_asked_for(device):
    x = torch.ones(4, device="cuda")
    device.counts.clear()
    bool(x[0] == 1)
    x.tolist()
    x.nonzero()
    x.cpu()
    x[x > 0]
    torch.cuda.synchronize()
    assert [kind for kind, _ in device.counts.waits] == [
        "host read",
        "host read",
        "sizes of nonzero",
        "copy device->host",
        "sizes of a mask's index",
        "synchronize",
    ]
    assert device.counts.waits.total() == 6
    assert all("tests/gpu/test_as_if_cuda.py:" in place for _, place in device.counts.waits)


def test_views_and_empty_tensors_launch_no_kernel_and_a_custom_operation_launches_one(device):
    x = torch.ones(4, 4, device="cuda")
    device.counts.clear()
    y = torch.empty_like(x).view(2, 8).T.unsqueeze(0)[..., 1:].detach()
    assert not device.counts.kernels
    z = twice_and_one(x)
    y.copy_(z.reshape(-1)[:8].view(1, 8, 1).expand_as(y))
    assert device.counts.kernels == {"cherry_tests::twice_and_one": 1, "copy_": 1}
    assert z.tolist() == [[3.0] * 4] * 4


def test_a_graph_runs_again_on_what_its_inputs_hold_now(device):
    x, kept = torch.zeros(3, device="cuda"), torch.zeros(3, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        kept.add_(1)
        out = x.exp().reshape(3, 1) * kept
    device.counts.clear()
    x.copy_(torch.tensor([0.0, 1.0, 2.0]))
    graph.replay()
    assert torch.allclose(out[:, 0].cpu(), 2 * torch.tensor([0.0, 1.0, 2.0]).exp())
    assert (device.counts.replays, device.counts.replayed) == (1, {"add_": 1, "exp": 1, "mul": 1})
    assert not device.counts.kernels


def test_a_reshape_that_copies_runs_again_in_a_graph(device):
    with torch.inference_mode():
        x = torch.zeros(2, 3, device="cuda")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = x.T.reshape(6)
        x.copy_(torch.arange(6.0).view(2, 3))
        graph.replay()
    assert out.tolist() == [0, 3, 1, 4, 2, 5]
    assert device.counts.replayed.total() == 1


def test_a_host_read_in_a_capture_is_refused_and_the_device_is_well_afterwards(device):
    x = torch.ones(3, device="cuda")
    with pytest.raises(RuntimeError, match="capturing"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        (x * 2).sum().item()
    assert device.counts.failed_captures == 1
    assert not torch.cuda.is_current_stream_capturing()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = x * 3
    graph.replay()
    assert y.tolist() == [3.0, 3.0, 3.0]


def test_a_failed_capture_keeps_stream_and_memory_until_it_is_ended_as_on_a_gpu(device):
    before = torch.cuda.current_stream()
    with pytest.raises(RuntimeError, match="capturing"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        torch.ones(3, device="cuda").tolist()
    assert torch.cuda.current_stream() != before
    x = torch.zeros(8 * MIB, device="cuda")
    del x
    torch.cuda.empty_cache()
    assert torch.cuda.mem_get_info()[0] == 32 * MIB
    torch._C._cuda_endAllocateToPool(0, (0, 1))
    torch.cuda.empty_cache()
    assert torch.cuda.mem_get_info()[0] == 64 * MIB
    with pytest.raises(RuntimeError, match="not currently recording"):
        torch._C._cuda_endAllocateToPool(0, (0, 1))


def test_after_a_capture_that_fails_stream_and_memory_are_as_before(device):
    x, before = torch.ones(1024, device="cuda"), torch.cuda.current_stream()
    graphs = Graphs(CudaGraph)

    def look():
        return x * float((x * 2).sum())

    assert graphs.of(look) is look
    assert not graphs.is_on
    assert device.counts.failed_captures == 1
    assert torch.cuda.current_stream() == before
    held = torch.ones(8 * MIB, device="cuda")
    del held
    torch.cuda.empty_cache()
    assert torch.cuda.mem_get_info()[0] == 64 * MIB - x.nbytes
    replay = Graphs(CudaGraph).of(lambda: x * 3)
    assert float(replay().sum()) == 3 * 1024


def test_a_copy_that_nobody_waited_for_has_not_arrived(device):
    x = torch.tensor([1.0, 2.0], device="cuda")
    there = torch.zeros(2).pin_memory()
    device.counts.clear()
    there.copy_(x, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    made = x.to("cpu", non_blocking=True)
    x.zero_()
    assert there.tolist() == [0.0, 0.0]
    assert not device.counts.waits
    event.synchronize()
    assert there.tolist() == [1.0, 2.0]
    assert made.isnan().all()
    torch.cuda.synchronize()
    assert made.tolist() == [1.0, 2.0]
    assert (device.counts.copies.total(), device.counts.waits.total()) == (2, 2)


def test_memory_is_counted_by_storage_and_too_much_is_refused(device):
    assert device_memory.free_bytes(CUDA) == 64 * MIB
    x = torch.zeros(8 * MIB, device="cuda")  # 32 MiB of fp32
    view = x.view(2, -1)
    assert torch.cuda.memory_allocated() == 32 * MIB
    with pytest.raises(torch.OutOfMemoryError, match=r"capacity of 0\.06 GiB"):
        torch.zeros(9 * MIB, device="cuda")
    del x, view
    assert torch.cuda.memory_allocated() == 0
    assert torch.cuda.mem_get_info() == (32 * MIB, 64 * MIB)
    assert device_memory.free_bytes(CUDA) == 64 * MIB
    torch.cuda.empty_cache()
    assert torch.cuda.mem_get_info() == (64 * MIB, 64 * MIB)
    assert torch.cuda.max_memory_allocated() == 32 * MIB


def test_a_process_gets_no_more_than_its_share():
    with as_if_cuda(total=64 * MIB, free=40 * MIB):
        assert torch.cuda.mem_get_info() == (40 * MIB, 64 * MIB)
        torch.cuda.set_per_process_memory_fraction(0.25, CUDA)
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(5 * MIB, device="cuda")
        assert torch.empty(3 * MIB, device="cuda").is_cuda


def test_threads_that_start_inside_are_on_the_device_too(device):
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: torch.ones(2, device="cuda") + 1).result()
    assert found.is_cuda
    assert found.tolist() == [2.0, 2.0]


def test_asking_how_many_there_are_opens_no_context(device):
    assert torch.cuda.is_available()
    assert torch.cuda.device_count() == 1
    assert not torch.cuda.is_initialized()
    torch.cuda.get_rng_state_all()
    assert torch.cuda.is_initialized()
    assert [name for name, _ in device.counts.contexts] == ["get_rng_state_all"]


def test_all_is_as_before_when_it_is_switched_off():
    before = torch.cuda.device_count, torch.autocast.__init__
    with as_if_cuda(devices_here=4):
        assert torch.cuda.device_count() == 4
    assert (torch.cuda.device_count, torch.autocast.__init__) == before
    assert torch.ones(1).device.type == "cpu"

"""What sampling from a model keeps from call to call on a GPU: its memory and its graphs.

They lie with the model (`Kept`), live as long as it does or until `release`, and are one call's at a time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from methods.sizes.sampler import LOGIT_BYTES, Costs, Needs, Shape, plan
from workers.training.model.quantised import QuantisedLinear
from workers.training.model.rollout_weights import FollowingLinear
from workers.training.sampling.decode_attention import layer_shapes
from workers.training.sampling.graphed.graphs import CudaGraph
from workers.training.sampling.graphed.sampler import Sampler, StepFunction
from workers.training.sampling.graphed.shapes import budget_of

log = logging.getLogger(__name__)

ATTRIBUTE = "cherry_kept_sampler"
"""The attribute of a model that holds what is kept."""

MakeStepFunction = Callable[[Any], StepFunction]


class Kept:
    """Keeps the sampler of one model. A copy of the model keeps nothing yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sampler: Sampler | None = None
        self._weights: Any = None
        self._needs: Needs | None = None
        """What all calls together wanted: so a call after a larger one finds its sampler."""
        self._budget: int | None = None
        """Bytes that sampling may take. Decided once, so that no later call has fewer rows for what else the
        process holds then.
        """

    def __deepcopy__(self, _memo: Any) -> Kept:
        return Kept()

    def __reduce__(self) -> Any:
        return Kept, ()

    def budget_of(self, model: Any) -> int:
        """Returns the bytes that sampling may take."""
        if self._budget is None:
            self._budget = budget_of(model.device)
        return self._budget

    def take(self, model: Any, needs: Needs, make: MakeStepFunction) -> Sampler:
        """Returns a sampler for a call, which has it alone until it gives it back.

        It is made anew where calls before needed less, and captures its steps anew where weights have moved.
        Raises `torch.OutOfMemoryError` where not even the completions of one prompt find memory.
        """
        costs = _costs(model)
        with self._lock:
            sampler, self._sampler = self._sampler, None
            self._needs = needs.and_those(self._needs)
            shape = plan(self._needs, costs, self.budget_of(model))
            if sampler is not None and sampler.shape == shape:
                if self._weights != memory_of_weights(model):
                    sampler.use(make(model))
                return sampler
            del sampler  # its memory goes first
            return self._made(model, self._needs, shape, costs, make)

    def _made(self, model: Any, needs: Needs, shape: Shape, costs: Costs, make: MakeStepFunction) -> Sampler:
        """Returns a new sampler, with fewer rows than planned where there is less memory than was thought."""
        layers, like = layer_shapes(model, model.device)
        capture = CudaGraph if model.device.type == "cuda" else None
        while True:
            try:
                sampler = Sampler(layers, like, shape, make(model), capture)
            except torch.OutOfMemoryError as error:
                self._budget = costs.of(shape) // 2
                smaller = plan(needs, costs, self._budget)
                log.warning(
                    "sampling_rows_halved",
                    extra={"reason": str(error)[:200], "rows": shape.slots, "instead": smaller.slots},
                )
                if smaller == shape:
                    raise
                shape = smaller
            else:
                return sampler

    def give_back(self, model: Any, sampler: Sampler) -> None:
        """Keeps a sampler for the next call."""
        weights = memory_of_weights(model)
        with self._lock:
            self._sampler, self._weights = sampler, weights

    def release(self) -> bool:
        """Gives its memory back; says whether there was any. The next call makes a sampler anew."""
        with self._lock:
            sampler, self._sampler = self._sampler, None
        return sampler is not None


class Lease:
    """Is a sampler in the hands of one call."""

    def __init__(self, kept: Kept, model: Any, needs: Needs, make: MakeStepFunction) -> None:
        self._kept = kept
        self._model = model
        self._make = make
        self.needs = needs
        self.sampler = kept.take(model, needs, make)

    def enlarge(self, prompt_columns: int) -> None:
        """Exchanges the sampler for one that takes longer prompts. No row may be under way."""
        self.needs = self.needs._replace(prompt_columns=prompt_columns)
        del self.sampler  # its memory goes first
        self.sampler = self._kept.take(self._model, self.needs, self._make)

    def give_back(self) -> None:
        """Keeps the sampler for the next call."""
        self._kept.give_back(self._model, self.sampler)


@contextmanager
def sampler_for(model: Any, needs: Needs, make: MakeStepFunction, *, is_kept: bool) -> Iterator[Lease]:
    """Gives a call a sampler, which is kept for the next one if `is_kept` and nothing is raised inside."""
    kept = _kept_of(model) if is_kept else Kept()
    lease = Lease(kept, model, needs, make)
    yield lease
    lease.give_back()


def budget_for(model: Any) -> int:
    """Returns the bytes that sampling from a model may take. On a GPU they are decided once."""
    return budget_of(model.device) if model.device.type == "cpu" else _kept_of(model).budget_of(model)


def release(model: Any) -> bool:
    """Gives back the memory that is kept for sampling from a model; says whether there was any."""
    kept: Kept | None = getattr(model, ATTRIBUTE, None)
    if kept is None or not kept.release():
        return False
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)  # another stream may have used it last
    return True


def _kept_of(model: Any) -> Kept:
    if not hasattr(model, ATTRIBUTE):
        setattr(model, ATTRIBUTE, Kept())
    found: Kept = getattr(model, ATTRIBUTE)
    return found


def memory_of_weights(model: Any) -> list[Any]:
    """Returns where all that a model computes with lies: a graph is right for as long as that is the same."""
    tensors = [*model.parameters(), *model.buffers()]
    following = [module for module in model.modules() if isinstance(module, FollowingLinear)]
    quantised = [module for module in model.modules() if isinstance(module, QuantisedLinear)]
    beside = [module for module in following if module.down is None]  # others are buffers
    return [
        [_place(tensor) for tensor in tensors],
        [_places(module.branch) for module in (*beside, *quantised)],
        [_place(module.merged) for module in quantised],
    ]


def _places(branch: Any) -> Any:
    return None if branch is None else [_place(value) for value in branch]


def _place(value: Any) -> Any:
    return (value.data_ptr(), value.dtype, value.shape) if isinstance(value, Tensor) else value


def _costs(model: Any) -> Costs:
    layers, like = layer_shapes(model, model.device)
    vocabulary = model.get_output_embeddings().weight.shape[0]
    token = sum(layer.numbers for layer in layers) * like.element_size()
    return Costs(token=token, row=vocabulary * LOGIT_BYTES)

"""One training run over several processes of a machine, each with a device of its own, as one process would do it.

Every process holds the whole model. Of each batch it takes its own rows; the gradients of all rows are added up before
each optimiser step, weighted by the number of examples, so that all processes make the same step. What one process
would draw, all of them draw together and each keeps its rows; batch norm is over the rows of all. So k processes differ
from one only in the order in which floats are added, and the share of an example in the loss does not depend on k.

Not torch's `DistributedDataParallel`: an attack makes several forwards before one backward, during which DDP writes
into buffers that are still needed, and it averages the means of processes whatever their numbers of examples.

A network that draws for itself while it trains (dropout, stochastic depth) draws other numbers in each process, and so
others than one process would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from robusteval.data.batches import Batch, Rows
from robusteval.schema.errors import UsageError
from robusteval.schema.records import Budget

TIMEOUT = timedelta(hours=1)
"""How long a process waits for the others; one that dies is noticed at once by whoever started it."""


@dataclass(frozen=True)
class Ranks:
    """A process among those that train one model.

    Attributes:
        index: its number, from 0; number 0 writes.
        count: number of processes.
    """

    index: int = 0
    count: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process writes what all of them know."""
        return self.index == 0

    def rows(self, n: int) -> slice:
        """Own rows of a batch of `n` examples; sizes differ by at most one."""
        return slice(self.index * n // self.count, (self.index + 1) * n // self.count)

    def share(self, batch: Batch, generator: torch.Generator | None) -> Batch:
        """Own rows of a batch.

        Args:
            batch: the whole batch, the same in every process.
            generator: draws what one process would draw for the whole batch.
        """
        if self.count == 1:
            return batch
        own = self.rows(len(batch))
        return Batch(
            images=batch.images[own],
            labels=batch.labels[own],
            keys=batch.keys[own],
            domains=batch.domains[own],
            rows=Rows(own.start, len(batch), generator),
        )

    def check_batches(self, sizes: Iterable[int]) -> None:
        """Refuse batches in which a process would have no example.

        Raises:
            UsageError: there is one.
        """
        least = min(sizes)
        if least < self.count:
            raise UsageError(
                f"a batch of {least} examples cannot be divided among {self.count} processes; use fewer of them, "
                f"another batch_size, or drop_last: true"
            )

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up the gradients of all processes, in one transfer for each type of number."""
        if self.count == 1:
            return
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for parameter in parameters:
            if parameter.grad is not None:
                by_type.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for gradients in by_type.values():
            flat = self.sum_(torch.cat([gradient.reshape(-1) for gradient in gradients]))
            for gradient, total in zip(gradients, torch.split(flat, [one.numel() for one in gradients]), strict=True):
                gradient.copy_(total.view_as(gradient))

    def total(self, spent: Budget, device: torch.device) -> Budget:
        """Passes of all processes."""
        if self.count == 1:
            return spent
        forward, backward = self.sum_(torch.tensor([spent.forward, spent.backward], device=device)).tolist()
        return Budget(forward=forward, backward=backward)


ALONE = Ranks()
"""One process that trains by itself."""


def weighted(loss: Tensor, batch: Batch) -> Tensor:
    """The mean loss of own rows, so that the sum over all processes is the mean over the whole batch."""
    return loss if batch.rows is None else loss * (len(batch) / batch.rows.total)


def drawn_like(like: Tensor, rows: Rows | None, fill: Callable[[Tensor, torch.Generator | None], Any]) -> Tensor:
    """Random numbers for the examples of a batch, those that one process would draw for them.

    Args:
        like: (B, ...), whose shape, type and device the result has.
        rows: where the examples stand in the batch of all processes; None if they are the batch.
        fill: fills a tensor with draws of a generator, or of torch's global one.
    """
    if rows is None:
        whole = torch.empty_like(like)
        fill(whole, None)
        return whole
    whole = like.new_empty((rows.total, *like.shape[1:]))
    fill(whole, rows.generator)
    return whole[rows.first : rows.first + len(like)]


@contextmanager
def joined(index: int, count: int, device: torch.device, meeting: Path) -> Iterator[Ranks]:
    """Meet the other processes of a run; they have to be on one machine.

    Args:
        index: number of this process.
        count: number of processes.
        device: its device; accelerators talk through NCCL, processors through gloo.
        meeting: a file, absent at first, through which they find each other.

    Raises:
        RuntimeError: they do not come.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=meeting.absolute().as_uri(),
        rank=index,
        world_size=count,
        timeout=TIMEOUT,
    )
    yield Ranks(index, count)
    # After an error the others are not there to agree on an end; the process ends instead.
    dist.destroy_process_group()

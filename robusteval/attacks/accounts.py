"""What each example of an attack has cost and met: passes, steps, symptoms."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robusteval.schema.records import Budget


@dataclass
class Account:
    """What one example has cost and met so far.

    Attributes:
        forward: forward passes.
        backward: backward passes.
        steps: steps of the runs that have ended.
        stuck: a gradient was zero at some step.
        undefined: a gradient was NaN or infinite.
        near: low precision came too near the boundary to be sure.
    """

    forward: int = 0
    backward: int = 0
    steps: int = 0
    stuck: bool = False
    undefined: bool = False
    near: bool = False


class Accounts:
    """The accounts of N examples, by position.

    Args:
        n: number of examples.
    """

    def __init__(self, n: int) -> None:
        self._accounts = [Account() for _ in range(n)]

    def __getitem__(self, owner: int) -> Account:
        return self._accounts[owner]

    def charge(
        self, owners: list[int], spent: Budget, forward: Tensor | None = None, backward: Tensor | None = None
    ) -> None:
        """Put passes to the account of the examples they were made for.

        Args:
            owners: the example of each of J jobs.
            spent: all that the model counted.
            forward: (J,) each job's own forward passes; by default all have the same.
            backward: the same for backward passes.
        """
        shares = zip(
            owners,
            _shares(spent.forward, len(owners), forward),
            _shares(spent.backward, len(owners), backward),
            strict=True,
        )
        for owner, forwards, backwards in shares:
            self._accounts[owner].forward += forwards
            self._accounts[owner].backward += backwards


def _shares(total: int, count: int, given: Tensor | None) -> list[int]:
    """Passes of each of `count` jobs; the first get one more where they do not divide."""
    if given is not None:
        own: list[int] = given.tolist()
        return own
    share, rest = divmod(total, count)
    return [share + 1] * rest + [share] * (count - rest)

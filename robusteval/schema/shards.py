"""A share of the examples of one evaluation: how a long cell is divided without another question being asked."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from robusteval.schema.types import Frozen, NonNegativeInt, PositiveInt


class Shard(Frozen):
    """One of `count` shares of an evaluation's examples, in the order of their keys."""

    index: NonNegativeInt
    """Which share, from 0."""
    count: PositiveInt
    """Shares in all."""

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.index >= self.count:
            raise ValueError(f"there is no share {self.index} of {self.count}; the first one is 0")
        return self

    def __str__(self) -> str:
        return f"{self.index + 1}of{self.count}"

    def bounds(self, n: int) -> tuple[int, int]:
        """First position of the share among `n` examples and the one after its last; sizes differ by at most one."""
        return self.index * n // self.count, (self.index + 1) * n // self.count


def shards_of(n: int, count: int) -> tuple[Shard, ...]:
    """At most `count` shares of `n` examples, none of them empty."""
    count = max(1, min(n, count))
    return tuple(Shard(index=index, count=count) for index in range(count))

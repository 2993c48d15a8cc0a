"""Placing labels beside points so that they cover neither each other nor what is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Place = tuple[float, float]
"""A position in pixels."""


@dataclass(frozen=True)
class Box:
    """An axis-parallel rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    @classmethod
    def around(cls, centre: Place, width: float, height: float) -> Box:
        """The box of that size with that centre."""
        return cls(centre[0] - width / 2, centre[1] - height / 2, centre[0] + width / 2, centre[1] + height / 2)

    @classmethod
    def spanning(cls, start: Place, end: Place, margin: float) -> Box:
        """The box around two places with a margin on every side."""
        (left, right), (bottom, top) = sorted((start[0], end[0])), sorted((start[1], end[1]))
        return cls(left - margin, bottom - margin, right + margin, top + margin)

    def overlap(self, other: Box) -> float:
        """Area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.top - self.bottom)

    def nearest(self, place: Place) -> Place:
        """The point of the box that is nearest to `place`."""
        return min(max(place[0], self.left), self.right), min(max(place[1], self.bottom), self.top)


def place_labels(
    anchors: Sequence[Place],
    sizes: Sequence[tuple[float, float]],
    obstacles: Sequence[Box],
    frame: Box,
    gap: float,
) -> list[Place]:
    """Centres for the labels, one per anchor, chosen greedily from rings of candidates around it.

    A candidate costs what it covers of earlier labels (most), of obstacles, and of the outside of the frame, plus a
    little for its distance. Anchors with the most neighbours choose first. The result depends on nothing else.

    Args:
        anchors: the labelled points.
        sizes: width and height of each label.
        obstacles: what should stay visible.
        frame: the area that labels should stay in.
        gap: distance between an anchor and the nearest edge of its label, in the first ring.
    """
    placed: dict[int, Box] = {}
    for index in sorted(range(len(anchors)), key=lambda i: (-_crowd(anchors, i, 12.0 * gap), i)):
        width, height = sizes[index]
        candidates = [Box.around(place, width, height) for place in _candidates(anchors[index], sizes[index], gap)]
        costs = [
            _cost(box, anchors[index], list(placed.values()), obstacles, frame) + 1e-6 * rank
            for rank, box in enumerate(candidates)
        ]
        placed[index] = candidates[costs.index(min(costs))]
    boxes = [placed[index] for index in range(len(anchors))]
    return [((box.left + box.right) / 2, (box.bottom + box.top) / 2) for box in boxes]


def _crowd(anchors: Sequence[Place], index: int, radius: float) -> int:
    return sum(math.dist(anchors[index], other) < radius for other in anchors)


def _candidates(anchor: Place, size: tuple[float, float], gap: float) -> list[Place]:
    places = []
    for ring in (1.0, 1.7, 2.6, 3.8, 5.4, 7.5, 10.0):
        for step in range(16):
            # Starts at the upper right, where readers look first.
            angle = math.pi / 4 + step * math.pi / 8
            across, up = math.cos(angle), math.sin(angle)
            places.append(
                (
                    anchor[0] + across * ring * gap + math.copysign(min(1.0, abs(across) * 1.4), across) * size[0] / 2,
                    anchor[1] + up * ring * gap + math.copysign(min(1.0, abs(up) * 1.4), up) * size[1] / 2,
                )
            )
    return places


def _cost(box: Box, anchor: Place, labels: Sequence[Box], obstacles: Sequence[Box], frame: Box) -> float:
    area = box.area()
    covered = sum(box.overlap(other) for other in labels) / area
    hidden = sum(box.overlap(other) for other in obstacles) / area
    outside = max(0.0, 1.0 - box.overlap(frame) / area - 1e-6)
    # Touching another label or leaving the frame at all costs more than any distance.
    forbidden = 100.0 * (covered > 0.0) + 50.0 * (outside > 0.0)
    return (
        forbidden
        + 20.0 * covered
        + 12.0 * outside
        + 6.0 * hidden
        + math.dist(box.nearest(anchor), anchor) / (4.0 * (box.top - box.bottom))
    )

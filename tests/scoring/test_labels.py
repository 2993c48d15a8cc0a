from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from robusteval.scoring.labels import Box, place_labels

FRAME = Box(0.0, 0.0, 800.0, 600.0)
ANCHORS = st.lists(st.tuples(st.floats(0, 800), st.floats(0, 600)), min_size=1, max_size=8)


@settings(deadline=None, max_examples=40)
@given(ANCHORS)
def test_labels_of_eight_points_never_cover_each_other_and_stay_inside(anchors):
    sizes = [(60.0, 14.0)] * len(anchors)
    centres = place_labels(anchors, sizes, [], FRAME, gap=14.0)
    boxes = [Box.around(centre, 60.0, 14.0) for centre in centres]
    assert all(first.overlap(second) == 0.0 for first, second in combinations(boxes, 2))
    assert all(box.overlap(FRAME) > 0.99 * box.area() for box in boxes)


def test_a_free_label_stands_at_the_upper_right():
    (centre,) = place_labels([(400.0, 300.0)], [(60.0, 14.0)], [], FRAME, gap=14.0)
    assert centre[0] > 400.0
    assert centre[1] > 300.0


def test_labels_avoid_obstacles():
    blocked = Box(400.0, 300.0, 800.0, 600.0)
    (centre,) = place_labels([(400.0, 300.0)], [(60.0, 14.0)], [blocked], FRAME, gap=14.0)
    assert Box.around(centre, 60.0, 14.0).overlap(blocked) == 0.0


def test_points_in_one_place_get_their_labels_apart():
    centres = place_labels([(100.0, 100.0)] * 8, [(60.0, 14.0)] * 8, [], FRAME, gap=14.0)
    boxes = [Box.around(centre, 60.0, 14.0) for centre in centres]
    assert all(first.overlap(second) == 0.0 for first, second in combinations(boxes, 2))

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from robusteval.attacks.run_queue import RunQueue


@given(
    examples=st.integers(0, 7),
    runs=st.integers(1, 4),
    slots=st.integers(1, 9),
    broken=st.sets(st.tuples(st.integers(0, 6), st.integers(0, 3))),
    data=st.data(),
)
@settings(max_examples=80, deadline=None)
def test_every_run_of_an_unbroken_example_is_given_out_once_and_ends_once(examples, runs, slots, broken, data) -> None:
    queue = RunQueue(examples, runs)
    rows: list[tuple[int, int]] = []
    begun: list[tuple[int, int]] = []
    settled: set[int] = set()
    survivors: list[int] = []
    while True:
        taken = queue.take(slots - len(rows))
        begun += taken
        rows += taken
        assert not {owner for owner, _ in taken} & settled
        if not rows:
            break
        if data.draw(st.booleans(), label="give up"):
            queue.again(rows)
            begun = [job for job in begun if job not in rows]
            rows = []
            continue
        job = data.draw(st.sampled_from(rows), label="next to end")
        rows.remove(job)
        if job in broken:
            queue.settle(job[0])
            settled.add(job[0])
            rows = [row for row in rows if row[0] != job[0]]
        elif queue.end(job[0]):
            survivors.append(job[0])
    assert len(begun) == len(set(begun))
    assert set(survivors) == {
        owner for owner in range(examples) if not any((owner, run) in broken for run in range(runs))
    }
    assert settled == set(range(examples)) - set(survivors)
    assert {job for job in begun if job[0] in survivors} == {(owner, run) for owner in survivors for run in range(runs)}


def test_an_example_has_one_run_while_others_wait_and_all_of_them_when_none_does() -> None:
    queue = RunQueue(3, 3)
    assert queue.take(2) == [(0, 0), (1, 0)]
    assert not queue.end(0)
    assert queue.take(1) == [(0, 1)]
    assert queue.take(1) == [(2, 0)]
    assert queue.take(10) == [(1, 1), (2, 1), (0, 2), (1, 2), (2, 2)]
    assert queue.take(10) == []

"""Work ahead in threads: in order, bounded, and never in the way of a caller who leaves."""

import threading
from collections.abc import Iterator

import pytest

from stapes.ahead import ahead


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order(workers: int):
    assert list(ahead(lambda x: x * x, range(50), workers)) == [x * x for x in range(50)]


@pytest.mark.parametrize(("workers", "held"), [(0, 0), (1, 0), (2, 3)])
def test_an_endless_iterable_is_taken_by_need(workers: int, held: int):
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = ahead(str, endless(), workers, held)
    for asked in range(1, 20):
        next(results)
        assert taken <= asked + workers + held
    results.close()


def test_closing_waits_for_no_worker():
    """An abandoned generator is closed by the garbage collector, in any thread and amid any lock: a join there deadlocks."""
    release = threading.Event()
    results = ahead(lambda item: item == 0 or release.wait(60), range(5), workers=2)
    assert next(results) is True
    closing = threading.Thread(target=results.close, daemon=True)
    closing.start()
    closing.join(10)
    try:
        assert not closing.is_alive(), "close() waits for what is still being worked on"
    finally:
        release.set()


def test_an_error_comes_where_its_item_stands():
    results = ahead(lambda x: 1 // x, [1, 0, 1], workers=2)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)

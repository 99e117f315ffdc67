"""The thread that signs: order, errors, cancelled askers, the end."""

import asyncio
import threading

import pytest

from postbud.delivery.offload import Offload


async def test_jobs_run_in_their_order_in_one_other_thread() -> None:
    offload = Offload("test")
    seen: list[tuple[int, str]] = []

    def job(number: int) -> int:
        seen.append((number, threading.current_thread().name))
        return number * 2

    results = await asyncio.gather(*(offload.run(lambda number=number: job(number)) for number in range(50)))  # type: ignore[misc]  # a default argument as closure
    assert results == [number * 2 for number in range(50)]
    assert seen == [(number, "test") for number in range(50)]
    offload.close()


async def test_an_error_reaches_who_asked_and_nobody_else() -> None:
    offload = Offload("test")
    bad = asyncio.ensure_future(offload.run(lambda: 1 // 0))
    good = asyncio.ensure_future(offload.run(lambda: 7))
    with pytest.raises(ZeroDivisionError):
        await bad
    assert await good == 7
    offload.close()


async def test_who_was_cancelled_hears_nothing_and_the_rest_goes_on() -> None:
    offload = Offload("test")
    gate = threading.Event()
    first = asyncio.ensure_future(offload.run(gate.wait))
    second = asyncio.ensure_future(offload.run(lambda: 2))
    await asyncio.sleep(0.05)
    first.cancel()
    gate.set()
    assert await second == 2
    assert first.cancelled()
    offload.close()


async def test_after_the_end_the_thread_is_gone() -> None:
    offload = Offload("ends here")
    assert await offload.run(lambda: 1) == 1
    offload.close()
    for _ in range(100):
        if not any(thread.name == "ends here" for thread in threading.enumerate()):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the thread is still there")

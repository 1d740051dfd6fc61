"""What Orbax's threads and asyncio print of a failed save is no news; what others print is."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from treeload._formats.orbax.quiet import _is_news, quiet

WRITE = ValueError('OUT_OF_RANGE: Error writing "layers.9/c/0" in OCDBT database at local file "/x"')
OTHER = ValueError("OUT_OF_RANGE: an index of the user's own")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    logger = logging.getLogger("asyncio")
    before = list(logger.filters)
    yield
    logger.filters[:] = before


def nobody_asks_for(error: BaseException) -> None:
    """A future and a task that failed, and are collected."""

    async def fails() -> None:
        raise error

    async def asks_for_none() -> None:
        asyncio.get_running_loop().create_future().set_exception(error)
        asyncio.create_task(fails())  # noqa: RUF006  # nobody keeps it
        await asyncio.sleep(0)

    asyncio.run(asks_for_none())
    gc.collect()


@pytest.mark.parametrize("when", ["while it writes", "later"])
@pytest.mark.parametrize(("error", "is_news"), [(WRITE, False), (OTHER, True), (OSError(str(WRITE)), True)])
def test_after_a_failed_write_other_failed_writes_are_no_news(
    error: BaseException, is_news: bool, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    with suppress(OSError), quiet():
        if when == "while it writes":
            nobody_asks_for(error)
        raise OSError("no space")
    if when == "later":
        nobody_asks_for(error)
    assert len(caplog.records) == (2 if is_news else 0)


def test_after_a_write_that_went_well_all_is_news_again(caplog: pytest.LogCaptureFixture) -> None:
    with quiet():
        pass
    nobody_asks_for(WRITE)
    assert len(caplog.records) == 2


def test_what_others_log_of_futures_passes(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("asyncio").addFilter(_is_news)
    logging.getLogger("asyncio").error("Task was destroyed but it is pending!")
    try:
        raise WRITE
    except ValueError:
        logging.getLogger("asyncio").exception("Exception in callback")
    assert len(caplog.records) == 2


def test_a_hook_is_the_users_again_after_the_next_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", before := (lambda unraisable: None))
    with suppress(OSError), quiet():
        raise OSError("no space")
    assert sys.unraisablehook is not before
    with quiet():
        pass
    assert sys.unraisablehook is before
    assert _is_news not in logging.getLogger("asyncio").filters

"""A TCP relay that notes when the side that asked goes away, and cuts an answer if it is told to.

Stands between the gateway and the model. The model's own reaction to a client that left depends on its server; the
moment the gateway lets go of it does not, and here it can be seen. Bytes pass unaltered, up to a cut.
"""

import asyncio
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit


class Relay:
    """Where it listens, and when connections were left by whoever opened them (monotonic seconds)."""

    def __init__(self, target: str):
        parts = urlsplit(target)
        self.host, self.port = parts.hostname, parts.port
        self.left: list[float] = []
        self.url = ""
        # The next chat answer ends after so many bytes, once.
        self.cut_after: int | None = None

    async def serve(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self.connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        async with server:
            await server.serve_forever()

    async def connection(self, near_reader, near_writer) -> None:
        far_reader, far_writer = await asyncio.open_connection(self.host, self.port)
        chats = asyncio.Event()

        def seen(data: bytes) -> None:
            if b"/chat/completions" in data:
                chats.set()

        def bound() -> int | None:
            return self.cut_after if chats.is_set() else None

        asking = asyncio.create_task(pump(near_reader, far_writer, seen=seen))
        answering = asyncio.create_task(pump(far_reader, near_writer, bound=bound))
        first, _ = await asyncio.wait({asking, answering}, return_when=asyncio.FIRST_COMPLETED)
        if asking in first:
            self.left.append(time.monotonic())
        elif self.cut_after is not None and answering.result():
            self.cut_after = None
            near_writer.transport.abort()
        for writer in (near_writer, far_writer):
            writer.close()
        for task in (asking, answering):
            task.cancel()

    def left_since(self, moment: float) -> float | None:
        """Seconds from `moment` until the first connection was left after it."""
        return next((left - moment for left in self.left if left >= moment), None)


async def pump(reader, writer, seen=lambda data: None, bound=lambda: None) -> bool:
    """Passes bytes on to their end, or to the number that `bound` gives; whether that was reached."""
    passed = 0
    try:
        while data := await reader.read(65536):
            seen(data)
            most = bound()
            if most is not None and passed + len(data) >= most:
                writer.write(data[: most - passed])
                await writer.drain()
                return True
            passed += len(data)
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    return False


@contextmanager
def relay(target: str):
    one, ready, loop = Relay(target), threading.Event(), asyncio.new_event_loop()
    task = loop.create_task(one.serve(ready))

    def run() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    if not ready.wait(10):
        raise RuntimeError("the relay does not listen")
    try:
        yield one
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(5)

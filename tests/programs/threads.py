"""Threads that allocate, exchange and compress; a pool; locals; a large array grown step by step."""
import concurrent.futures
import hashlib
import queue
import threading
import zlib

work, done = queue.Queue(), queue.Queue()


def worker():
    while (number := work.get()) is not None:
        data = bytes([number % 256]) * (number * 1000)
        packed = zlib.compress(data)
        assert zlib.decompress(packed) == data
        done.put((number, hashlib.sha256(data).hexdigest()[:12]))


threads = [threading.Thread(target=worker) for _ in range(8)]
for thread in threads:
    thread.start()
for number in range(300):
    work.put(number)
for _ in threads:
    work.put(None)
for thread in threads:
    thread.join()
print(hashlib.sha256(repr(sorted(done.queue)).encode()).hexdigest())

with concurrent.futures.ThreadPoolExecutor(6) as pool:
    print(sum(pool.map(lambda n: len(bytearray(n * 4096)), range(200))))

short = [threading.Thread(target=lambda: bytearray(1 << 20)) for _ in range(100)]
for thread in short:
    thread.start()
for thread in short:
    thread.join()

grown = bytearray()
for step in range(64):
    grown += bytes([step]) * (1 << 18)
print(len(grown), grown[-1])
print("threads done")

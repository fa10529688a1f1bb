"""multiprocessing by fork, spawn and forkserver: pools, queues, pipes, shared values and shared memory."""
import multiprocessing
from multiprocessing import shared_memory


def square(number):
    return number * number


def fill(name, index):
    memory = shared_memory.SharedMemory(name)
    memory.buf[index * 4096:(index + 1) * 4096] = bytes([index + 1]) * 4096
    memory.close()


def count(value, lock, rounds):
    for _ in range(rounds):
        with lock:
            value.value += 1


def answer(pipe, size):
    pipe.send(bytes(size))
    pipe.close()


def main():
    for method in ["fork", "spawn", "forkserver"]:
        context = multiprocessing.get_context(method)
        with context.Pool(3) as pool:
            print(method, sum(pool.map(square, range(2000))))
            pool.close()
            pool.join()

    context = multiprocessing.get_context("fork")
    value, lock = context.Value("i", 0, lock=False), context.Lock()
    workers = [context.Process(target=count, args=(value, lock, 200)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print("counted", value.value)

    memory = shared_memory.SharedMemory(create=True, size=8 * 4096)
    workers = [context.Process(target=fill, args=(memory.name, index)) for index in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print("shared", sum(memory.buf[:8 * 4096]))
    memory.close()
    memory.unlink()

    here, there = context.Pipe()
    worker = context.Process(target=answer, args=(there, 3 << 20))
    worker.start()
    print("received", len(here.recv()))
    worker.join()
    print("exit codes", worker.exitcode)
    print("processes done")


if __name__ == "__main__":
    main()

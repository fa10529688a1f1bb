// Worker threads with shared memory, and a WebAssembly memory that grows.
'use strict';
const { Worker, isMainThread, workerData } = require('worker_threads');
const WORKERS = 3;

if (isMainThread) {
  const shared = new Int32Array(new SharedArrayBuffer(4096));
  let running = WORKERS;
  for (let index = 0; index < WORKERS; index++) {
    new Worker(__filename, { workerData: { shared, index } }).on('exit', (code) => {
      Atomics.add(shared, 1, code);
      if (--running === 0) finish(shared);
    });
  }
} else {
  const { shared, index } = workerData;
  let local = [];
  for (let i = 0; i < 20000; i++) {
    local.push({ i });
    Atomics.add(shared, 0, index + 1);
  }
  if (local.length !== 20000) process.exit(1);
}

function finish(shared) {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1000 });
  for (let i = 0; i < 9; i++) memory.grow(10);
  console.log('sum', shared[0], 'codes', shared[1], 'wasm', memory.buffer.byteLength);
  console.log('workers done');
}

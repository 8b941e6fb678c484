// Ways for a process or a worker thread to end with operations in flight. Runs outside vitest, on
// the compiled module:
//
//   node [--expose-gc] life-cycle-cases.mjs CASE BACKEND FILE
//
// FILE has FILE_BYTES bytes. A case prints what it saw; life-cycle.test.ts says what that must be.
import { open } from 'node:fs/promises';
import { setImmediate as turn } from 'node:timers/promises';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

const native = new URL('../../dist/native/index.js', import.meta.url);
const { createBufferPool, crc32cBlocks, FdChannel, nativeCapabilities, openBlockDevice } =
  await import(native);

const FILE_BYTES = 16 * 1024 * 1024;
const BLOCKS = FILE_BYTES / 4096;
const say = (text) => process.stdout.write(`${text}\n`);

/** Starts `count` writes of block number + `salt` and returns what settles meanwhile. */
async function startWrites(backend, file, count, salt = 0, from = 0) {
  const device = await openBlockDevice(file, { backend });
  const pool = createBufferPool({ limitBytes: 64 * 1024 * 1024 });
  const state = { device, pool, done: 0, failed: 0, writes: [] };
  for (let i = 0; i < count; i++) {
    const buffer = pool.acquire(4096);
    buffer.bytes.fill((from + i + salt) & 0xff);
    const write = device.write(((from + i) % BLOCKS) * 4096, buffer.bytes).then(
      () => {
        state.done += 1;
        buffer.release();
      },
      () => {
        state.failed += 1;
      },
    );
    state.writes.push(write);
  }
  return state;
}

async function checkBlocks(file, from, count, salt) {
  const handle = await open(file);
  const got = Buffer.alloc(count * 4096);
  await handle.read(got, 0, got.length, from * 4096);
  await handle.close();
  for (let i = 0; i < count; i++) {
    const want = (from + i + salt) & 0xff;
    if (got[i * 4096] !== want || got[i * 4096 + 4095] !== want) return `block ${from + i} wrong`;
  }
  return 'good';
}

const self = new URL(import.meta.url);
function startWorker(role, backend, file, index) {
  return new Worker(self, { workerData: { role, backend, file, index } });
}
const ended = (worker) => new Promise((resolve) => worker.once('exit', resolve));
const said = (worker) => new Promise((resolve) => worker.once('message', resolve));

const cases = {
  /** Nobody awaits: the loop must stay alive until all is done, and the process must then end by
   *  itself. */
  async 'end of script'(backend, file) {
    const state = await startWrites(backend, file, 3000);
    process.once('exit', () => say(`done ${state.done} failed ${state.failed}`));
  },
  async capabilities(backend, file) {
    const device = await openBlockDevice(file, { backend }).catch((error) => error);
    say(`${device.backend ?? device.code} ${JSON.stringify(nativeCapabilities())}`);
  },
  async 'exit before submission'(backend, file) {
    await startWrites(backend, file, 1000);
    process.exit(7);
  },
  async 'exit in flight'(backend, file) {
    await startWrites(backend, file, 1000);
    await turn();
    process.exit(7);
  },
  async 'uncaught exception in flight'(backend, file) {
    await startWrites(backend, file, 1000);
    setImmediate(() => {
      throw new Error('planned');
    });
  },
  async 'killed in flight'(backend, file) {
    await startWrites(backend, file, 1000);
    await turn();
    process.kill(process.pid, 'SIGKILL');
  },
  async 'close in flight'(backend, file) {
    const state = await startWrites(backend, file, 3000);
    await state.device.close();
    await turn();
    say(`done ${state.done} failed ${state.failed}`);
  },
  /** The only references to pool and buffers are those of operations in flight. */
  async 'buffers collected in flight'(backend, file) {
    const device = await openBlockDevice(file, { backend });
    let reads = 0;
    for (let round = 0; round < 4; round++) {
      const started = [];
      for (let i = 0; i < 64; i++) {
        const pool = createBufferPool({ limitBytes: 4 * 1024 * 1024 });
        const view = pool.acquire(1024 * 1024).bytes;
        started.push(device.read((i % 16) * 1024 * 1024, view).then(() => (reads += 1)));
      }
      globalThis.gc();
      await turn();
      globalThis.gc();
      await Promise.all(started);
    }
    await device.close();
    say(`reads ${reads}`);
  },
  /** Each environment has its own ring; all are busy at once. */
  async 'four workers'(backend, file) {
    const workers = [0, 1, 2, 3].map((index) => startWorker('writer', backend, file, index));
    const main = await startWrites(backend, file, 500, 9, 2048);
    const codes = await Promise.all([...workers.map(ended), ...main.writes]);
    const checks = [checkBlocks(file, 2048, 500, 9)];
    for (const index of [0, 1, 2, 3]) checks.push(checkBlocks(file, index * 500, 500, index));
    await main.device.close();
    say(`${codes.slice(0, 4).join(',')} ${(await Promise.all(checks)).join(',')}`);
  },
  async 'workers terminated in flight'(backend, file) {
    for (let round = 0; round < 3; round++) {
      const worker = startWorker('endless', backend, file, round);
      const end = ended(worker);
      await said(worker);
      await worker.terminate();
      await end;
    }
    const after = await startWrites(backend, file, 10);
    await Promise.all(after.writes);
    say(`after ${after.done}`);
  },
  async 'worker exits in flight'(backend, file) {
    const worker = startWorker('exits', backend, file, 0);
    say(`worker ${await ended(worker)}`);
  },
  async 'worker terminated with a pending channel read'(backend, file) {
    const worker = startWorker('channel', backend, file, 0);
    const end = ended(worker);
    await said(worker);
    await worker.terminate();
    await end;
    say('ended');
  },
  /** Short life: each worker opens a ring, does one operation, and goes. */
  async 'many workers one after the other'(backend, file) {
    for (let i = 0; i < 8; i++) await ended(startWorker('short', backend, file, i));
    say('ended');
  },
};

const roles = {
  async writer({ backend, file, index }) {
    const state = await startWrites(backend, file, 500, index, index * 500);
    await Promise.all(state.writes);
    const sums = Buffer.alloc(4);
    crc32cBlocks(Buffer.alloc(4096), 0, 4096, sums, 0);
    await state.device.close();
  },
  async endless({ backend, file }) {
    const state = await startWrites(backend, file, 2000);
    parentPort.postMessage('started');
    await Promise.all(state.writes);
    await new Promise(() => setInterval(() => undefined, 1000));
  },
  async exits({ backend, file }) {
    await startWrites(backend, file, 1000);
    await turn();
    process.exit(5);
  },
  async channel() {
    // A descriptor that can be polled and never has data.
    const handle = await open('/dev/ptmx', 'r+');
    const channel = new FdChannel(handle.fd);
    void channel.read(Buffer.alloc(4096));
    parentPort.postMessage('reading');
    await new Promise(() => undefined);
  },
  async short({ backend, file, index }) {
    const state = await startWrites(backend, file, 1, index, index);
    await Promise.all(state.writes);
    await state.device.close();
  },
};

if (isMainThread) {
  const [name, backend, file] = process.argv.slice(2);
  await cases[name](backend, file);
} else {
  await roles[workerData.role](workerData);
}

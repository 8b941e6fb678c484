// A FUSE file system of one file, in a worker thread, that fails as it is told: a disk with faults
// for the native tests. The root of the file system is the file itself, mounted over an empty one.
//
// workerData: {path, sizeBytes, native, control}; control is an Int32Array over shared memory, see
// CONTROL.
import { parentPort, workerData } from 'node:worker_threads';

export const CONTROL = {
  /** errno of the next so many reads, writes, fsyncs: errno, count pairs */
  READ_ERRNO: 0,
  READ_COUNT: 1,
  WRITE_ERRNO: 2,
  WRITE_COUNT: 3,
  FSYNC_ERRNO: 4,
  FSYNC_COUNT: 5,
  /** transfers are cut to this many bytes if not 0 */
  SHORT_BYTES: 6,
  /** requests seen */
  READS: 7,
  WRITES: 8,
  FSYNCS: 9,
  /** requests of the failing kind that pass first */
  SKIP: 10,
};

const GETATTR = 3;
const OPEN = 14;
const READ = 15;
const WRITE = 16;
const RELEASE = 18;
const FSYNC = 20;
const FLUSH = 25;
const INIT = 26;
const FORGET = 2;
const ENOSYS = 38;
const HEADER = 40;

function attributes(sizeBytes) {
  const out = Buffer.alloc(104);
  out.writeBigUInt64LE(3600n, 0);
  out.writeBigUInt64LE(1n, 16);
  out.writeBigUInt64LE(BigInt(sizeBytes), 24);
  out.writeUInt32LE(0o100600, 76);
  out.writeUInt32LE(1, 80);
  out.writeUInt32LE(4096, 96);
  return out;
}

function initAnswer(request) {
  const out = Buffer.alloc(64);
  out.writeUInt32LE(7, 0);
  out.writeUInt32LE(31, 4);
  out.writeUInt32LE(request.readUInt32LE(HEADER + 8), 8);
  out.writeUInt16LE(16, 16);
  out.writeUInt16LE(12, 18);
  out.writeUInt32LE(128 * 1024, 20);
  out.writeUInt32LE(1, 24);
  return out;
}

async function serve() {
  const { path, sizeBytes, native, control } = workerData;
  const { FdChannel, fuseMount } = await import(native);
  const content = Buffer.alloc(sizeBytes);
  const channel = new FdChannel(fuseMount(path, { source: 'faulty', options: 'max_read=131072' }));
  parentPort.postMessage('mounted');

  const answer = (request, errno, ...parts) => {
    const header = Buffer.alloc(16);
    header.writeUInt32LE(16 + parts.reduce((sum, part) => sum + part.length, 0), 0);
    header.writeInt32LE(-errno, 4);
    request.copy(header, 8, 8, 16);
    try {
      channel.write([header, ...parts]);
    } catch (error) {
      if (error.details?.errno !== 'ENOENT') throw error; // nobody waits for this answer any more
    }
  };
  const fault = (errnoAt) => {
    if (Atomics.load(control, errnoAt + 1) === 0) return 0;
    if (Atomics.load(control, CONTROL.SKIP) > 0) {
      Atomics.sub(control, CONTROL.SKIP, 1);
      return 0;
    }
    Atomics.sub(control, errnoAt + 1, 1);
    return Atomics.load(control, errnoAt);
  };
  const shortened = (length) => {
    const limit = Atomics.load(control, CONTROL.SHORT_BYTES);
    return limit === 0 ? length : Math.min(limit, length);
  };
  const transfer = (request, opcode) => {
    const offset = Number(request.readBigUInt64LE(HEADER + 8));
    const length = shortened(request.readUInt32LE(HEADER + 16));
    const read = opcode === READ;
    Atomics.add(control, read ? CONTROL.READS : CONTROL.WRITES, 1);
    const errno = fault(read ? CONTROL.READ_ERRNO : CONTROL.WRITE_ERRNO);
    if (errno !== 0) return answer(request, errno);
    if (read) return answer(request, 0, content.subarray(offset, offset + length));
    request.copy(content, offset, HEADER + 40, HEADER + 40 + length);
    const out = Buffer.alloc(8);
    out.writeUInt32LE(length, 0);
    answer(request, 0, out);
  };
  const handle = (request) => {
    const opcode = request.readUInt32LE(4);
    if (opcode === FORGET) return;
    if (opcode === READ || opcode === WRITE) return transfer(request, opcode);
    if (opcode === INIT) return answer(request, 0, initAnswer(request));
    if (opcode === GETATTR) return answer(request, 0, attributes(sizeBytes));
    if (opcode === OPEN) {
      const out = Buffer.alloc(16);
      // FOPEN_DIRECT_IO: without it the kernel takes a short read for the end of the file.
      out.writeUInt32LE(1, 8);
      return answer(request, 0, out);
    }
    if (opcode === FSYNC) {
      Atomics.add(control, CONTROL.FSYNCS, 1);
      return answer(request, fault(CONTROL.FSYNC_ERRNO));
    }
    answer(request, opcode === RELEASE || opcode === FLUSH ? 0 : ENOSYS);
  };

  const buffer = Buffer.alloc(256 * 1024);
  for (;;) {
    let length = 0;
    try {
      length = await channel.read(buffer);
    } catch (error) {
      channel.close();
      parentPort.postMessage(error.code);
      return;
    }
    handle(buffer.subarray(0, length));
  }
}

if (parentPort !== null) await serve();

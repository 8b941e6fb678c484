import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { BLOCK_SIZE, MIB } from '../../../common/units.js';
import {
  decodeIoBatch,
  decodeIoReplyBatch,
  IO_OP,
  IoBatchEncoder,
  IoReplyEncoder,
  type IoRequestView,
} from '../../../proto/io-codec.js';
import type { IncomingMessage, OutgoingMessage } from '../../../proto/message-stream.js';
import { checksumBlocks } from '../crc32c.js';
import { cleanUp, connectClient, Recorder, startServer } from './harness.js';

const directory = mkdtempSync(path.join(tmpdir(), 'aurochs-reuse-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
afterEach(cleanUp);

/** A small generator, so that a failure repeats. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % below;
  };
}

const fillOf = (id: number): number => (id * 37) % 251;

/** Every byte of the payload is what the id says. */
function intact(view: { bytes: Buffer; start: number; end: number; id: number }): boolean {
  const want = Buffer.alloc(view.end - view.start, fillOf(view.id));
  return view.bytes.compare(want, 0, want.length, view.start, view.end) === 0;
}

/** Read payloads come from here; what was released is spoilt and used for the next one. */
class PayloadPool {
  readonly #free: Buffer[] = [];

  take(lengthBytes: number, fill: number): { bytes: Buffer; release: () => void } {
    const memory = this.#free.pop() ?? Buffer.alloc(MIB);
    const bytes = memory.subarray(0, lengthBytes).fill(fill);
    const release = (): void => {
      memory.fill(0xee, 0, lengthBytes);
      this.#free.push(memory);
    };
    return { bytes, release };
  }
}

/** Holds a third of the messages for a while; looks at them when they come and when they go. */
class Holder {
  readonly wrong: number[] = [];
  readonly #held: Array<{ message: IncomingMessage; check: () => void }> = [];

  constructor(readonly random: (below: number) => number) {}

  see(message: IncomingMessage, view: Parameters<typeof intact>[0]): void {
    const check = (): void => {
      if (!intact(view)) this.wrong.push(view.id);
    };
    check();
    if (this.random(3) > 0) return;
    message.retain();
    this.#held.push({ message, check });
    if (this.#held.length > 24) this.#drop(this.random(this.#held.length));
  }

  dropAll(): void {
    while (this.#held.length > 0) this.#drop(0);
  }

  #drop(index: number): void {
    const [one] = this.#held.splice(index, 1);
    one?.check();
    one?.message.release();
  }
}

/** Answers every request; the payload of a read says its id. */
function serveWith(holder: Holder, send: (message: OutgoingMessage) => void) {
  const replies = new IoReplyEncoder();
  const pool = new PayloadPool();
  return (message: IncomingMessage): void => {
    decodeIoBatch(message.bytes, {
      onHello: () => undefined,
      onAckedThrough: () => undefined,
      onRequest: (view: IoRequestView) => {
        const { payloadStart: start, payloadEnd: end, bytes, id, op, lengthBytes } = view;
        if (op === IO_OP.WRITE) holder.see(message, { bytes, start, end, id });
        if (op === IO_OP.READ) {
          const data = pool.take(lengthBytes, fillOf(id));
          replies.addRead(id, Buffer.alloc(0), data.bytes, data.release);
        } else replies.add(id, 0);
      },
    });
    send(replies.finish());
  };
}

const SIZES = [1, 1, 1, 3, 4, 5, 15, 16, 40, 70, 256];

/** One batch of reads and writes of random sizes, from `id` on; returns the next id. */
function fillBatch(encoder: IoBatchEncoder, random: (below: number) => number, id: number): number {
  let next = id;
  for (let count = 1 + random(5); count > 0; count--) {
    const lengthBytes = (SIZES[random(SIZES.length)] ?? 1) * BLOCK_SIZE;
    if (!encoder.fits(lengthBytes)) break;
    const fields = { flags: 0, id: next, offsetBytes: 0, lengthBytes };
    if (random(2) === 0) encoder.add({ ...fields, op: IO_OP.READ, arg: 0 });
    else encoder.addWrite(fields, [Buffer.alloc(lengthBytes, fillOf(next))]);
    next += 1;
  }
  return next;
}

describe('memory that is used again never changes under who holds it', () => {
  const ways = ['127.0.0.1:0', `unix:${directory}/s`];
  it.each(ways)('writes and reads of all sizes at %s', async (address) => {
    const random = generator(20260101);
    const holder = new Holder(random);
    const server = await startServer({
      address,
      prepare: (recorder) => {
        recorder.keep = false;
        recorder.onEach = serveWith(holder, (message) => server.streams[0]?.send(message));
      },
    });
    const done = new Recorder();
    done.keep = false;
    let answered = 0;
    done.onEach = (message) => {
      decodeIoReplyBatch(message.bytes, {
        onHello: () => undefined,
        onReply: (view) => {
          answered += 1;
          const { payloadStart: start, payloadEnd: end, bytes, id } = view;
          if (end > start) holder.see(message, { bytes, start, end, id });
        },
      });
    };
    const client = await connectClient(server.listener.address, { handlers: done });
    const encoder = new IoBatchEncoder({ checksumBlocks });
    let id = 1;
    while (id < 400) {
      id = fillBatch(encoder, random, id);
      const room = client.stream.send(encoder.finish(0, 1));
      if (!room) await done.until((r) => r.drains > 0 || client.stream.queuedBytes < 4 * MIB);
      if (random(4) === 0) await new Promise<void>((resolve) => setImmediate(resolve));
    }
    await done.until(() => answered === id - 1);
    holder.dropAll();
    expect(holder.wrong).toEqual([]);
    expect(server.memory.usedBytes).toBe(0);
  });
});

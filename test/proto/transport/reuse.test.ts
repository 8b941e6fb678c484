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
import type { IncomingMessage } from '../../../proto/message-stream.js';
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

describe('memory that is used again never changes under who holds it', () => {
  const ways = ['127.0.0.1:0', `unix:${directory}/s`];
  it.each(ways)('writes and reads of all sizes at %s', async (address) => {
    const random = generator(20260101);
    const total = 400;
    const wrong: number[] = [];
    const held: Array<{ message: IncomingMessage; check: () => void }> = [];
    const hold = (
      message: IncomingMessage,
      view: { bytes: Buffer; start: number; end: number; id: number },
    ): void => {
      const check = (): void => {
        if (!intact(view)) wrong.push(view.id);
      };
      check();
      if (random(3) > 0) return;
      message.retain();
      held.push({ message, check });
      if (held.length > 24) {
        const [one] = held.splice(random(held.length), 1);
        one?.check();
        one?.message.release();
      }
    };
    const replies = new IoReplyEncoder();
    const server = await startServer({
      address,
      prepare: (recorder) => {
        recorder.keep = false;
        recorder.onEach = (message) => {
          decodeIoBatch(message.bytes, {
            onHello: () => undefined,
            onAckedThrough: () => undefined,
            onRequest: (view: IoRequestView) => {
              const { payloadStart: start, payloadEnd: end, bytes, id } = view;
              if (view.op === IO_OP.WRITE) hold(message, { bytes, start, end, id });
              const data = Buffer.alloc(view.lengthBytes, fillOf(id));
              if (view.op === IO_OP.READ) replies.addRead(id, Buffer.alloc(0), data);
              else replies.add(id, 0);
            },
          });
          server.streams[0]?.send(replies.finish());
        };
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
          if (end > start) hold(message, { bytes, start, end, id });
        },
      });
    };
    const client = await connectClient(address.endsWith(':0') ? server.listener.address : address, {
      handlers: done,
    });
    const encoder = new IoBatchEncoder({ checksumBlocks });
    const sizes = [1, 1, 1, 3, 4, 5, 15, 16, 40, 70, 256];
    for (let id = 1; id <= total; ) {
      for (let count = 1 + random(5); count > 0 && id <= total; count--, id++) {
        const lengthBytes = (sizes[random(sizes.length)] ?? 1) * BLOCK_SIZE;
        if (!encoder.fits(lengthBytes)) break;
        const fields = { flags: 0, id, offsetBytes: 0, lengthBytes };
        if (random(2) === 0) encoder.add({ ...fields, op: IO_OP.READ, arg: 0 });
        else encoder.addWrite(fields, [Buffer.alloc(lengthBytes, fillOf(id))]);
      }
      const room = client.stream.send(encoder.finish(0, 1));
      if (!room) await done.until((r) => r.drains > 0 || client.stream.queuedBytes < 4 * MIB);
      if (random(4) === 0) await new Promise<void>((resolve) => setImmediate(resolve));
    }
    await done.until(() => answered === total);
    for (const { message, check } of held.splice(0)) {
      check();
      message.release();
    }
    expect(wrong).toEqual([]);
    expect(server.memory.usedBytes).toBe(0);
  });
});

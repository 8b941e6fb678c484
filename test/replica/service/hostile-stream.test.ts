/** Whatever a peer sends is answered or ends its stream; other streams are served, memory comes
 *  back. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from '../../../common/units.js';
import { crc32cBlocks } from '../../../native/index.js';
import { encodeIoHello, IO_OP, IoBatchEncoder } from '../../../proto/io-codec.js';
import { bytesOf } from './fake-stream.js';
import { createFixture, type Fixture, turns } from './service-fixture.js';

const HELLO = { protocolVersion: 1, volume: 'v1', replicaId: 'r1', epoch: 1, engineId: 'e1' };

function validBatch(): Buffer {
  const encoder = new IoBatchEncoder({ checksumBlocks: crc32cBlocks });
  const at = { flags: 0, offsetBytes: 0, lengthBytes: BLOCK_SIZE };
  encoder.addWrite({ ...at, id: 1 }, [Buffer.alloc(BLOCK_SIZE, 1)]);
  encoder.add({ ...at, op: IO_OP.READ, id: 2, arg: 0 });
  encoder.add({ ...at, op: IO_OP.TRIM, id: 3, arg: 0 });
  encoder.add({ ...at, op: IO_OP.MAP, id: 4, arg: 0 });
  encoder.add({ ...at, op: IO_OP.CLEAN, id: 5, arg: 9, lengthBytes: 0 });
  encoder.add({ ...at, op: IO_OP.FLUSH, id: 6, arg: 0, lengthBytes: 0 });
  return bytesOf(encoder.finish(0, 1));
}

type Mutation =
  | { kind: 'flip'; at: number; bit: number }
  | { kind: 'cut'; at: number }
  | { kind: 'insert'; at: number; bytes: Uint8Array };

const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  fc.record({ kind: fc.constant('flip' as const), at: fc.nat(), bit: fc.nat(7) }),
  fc.record({ kind: fc.constant('cut' as const), at: fc.nat() }),
  fc.record({
    kind: fc.constant('insert' as const),
    at: fc.nat(),
    bytes: fc.uint8Array({ maxLength: 12 }),
  }),
);

function mutate(message: Buffer, steps: readonly Mutation[]): Buffer {
  let bytes = Buffer.from(message);
  for (const step of steps) {
    // Headers are where it hurts: prefer the first hundred bytes.
    const at =
      step.at % Math.max(1, Math.min(bytes.length, step.at % 3 === 0 ? bytes.length : 100));
    if (step.kind === 'flip') bytes[at] = (bytes[at] ?? 0) ^ (1 << step.bit);
    else if (step.kind === 'cut') bytes = bytes.subarray(0, at);
    else bytes = Buffer.concat([bytes.subarray(0, at), step.bytes, bytes.subarray(at)]);
  }
  return bytes;
}

async function victimIsServed(fixture: Fixture): Promise<void> {
  const stream = await fixture.serve(1);
  const at = { flags: 0, id: 1, offsetBytes: 4 * BLOCK_SIZE, lengthBytes: BLOCK_SIZE };
  stream.batch((b) => b.addWrite(at, [Buffer.alloc(BLOCK_SIZE, 5)]));
  await stream.until(1);
  expect(stream.replies[0]?.code).toBe('OK');
  stream.handlers?.onClose(undefined);
}

async function memoryIsBack(fixture: Fixture): Promise<void> {
  await turns();
  expect(fixture.streams.count).toBe(0);
  expect(fixture.pool.usedBytes).toBe(0);
  expect(fixture.memory.used).toBe(0);
}

describe('a hostile or broken engine', () => {
  it('mutated batches are answered or end the stream', { timeout: 20_000 }, async () => {
    const batch = validBatch();
    const fixture = await createFixture();
    await fc.assert(
      fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 6 }), async (steps) => {
        const stream = await fixture.serve(1);
        stream.give(mutate(batch, steps));
        stream.give(batch);
        await turns();
        stream.handlers?.onClose(undefined);
      }),
      { numRuns: 400 },
    );
    await victimIsServed(fixture);
    await memoryIsBack(fixture);
  });

  it('mutated and random hellos are answered or end the stream', async () => {
    const hello = bytesOf(encodeIoHello(HELLO));
    const fixture = await createFixture();
    await fixture.control.openReplica({ ...HELLO });
    const first = fc.oneof(
      fc.array(mutation, { minLength: 1, maxLength: 4 }).map((steps) => mutate(hello, steps)),
      fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
    );
    await fc.assert(
      fc.asyncProperty(first, async (bytes) => {
        const stream = fixture.connect();
        stream.give(bytes);
        await turns(2);
        expect(stream.closed !== undefined || stream.hello !== undefined).toBe(true);
        stream.handlers?.onClose(undefined);
      }),
      { numRuns: 400 },
    );
    await victimIsServed(fixture);
    await memoryIsBack(fixture);
  });

  it('streams that come and go by the thousand leave nothing behind', async () => {
    const fixture = await createFixture();
    await fixture.control.openReplica({ ...HELLO });
    const batch = validBatch();
    for (let i = 0; i < 2000; i++) {
      const stream = fixture.connect();
      if (i % 3 > 0) stream.say(HELLO);
      if (i % 3 === 2) {
        await turns(1);
        stream.give(batch);
      }
      stream.handlers?.onClose(undefined);
    }
    await memoryIsBack(fixture);
    await victimIsServed(fixture);
  });
});

/** Random reads, writes, trims, zeroes and status queries of any alignment through several
 *  connections, against a byte array (rules N1, N4). */
import { describe, expect, it } from 'vitest';
import { COMMAND as C, COMMAND_FLAG as F } from '../../../engine/nbd/constants.js';
import { MemoryVolume } from '../../support/memory-volume.js';
import { RawClient, type Reply, type RequestFields } from './raw-client.js';
import { SeededRandom } from './seeded-random.js';
import { startServer } from './test-server.js';

const CONNECTIONS = 4;
const SLOTS = 8;
const SLOT_BYTES = 150_001;
const SIZE = CONNECTIONS * SLOTS * SLOT_BYTES;
const ROUNDS = 120;

interface Step {
  readonly request: RequestFields & { readonly offset: number; readonly length: number };
  readonly payload: Buffer | undefined;
}

/** One request inside a slot; slots of a round do not overlap, so its outcome is certain. */
function makeStep(random: SeededRandom, slot: number, cookie: bigint): Step {
  const start = random.below(SLOT_BYTES);
  const length = 1 + random.below(random.chance(50) ? 9000 : SLOT_BYTES - start);
  const offset = slot * SLOT_BYTES + Math.min(start, SLOT_BYTES - length);
  const type = random.pick([C.READ, C.READ, C.WRITE, C.WRITE, C.TRIM, C.WRITE_ZEROES, 7]);
  let flags = random.chance(20) ? F.FUA : 0;
  if (type === C.READ && random.chance(30)) flags |= F.DF;
  if (type === C.WRITE_ZEROES && random.chance(30)) flags |= F.NO_HOLE;
  if (type === C.BLOCK_STATUS && random.chance(30)) flags |= F.REQ_ONE;
  const payload = type === C.WRITE ? Buffer.alloc(length, random.below(256)) : undefined;
  return { request: { type, flags, cookie, offset, length }, payload };
}

function checkStatus(model: Buffer, step: Step, data: Buffer): void {
  let at = step.request.offset;
  for (let i = 4; i < data.length; i += 8) {
    const length = data.readUInt32BE(i);
    expect(length).toBeGreaterThan(0);
    const isHole = data.readUInt32BE(i + 4) !== 0;
    if (isHole) expect(model.subarray(at, at + length).every((byte) => byte === 0)).toBe(true);
    at += length;
  }
  const end = step.request.offset + step.request.length;
  if (((step.request.flags ?? 0) & F.REQ_ONE) !== 0) {
    expect(data).toHaveLength(12);
    expect(at).toBeLessThanOrEqual(end);
  } else {
    expect(at).toBe(end);
  }
}

/** Compares the reply with the model, or changes the model as the request changed the volume. */
function settle(model: Buffer, step: Step, reply: Reply): void {
  const { type, offset, length } = step.request;
  expect(reply.error).toBe(0);
  if (type === C.READ) {
    expect(reply.data.equals(model.subarray(offset, offset + length))).toBe(true);
  } else if (type === C.BLOCK_STATUS) {
    checkStatus(model, step, reply.data);
  } else if (step.payload !== undefined) {
    step.payload.copy(model, offset);
  } else {
    model.fill(0, offset, offset + length);
  }
}

/** Several requests in flight at once on one connection; replies in any order, by cookie. */
async function pipeline(client: RawClient, model: Buffer, steps: readonly Step[]): Promise<void> {
  for (const step of steps) client.request(step.request, step.payload);
  const waiting = new Map(steps.map((step) => [step.request.cookie, step]));
  while (waiting.size > 0) {
    const head = await client.peekCookie();
    const step = waiting.get(head);
    expect(step, `a reply to cookie ${head}`).toBeDefined();
    if (step === undefined) return;
    waiting.delete(head);
    const reply = await client.readReply(step.request.type === C.READ ? step.request : undefined);
    settle(model, step, reply);
  }
}

describe('model', () => {
  it.each([true, false])('structured replies %s', async (structured) => {
    const seed = SeededRandom.runSeed();
    const random = new SeededRandom(seed);
    const volume = new MemoryVolume({ sizeBytes: SIZE, admissionBytes: 1 << 20 });
    const under = await startServer({ volume });
    volume.before = () => {
      if (random.chance(50)) return undefined;
      return new Promise((resolve) => setImmediate(resolve));
    };
    const model = Buffer.alloc(SIZE);
    const clients: RawClient[] = [];
    try {
      for (let i = 0; i < CONNECTIONS; i += 1) {
        const client = await RawClient.open({ path: under.path });
        await client.go({ name: 'v1', structured });
        clients.push(client);
      }
      for (let round = 0; round < ROUNDS; round += 1) {
        const shift = random.below(CONNECTIONS * SLOTS);
        const runs = clients.map((client, c) => {
          const steps: Step[] = [];
          for (let s = 0; s < SLOTS; s += 1) {
            const slot = (shift + c + s * CONNECTIONS) % (CONNECTIONS * SLOTS);
            const step = makeStep(random, slot, BigInt(round * SLOTS + s));
            const isOffered = structured || step.request.type !== C.BLOCK_STATUS;
            const isPlain = structured || step.request.type !== C.READ;
            if (isOffered && isPlain) steps.push(step);
            else if (!isPlain) steps.push({ ...step, request: { ...step.request, flags: 0 } });
          }
          return pipeline(client, model, steps);
        });
        await Promise.all(runs);
      }
      expect(volume.peek(0, SIZE).equals(model)).toBe(true);
      while (volume.bytesAdmission.used > 0) await new Promise((r) => setImmediate(r));
      volume.assertBalanced();
    } catch (error) {
      throw new Error(`AUROCHS_SEED=${seed}`, { cause: error });
    } finally {
      for (const client of clients) client.destroy();
      await under.stop();
    }
  });
});

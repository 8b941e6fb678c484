/** 500 fuzzed handshakes and 500 fuzzed transmissions; a good client is served all the while,
 *  memory stays flat. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { COMMAND as C, OPTION } from '../../../engine/nbd/constants.js';
import { MemoryVolume } from '../../support/memory-volume.js';
import { liveBytes } from './live-bytes.js';
import {
  encodeContexts,
  encodeInfo,
  encodeOption,
  encodeRequest,
  RawClient,
} from './raw-client.js';
import { SeededRandom } from './seeded-random.js';
import { startServer, type TestServer } from './test-server.js';

const SIZE = 4 << 20;
const RUNS = 500;
const AT_ONCE = 10;
const LENGTHS = [0, 1, 27, 28, 511, 512, 4096, 65_536, 1 << 20, 0x7fffffff, 0xffffffff];

function mutate(random: SeededRandom, bytes: Buffer): Buffer {
  const out = Buffer.from(bytes);
  const times = random.below(4);
  for (let i = 0; i < times && out.length >= 4; i += 1) {
    const at = random.below(out.length - 3);
    if (random.chance(40)) out[at] = random.below(256);
    else if (random.chance(50)) out.writeUInt32BE(random.pick(LENGTHS), at);
    else out.copy(out, random.below(out.length), at);
  }
  return random.chance(20) ? out.subarray(0, random.below(out.length + 1)) : out;
}

function fuzzedHandshake(random: SeededRandom): Buffer {
  const options = [
    () => encodeOption(OPTION.LIST),
    () => encodeOption(OPTION.STRUCTURED_REPLY),
    () => encodeOption(OPTION.STARTTLS),
    () => encodeOption(random.below(200), random.bytes(random.below(300))),
    () => encodeOption(OPTION.INFO, encodeInfo('v1', [1, 2, 3])),
    () => encodeOption(OPTION.GO, encodeInfo('v1', [3])),
    () => encodeOption(OPTION.GO, encodeInfo(random.bytes(random.below(5000)))),
    () => encodeOption(OPTION.EXPORT_NAME, Buffer.from('v1')),
    () => encodeOption(OPTION.SET_META_CONTEXT, encodeContexts('v1', ['base:allocation'])),
    () => encodeOption(OPTION.LIST_META_CONTEXT, encodeContexts('v1', ['', 'x'.repeat(99)])),
    () => encodeOption(OPTION.ABORT),
    () => random.bytes(random.below(100)),
  ];
  const parts: Buffer[] = [Buffer.from([0, 0, 0, random.chance(90) ? 3 : random.below(256)])];
  for (let i = random.below(8); i >= 0; i -= 1) parts.push(mutate(random, random.pick(options)()));
  return Buffer.concat(parts);
}

function fuzzedTransmission(random: SeededRandom): Buffer {
  const parts: Buffer[] = [];
  for (let i = random.below(12); i >= 0; i -= 1) {
    const type = random.pick([C.READ, C.WRITE, C.WRITE, C.FLUSH, 4, 5, 6, 7, random.below(65_536)]);
    const length = random.chance(70) ? random.below(40_000) : random.pick(LENGTHS);
    const offset = random.chance(80)
      ? // the upper half: the good client works in the lower one
        SIZE / 2 + random.below(SIZE / 2)
      : random.pick([0xffffffffffffffffn, 0xfffffffffffffff0n, (1n << 53n) + 1n, 1n << 63n]);
    const flags = random.chance(70) ? 0 : random.below(65_536);
    const cookie = BigInt(random.below(3));
    const header = encodeRequest({ type, flags, cookie, offset, length });
    // headers may break the stream; addresses stay out of the good client's half
    if (random.chance(10)) header[random.below(8)] = random.below(256);
    parts.push(header);
    if (type === C.WRITE) parts.push(Buffer.alloc(Math.min(length, 1 << 20), 0xfe));
  }
  const all = Buffer.concat(parts);
  return random.chance(30) ? all.subarray(0, random.below(all.length + 1)) : all;
}

/** Sends in random pieces, reads what comes, and ends its side. Resolves when the server has
 *  closed. */
async function sendAll(client: RawClient, random: SeededRandom, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length && !client.isEnded; ) {
    const end = at + (random.chance(50) ? bytes.length : 1 + random.below(200));
    client.socket.write(bytes.subarray(at, end));
    at = end;
    await new Promise((resolve) => setImmediate(resolve));
  }
  client.socket.end();
  await client.closed();
  client.destroy();
}

/** Writes and reads back in the lower half until told to stop. */
async function goodClient(path: string, done: () => boolean): Promise<number> {
  const client = await RawClient.open({ path });
  await client.go({ name: 'v1' });
  let rounds = 0;
  while (!done()) {
    const offset = (rounds * 7919 * 512) % (SIZE / 2 - 8192);
    const payload = Buffer.alloc(8192, rounds & 0xff);
    await client.call({ type: C.WRITE, offset, length: 8192 }, payload);
    const read = await client.call({ type: C.READ, offset, length: 8192 });
    expect(read.error).toBe(0);
    expect(read.data.equals(payload)).toBe(true);
    rounds += 1;
  }
  client.destroy();
  return rounds;
}

describe('fuzzing (correctness 3.2)', () => {
  let under: TestServer;
  beforeEach(async () => {
    under = await startServer({ volume: new MemoryVolume({ sizeBytes: SIZE }) });
  });
  afterEach(() => under.stop());

  const campaign = async (
    run: (client: RawClient, random: SeededRandom) => Promise<void>,
  ): Promise<void> => {
    const seed = SeededRandom.runSeed();
    let isDone = false;
    const good = goodClient(under.path, () => isDone);
    const batches = async (from: number, to: number): Promise<void> => {
      for (let first = from; first < to; first += AT_ONCE) {
        const runs = Array.from({ length: AT_ONCE }, async (_, i) => {
          const client = await RawClient.open({ path: under.path });
          await run(client, new SeededRandom(seed + first + i));
        });
        await Promise.all(runs);
      }
    };
    try {
      await batches(0, 100);
      const before = liveBytes() - under.volume.memoryBytes;
      await batches(100, RUNS);
      const after = liveBytes() - under.volume.memoryBytes;
      expect(after - before).toBeLessThan(2 << 20);
      isDone = true;
      expect(await good).toBeGreaterThan(RUNS / AT_ONCE);
      while (under.server.connections > 0) await new Promise((r) => setImmediate(r));
      under.volume.assertBalanced();
    } catch (error) {
      throw new Error(`AUROCHS_SEED=${seed}`, { cause: error });
    } finally {
      isDone = true;
    }
  };

  it('every fuzzed handshake is answered or dropped', async () => {
    await campaign(async (client, random) => {
      await sendAll(client, random, fuzzedHandshake(random));
    });
  });

  it('every fuzzed transmission is answered or dropped', async () => {
    await campaign(async (client, random) => {
      await client.go({ name: 'v1', structured: random.chance(70), blockSizes: random.chance(30) });
      await sendAll(client, random, fuzzedTransmission(random));
    });
  });
});

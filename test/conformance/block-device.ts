/**
 * What every BlockDevice owes, run on every implementation. Test files call
 * `blockDeviceConformance` with a way to make one; the cases know nothing else of it.
 */
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { AlignedBuffer, BlockDevice, BufferPool } from '../../common/block-device.js';
import { KIB, MIB } from '../../common/units.js';

export interface DeviceFixture {
  readonly pool: BufferPool;
  /** Opens the same medium each time; the test closes what it opens. */
  open(): Promise<BlockDevice>;
  /** Removes the medium. */
  destroy(): Promise<void>;
}

export interface Implementation {
  readonly name: string;
  /** why it cannot run on this host */
  readonly skip?: string | undefined;
  /** A new medium of zeroes. */
  create(sizeBytes: number): Promise<DeviceFixture>;
}

const SIZE = 8 * MIB;
/** More than the operations that any implementation has in flight at once. */
const CROWD = 3000;

export function blockDeviceConformance(implementation: Implementation): void {
  const title = `BlockDevice: ${implementation.name}`;
  const reason = implementation.skip;
  describe.skipIf(reason !== undefined)(
    reason === undefined ? title : `${title}: ${reason}`,
    () => {
      const context = new Context(implementation);
      beforeEach(() => context.begin());
      afterEach(() => context.end());
      transferCases(context);
      rangeCases(context);
      clearingCases(context);
      closingCases(context);
      loadCases(context);
    },
  );
}

/** The device of the running case, and its buffers. */
class Context {
  #fixture: DeviceFixture | undefined;
  #device: BlockDevice | undefined;
  #buffers: AlignedBuffer[] = [];

  constructor(readonly implementation: Implementation) {}

  async begin(): Promise<void> {
    this.#fixture = await this.implementation.create(SIZE);
    this.#device = await this.#fixture.open();
  }

  async end(): Promise<void> {
    await this.#device?.close();
    for (const buffer of this.#buffers.splice(0)) buffer.release();
    expect(this.#fixture?.pool.usedBytes).toBe(0);
    await this.#fixture?.destroy();
  }

  get device(): BlockDevice {
    if (this.#device === undefined) throw new Error('no device: begin failed');
    return this.#device;
  }

  async reopen(): Promise<void> {
    await this.device.close();
    this.#device = await this.#fixture?.open();
  }

  /** Released at the end of the case. */
  buffer(lengthBytes: number, fill?: number): Buffer {
    const buffer = this.#fixture?.pool.acquire(lengthBytes);
    if (buffer === undefined) throw new Error('no pool: begin failed');
    this.#buffers.push(buffer);
    if (fill !== undefined) buffer.bytes.fill(fill);
    return buffer.bytes;
  }

  async write(offsetBytes: number, lengthBytes: number, fill: number): Promise<void> {
    await this.device.write(offsetBytes, this.buffer(lengthBytes, fill));
  }

  async read(offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    const view = this.buffer(lengthBytes, 0xff);
    await this.device.read(offsetBytes, view);
    return view;
  }
}

const filled = (lengthBytes: number, fill: number): Buffer => Buffer.alloc(lengthBytes, fill);
const code = (value: string): unknown => expect.objectContaining({ code: value });

function transferCases(context: Context): void {
  test('a new medium reads as zeroes and has the size asked for', async () => {
    expect(context.device.sizeBytes).toBe(SIZE);
    expect([512, 4096]).toContain(context.device.sectorSize);
    expect(await context.read(0, 64 * KIB)).toEqual(filled(64 * KIB, 0));
  });

  test.each([
    ['first block', 0, 4096],
    ['last block', SIZE - 4096, 4096],
    ['across blocks', 3 * 4096, 5 * 4096],
    ['largest buffer', 4096, 4 * MIB],
  ])('reads back what was written: %s', async (_name, offsetBytes, lengthBytes) => {
    await context.write(offsetBytes, lengthBytes, 0x5a);
    expect((await context.read(offsetBytes, lengthBytes)).equals(filled(lengthBytes, 0x5a))).toBe(
      true,
    );
  });

  test('single sectors are written alone', async () => {
    const sector = context.device.sectorSize;
    await context.write(0, 4 * sector, 1);
    await context.write(2 * sector, sector, 2);
    const got = await context.read(0, 4 * sector);
    const fills = [0, 1, 2, 3].map((index) => got[index * sector]);
    expect(fills).toEqual([1, 1, 2, 1]);
  });

  test('a view inside a buffer: bytes before and after it stay untouched', async () => {
    await context.write(0, 8192, 7);
    const whole = context.buffer(16 * KIB, 9);
    await context.device.read(0, whole.subarray(4096, 12288));
    expect(whole.subarray(0, 4096)).toEqual(filled(4096, 9));
    expect(whole.subarray(4096, 12288)).toEqual(filled(8192, 7));
    expect(whole.subarray(12288)).toEqual(filled(4096, 9));
  });

  test('D1: flush resolves, and what was written before it is there after a reopen', async () => {
    await context.write(4096, 8192, 3);
    await context.device.flush();
    await context.reopen();
    expect(await context.read(4096, 8192)).toEqual(filled(8192, 3));
  });

  test('empty transfers resolve and change nothing', async () => {
    const empty = context.buffer(4096).subarray(0, 0);
    await context.device.write(0, empty);
    await context.device.read(SIZE, empty);
    await context.device.discard(0, 0);
    await context.device.writeZeroes(SIZE, 0, { mayUnmap: false });
    expect(await context.read(0, 4096)).toEqual(filled(4096, 0));
  });
}

function rangeCases(context: Context): void {
  test.each([
    ['starts at the end', SIZE],
    ['ends past the end', SIZE - 4096],
    ['far away', 2 ** 52],
  ])('N4: OUT_OF_RANGE and nothing written: %s', async (_name, offsetBytes) => {
    const view = context.buffer(8192, 1);
    const { device } = context;
    await expect(device.write(offsetBytes, view)).rejects.toEqual(code('OUT_OF_RANGE'));
    await expect(device.read(offsetBytes, view)).rejects.toEqual(code('OUT_OF_RANGE'));
    await expect(device.discard(offsetBytes, 8192)).rejects.toEqual(code('OUT_OF_RANGE'));
    const zeroes = device.writeZeroes(offsetBytes, 8192, { mayUnmap: true });
    await expect(zeroes).rejects.toEqual(code('OUT_OF_RANGE'));
    expect(await context.read(SIZE - 4096, 4096)).toEqual(filled(4096, 0));
  });

  test('misaligned offsets, lengths and memory are programmer errors', async () => {
    const { device } = context;
    const view = context.buffer(8192);
    const aside = (run: () => Promise<void>): Promise<void> => Promise.resolve().then(run);
    for (const run of [
      () => device.read(1, view),
      () => device.write(4096, view.subarray(0, 100)),
      () => device.write(4096, view.subarray(100, 100 + 4096)),
      () => device.read(-4096, view),
      () => device.read(Number.NaN, view),
      () => device.discard(4096.5, 4096),
    ]) {
      await expect(aside(run)).rejects.toMatchObject({ name: 'AssertionError' });
    }
  });
}

function clearingCases(context: Context): void {
  test.each([false, true])('writeZeroes reads back as zeroes, mayUnmap %s', async (mayUnmap) => {
    await context.write(0, 4 * MIB, 0x77);
    await context.device.writeZeroes(4096, 3 * MIB, { mayUnmap });
    const got = await context.read(0, 4 * MIB);
    expect(got.subarray(0, 4096).equals(filled(4096, 0x77))).toBe(true);
    expect(got.subarray(4096, 4096 + 3 * MIB).equals(filled(3 * MIB, 0))).toBe(true);
    expect(got.subarray(4096 + 3 * MIB).equals(filled(MIB - 4096, 0x77))).toBe(true);
  });

  test('discard resolves and leaves the bytes around it alone', async () => {
    await context.write(0, MIB, 0x66);
    await context.device.discard(64 * KIB, 128 * KIB);
    const got = await context.read(0, MIB);
    expect(got.subarray(0, 64 * KIB).equals(filled(64 * KIB, 0x66))).toBe(true);
    expect(got.subarray(192 * KIB).equals(filled(MIB - 192 * KIB, 0x66))).toBe(true);
  });
}

function closingCases(context: Context): void {
  test('close waits for what is in flight', async () => {
    let settled = 0;
    for (let i = 0; i < 32; i++) {
      const written = context.device.write(i * 4096, context.buffer(4096, i + 1));
      void written.then(() => {
        settled += 1;
      });
    }
    await context.device.close();
    expect(settled).toBe(32);
    await context.reopen();
    const got = await context.read(0, 32 * 4096);
    expect(Array.from({ length: 32 }, (_, i) => got[i * 4096])).toEqual(
      Array.from({ length: 32 }, (_, i) => i + 1),
    );
  });

  test('a closed device refuses with CLOSED; close is idempotent', async () => {
    const { device } = context;
    const view = context.buffer(4096);
    const first = device.close();
    await Promise.all([first, device.close()]);
    for (const refused of [
      device.read(0, view),
      device.write(0, view),
      device.flush(),
      device.discard(0, 4096),
      device.writeZeroes(0, 4096, { mayUnmap: true }),
    ]) {
      await expect(refused).rejects.toEqual(code('CLOSED'));
    }
    await context.reopen();
  });
}

function loadCases(context: Context): void {
  test(`${CROWD} writes at once are all done, while the event loop goes on`, async () => {
    let turns = 0;
    let busy = true;
    const count = (): void => {
      turns += 1;
      if (busy) setImmediate(count);
    };
    setImmediate(count);
    const blocks = SIZE / 4096;
    const buffers = Array.from({ length: 16 }, (_, i) => context.buffer(4096, i));
    const writes: Array<Promise<void>> = [];
    for (let i = 0; i < CROWD; i++) {
      const block = i % blocks;
      writes.push(context.device.write(block * 4096, buffers[block % 16] as Buffer));
    }
    await Promise.all(writes);
    busy = false;
    expect(turns).toBeGreaterThan(0);
    const got = await context.read(0, 4 * MIB);
    for (let block = 0; block < 1024; block++) expect(got[block * 4096]).toBe(block % 16);
  });

  test('random operations agree with an array of bytes', async () => {
    const sectors = 256;
    const operation = fc.record({
      kind: fc.constantFrom('write', 'write', 'read', 'zeroes', 'unmap', 'flush'),
      at: fc.nat(sectors - 1),
      count: fc.integer({ min: 1, max: 24 }),
      fill: fc.integer({ min: 1, max: 255 }),
    });
    const property = fc.asyncProperty(
      fc.array(operation, { maxLength: 40 }),
      async (operations) => {
        const sector = context.device.sectorSize;
        const area = sectors * sector;
        await context.device.writeZeroes(0, area, { mayUnmap: false });
        const model = Buffer.alloc(area);
        const view = context.buffer(24 * sector);
        for (const { kind, at, count, fill } of operations) {
          const lengthBytes = Math.min(count, sectors - at) * sector;
          const offsetBytes = at * sector;
          const part = view.subarray(0, lengthBytes);
          const inModel = model.subarray(offsetBytes, offsetBytes + lengthBytes);
          if (kind === 'write') {
            await context.device.write(offsetBytes, part.fill(fill));
            inModel.fill(fill);
          } else if (kind === 'read') {
            await context.device.read(offsetBytes, part);
            expect(part.equals(inModel)).toBe(true);
          } else if (kind === 'flush') {
            await context.device.flush();
          } else {
            const mayUnmap = kind === 'unmap';
            await context.device.writeZeroes(offsetBytes, lengthBytes, { mayUnmap });
            inModel.fill(0);
          }
        }
        expect((await context.read(0, area)).equals(model)).toBe(true);
      },
    );
    const seed = process.env['FC_SEED'];
    await fc.assert(property, { numRuns: 25, ...(seed === undefined ? {} : { seed: +seed }) });
  });
}

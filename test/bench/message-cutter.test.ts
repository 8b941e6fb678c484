import fc from 'fast-check';
import { expect, it } from 'vitest';
import { MessageCutter } from '../../bench/floor/message-cutter.js';

const HEADER_BYTES = 5;

/** Header: route (1 byte, 0 = drop), payload length (4 bytes). Marks each header it has seen. */
class TestCutter extends MessageCutter<number> {
  readonly out = new Map<number, Buffer[]>();
  headers = 0;

  constructor() {
    super(HEADER_BYTES);
  }

  protected override header(bytes: Buffer, at: number): void {
    const route = bytes.readUInt8(at);
    this.route = route === 0 ? undefined : route;
    this.payloadBytes = bytes.readUInt32BE(at + 1);
    bytes.writeUInt8(route + 100, at);
    this.headers += 1;
  }

  protected override emit(route: number, view: Buffer): void {
    this.out.set(route, [...(this.out.get(route) ?? []), view]);
  }
}

function message(route: number, payload: Uint8Array): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt8(route, 0);
  header.writeUInt32BE(payload.length, 1);
  return Buffer.concat([header, payload]);
}

it('every message reaches its route whole and in order, however the stream is cut', () => {
  const messages = fc.array(
    fc.record({ route: fc.integer({ min: 0, max: 2 }), payload: fc.uint8Array({ maxLength: 40 }) }),
    { maxLength: 30 },
  );
  fc.assert(
    fc.property(messages, fc.array(fc.integer({ min: 1, max: 60 })), (list, cuts) => {
      const cutter = new TestCutter();
      let stream = Buffer.concat(list.map(({ route, payload }) => message(route, payload)));
      for (const cut of cuts) {
        cutter.push(Buffer.from(stream.subarray(0, cut)));
        stream = stream.subarray(cut);
      }
      cutter.push(Buffer.from(stream));
      expect(cutter.headers).toBe(list.length);
      for (const route of [1, 2]) {
        const own = list.filter((one) => one.route === route);
        const want = Buffer.concat(own.map(({ payload }) => message(route, payload)));
        let at = 0;
        for (const { payload } of own) {
          want.writeUInt8(route + 100, at);
          at += HEADER_BYTES + payload.length;
        }
        expect(Buffer.concat(cutter.out.get(route) ?? []).equals(want)).toBe(true);
      }
    }),
  );
});

it('neighbours with one route leave as one view', () => {
  const cutter = new TestCutter();
  const one = message(1, Buffer.alloc(10));
  cutter.push(Buffer.concat([one, one, message(2, Buffer.alloc(3)), one]));
  expect(cutter.out.get(1)?.map((view) => view.length)).toEqual([30, 15]);
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StorageError } from '../../common/errors.js';
import { BLOCK_SIZE, MIB, REGION_SIZE } from '../../common/units.js';
import { aurochs } from '../../proto/generated/messages.js';
import {
  decodeIoBatch,
  decodeIoReplyBatch,
  encodeIoHello,
  encodeIoHelloReply,
  IO_FLAG,
  IO_OP,
  IoBatchEncoder,
  type IoBatchVisitor,
  type IoReplyBatchVisitor,
  IoReplyEncoder,
} from '../../proto/io-codec.js';
import { MESSAGE_HEADROOM, type OutgoingMessage } from '../../proto/message-stream.js';
import { checksumBlocks, crc32c } from './crc32c.js';

import v1 = aurochs.v1;

interface Request {
  op: number;
  flags: number;
  id: number;
  offsetBytes: number;
  lengthBytes: number;
  arg: number;
  checksums: string;
  payload: string;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const bytesOf = (message: OutgoingMessage): Buffer =>
  Buffer.concat([message.head.subarray(MESSAGE_HEADROOM), ...message.tail]);
const numberOf = (value: unknown): number => Number(String(value ?? 0));

class Collector implements IoBatchVisitor, IoReplyBatchVisitor {
  hellos: unknown[] = [];
  acked: number[] = [];
  requests: Request[] = [];
  replies: object[] = [];

  onHello(hello: unknown): void {
    this.hellos.push(hello);
  }

  onAckedThrough(id: number): void {
    this.acked.push(id);
  }

  onRequest(view: Parameters<IoBatchVisitor['onRequest']>[0]): void {
    const { op, flags, id, offsetBytes, lengthBytes, arg, bytes } = view;
    const checksums = hex(bytes.subarray(view.checksumsStart, view.checksumsEnd));
    const payload = hex(bytes.subarray(view.payloadStart, view.payloadEnd));
    this.requests.push({ op, flags, id, offsetBytes, lengthBytes, arg, checksums, payload });
  }

  onReply(view: Parameters<IoReplyBatchVisitor['onReply']>[0]): void {
    const { status, id, badBlock, detail, bytes } = view;
    const checksums = hex(bytes.subarray(view.checksumsStart, view.checksumsEnd));
    const payload = hex(bytes.subarray(view.payloadStart, view.payloadEnd));
    this.replies.push({ status, id, badBlock, detail, checksums, payload });
  }
}

function decodeOurs(message: Buffer): Collector {
  const seen = new Collector();
  decodeIoBatch(message, seen);
  return seen;
}

const safe = fc.maxSafeNat();
const blocks = (max: number) => fc.integer({ min: 1, max });
const blockOffset = fc.integer({ min: 0, max: 2 ** 34 }).map((block) => block * BLOCK_SIZE);
const flags = fc.integer({ min: 0, max: 7 });

/** A request with what the codec needs to write it: `seed` fills the payload of a write. */
const plainRequest = fc.record({
  op: fc.constantFrom(IO_OP.READ, IO_OP.TRIM, IO_OP.WRITE_ZEROES, IO_OP.MAP),
  flags,
  id: safe,
  offsetBytes: blockOffset,
  lengthBytes: blocks(256).map((count) => count * BLOCK_SIZE),
  arg: safe,
  fill: fc.constant(0),
});
const bareRequest = fc.record({
  op: fc.constantFrom(IO_OP.FLUSH, IO_OP.PING),
  flags,
  id: safe,
  offsetBytes: fc.constant(0),
  lengthBytes: fc.constant(0),
  arg: safe,
  fill: fc.constant(0),
});
const cleanRequest = fc.record({
  op: fc.constant(IO_OP.CLEAN),
  flags: fc.constant(0),
  id: safe,
  offsetBytes: fc.integer({ min: 0, max: 1000 }).map((region) => region * REGION_SIZE),
  lengthBytes: fc.constant(0),
  arg: safe,
  fill: fc.constant(0),
});
const writeRequest = fc.record({
  op: fc.constant(IO_OP.WRITE),
  flags: fc.constantFrom(0, IO_FLAG.FUA),
  id: safe,
  offsetBytes: blockOffset,
  lengthBytes: fc.oneof(blocks(3), fc.constantFrom(16, 17)).map((count) => count * BLOCK_SIZE),
  arg: fc.constant(0),
  fill: fc.integer({ min: 0, max: 255 }),
});
const anyRequest = fc.oneof(plainRequest, bareRequest, cleanRequest, writeRequest);
type Given = typeof anyRequest extends fc.Arbitrary<infer T> ? T : never;

const payloadOf = (request: Given): Buffer => Buffer.alloc(request.lengthBytes, request.fill);

function checksumsOf(payload: Buffer): Buffer {
  const out = Buffer.alloc((payload.length / BLOCK_SIZE) * 4);
  checksumBlocks(payload, 0, payload.length, out, 0);
  return out;
}

function wanted(request: Given): Request {
  const { fill: _fill, ...fields } = request;
  const payload = request.op === IO_OP.WRITE ? payloadOf(request) : Buffer.alloc(0);
  return { ...fields, checksums: hex(checksumsOf(payload)), payload: hex(payload) };
}

function encodeOurs(requests: readonly Given[], acked: number): Buffer {
  const encoder = new IoBatchEncoder({ checksumBlocks });
  for (const request of requests) {
    if (request.op === IO_OP.WRITE) {
      const payload = payloadOf(request);
      const cut = Math.min(1000, payload.length);
      encoder.addWrite(request, [payload.subarray(0, cut), payload.subarray(cut)]);
    } else encoder.add(request);
  }
  return Buffer.from(bytesOf(encoder.finish(acked, 1)));
}

describe('IoBatch against protobufjs', () => {
  it('protobufjs reads what we write', () => {
    fc.assert(
      fc.property(fc.array(anyRequest, { maxLength: 6 }), safe, (requests, acked) => {
        const message = v1.IoBatch.decode(encodeOurs(requests, acked));
        expect(numberOf(message.ackedThrough)).toBe(acked);
        const seen = (message.requests ?? []).map((wire) => ({
          op: wire.op,
          flags: wire.flags,
          id: numberOf(wire.id),
          offsetBytes: numberOf(wire.offsetBytes),
          lengthBytes: wire.lengthBytes,
          arg: numberOf(wire.arg),
          checksums: hex(wire.checksums ?? Buffer.alloc(0)),
          payload: hex(wire.payload ?? Buffer.alloc(0)),
        }));
        expect(seen).toEqual(requests.map(wanted));
      }),
      { numRuns: 150 },
    );
  });

  it('we read what we write', () => {
    fc.assert(
      fc.property(fc.array(anyRequest, { maxLength: 6 }), safe, (requests, acked) => {
        const seen = decodeOurs(encodeOurs(requests, acked));
        expect(seen.acked).toEqual([acked]);
        expect(seen.requests).toEqual(requests.map(wanted));
      }),
      { numRuns: 150 },
    );
  });

  it('we read what protobufjs writes (fields of value 0 left out)', () => {
    fc.assert(
      fc.property(fc.array(anyRequest, { maxLength: 6 }), safe, (requests, acked) => {
        const wire = requests.map((request) => {
          const { fill: _fill, ...fields } = request;
          const payload = request.op === IO_OP.WRITE ? payloadOf(request) : Buffer.alloc(0);
          return { ...fields, checksums: checksumsOf(payload), payload };
        });
        const bytes = v1.IoBatch.encode({ ackedThrough: acked, requests: wire }).finish();
        const seen = decodeOurs(Buffer.from(bytes));
        expect(seen.acked).toEqual([acked]);
        expect(seen.requests).toEqual(requests.map(wanted));
      }),
      { numRuns: 150 },
    );
  });

  it('we read fields in any order, between unknown fields, with long varints', () => {
    const unknown = fc.constantFrom(
      'f80101',
      'f9010102030405060708',
      'fa0103616263',
      'fd0101020304',
    );
    const shuffled = fc.tuple(
      writeRequest,
      fc.shuffledSubarray([0, 1, 2, 3, 4, 5, 6, 7], { minLength: 8 }),
      fc.array(unknown, { minLength: 9, maxLength: 9 }),
      fc.boolean(),
    );
    fc.assert(
      fc.property(shuffled, ([request, order, junk, longVarint]) => {
        const payload = payloadOf(request);
        const fixed = (tag: number, size: 4 | 8, value: number): Buffer => {
          const bytes = Buffer.alloc(1 + size);
          bytes[0] = tag;
          if (size === 4) bytes.writeUInt32LE(value, 1);
          else bytes.writeBigUInt64LE(BigInt(value), 1);
          return bytes;
        };
        const length = (value: number): Buffer => {
          const bytes: number[] = [];
          let rest = value;
          for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
          // A varint may be padded with empty groups.
          if (longVarint) bytes.push(rest | 128, 128, 128, 0);
          else bytes.push(rest);
          return Buffer.from(bytes);
        };
        const sums = checksumsOf(payload);
        const fields = [
          fixed(0x0d, 4, request.op),
          fixed(0x15, 4, request.flags),
          fixed(0x19, 8, request.id),
          fixed(0x21, 8, request.offsetBytes),
          fixed(0x2d, 4, request.lengthBytes),
          fixed(0x31, 8, request.arg),
          Buffer.concat([Buffer.of(0x3a), length(sums.length), sums]),
          Buffer.concat([Buffer.of(0x42), length(payload.length), payload]),
        ];
        const mixed = order.flatMap((place, index) => [
          Buffer.from(junk[index] as string, 'hex'),
          fields[place] as Buffer,
        ]);
        const body = Buffer.concat([...mixed, Buffer.from(junk[8] as string, 'hex')]);
        const message = Buffer.concat([
          Buffer.from('f80101', 'hex'),
          Buffer.of(0x1a),
          length(body.length),
          body,
          fixed(0x11, 8, 77),
        ]);
        const seen = decodeOurs(message);
        expect(seen.acked).toEqual([77]);
        expect(seen.requests).toEqual([wanted(request)]);
      }),
      { numRuns: 200 },
    );
  });

  it('the payload of a large write begins at a block boundary, also behind others', () => {
    const encoder = new IoBatchEncoder({ checksumBlocks });
    const fields = { flags: 0, id: 1, offsetBytes: 0, lengthBytes: 0 };
    for (const before of [0, 1, 2, 100]) {
      for (let index = 0; index < before; index++) encoder.add({ ...fields, op: 8, arg: 0 });
      for (const lengthBytes of [64 * 1024, 68 * 1024, MIB]) {
        const payload = Buffer.alloc(lengthBytes, 7);
        encoder.addWrite({ ...fields, lengthBytes }, [payload]);
        const message = bytesOf(encoder.finish(0, 1));
        const starts: number[] = [];
        decodeIoBatch(message, {
          onHello: () => undefined,
          onAckedThrough: () => undefined,
          onRequest: (view) => {
            if (view.op === IO_OP.WRITE) starts.push(view.payloadStart);
          },
        });
        expect(starts.map((start) => start % BLOCK_SIZE)).toEqual([0]);
        expect(v1.IoBatch.decode(message).requests?.at(-1)?.payload?.length).toBe(lengthBytes);
      }
    }
  });

  it('a write in a batch carries the crc32c of each block, and pad carries no old bytes', () => {
    const encoder = new IoBatchEncoder({ checksumBlocks });
    const secret = Buffer.alloc(MIB, 0x5a);
    const fields = { flags: 0, id: 1, offsetBytes: 0, lengthBytes: MIB };
    const first = encoder.addWrite(fields, [secret]);
    expect(first).toBeUndefined();
    encoder.finish(0, 1).done();
    const payload = Buffer.alloc(MIB, 1);
    payload.fill(2, BLOCK_SIZE, 2 * BLOCK_SIZE);
    encoder.addWrite(fields, [payload]);
    const message = bytesOf(encoder.finish(0, 1));
    expect(message.includes(0x5a5a5a5a)).toBe(false);
    expect(message.indexOf(Buffer.alloc(8, 0x5a))).toBe(-1);
    const sums = Buffer.from(decodeOurs(message).requests[0]?.checksums ?? '', 'hex');
    expect(sums.readUInt32LE(0)).toBe(crc32c(Buffer.alloc(BLOCK_SIZE, 1)));
    expect(sums.readUInt32LE(4)).toBe(crc32c(Buffer.alloc(BLOCK_SIZE, 2)));
  });

  it('memory is used again only when every stream is done', () => {
    const encoder = new IoBatchEncoder({ checksumBlocks });
    const ping = { op: IO_OP.PING, flags: 0, id: 1, offsetBytes: 0, lengthBytes: 0, arg: 0 };
    encoder.add(ping);
    const first = encoder.finish(0, 3);
    const copy = Buffer.from(first.head);
    first.done();
    first.done();
    encoder.add({ ...ping, id: 2 });
    const second = encoder.finish(0, 1);
    expect(second.head.buffer).not.toBe(first.head.buffer);
    expect(first.head.subarray(MESSAGE_HEADROOM)).toEqual(copy.subarray(MESSAGE_HEADROOM));
    first.done();
    expect(() => first.done()).toThrow(/done/);
    encoder.add(ping);
    expect(encoder.finish(0, 1).head.buffer).toBe(first.head.buffer);
  });

  it('caps: requests and lengthBytes count, fits says no at the limits', () => {
    const encoder = new IoBatchEncoder({ checksumBlocks });
    const ping = { op: IO_OP.PING, flags: 0, id: 1, offsetBytes: 0, lengthBytes: 0, arg: 0 };
    expect(encoder.requests).toBe(0);
    for (let index = 0; index < 4096; index++) encoder.add({ ...ping, id: index });
    expect(encoder.fits(0)).toBe(false);
    expect(() => encoder.add(ping)).toThrow();
    const lengthBytes = encoder.lengthBytes;
    const message = encoder.finish(1, 1);
    expect(message.lengthBytes).toBe(lengthBytes);
    expect(encoder.requests).toBe(0);
    expect(encoder.lengthBytes).toBe(0);
    const fields = { flags: 0, id: 1, offsetBytes: 0, lengthBytes: MIB };
    let writes = 0;
    for (; encoder.fits(MIB); writes++) encoder.addWrite(fields, [Buffer.alloc(MIB)]);
    expect(writes).toBe(3);
    const large = encoder.finish(0, 1);
    expect(large.lengthBytes).toBe(large.head.length - MESSAGE_HEADROOM);
    expect(decodeOurs(bytesOf(large)).requests).toHaveLength(3);
  });

  it('an empty batch carries acked_through alone', () => {
    const seen = decodeOurs(encodeOurs([], 2 ** 53 - 1));
    expect(seen).toMatchObject({ acked: [2 ** 53 - 1], requests: [] });
  });
});

const detail = fc.string({ unit: 'grapheme', maxLength: 60 });
const replyGiven = fc.oneof(
  fc.record({
    kind: fc.constant('plain' as const),
    id: safe,
    status: fc.integer({ min: 0, max: 0xffffffff }),
    badBlock: fc.integer({ min: 0, max: 255 }),
    detail,
    size: fc.constant(0),
  }),
  fc.record({
    kind: fc.constant('read' as const),
    id: safe,
    status: fc.constant(0),
    badBlock: fc.constant(0),
    detail: fc.constant(''),
    size: fc.constantFrom(0, 4096, 16384, 20480, 65536),
  }),
);
type ReplyGiven = typeof replyGiven extends fc.Arbitrary<infer T> ? T : never;

const readPayload = (reply: ReplyGiven): Buffer => Buffer.alloc(reply.size, reply.id % 251);
const readSums = (reply: ReplyGiven): Buffer =>
  Buffer.alloc(reply.kind === 'read' ? Math.max(4, reply.size / 1024) : 0, reply.id % 250);

function wantedReply(reply: ReplyGiven) {
  const { status, id, badBlock } = reply;
  return {
    ...{ status, id, badBlock, detail: reply.detail },
    checksums: hex(readSums(reply)),
    payload: hex(readPayload(reply)),
  };
}

function encodeReplies(replies: readonly ReplyGiven[]): {
  message: OutgoingMessage;
  out: number[];
} {
  const encoder = new IoReplyEncoder();
  const released: number[] = [];
  for (const [index, reply] of replies.entries()) {
    if (reply.kind === 'plain') encoder.add(reply.id, reply.status, reply);
    else {
      const payload = reply.size === 0 ? undefined : readPayload(reply);
      encoder.addRead(reply.id, readSums(reply), payload, () => released.push(index));
    }
  }
  return { message: encoder.finish(), out: released };
}

describe('IoReplyBatch against protobufjs', () => {
  it('protobufjs and we read what we write; each payload is released once', () => {
    fc.assert(
      fc.property(fc.array(replyGiven, { maxLength: 6 }), (replies) => {
        const { message, out } = encodeReplies(replies);
        const bytes = bytesOf(message);
        expect(bytes.length).toBe(message.lengthBytes);
        const theirs = (v1.IoReplyBatch.decode(bytes).replies ?? []).map((wire) => ({
          status: wire.status,
          id: numberOf(wire.id),
          badBlock: wire.badBlock,
          detail: wire.detail,
          checksums: hex(wire.checksums ?? Buffer.alloc(0)),
          payload: hex(wire.payload ?? Buffer.alloc(0)),
        }));
        expect(theirs).toEqual(replies.map(wantedReply));
        const seen = new Collector();
        decodeIoReplyBatch(bytes, seen);
        expect(seen.replies).toEqual(replies.map(wantedReply));
        const large = replies.filter((reply) => reply.size > 16384).length;
        const reads = replies.filter((reply) => reply.kind === 'read').length;
        expect(out).toHaveLength(reads - large);
        message.done();
        expect(new Set(out).size).toBe(reads);
        expect(out).toHaveLength(reads);
      }),
      { numRuns: 200 },
    );
  });

  it('we read what protobufjs writes', () => {
    fc.assert(
      fc.property(fc.array(replyGiven, { maxLength: 6 }), (replies) => {
        const wire = replies.map((reply) => ({
          ...{ status: reply.status, id: reply.id, badBlock: reply.badBlock },
          ...{ detail: reply.detail, checksums: readSums(reply), payload: readPayload(reply) },
        }));
        const bytes = v1.IoReplyBatch.encode({ replies: wire, pad: Buffer.alloc(3) }).finish();
        const seen = new Collector();
        decodeIoReplyBatch(Buffer.from(bytes), seen);
        expect(seen.replies).toEqual(replies.map(wantedReply));
      }),
      { numRuns: 150 },
    );
  });

  it('large payloads travel by reference', () => {
    const encoder = new IoReplyEncoder();
    const payload = Buffer.alloc(65536, 3);
    encoder.addRead(1, Buffer.alloc(64), payload);
    encoder.add(2, 0);
    const message = encoder.finish();
    expect(message.tail[0]).toBe(payload);
    expect(message.tail).toHaveLength(2);
  });

  it('a long detail is cut, never refused by the reader', () => {
    const encoder = new IoReplyEncoder();
    encoder.add(1, 11, { detail: '😀'.repeat(2000) });
    const seen = new Collector();
    decodeIoReplyBatch(bytesOf(encoder.finish()), seen);
    expect(seen.replies).toHaveLength(1);
  });
});

describe('hello', () => {
  it('protobufjs and we read ours, both ways', () => {
    const hello = {
      ...{ protocolVersion: 1, volume: 'v1', replicaId: 'r-1' },
      ...{ epoch: 2 ** 53 - 1, engineId: 'E/1:x' },
    };
    const bytes = bytesOf(encodeIoHello(hello));
    expect(decodeOurs(bytes).hellos).toEqual([hello]);
    const theirs = v1.IoBatch.decode(bytes).hello;
    expect(theirs).toMatchObject({ volume: 'v1', replicaId: 'r-1', engineId: 'E/1:x' });
    expect(decodeOurs(Buffer.from(v1.IoBatch.encode({ hello }).finish())).hellos).toEqual([hello]);
    const reply = {
      ...{ protocolVersion: 1, incarnation: 'abc' },
      ...{ windowBytes: 2 ** 32 - 1, windowRequests: 1024 },
    };
    const replyBytes = bytesOf(encodeIoHelloReply(reply));
    expect(v1.IoReplyBatch.decode(replyBytes).hello).toMatchObject(reply);
    const seen = new Collector();
    decodeIoReplyBatch(replyBytes, seen);
    expect(seen.hellos).toEqual([reply]);
  });

  const names: Array<[string, object]> = [
    ['no volume', {}],
    ['volume with a path', { volume: '../etc', replicaId: 'r', engineId: 'e' }],
    ['replica id in capitals', { volume: 'v', replicaId: 'R', engineId: 'e' }],
    ['engine id with a newline', { volume: 'v', replicaId: 'r', engineId: 'a\nb' }],
  ];
  it.each(names)('refuses: %s', (_name, hello) => {
    const bytes = Buffer.from(v1.IoBatch.encode({ hello }).finish());
    expect(() => decodeOurs(bytes)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });
});

describe('what a batch must not be', () => {
  const base = { op: IO_OP.WRITE, id: 5, lengthBytes: 4096 };
  const payload = Buffer.alloc(4096);
  const checksums = Buffer.alloc(4);
  const good = { ...base, payload, checksums };
  const table: Array<[string, object, string]> = [
    ['unknown op', { ...good, op: 9 }, 'PROTOCOL_ERROR'],
    ['no op', { ...good, op: 0 }, 'PROTOCOL_ERROR'],
    ['unknown flag', { ...good, flags: 8 }, 'PROTOCOL_ERROR'],
    ['payload shorter', { ...good, payload: Buffer.alloc(4095) }, 'PROTOCOL_ERROR'],
    ['payload missing', { ...base, checksums }, 'PROTOCOL_ERROR'],
    ['payload longer', { ...good, payload: Buffer.alloc(8192) }, 'PROTOCOL_ERROR'],
    ['checksums missing', { ...base, payload }, 'PROTOCOL_ERROR'],
    ['checksums longer', { ...good, checksums: Buffer.alloc(8) }, 'PROTOCOL_ERROR'],
    ['write of nothing', { op: IO_OP.WRITE, id: 1 }, 'PROTOCOL_ERROR'],
    ['misaligned offset', { ...good, offsetBytes: 512 }, 'PROTOCOL_ERROR'],
    ['misaligned length', { op: IO_OP.READ, lengthBytes: 512 }, 'PROTOCOL_ERROR'],
    ['read of more than an extent', { op: IO_OP.READ, lengthBytes: MIB + 4096 }, 'PROTOCOL_ERROR'],
    ['trim with payload', { ...good, op: IO_OP.TRIM }, 'PROTOCOL_ERROR'],
    ['clean inside a region', { op: IO_OP.CLEAN, offsetBytes: MIB }, 'PROTOCOL_ERROR'],
    ['offset of 2^53', { ...good, offsetBytes: 2 ** 53 }, 'OUT_OF_RANGE'],
    ['id of 2^63', { ...good, id: 2 ** 63 }, 'OUT_OF_RANGE'],
    ['end past 2^53', { op: 4, offsetBytes: 2 ** 53 - 4096, lengthBytes: 8192 }, 'OUT_OF_RANGE'],
  ];
  it.each(table)('%s', (_name, request, code) => {
    const bytes = Buffer.from(v1.IoBatch.encode({ requests: [request] }).finish());
    expect(() => decodeOurs(bytes)).toThrow(expect.objectContaining({ code }));
  });

  it('2^53 + 1 in any number is refused, never rounded', () => {
    for (const tag of [0x19, 0x21, 0x31]) {
      const body = Buffer.alloc(9);
      body[0] = tag;
      body.writeBigUInt64LE(2n ** 53n + 1n, 1);
      const bytes = Buffer.concat([Buffer.of(0x1a, 9), body]);
      expect(() => decodeOurs(bytes)).toThrow(expect.objectContaining({ code: 'OUT_OF_RANGE' }));
    }
  });

  it('more than 4096 requests, or a hello with requests, before any is visited', () => {
    const many = Buffer.alloc(4097 * 2);
    for (let at = 0; at < many.length; at += 2) many[at] = 0x1a;
    const hello = { volume: 'v', replicaId: 'r', engineId: 'e' };
    const mixed = v1.IoBatch.encode({ hello, requests: [good] }).finish();
    for (const bytes of [many, Buffer.from(mixed)]) {
      const seen = new Collector();
      expect(() => decodeIoBatch(bytes, seen)).toThrow(
        expect.objectContaining({ code: 'PROTOCOL_ERROR' }),
      );
      expect(seen).toMatchObject({ hellos: [], acked: [], requests: [] });
    }
  });

  const broken: Array<[string, string]> = [
    ['cut tag', '9a'],
    ['cut length', '1a80'],
    ['length past the end', '1a05'],
    ['length past the end inside', '1a023a05'],
    ['field 0', '0000'],
    ['group', '1b1c'],
    ['wire type 7', '1f'],
    ['varint of 11 bytes', '1affffffffffffffffffffff01'],
    ['cut fixed64', '1101'],
  ];
  it.each(broken)('%s is CORRUPT_MESSAGE', (_name, bytes) => {
    expect(() => decodeOurs(Buffer.from(bytes, 'hex'))).toThrow(
      expect.objectContaining({ code: 'CORRUPT_MESSAGE' }),
    );
  });
});

describe('fuzz: nothing but a StorageError', () => {
  const survive = (act: () => void): void => {
    try {
      act();
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
    }
  };
  const ignore: IoBatchVisitor & IoReplyBatchVisitor = {
    onHello: () => undefined,
    onAckedThrough: () => undefined,
    onRequest: (view) => {
      expect(view.payloadEnd).toBeLessThanOrEqual(view.bytes.length);
      expect(view.checksumsEnd).toBeLessThanOrEqual(view.bytes.length);
      expect(Number.isSafeInteger(view.offsetBytes + view.lengthBytes)).toBe(true);
    },
    onReply: (view) => {
      expect(view.payloadEnd).toBeLessThanOrEqual(view.bytes.length);
      expect(view.detail.length).toBeLessThanOrEqual(1024);
    },
  };

  it('random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        survive(() => decodeIoBatch(Buffer.from(bytes), ignore));
        survive(() => decodeIoReplyBatch(Buffer.from(bytes), ignore));
      }),
      { numRuns: 3000 },
    );
  });

  it('valid messages with bytes changed, cut and doubled', () => {
    const change = fc.record({ at: fc.nat(), to: fc.integer({ min: 0, max: 255 }) });
    const changes = fc.array(change, { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(
        fc.array(anyRequest, { minLength: 1, maxLength: 3 }),
        fc.array(replyGiven, { minLength: 1, maxLength: 3 }),
        changes,
        fc.nat(),
        (requests, replies, edits, cut) => {
          const batch = encodeOurs(requests, 9);
          const reply = bytesOf(encodeReplies(replies).message);
          for (const message of [batch, reply]) {
            // Payloads are the longest part and the least interesting one: most edits go to the headers.
            for (const { at, to } of edits) message[at % Math.min(message.length, 120)] = to;
          }
          survive(() => decodeIoBatch(batch, ignore));
          survive(() => decodeIoBatch(batch.subarray(0, cut % batch.length), ignore));
          survive(() => decodeIoBatch(Buffer.concat([batch, batch]), ignore));
          survive(() => decodeIoReplyBatch(reply, ignore));
          survive(() => decodeIoReplyBatch(reply.subarray(0, cut % reply.length), ignore));
        },
      ),
      { numRuns: 1000 },
    );
  });
});

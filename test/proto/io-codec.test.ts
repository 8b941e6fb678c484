import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE, MIB } from '../../common/units.js';
import { aurochs } from '../../proto/generated/messages.js';
import {
  decodeIoBatch,
  decodeIoReplyBatch,
  encodeIoHello,
  encodeIoHelloReply,
  IO_OP,
  IoBatchEncoder,
  IoReplyEncoder,
} from '../../proto/io-codec.js';
import { MESSAGE_HEADROOM } from '../../proto/message-stream.js';
import { checksumBlocks, crc32c } from './crc32c.js';
import {
  anyRequest,
  bytesOf,
  Collector,
  checksumsOf,
  decodeOurs,
  encodeOurs,
  encodeReplies,
  hex,
  numberOf,
  payloadOf,
  readPayload,
  readSums,
  replyGiven,
  safe,
  valuesOf,
  wanted,
  wantedReply,
  writeRequest,
} from './io-samples.js';

import v1 = aurochs.v1;

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
          return { ...fields, ...valuesOf(request) };
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

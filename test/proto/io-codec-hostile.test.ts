import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StorageError } from '../../common/errors.js';
import { MIB } from '../../common/units.js';
import { aurochs } from '../../proto/generated/messages.js';
import {
  decodeIoBatch,
  decodeIoReplyBatch,
  IO_OP,
  type IoBatchVisitor,
  type IoReplyBatchVisitor,
} from '../../proto/io-codec.js';
import {
  anyRequest,
  bytesOf,
  Collector,
  decodeOurs,
  encodeOurs,
  encodeReplies,
  replyGiven,
} from './io-samples.js';

import v1 = aurochs.v1;

describe('what a batch must not be', () => {
  const base = { op: IO_OP.WRITE, id: 5, lengthBytes: 4096 };
  const payload = Buffer.alloc(4096);
  const checksums = Buffer.alloc(4);
  const good = { ...base, payload, checksums };
  const table: Array<[string, object, string]> = [
    ['unknown op', { ...good, op: 11 }, 'PROTOCOL_ERROR'],
    ['no op', { ...good, op: 0 }, 'PROTOCOL_ERROR'],
    ['unknown flag', { ...good, flags: 16 }, 'PROTOCOL_ERROR'],
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
    ['hash with payload', { ...good, op: IO_OP.HASH }, 'PROTOCOL_ERROR'],
    ['hash of more than 1 MiB', { op: IO_OP.HASH, lengthBytes: MIB + 4096 }, 'PROTOCOL_ERROR'],
    ['hash of nothing', { op: IO_OP.HASH }, 'PROTOCOL_ERROR'],
  ];
  const two = {
    ...{ op: IO_OP.REPLACE, id: 6, lengthBytes: 3 * 4096 },
    checksums: Buffer.from('05000000aaaaaaaabbbbbbbb', 'hex'),
    payload: Buffer.alloc(2 * 4096),
  };
  const bits = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');
  const replaces: Array<[string, object]> = [
    ['replace without bitmap', { ...two, checksums: Buffer.alloc(0) }],
    ['replace with half a bitmap', { ...two, checksums: bits('0500'), payload: Buffer.alloc(0) }],
    ['replace with a bitmap and no block', { ...two, payload: Buffer.alloc(0) }],
    ['replace with a block too few', { ...two, payload: Buffer.alloc(4096) }],
    ['replace with a block too many', { ...two, payload: Buffer.alloc(3 * 4096) }],
    ['replace with half a block', { ...two, payload: Buffer.alloc(2 * 4096 - 1) }],
    ['replace with a checksum too few', { ...two, checksums: bits('05000000 aaaaaaaa') }],
    ['replace with half a checksum', { ...two, checksums: bits('05000000 aaaaaaaa bbbb') }],
    [
      'replace with a bit past its range',
      { ...two, checksums: bits('09000000 aaaaaaaa bbbbbbbb') },
    ],
    ['replace with a bit in the fill', { ...two, checksums: bits('01000080 aaaaaaaa bbbbbbbb') }],
    ['replace of nothing', { ...two, lengthBytes: 0 }],
    ['replace of half a block', { ...two, offsetBytes: 2048 }],
    ['replace over an extent edge', { ...two, offsetBytes: MIB - 2 * 4096 }],
    ['replace of more than an extent', { ...two, lengthBytes: MIB + 4096 }],
    ['replace of 2^32 - 4096 bytes', { ...two, lengthBytes: 2 ** 32 - 4096 }],
  ];
  it.each(replaces)('%s', (_name, request) => {
    const bytes = Buffer.from(v1.IoBatch.encode({ requests: [two, request] }).finish());
    const seen = new Collector();
    expect(() => decodeIoBatch(bytes, seen)).toThrow(
      expect.objectContaining({ code: 'PROTOCOL_ERROR' }),
    );
    expect(seen.requests.map(({ id }) => id)).toEqual([6]);
  });

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
            // Payloads are the longest part and the least interesting one: most edits go to the
            // headers.
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

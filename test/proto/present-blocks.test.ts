/** Sparse reads, replaces and hashes: what goes together and what does not. */
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE, MIB } from '../../common/units.js';
import { aurochs } from '../../proto/generated/messages.js';
import {
  badBlocksOf,
  bitmapBytesOf,
  decodeIoBatch,
  decodeIoReplyBatch,
  HASH_BYTES,
  IO_OP,
  IoBatchEncoder,
  type IoReplyView,
  presentBlocksOf,
} from '../../proto/io-codec.js';
import { checksumBlocks } from './crc32c.js';
import { bytesOf, decodeOurs } from './io-samples.js';

import v1 = aurochs.v1;

/** Calls `judge` with the view of a reply that has these two fields. */
function judged<T>(
  fields: { checksums: Buffer; payload: Buffer },
  judge: (view: IoReplyView) => T,
): T {
  const bytes = v1.IoReplyBatch.encode({ replies: [{ id: 3, ...fields }] }).finish();
  const results: T[] = [];
  decodeIoReplyBatch(Buffer.from(bytes), {
    onHello: () => undefined,
    onReply: (view) => results.push(judge(view)),
  });
  return results[0] as T;
}

describe('a bitmap of blocks', () => {
  it.each([
    [1, 4],
    [31, 4],
    [32, 4],
    [33, 8],
    [256, 32],
  ])('of %i blocks has %i bytes', (blocks, bytes) => {
    expect(bitmapBytesOf(blocks)).toBe(bytes);
  });
});

describe('the reply of a sparse read', () => {
  const present = (checksums: string, payloadBytes: number, blocks = 3): number =>
    judged(
      { checksums: Buffer.from(checksums, 'hex'), payload: Buffer.alloc(payloadBytes) },
      (view) => presentBlocksOf(view, blocks),
    );

  it('says how many blocks are present', () => {
    expect(present('05000000aaaaaaaabbbbbbbb', 2 * BLOCK_SIZE)).toBe(2);
    expect(present('00000000', 0)).toBe(0);
    expect(present(`${'00'.repeat(7)}80aaaaaaaa`, BLOCK_SIZE, 64)).toBe(1);
  });

  it.each([
    ['no bitmap', '', 0],
    ['a bitmap of another range', '0000000000000000', 0],
    ['a checksum too few', '05000000aaaaaaaa', 2 * BLOCK_SIZE],
    ['a checksum too many', '01000000aaaaaaaabbbbbbbb', BLOCK_SIZE],
    ['a block too few', '05000000aaaaaaaabbbbbbbb', BLOCK_SIZE],
    ['a block too many', '00000000', BLOCK_SIZE],
    ['a bit past the range', '08000000aaaaaaaa', BLOCK_SIZE],
    ['a bit in the fill', '00000001aaaaaaaa', BLOCK_SIZE],
  ])('with %s is refused', (_name, checksums, payloadBytes) => {
    expect(() => present(checksums, payloadBytes)).toThrow(
      expect.objectContaining({ code: 'PROTOCOL_ERROR' }),
    );
  });
});

describe('the reply of a hash', () => {
  const bad = (checksums: string, payloadBytes: number): number =>
    judged(
      { checksums: Buffer.from(checksums, 'hex'), payload: Buffer.alloc(payloadBytes) },
      (view) => badBlocksOf(view, 3),
    );

  it('says how many blocks are bad', () => {
    expect(bad('0700000005000000', 3 * HASH_BYTES)).toBe(2);
    expect(bad('0000000000000000', 3 * HASH_BYTES)).toBe(0);
  });

  it.each([
    ['a bitmap missing', '07000000', 3 * HASH_BYTES],
    ['a hash missing', '0700000000000000', 2 * HASH_BYTES],
    ['no hash', '0700000000000000', 0],
    ['a present bit past the range', '0f00000000000000', 3 * HASH_BYTES],
    ['a bad bit past the range', '0700000008000000', 3 * HASH_BYTES],
  ])('with %s is refused', (_name, checksums, payloadBytes) => {
    expect(() => bad(checksums, payloadBytes)).toThrow(
      expect.objectContaining({ code: 'PROTOCOL_ERROR' }),
    );
  });
});

describe('a replace', () => {
  const encoder = new IoBatchEncoder({ checksumBlocks });

  it('carries checksums as they were given, also wrong ones: end to end', () => {
    const checksums = Buffer.from('0badc0de', 'hex');
    const content = { bitmap: Buffer.of(2), checksums, payload: [Buffer.alloc(BLOCK_SIZE, 7)] };
    encoder.addReplace({ id: 1, offsetBytes: 0, lengthBytes: 2 * BLOCK_SIZE }, content);
    const [request] = decodeOurs(bytesOf(encoder.finish(0, 1))).requests;
    expect(request).toMatchObject({ op: IO_OP.REPLACE, flags: 0, checksums: '020000000badc0de' });
  });

  it('has no bytes of an older message in the fill of its bitmap', () => {
    const old = { flags: 0, id: 1, offsetBytes: 0, lengthBytes: BLOCK_SIZE };
    encoder.addWrite(old, [Buffer.alloc(BLOCK_SIZE, 0xff)]);
    encoder.finish(0, 1).done();
    const nothing = { bitmap: Buffer.of(0), checksums: Buffer.alloc(0), payload: [] };
    encoder.addReplace({ id: 1, offsetBytes: 0, lengthBytes: BLOCK_SIZE }, nothing);
    const [request] = decodeOurs(bytesOf(encoder.finish(0, 1))).requests;
    expect(request).toMatchObject({ checksums: '00000000', payload: '' });
  });

  it('begins a large payload at a block boundary, also in the middle of a message', () => {
    const starts: number[] = [];
    for (const present of [16, 128, 256]) {
      const bitmap = Buffer.alloc(32);
      bitmap.fill(0xff, 0, present / 8);
      const checksums = Buffer.alloc(4 * present);
      const payload = [Buffer.alloc(present * BLOCK_SIZE)];
      const ping = { op: IO_OP.PING, flags: 0, id: 1, offsetBytes: 0, lengthBytes: 0, arg: 0 };
      encoder.add(ping);
      const content = { bitmap, checksums, payload };
      encoder.addReplace({ id: 2, offsetBytes: MIB, lengthBytes: MIB }, content);
      decodeIoBatch(bytesOf(encoder.finish(0, 1)), {
        onHello: () => undefined,
        onAckedThrough: () => undefined,
        onRequest: (view) => {
          if (view.op === IO_OP.REPLACE) starts.push(view.payloadStart % BLOCK_SIZE);
        },
      });
    }
    expect(starts).toEqual([0, 0, 0]);
  });

  it('of the largest size fits a message three times, as a write does', () => {
    const bitmap = Buffer.alloc(32, 0xff);
    const checksums = Buffer.alloc(1024);
    const payload = [Buffer.alloc(MIB)];
    let count = 0;
    for (; encoder.fits(MIB); count += 1) {
      const fields = { id: count, offsetBytes: 0, lengthBytes: MIB };
      encoder.addReplace(fields, { bitmap, checksums, payload });
    }
    expect(count).toBe(3);
    expect(decodeOurs(bytesOf(encoder.finish(0, 1))).requests).toHaveLength(3);
  });

  it.each([
    ['a bit past its range', { bitmap: Buffer.of(2) }],
    ['a bitmap that is too short', { bitmap: Buffer.alloc(0) }],
    ['a checksum too few', { checksums: Buffer.alloc(0) }],
    ['a payload too short', { payload: [Buffer.alloc(BLOCK_SIZE - 1)] }],
  ])('with %s is a programmer error', (_name, change) => {
    const good = {
      ...{ bitmap: Buffer.of(1), checksums: Buffer.alloc(4) },
      payload: [Buffer.alloc(BLOCK_SIZE)],
    };
    const fields = { id: 1, offsetBytes: 0, lengthBytes: BLOCK_SIZE };
    const one = new IoBatchEncoder({ checksumBlocks });
    expect(() => one.addReplace(fields, { ...good, ...change })).toThrow();
  });
});

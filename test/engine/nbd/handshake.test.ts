/** The handshake as a pure machine: tables of options in, reply types and outcome out. */
import { describe, expect, it } from 'vitest';
import { OPTION, OPTION_REPLY as REP } from '../../../engine/nbd/constants.js';
import { ExportBook, type NbdExport } from '../../../engine/nbd/export-book.js';
import { Handshake, type HandshakeStep } from '../../../engine/nbd/handshake.js';
import { MemoryVolume } from '../../support/memory-volume.js';
import { encodeContexts, encodeInfo, encodeOption } from './raw-client.js';

const limits = { optionsMax: 50, optionBytesMax: 65_536 };
const volume = new MemoryVolume({ sizeBytes: 1 << 20 });
const v1: NbdExport = { name: 'v1', volume, description: 'first' };
const v2: NbdExport = { name: 'v2', volume, readOnly: true };
const FLAGS = Buffer.from([0, 0, 0, 3]);
const STRUCTURED = encodeOption(OPTION.STRUCTURED_REPLY);

function machine(exports: readonly NbdExport[], tls: 'off' | 'required' = 'off'): Handshake {
  return new Handshake({ book: new ExportBook(exports), tls, limits });
}

/** Types of the replies in order; EXPORT_NAME's reply has none and shows as its length. */
function types(step: HandshakeStep): number[] {
  const isReply = (reply: Buffer): boolean => reply.readUInt32BE(0) === 0x0003e889;
  return step.replies.map((reply) => (isReply(reply) ? reply.readUInt32BE(12) : reply.length));
}

interface Row {
  readonly name: string;
  readonly bytes: readonly Buffer[];
  readonly want: readonly number[];
  readonly outcome?: string;
  readonly exports?: readonly NbdExport[];
  readonly tls?: 'required';
}

const lengthOnly = (option: number, length: number): Buffer => {
  const header = encodeOption(option);
  header.writeUInt32BE(length, 12);
  return header;
};
const contexts = (option: number, name: string, ...queries: string[]): Buffer =>
  encodeOption(option, encodeContexts(name, queries));
const info = (name: string | Buffer, wanted: number[] = [], option: number = OPTION.INFO): Buffer =>
  encodeOption(option, encodeInfo(name, wanted));
const nameTooLong = encodeInfo('v1');
nameTooLong.writeUInt32BE(4096, 0);
const countTooHigh = encodeInfo('v1', [1]);
countTooHigh.writeUInt16BE(2, 6);
const queriesTooMany = encodeContexts('v1', ['base:allocation']);
queriesTooMany.writeUInt32BE(0xffffffff, 6);

const rows: Row[] = [
  { name: 'LIST names every export', bytes: [encodeOption(OPTION.LIST)], want: [2, 2, 1] },
  {
    name: 'LIST with data is invalid',
    bytes: [encodeOption(OPTION.LIST, Buffer.from('x'))],
    want: [REP.ERR_INVALID],
  },
  { name: 'ABORT', bytes: [encodeOption(OPTION.ABORT)], want: [1], outcome: 'end' },
  {
    name: 'ABORT with data',
    bytes: [encodeOption(OPTION.ABORT, Buffer.from('bye'))],
    want: [1],
    outcome: 'end',
  },
  {
    name: 'unknown options are answered and the next one is served',
    bytes: [encodeOption(77, Buffer.alloc(1000)), encodeOption(4), encodeOption(OPTION.LIST)],
    want: [REP.ERR_UNSUP, REP.ERR_UNSUP, 2, 2, 1],
  },
  {
    name: 'extended headers are refused',
    bytes: [encodeOption(11)],
    want: [REP.ERR_UNSUP],
  },
  {
    name: 'INFO sends the export, and what was asked for',
    bytes: [info('v1', [1, 2, 3])],
    want: [3, 3, 3, 3, 1],
  },
  {
    name: 'INFO with duplicate and unknown information types',
    bytes: [info('v1', [3, 3, 3, 99, 99])],
    want: [3, 3, 1],
  },
  { name: 'INFO of an unknown export', bytes: [info('nope')], want: [REP.ERR_UNKNOWN] },
  {
    name: 'GO of an unknown export, then of a known one',
    bytes: [info('nope', [], OPTION.GO), info('v2', [], OPTION.GO)],
    want: [REP.ERR_UNKNOWN, 3, 1],
    outcome: 'transmit',
  },
  {
    name: 'name longer than the option (CVE-2022-26495 class)',
    bytes: [encodeOption(OPTION.INFO, nameTooLong)],
    want: [REP.ERR_INVALID],
  },
  {
    name: 'more information types than data',
    bytes: [encodeOption(OPTION.GO, countTooHigh)],
    want: [REP.ERR_INVALID],
  },
  {
    name: 'INFO with bytes left over',
    bytes: [encodeOption(OPTION.INFO, Buffer.concat([encodeInfo('v1'), Buffer.alloc(3)]))],
    want: [REP.ERR_INVALID],
  },
  { name: 'INFO without data', bytes: [encodeOption(OPTION.INFO)], want: [REP.ERR_INVALID] },
  { name: 'name with NUL', bytes: [info('v\u00001')], want: [REP.ERR_INVALID] },
  {
    name: 'name that is not UTF-8',
    bytes: [info(Buffer.from([0xc3, 0x28]))],
    want: [REP.ERR_INVALID],
  },
  { name: 'name of 4097 bytes', bytes: [info('x'.repeat(4097))], want: [REP.ERR_INVALID] },
  { name: 'name of 4096 bytes', bytes: [info('x'.repeat(4096))], want: [REP.ERR_UNKNOWN] },
  {
    name: 'empty name with two exports',
    bytes: [info('')],
    want: [REP.ERR_UNKNOWN],
  },
  { name: 'empty name with one export', exports: [v1], bytes: [info('')], want: [3, 1] },
  {
    name: 'EXPORT_NAME',
    bytes: [encodeOption(OPTION.EXPORT_NAME, Buffer.from('v1'))],
    want: [10],
    outcome: 'transmit',
  },
  {
    name: 'EXPORT_NAME of an unknown export',
    bytes: [encodeOption(OPTION.EXPORT_NAME, Buffer.from('zz'))],
    want: [],
    outcome: 'drop',
  },
  {
    name: 'option data of 2^32-1 bytes',
    bytes: [lengthOnly(OPTION.GO, 0xffffffff)],
    want: [REP.ERR_TOO_BIG],
    outcome: 'drop',
  },
  {
    name: 'EXPORT_NAME of 2^32-1 bytes',
    bytes: [lengthOnly(OPTION.EXPORT_NAME, 0xffffffff)],
    want: [],
    outcome: 'drop',
  },
  { name: 'bad option magic', bytes: [Buffer.alloc(16, 7)], want: [], outcome: 'drop' },
  {
    name: 'endless options',
    bytes: Array.from({ length: 60 }, () => STRUCTURED),
    want: Array.from({ length: 50 }, () => 1),
    outcome: 'drop',
  },
  {
    name: 'STRUCTURED_REPLY with data',
    bytes: [encodeOption(OPTION.STRUCTURED_REPLY, Buffer.alloc(1))],
    want: [REP.ERR_INVALID],
  },
  {
    name: 'meta contexts without structured replies',
    bytes: [contexts(OPTION.SET_META_CONTEXT, 'v1', 'base:allocation')],
    want: [REP.ERR_INVALID],
  },
  {
    name: 'meta contexts: list all, list namespace, list unknown, set, set twice the same',
    bytes: [
      STRUCTURED,
      contexts(OPTION.LIST_META_CONTEXT, 'v1'),
      contexts(OPTION.LIST_META_CONTEXT, 'v1', 'base:'),
      contexts(OPTION.LIST_META_CONTEXT, 'v1', 'qemu:dirty-bitmap:x'),
      contexts(OPTION.SET_META_CONTEXT, 'v1', 'base:allocation', 'base:allocation'),
      contexts(OPTION.SET_META_CONTEXT, 'v1'),
      contexts(OPTION.SET_META_CONTEXT, 'v1', 'base:'),
    ],
    want: [1, 4, 1, 4, 1, 1, 4, 1, 1, 1],
  },
  {
    name: 'meta contexts of an unknown export',
    bytes: [STRUCTURED, contexts(OPTION.SET_META_CONTEXT, 'zz', 'base:allocation')],
    want: [1, REP.ERR_UNKNOWN],
  },
  {
    name: 'meta contexts with 2^32-1 queries',
    bytes: [STRUCTURED, encodeOption(OPTION.SET_META_CONTEXT, queriesTooMany)],
    want: [1, REP.ERR_INVALID],
  },
  {
    name: 'STARTTLS where TLS is off',
    bytes: [encodeOption(OPTION.STARTTLS)],
    want: [REP.ERR_POLICY],
  },
  {
    name: 'forced TLS: nothing is told before it',
    tls: 'required',
    bytes: [
      encodeOption(OPTION.LIST),
      info('v1'),
      info('nope'),
      info('v1', [], OPTION.GO),
      STRUCTURED,
      contexts(OPTION.SET_META_CONTEXT, 'v1', 'base:allocation'),
      encodeOption(99),
      encodeOption(OPTION.STARTTLS, Buffer.alloc(1)),
      encodeOption(OPTION.STARTTLS),
    ],
    want: [...Array.from({ length: 7 }, () => REP.ERR_TLS_REQD), REP.ERR_INVALID, 1],
    outcome: 'startTls',
  },
  {
    name: 'forced TLS: EXPORT_NAME in plain text',
    tls: 'required',
    bytes: [encodeOption(OPTION.EXPORT_NAME, Buffer.from('v1'))],
    want: [],
    outcome: 'drop',
  },
  {
    name: 'forced TLS: ABORT in plain text',
    tls: 'required',
    bytes: [encodeOption(OPTION.ABORT)],
    want: [1],
    outcome: 'end',
  },
];

describe('handshake (correctness 3.2)', () => {
  it.each(rows)('$name', (row) => {
    const bytes = Buffer.concat([FLAGS, ...row.bytes]);
    const step = machine(row.exports ?? [v1, v2], row.tls).push(bytes);
    expect(types(step)).toEqual(row.want);
    expect(step.outcome.kind).toBe(row.outcome ?? 'more');
  });

  it.each(rows)('byte by byte it is the same: $name', (row) => {
    const handshake = machine(row.exports ?? [v1, v2], row.tls);
    const bytes = Buffer.concat([FLAGS, ...row.bytes]);
    const seen: number[] = [];
    let kind = 'more';
    for (let at = 0; at < bytes.length && kind === 'more'; at += 1) {
      const step = handshake.push(bytes.subarray(at, at + 1));
      expect(step.usedBytes).toBe(1);
      seen.push(...types(step));
      kind = step.outcome.kind;
    }
    expect(seen).toEqual(row.want);
    expect(kind).toBe(row.outcome ?? 'more');
  });

  it('drops unknown client flags and old clients that use more than EXPORT_NAME', () => {
    const push = (flags: number, ...rest: Buffer[]): string =>
      machine([v1]).push(Buffer.concat([Buffer.from([0, 0, 0, flags]), ...rest])).outcome.kind;
    expect(push(7)).toBe('drop');
    expect(push(0, encodeOption(OPTION.LIST))).toBe('drop');
    expect(push(0, encodeOption(OPTION.EXPORT_NAME, Buffer.from('v1')))).toBe('transmit');
  });

  it('pads EXPORT_NAME with 124 zeroes unless NO_ZEROES was agreed', () => {
    const bytes = Buffer.concat([
      Buffer.from([0, 0, 0, 1]),
      encodeOption(OPTION.EXPORT_NAME, Buffer.from('v1')),
    ]);
    const { replies } = machine([v1]).push(bytes);
    expect(Buffer.concat(replies)).toHaveLength(134);
  });

  it('leaves bytes behind GO to the transmission', () => {
    const go = Buffer.concat([FLAGS, info('v1', [], OPTION.GO)]);
    const step = machine([v1]).push(Buffer.concat([go, Buffer.alloc(28)]));
    expect(step.usedBytes).toBe(go.length);
  });

  it('forgets what was negotiated before TLS (CVE-2021-3716 class)', () => {
    const handshake = machine([v1], 'required');
    handshake.push(Buffer.concat([FLAGS, STRUCTURED, encodeOption(OPTION.STARTTLS)]));
    const { outcome, replies } = handshake.push(info('v1', [], OPTION.GO));
    expect(outcome).toMatchObject({ kind: 'transmit', session: { structured: false } });
    expect((replies[0]?.readUInt16BE(30) ?? 0) & 0x80).toBe(0);
    const again = machine([v1], 'required');
    again.push(Buffer.concat([FLAGS, encodeOption(OPTION.STARTTLS)]));
    expect(types(again.push(encodeOption(OPTION.STARTTLS)))).toEqual([REP.ERR_INVALID]);
  });

  it('keeps a context selection for its own export only', () => {
    const select = contexts(OPTION.SET_META_CONTEXT, 'v1', 'base:allocation');
    const session = (...bytes: Buffer[]): unknown => {
      const { outcome } = machine([v1, v2]).push(Buffer.concat([FLAGS, STRUCTURED, ...bytes]));
      return outcome.kind === 'transmit' && outcome.session.allocationContext;
    };
    expect(session(select, info('v1', [], OPTION.GO))).toBe(true);
    expect(session(select, info('v2', [], OPTION.GO))).toBe(false);
    const failed = contexts(OPTION.SET_META_CONTEXT, 'zz', 'base:allocation');
    expect(session(select, failed, info('v1', [], OPTION.GO))).toBe(false);
  });

  it('bounds what one handshake can make the server send', () => {
    const many = Array.from({ length: 400 }, (_, i) => ({
      name: `v${i}`,
      volume,
      description: 'd'.repeat(4000),
    }));
    const list = Array.from({ length: 40 }, () => encodeOption(OPTION.LIST));
    const { outcome, replies } = machine(many).push(Buffer.concat([FLAGS, ...list]));
    expect(outcome.kind).toBe('drop');
    expect(Buffer.concat(replies).length).toBeLessThan(8 << 20);
  });
});

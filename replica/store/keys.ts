/**
 * Keys of the metadata: one prefix byte, then big-endian numbers, so that byte order is numeric
 * order (docs/on-disk-format.md#keys).
 */
import assert from 'node:assert';
import type { KvRange } from './kv.js';

/** The head layer, the only one that exists so far. Older layers will have smaller numbers. */
export const HEAD_LAYER = 1;

const EXTENT = 0x45; // E
const DIRTY_MARK = 0x47; // G
const REPLICA = 0x52; // R
const SUM = 0x53; // S
const REGION_TAG = 0x54; // T

const U32_MAX = 0xffffffff;

/** The record of the disk itself. */
export const DISK_KEY = Buffer.from('D');

export const EXTENT_KEY_BYTES = 13;

export function extentKey(replicaNumber: number, extent: number): Buffer {
  const key = Buffer.allocUnsafe(EXTENT_KEY_BYTES);
  key[0] = EXTENT;
  key.writeUInt32BE(replicaNumber, 1);
  key.writeUInt32BE(extent, 5);
  key.writeUInt32BE(HEAD_LAYER, 9);
  return key;
}

export function dirtyMarkKey(replicaNumber: number, region: number): Buffer {
  return regionKey(DIRTY_MARK, replicaNumber, region);
}

export function regionTagKey(replicaNumber: number, region: number): Buffer {
  return regionKey(REGION_TAG, replicaNumber, region);
}

export function replicaKey(replicaNumber: number): Buffer {
  return prefixed(REPLICA, replicaNumber);
}

/** Scope 0 is the disk, every other scope is a replica number. */
export function sumKey(scope: number): Buffer {
  return prefixed(SUM, scope);
}

export interface ExtentKey {
  readonly replicaNumber: number;
  readonly extent: number;
  readonly layer: number;
}

/** Undefined if the key is not of this kind and length. */
export function parseExtentKey(key: Buffer): ExtentKey | undefined {
  if (key.length !== EXTENT_KEY_BYTES || key[0] !== EXTENT) return undefined;
  return {
    replicaNumber: key.readUInt32BE(1),
    extent: key.readUInt32BE(5),
    layer: key.readUInt32BE(9),
  };
}

/** Of a dirty mark or a region tag; undefined if the key is neither. */
export function parseRegionKey(key: Buffer): { replicaNumber: number; region: number } | undefined {
  if (key.length !== 9 || (key[0] !== DIRTY_MARK && key[0] !== REGION_TAG)) return undefined;
  return { replicaNumber: key.readUInt32BE(1), region: key.readUInt32BE(5) };
}

/** The number in a replica or sum key. */
export function parseNumberKey(key: Buffer): number | undefined {
  if (key.length !== 5) return undefined;
  return key.readUInt32BE(1);
}

/** Where the keys of a kind are; of one replica, or of all. */
export function extentRange(replicaNumber?: number): KvRange {
  return range(EXTENT, replicaNumber);
}

export function dirtyMarkRange(replicaNumber?: number): KvRange {
  return range(DIRTY_MARK, replicaNumber);
}

export function regionTagRange(replicaNumber?: number): KvRange {
  return range(REGION_TAG, replicaNumber);
}

export function replicaRange(): KvRange {
  return range(REPLICA, undefined);
}

export function sumRange(): KvRange {
  return range(SUM, undefined);
}

/** Every key. */
export function wholeRange(): KvRange {
  return { from: Buffer.alloc(0), to: Buffer.from([0xff]) };
}

function prefixed(prefix: number, number: number): Buffer {
  const key = Buffer.allocUnsafe(5);
  key[0] = prefix;
  key.writeUInt32BE(number, 1);
  return key;
}

function regionKey(prefix: number, replicaNumber: number, region: number): Buffer {
  const key = Buffer.allocUnsafe(9);
  key[0] = prefix;
  key.writeUInt32BE(replicaNumber, 1);
  key.writeUInt32BE(region, 5);
  return key;
}

function range(prefix: number, replicaNumber: number | undefined): KvRange {
  if (replicaNumber === undefined)
    return { from: Buffer.from([prefix]), to: Buffer.from([prefix + 1]) };
  assert(replicaNumber < U32_MAX);
  return { from: prefixed(prefix, replicaNumber), to: prefixed(prefix, replicaNumber + 1) };
}

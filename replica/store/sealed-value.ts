/**
 * Every value of the metadata ends with a crc32c over its key and its body, so that neither a
 * changed value nor a value under another key is ever believed (R7).
 */
import { crc32c } from '../../native/index.js';

export const SEAL_BYTES = 4;

const SCRATCH_BYTES = 4096;
const scratch = Buffer.alloc(SCRATCH_BYTES);

/** crc32c of key, then `bodyBytes` of `value` from `offset`. */
export function sealOf(key: Buffer, value: Buffer, offset: number, bodyBytes: number): number {
  const total = key.length + bodyBytes;
  const joined = total <= SCRATCH_BYTES ? scratch : Buffer.allocUnsafe(total);
  key.copy(joined, 0);
  value.copy(joined, key.length, offset, offset + bodyBytes);
  return crc32c(joined.subarray(0, total));
}

/** The value to store for `body` under `key`, and its seal. */
export function seal(key: Buffer, body: Buffer): { value: Buffer; crc: number } {
  const value = Buffer.allocUnsafe(body.length + SEAL_BYTES);
  body.copy(value, 0);
  const crc = sealOf(key, body, 0, body.length);
  value.writeUInt32LE(crc, body.length);
  return { value, crc };
}

/** The seal of a stored value if it is the right one; undefined: corrupt. */
export function checkSeal(key: Buffer, value: Buffer): number | undefined {
  const bodyBytes = value.length - SEAL_BYTES;
  if (bodyBytes < 0) return undefined;
  const crc = sealOf(key, value, 0, bodyBytes);
  return crc === value.readUInt32LE(bodyBytes) ? crc : undefined;
}

/** Parses a sealed JSON object with a leading format byte; undefined: corrupt or of another
 *  format. */
export function openJson(key: Buffer, value: Buffer, format: number): unknown {
  if (checkSeal(key, value) === undefined || value[0] !== format) return undefined;
  try {
    return JSON.parse(value.toString('utf8', 1, value.length - SEAL_BYTES));
  } catch {
    return undefined;
  }
}

/** Body of a JSON value: format byte, then text. */
export function jsonBody(format: number, content: unknown): Buffer {
  const text = JSON.stringify(content);
  const body = Buffer.allocUnsafe(1 + Buffer.byteLength(text));
  body[0] = format;
  body.write(text, 1, 'utf8');
  return body;
}

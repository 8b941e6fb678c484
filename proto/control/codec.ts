/** How control messages become bytes and come back: the part that is the same for all of them. */
import { StorageError } from '../../common/errors.js';

/** How one message type is written and read. `decode` throws StorageError for whatever the bytes
 * are. */
export interface Codec<T> {
  encode(value: T): Buffer;
  decode(bytes: Buffer): T;
}

interface Generated<P, D> {
  encode(message: P): { finish(): Uint8Array };
  decode(bytes: Uint8Array): D;
}

/** Our messages are read-only, pbjs' are not: only that difference is overlooked when encoding. */
type ReadOnly<T> = T extends (infer Item)[]
  ? readonly ReadOnly<Item>[]
  : T extends object
    ? { readonly [K in keyof T]: ReadOnly<T[K]> }
    : T;

/** @param type     what pbjs made of the message
 *  @param convert  checks and converts what came from the wire */
export function codec<T extends ReadOnly<P>, P, D>(
  type: Generated<P, D>,
  convert: (wire: D) => T,
): Codec<T> {
  return {
    encode: (value) => {
      const bytes = type.encode(value as unknown as P).finish();
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    },
    decode: (bytes) => {
      let wire: D;
      try {
        wire = type.decode(bytes);
      } catch (error) {
        throw new StorageError(
          'CORRUPT_MESSAGE',
          'control message does not parse',
          {},
          { cause: error },
        );
      }
      return convert(wire);
    },
  };
}

/** What may stand for a field that was left out. */
export type Wire<T> = T | null | undefined;

export function missing(what: string): StorageError {
  return new StorageError('INVALID_ARGUMENT', `${what} is missing`);
}

/** The exports of one server by name, and what a handshake tells about each. */
import { StorageError } from '../../common/errors.js';
import { SECTOR_SIZE } from '../../common/units.js';
import type { BlockVolume } from '../block-volume.js';
import { TRANSMISSION_FLAG as FLAG, STRING_BYTES_MAX } from './constants.js';

/** One name that clients can open. The name may be empty: the default export. */
export interface NbdExport {
  readonly name: string;
  readonly volume: BlockVolume;
  /** Refuse changes even if the volume allows them. */
  readonly readOnly?: boolean;
  /** Shown by LIST and NBD_INFO_DESCRIPTION. */
  readonly description?: string;
}

/** Names are what every string on this wire is: valid UTF-8 without NUL, at most 4096 bytes. */
export class ExportBook {
  readonly #byName = new Map<string, NbdExport>();

  constructor(exports: readonly NbdExport[]) {
    for (const each of exports) this.add(each);
  }

  /** @throws StorageError ALREADY_EXISTS | INVALID_ARGUMENT (name or description cannot travel) */
  add(added: NbdExport): void {
    for (const text of [added.name, added.description ?? '']) {
      if (text.includes('\0') || Buffer.byteLength(text) > STRING_BYTES_MAX) {
        const shown = JSON.stringify(text.slice(0, 70));
        throw new StorageError('INVALID_ARGUMENT', `${shown} cannot be an NBD export's text`);
      }
    }
    if (this.#byName.has(added.name)) {
      throw new StorageError('ALREADY_EXISTS', `export ${JSON.stringify(added.name)} exists`);
    }
    this.#byName.set(added.name, added);
  }

  remove(name: string): NbdExport | undefined {
    const found = this.#byName.get(name);
    this.#byName.delete(name);
    return found;
  }

  /** The empty name means the export so called, else the only one. */
  find(name: string): NbdExport | undefined {
    const found = this.#byName.get(name);
    if (found !== undefined || name !== '' || this.#byName.size !== 1) return found;
    for (const only of this.#byName.values()) return only;
    return undefined;
  }

  all(): readonly NbdExport[] {
    return [...this.#byName.values()];
  }
}

export function isReadOnly(opened: NbdExport): boolean {
  return opened.readOnly === true || opened.volume.readOnly;
}

/** What the client may send, given what it negotiated. FLUSH, FUA and multi-conn are always
 *  honoured (D1, D2). */
export function transmissionFlags(opened: NbdExport, structured: boolean): number {
  let flags = FLAG.HAS_FLAGS | FLAG.SEND_FLUSH | FLAG.SEND_FUA;
  flags |= FLAG.CAN_MULTI_CONN | FLAG.SEND_CACHE;
  if (isReadOnly(opened)) flags |= FLAG.READ_ONLY;
  else flags |= FLAG.SEND_TRIM | FLAG.SEND_WRITE_ZEROES | FLAG.SEND_FAST_ZERO;
  if (structured) flags |= FLAG.SEND_DF;
  return flags;
}

/** The smallest unit a client that asks for block sizes must keep to; 1 if the size has a ragged
 *  end. */
export function minimumBlockSize(opened: NbdExport): number {
  return opened.volume.sizeBytes % SECTOR_SIZE === 0 ? SECTOR_SIZE : 1;
}

/** The payload of a WRITE that comes in several pieces of the socket. Views where pieces are large,
 *  one copy where a peer sends crumbs: memory stays near the payload's size however it is cut. */
import { KIB } from '../../common/units.js';

const CRUMB_BYTES = 4 * KIB;
const CRUMBS_BY_VIEW = 16;
const STAGING_BYTES = 64 * KIB;

export class Payload {
  readonly pieces: Buffer[] = [];
  leftBytes: number;
  #staging: Buffer | undefined;
  #stagedBytes = 0;

  constructor(lengthBytes: number) {
    this.leftBytes = lengthBytes;
  }

  /** Takes at most what is missing, from `at` on. Borrows the chunk. @returns bytes taken */
  take(chunk: Buffer, at: number): number {
    const takenBytes = Math.min(this.leftBytes, chunk.length - at);
    this.leftBytes -= takenBytes;
    if (takenBytes >= CRUMB_BYTES || this.pieces.length < CRUMBS_BY_VIEW) {
      if (takenBytes > 0) this.pieces.push(chunk.subarray(at, at + takenBytes));
    } else {
      this.#stage(chunk.subarray(at, at + takenBytes));
    }
    return takenBytes;
  }

  #stage(crumb: Buffer): void {
    let staging = this.#staging;
    if (staging === undefined || staging.length - this.#stagedBytes < crumb.length) {
      staging = Buffer.allocUnsafeSlow(STAGING_BYTES);
      this.#staging = staging;
      this.#stagedBytes = 0;
    }
    const from = this.#stagedBytes;
    crumb.copy(staging, from);
    this.#stagedBytes += crumb.length;
    const last = this.pieces[this.pieces.length - 1];
    const grows =
      from > 0 &&
      last !== undefined &&
      last.buffer === staging.buffer &&
      last.byteOffset + last.length === staging.byteOffset + from;
    if (grows) {
      const start = last.byteOffset - staging.byteOffset;
      this.pieces[this.pieces.length - 1] = staging.subarray(start, this.#stagedBytes);
    } else {
      this.pieces.push(staging.subarray(from, this.#stagedBytes));
    }
  }
}

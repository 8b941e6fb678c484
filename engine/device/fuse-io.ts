/**
 * Requests of the kernel on their way to the NBD server.
 *
 * Each owns its piece of a slab until it is answered and the socket no longer sends from it: the
 * bytes of a write are never overwritten while they are still needed.
 */
import { NbdRequest } from './nbd-request.js';
import type { Slab } from './request-arena.js';

/** Where answers of the NBD server go. */
export interface FuseIoOwner {
  /** @param reply see NbdRequest.complete; the memory of `io` is given back right after */
  onIoDone(io: FuseIo, errno: number, reply: Buffer | undefined): void;
  /** Sends the request on its way again, for the next piece of its range. */
  submitAgain(io: FuseIo): void;
}

/** A READ, WRITE or FSYNC: one kernel request, one NBD request. */
export class FuseIo extends NbdRequest {
  /** the kernel's name for the request */
  readonly uniqueLow: number;
  readonly uniqueHigh: number;

  /** @param slab held once for this request, which lies in it
   *  @param bytes the whole request of the kernel */
  constructor(
    protected readonly owner: FuseIoOwner,
    private readonly slab: Slab,
    bytes: Buffer,
  ) {
    super();
    this.uniqueLow = bytes.readUInt32LE(8);
    this.uniqueHigh = bytes.readUInt32LE(12);
  }

  override holdFrame(): void {
    this.slab.hold();
  }

  override releaseFrame(): void {
    this.slab.release();
  }

  override complete(errno: number, reply: Buffer | undefined): void {
    this.owner.onIoDone(this, errno, reply);
    this.slab.release();
  }
}

/** Longest piece of one TRIM or WRITE_ZEROES: the loop device asks for up to 4 GiB at once, more
 *  than NBD can name. */
const RANGE_PIECE_BYTES = 256 * 1024 * 1024;

/** A FALLOCATE: as many NBD requests as its length needs, one after the other. */
export class FuseRangeIo extends FuseIo {
  #endBytes = 0;

  setRange(startBytes: number, endBytes: number): void {
    this.offsetBytes = startBytes;
    this.lengthBytes = Math.min(endBytes - startBytes, RANGE_PIECE_BYTES);
    this.#endBytes = endBytes;
  }

  override complete(errno: number, reply: Buffer | undefined): void {
    const nextBytes = this.offsetBytes + this.lengthBytes;
    if (errno !== 0 || nextBytes === this.#endBytes) {
      super.complete(errno, reply);
      return;
    }
    this.setRange(nextBytes, this.#endBytes);
    this.owner.submitAgain(this);
  }
}

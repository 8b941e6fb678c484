/** What the kernel asks about names, attributes and handles: everything that is answered without
 *  the engine. */
import { StorageError } from '../../common/errors.js';
import { TRANSMISSION_FLAG } from '../nbd/constants.js';
import {
  decodeInit,
  ERRNO,
  encodeAttrReply,
  encodeDirectoryReply,
  encodeEntryReply,
  encodeInitReply,
  encodeOpenReply,
  encodeStatfsReply,
  FILE_NAME,
  FILE_NODE,
  FOPEN,
  FUSE_MAJOR,
  FUSE_MINOR_MIN,
  FUSE_OP,
  IN_HEADER_BYTES,
  type InitLimits,
  type NodeAttributes,
  ROOT_NODE,
  readU64,
} from './fuse-wire.js';
import type { ExportInfo } from './nbd-wire.js';

/** Becomes the discard granularity of the loop device. */
const BLOCK_BYTES = 4096;
const O_ACCMODE = 3;

/** An errno (0: done, empty reply), a reply with room for its header, or nothing at all. */
export type Answer = number | Buffer | 'none';

export class OneFile {
  #openHandles = 0;

  constructor(
    private readonly info: () => ExportInfo,
    private readonly limits: InitLimits,
  ) {}

  get openHandles(): number {
    return this.#openHandles;
  }

  /** @param bytes a whole request. @throws StorageError PROTOCOL_ERROR | OUT_OF_RANGE */
  answer(bytes: Buffer): Answer {
    switch (bytes.readUInt32LE(4)) {
      case FUSE_OP.FORGET:
      case FUSE_OP.BATCH_FORGET:
      case FUSE_OP.INTERRUPT:
        // The first two have no reply. An interrupted request is answered in its time all the same.
        return 'none';
      case FUSE_OP.INIT:
        return this.#init(bytes);
      case FUSE_OP.LOOKUP:
        return this.#lookup(bytes);
      case FUSE_OP.GETATTR:
        return encodeAttrReply(this.#attributes(readU64(bytes, 16)));
      case FUSE_OP.OPEN:
        return this.#open(bytes);
      case FUSE_OP.RELEASE:
        this.#openHandles -= 1;
        return 0;
      case FUSE_OP.STATFS:
        return encodeStatfsReply(this.info().sizeBytes, BLOCK_BYTES);
      case FUSE_OP.OPENDIR:
        return encodeOpenReply(0);
      case FUSE_OP.READDIR:
        return encodeDirectoryReply(
          readU64(bytes, IN_HEADER_BYTES + 8),
          bytes.readUInt32LE(IN_HEADER_BYTES + 16),
        );
      case FUSE_OP.FLUSH: // close(2): nothing is cached, and closing promises no durability
      case FUSE_OP.RELEASEDIR:
      case FUSE_OP.DESTROY:
        return 0;
      default:
        return ERRNO.NOSYS;
    }
  }

  #init(bytes: Buffer): Buffer {
    const init = decodeInit(bytes);
    if (init.major !== FUSE_MAJOR || init.minor < FUSE_MINOR_MIN) {
      const text = `${init.major}.${init.minor}, ${FUSE_MAJOR}.${FUSE_MINOR_MIN} is needed`;
      throw new StorageError('PROTOCOL_ERROR', `this kernel speaks FUSE ${text}`);
    }
    return encodeInitReply(init, this.limits);
  }

  #lookup(bytes: Buffer): Answer {
    const name = bytes.subarray(IN_HEADER_BYTES, bytes.length - 1).toString('latin1');
    if (readU64(bytes, 16) !== ROOT_NODE || name !== FILE_NAME) return ERRNO.NOENT;
    return encodeEntryReply(this.#attributes(FILE_NODE));
  }

  #open(bytes: Buffer): Answer {
    const wantsWrite = (bytes.readUInt32LE(IN_HEADER_BYTES) & O_ACCMODE) !== 0;
    if (wantsWrite && this.#readOnly) return ERRNO.ROFS;
    this.#openHandles += 1;
    // Never the page cache, whoever opens the file; direct writes of one file need no lock against
    // each other.
    return encodeOpenReply(FOPEN.DIRECT_IO | FOPEN.PARALLEL_DIRECT_WRITES | FOPEN.NOFLUSH);
  }

  get #readOnly(): boolean {
    return (this.info().flags & TRANSMISSION_FLAG.READ_ONLY) !== 0;
  }

  #attributes(node: number): NodeAttributes {
    const sizeBytes = node === ROOT_NODE ? 0 : this.info().sizeBytes;
    return { node, sizeBytes, readOnly: this.#readOnly };
  }
}

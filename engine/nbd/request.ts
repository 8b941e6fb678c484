/** One transmission request as parsed, and the decision whether it may be done. Pure. */
import { BLOCK_SIZE, REQUEST_BYTES_MAX } from '../../common/units.js';
import { COMMAND, COMMAND_FLAG as FLAG, NBD_ERROR, REQUEST_MAGIC } from './constants.js';
import type { NbdSession } from './handshake.js';

/** Fields of a request header. Reused for the next one: copy what must last. */
export interface RequestHeader {
  flags: number;
  type: number;
  cookieHigh: number;
  cookieLow: number;
  /** Exact up to 2^53; above that any number that is past every volume's end. */
  offsetBytes: number;
  lengthBytes: number;
}

export function emptyHeader(): RequestHeader {
  return { flags: 0, type: 0, cookieHigh: 0, cookieLow: 0, offsetBytes: 0, lengthBytes: 0 };
}

/** Fills `header` from REQUEST_BYTES bytes at `at`. False: not a request, the stream is out of
 *  step. */
export function decodeRequest(bytes: Buffer, at: number, header: RequestHeader): boolean {
  if (bytes.readUInt32BE(at) !== REQUEST_MAGIC) return false;
  header.flags = bytes.readUInt16BE(at + 4);
  header.type = bytes.readUInt16BE(at + 6);
  header.cookieHigh = bytes.readUInt32BE(at + 8);
  header.cookieLow = bytes.readUInt32BE(at + 12);
  header.offsetBytes = bytes.readUInt32BE(at + 16) * 0x1_0000_0000 + bytes.readUInt32BE(at + 20);
  header.lengthBytes = bytes.readUInt32BE(at + 24);
  return true;
}

/** Flags that mean something per command; FUA is to be accepted with all of them. */
const FLAGS_ALLOWED: readonly number[] = (() => {
  const table: number[] = [];
  table[COMMAND.READ] = FLAG.FUA | FLAG.DF;
  table[COMMAND.WRITE] = FLAG.FUA;
  table[COMMAND.FLUSH] = FLAG.FUA;
  table[COMMAND.TRIM] = FLAG.FUA;
  table[COMMAND.CACHE] = FLAG.FUA;
  table[COMMAND.WRITE_ZEROES] = FLAG.FUA | FLAG.NO_HOLE | FLAG.FAST_ZERO;
  table[COMMAND.BLOCK_STATUS] = FLAG.FUA | FLAG.REQ_ONE;
  return table;
})();

function changes(type: number): boolean {
  return type === COMMAND.WRITE || type === COMMAND.TRIM || type === COMMAND.WRITE_ZEROES;
}

/** Zeroing whole blocks is a change of metadata; anything else writes data and is not fast. */
function isFastZero(header: RequestHeader): boolean {
  return (
    (header.flags & FLAG.NO_HOLE) === 0 &&
    header.offsetBytes % BLOCK_SIZE === 0 &&
    header.lengthBytes % BLOCK_SIZE === 0
  );
}

/** 0 if the request may be started, else the NBD error number it is answered with.
 *  Not for DISC, nor for a WRITE above REQUEST_BYTES_MAX, which ends the connection.
 *  @param sizeBytes the volume's size now: it may have grown since the handshake */
export function checkRequest(
  header: RequestHeader,
  session: NbdSession,
  sizeBytes: number,
): number {
  const { type, flags, offsetBytes, lengthBytes } = header;
  const allowed = FLAGS_ALLOWED[type];
  if (allowed === undefined || (flags & ~allowed) !== 0) return NBD_ERROR.EINVAL;
  if ((flags & FLAG.DF) !== 0 && !session.structured) return NBD_ERROR.EINVAL;
  if (session.readOnly && changes(type)) return NBD_ERROR.EPERM;
  if (type === COMMAND.FLUSH) {
    return offsetBytes === 0 && lengthBytes === 0 ? 0 : NBD_ERROR.EINVAL;
  }
  if (offsetBytes + lengthBytes > sizeBytes) {
    const grows = type === COMMAND.WRITE || type === COMMAND.WRITE_ZEROES;
    return grows ? NBD_ERROR.ENOSPC : NBD_ERROR.EINVAL;
  }
  const unit = session.blockBytes;
  if (unit > 1 && (offsetBytes % unit !== 0 || lengthBytes % unit !== 0)) return NBD_ERROR.EINVAL;
  if (type === COMMAND.READ && lengthBytes > REQUEST_BYTES_MAX) {
    return (flags & FLAG.DF) === 0 ? NBD_ERROR.EINVAL : NBD_ERROR.EOVERFLOW;
  }
  if (type === COMMAND.BLOCK_STATUS && (!session.allocationContext || lengthBytes === 0)) {
    return NBD_ERROR.EINVAL;
  }
  if ((flags & FLAG.FAST_ZERO) !== 0 && !isFastZero(header)) return NBD_ERROR.ENOTSUP;
  return 0;
}

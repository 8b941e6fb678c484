/** The NBD that the floor speaks, in numbers: fixed newstyle, simple replies, three commands. */

export const NBD_MAGIC = 0x4e42444d41474943n;
export const OPTION_MAGIC = 0x49484156454f5054n;
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;
export const REQUEST_MAGIC = 0x25609513;
export const REPLY_MAGIC = 0x67446698;

export const REQUEST_BYTES = 28;
export const REPLY_BYTES = 16;
/** Where the 64-bit handle sits, in a request and in a simple reply alike. */
export const HANDLE_AT = 8;

export const OPTION = { EXPORT_NAME: 1, ABORT: 2, INFO: 6, GO: 7 } as const;
export const OPTION_REPLY = { ACK: 1, INFO: 3, ERR_UNSUP: 0x80000001 } as const;
export const INFO = { EXPORT: 0, BLOCK_SIZE: 3 } as const;
export const COMMAND = { READ: 0, WRITE: 1, DISCONNECT: 2, FLUSH: 3 } as const;

/** HAS_FLAGS | SEND_FLUSH | CAN_MULTI_CONN. A flush goes to every replica, so it covers all
 *  connections (D1). */
export const TRANSMISSION_FLAGS = 0x1 | 0x4 | 0x100;
/** FIXED_NEWSTYLE | NO_ZEROES */
export const HANDSHAKE_FLAGS = 0x3;

export const ERRNO = { EIO: 5, EINVAL: 22 } as const;

/** What one request may carry: a pool buffer of native/ holds it. */
export const PAYLOAD_BYTES_MAX = 4 * 1024 * 1024;
export const ALIGNMENT = 4096;

/** The byte offset of a request: exact below 2^53, which no benchmark file reaches. */
export function requestOffset(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at + 16) * 0x1_0000_0000 + bytes.readUInt32BE(at + 20);
}

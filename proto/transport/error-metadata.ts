/** A StorageError as gRPC status and metadata, and back. Both transports and the control calls use
 *  this one mapping.
 *  `aurochs-code` carries our code, `aurochs-details` the details as JSON (percent-encoded); a peer
 *  that knows neither still gets a correct gRPC status and message. */
import {
  ERROR_CODES,
  type ErrorCode,
  type ErrorDetails,
  isErrorCode,
  StorageError,
} from '../../common/errors.js';

export const CODE_KEY = 'aurochs-code';
export const DETAILS_KEY = 'aurochs-details';
/** Longest message and longest encoded details that travel. */
const TEXT_MAX = 1024;

export interface GrpcFailure {
  /** numeric gRPC status */
  readonly status: number;
  readonly message: string;
  /** value of `aurochs-code`, if it was there */
  readonly code?: string | undefined;
  /** value of `aurochs-details`, if it was there */
  readonly details?: string | undefined;
}

const CODE_OF_GRPC: readonly ErrorCode[] = [
  'INTERNAL', // 0 OK: not a failure
  'ABORTED', // cancelled
  'INTERNAL', // unknown
  'INVALID_ARGUMENT',
  'DEADLINE',
  'NOT_FOUND',
  'ALREADY_EXISTS',
  'PERMISSION',
  'OVERLOADED', // resource exhausted
  'CONFLICT', // failed precondition
  'ABORTED',
  'OUT_OF_RANGE',
  'UNSUPPORTED', // unimplemented
  'INTERNAL',
  'UNAVAILABLE',
  'IO_ERROR', // data loss
  'PERMISSION', // unauthenticated
];

/** What travels for an error. Texts are cut to 1 KiB; details that are longer stay at home. */
export function failureOf(error: StorageError): Required<GrpcFailure> {
  let details = '';
  if (Object.keys(error.details).length > 0) {
    const encoded = encodeURIComponent(JSON.stringify(error.details));
    if (encoded.length <= TEXT_MAX) details = encoded;
  }
  return {
    status: ERROR_CODES[error.code].grpc,
    message: error.message.substring(0, TEXT_MAX),
    code: error.code,
    details,
  };
}

/** The error that the other side had; the code by metadata, else by status. Never throws, whatever
 * the texts are. */
export function errorOfFailure(failure: GrpcFailure): StorageError {
  const named = failure.code !== undefined && isErrorCode(failure.code) ? failure.code : undefined;
  const code = named ?? CODE_OF_GRPC[failure.status] ?? 'INTERNAL';
  const message = failure.message === '' ? `gRPC status ${failure.status}` : failure.message;
  return new StorageError(code, message, parseDetails(failure.details));
}

function parseDetails(encoded: string | undefined): ErrorDetails {
  if (encoded === undefined || encoded === '' || encoded.length > 2 * TEXT_MAX) return {};
  const details: Record<string, string | number | boolean> = {};
  try {
    const parsed: unknown = JSON.parse(decodeURIComponent(encoded));
    if (typeof parsed !== 'object' || parsed === null) return {};
    for (const [key, value] of Object.entries(parsed)) {
      const plain =
        typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean';
      if (plain && key !== '__proto__') details[key] = value;
    }
  } catch {
    return {};
  }
  return details;
}

/** grpc-message is percent-encoded: everything but printable ASCII, and the percent sign. */
export function encodeGrpcMessage(text: string): string {
  let encoded = '';
  for (const byte of Buffer.from(text, 'utf8')) {
    encoded +=
      byte >= 0x20 && byte <= 0x7e && byte !== 0x25
        ? String.fromCharCode(byte)
        : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return encoded;
}

/** The inverse; what is no valid encoding is taken as it stands. */
export function decodeGrpcMessage(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

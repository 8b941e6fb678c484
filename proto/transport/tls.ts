/** TLS of both transports: version 1.2 at least, certificates on both sides, names checked. No half
 * measures to configure. */
import { readFileSync } from 'node:fs';
import {
  checkServerIdentity,
  createSecureContext,
  type PeerCertificate,
  type SecureContext,
} from 'node:tls';
import { StorageError } from '../../common/errors.js';

/** Both sides prove who they are: there is no one-sided TLS. Each text is PEM or the path of a PEM
 * file. */
export interface TransportTls {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  /** Name that the other side's certificate must carry as a subject alternative name.
   *  Default: a client expects the host it connects to, a listener accepts every certificate of the
   *  authority. */
  readonly peerName?: string | undefined;
}

export const TLS_MIN_VERSION = 'TLSv1.2';
/** HTTP/2 over TLS is chosen by this name (RFC 9113, section 3.2). */
export const ALPN = ['h2'];

function pemOf(text: string, what: string): string {
  if (text.includes('-----BEGIN')) return text;
  try {
    return readFileSync(text, 'utf8');
  } catch (cause) {
    throw new StorageError('INVALID_ARGUMENT', `cannot read TLS ${what} ${text}`, {}, { cause });
  }
}

/** The PEM texts. Read once, at start. @throws StorageError INVALID_ARGUMENT naming the file that
 * cannot be read */
export function loadPem(tls: TransportTls): { ca: string; cert: string; key: string } {
  return {
    ca: pemOf(tls.ca, 'authority'),
    cert: pemOf(tls.cert, 'certificate'),
    key: pemOf(tls.key, 'key'),
  };
}

/** @throws StorageError INVALID_ARGUMENT if a file is missing or is no PEM, or key and certificate
 *   do not match */
export function secureContextOf(tls: TransportTls): SecureContext {
  const pem = loadPem(tls);
  try {
    return createSecureContext({ ...pem, minVersion: TLS_MIN_VERSION });
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause);
    throw new StorageError('INVALID_ARGUMENT', `TLS files: ${text}`, {}, { cause });
  }
}

/** Node's own check of a name against the subject alternative names; undefined if it is there.
 * Serves both directions. */
export function checkPeerName(name: string, certificate: PeerCertificate): Error | undefined {
  if (certificate.subjectaltname === undefined) {
    return new Error(`certificate has no subject alternative name, ${name} expected`);
  }
  return checkServerIdentity(name, certificate);
}

/** Where a process listens: `host:port`, `[v6 host]:port` or `unix:/absolute/path`. */
import { StorageError } from '../../common/errors.js';

export type TransportAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

/** sun_path of a sockaddr_un holds 108 bytes with the final zero (unix(7)) */
const UNIX_PATH_BYTES_MAX = 107;

/** @throws StorageError INVALID_ARGUMENT naming the accepted forms */
export function parseAddress(text: string): TransportAddress {
  if (text.startsWith('unix:')) {
    const path = text.substring(5).replace(/^\/\/(?=\/)/, '');
    const length = Buffer.byteLength(path);
    if (path.startsWith('/') && length <= UNIX_PATH_BYTES_MAX && !path.includes('\0')) {
      return { kind: 'unix', path };
    }
    throw new StorageError(
      'INVALID_ARGUMENT',
      `address unix:… of ${length} bytes: an absolute path of at most 107 bytes is needed`,
    );
  }
  const match = /^(?:\[([0-9a-fA-F:.%]+)\]|([-a-zA-Z0-9._]+)):([0-9]{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > 65535) {
    const shown = JSON.stringify(text.substring(0, 80));
    throw new StorageError('INVALID_ARGUMENT', `address ${shown} is not host:port or unix:/path`);
  }
  return { kind: 'tcp', host, port };
}

export function formatAddress(address: TransportAddress): string {
  if (address.kind === 'unix') return `unix:${address.path}`;
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `${host}:${address.port}`;
}

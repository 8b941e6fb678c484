/** NBD server: the shell around the protocol. Signatures first; the body follows. */
import type { Clock } from '../../common/clock.js';
import { StorageError } from '../../common/errors.js';
import type { Logger } from '../../common/log.js';
import type { BlockVolume } from '../block-volume.js';
import type { NbdLimits } from './limits.js';

/** One name that clients can open. The name may be empty: the default export. */
export interface NbdExport {
  readonly name: string;
  readonly volume: BlockVolume;
  /** Refuse changes even if the volume allows them. */
  readonly readOnly?: boolean;
  /** Shown by LIST and NBD_INFO_DESCRIPTION. */
  readonly description?: string;
}

export type NbdAddress =
  | { readonly path: string }
  | { readonly host: string; readonly port: number };

/** PEM contents. With it every client must start TLS before anything else is answered. */
export interface NbdTls {
  readonly ca?: string | Buffer;
  readonly cert: string | Buffer;
  readonly key: string | Buffer;
  readonly requireClientCert: boolean;
}

export interface NbdServerOptions {
  readonly exports: readonly NbdExport[];
  readonly address: NbdAddress;
  readonly tls?: NbdTls;
  readonly limits?: Partial<NbdLimits>;
  readonly log: Logger;
  readonly clock: Clock;
}

export class NbdServer {
  /** Resolves when clients can connect.
   *  @throws StorageError CONFLICT (address in use by a live server) | INVALID_ARGUMENT | IO_ERROR */
  static listen(_options: NbdServerOptions): Promise<NbdServer> {
    return Promise.reject(new StorageError('UNSUPPORTED', 'the NBD server is being written'));
  }

  /** Of the first export: nbd+unix:///NAME?socket=PATH, nbd://HOST:PORT/NAME or nbds://HOST:PORT/NAME. */
  readonly uri: string = '';
  /** Connections now open, handshaking ones included. */
  readonly connections: number = 0;

  addExport(_added: NbdExport): void {}

  /** New handshakes do not see it; its connections drain and close. */
  removeExport(_name: string): Promise<void> {
    return Promise.resolve();
  }

  /** Refuses new connections, reads no new request; with `drain` lets those in flight finish and their replies be
   *  sent; then closes sockets. Bounded by `limits.drainMs`. Idempotent. */
  close(_options: { drain: boolean }): Promise<void> {
    return Promise.resolve();
  }
}

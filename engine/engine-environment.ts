/**
 * Everything outside one engine, given to it: time, network, randomness, the host it runs on.
 *
 * Nothing else in `engine/` may ask the machine: the simulator runs the same engine under a
 * simulated world.
 */
import { randomBytes } from 'node:crypto';
import { networkInterfaces } from 'node:os';
import type { BufferPool } from '../common/block-device.js';
import type { Clock } from '../common/clock.js';
import type { Logger } from '../common/log.js';
import type { Registry } from '../common/metrics.js';
import { createBufferPool } from '../native/index.js';
import { type ReplicaControl, ReplicaControlClient } from '../proto/control.js';
import type { MessageStream, MessageStreamHandlers } from '../proto/message-stream.js';
import { connectIo, type TransportTls } from '../proto/transport.js';
import type { EndOfTurn } from './core/pending-op.js';
import { PROC, type ProcessTable } from './engine-life.js';

export interface IoConnection {
  readonly address: string;
  readonly acquire: (lengthBytes: number) => ReturnType<BufferPool['acquire']>;
  readonly handlers: MessageStreamHandlers;
  readonly deadlineMs: number;
}

/** How an engine reaches replica daemons. */
export interface EngineNetwork {
  /** Control calls to one daemon, each bounded by `deadlineMs`; the caller closes it. */
  control(address: string, deadlineMs: number): ReplicaControl;
  /** A data stream. @throws StorageError as connectIo */
  connectIo(connection: IoConnection): Promise<MessageStream>;
  /** True if the address is on this host: preferred for reads. */
  isLocal(address: string): boolean;
}

export interface EngineEnvironment {
  readonly clock: Clock;
  readonly log: Logger;
  readonly registry: Registry;
  readonly network: EngineNetwork;
  readonly endOfTurn: EndOfTurn;
  /** memory for messages that arrive in pieces */
  readonly createPool: (limitBytes: number) => BufferPool;
  /** A name nobody else has: `prefix-` and hexadecimal digits. */
  readonly randomId: (prefix: string) => string;
  /** what tells whether an engine that had the volume before is dead */
  readonly processes: ProcessTable;
}

/** gRPC over TCP and unix sockets. */
export class GrpcNetwork implements EngineNetwork {
  constructor(
    readonly tls: TransportTls | undefined,
    readonly clock: Clock,
  ) {}

  control(address: string, deadlineMs: number): ReplicaControl {
    return new ReplicaControlClient({ address, tls: this.tls, deadlineMs, clock: this.clock });
  }

  connectIo(connection: IoConnection): Promise<MessageStream> {
    return connectIo({ ...connection, tls: this.tls, clock: this.clock });
  }

  isLocal(address: string): boolean {
    return isLocalAddress(address);
  }
}

/** True if the address is a unix socket or one of this host's own. */
export function isLocalAddress(address: string): boolean {
  if (address.startsWith('unix:')) return true;
  const host = address.slice(0, address.lastIndexOf(':')).replace(/^\[|\]$/g, '');
  if (host === 'localhost' || host.startsWith('127.') || host === '::1') return true;
  return Object.values(networkInterfaces()).some((list) => list?.some((i) => i.address === host));
}

/** The machine itself, but for what the caller gives. */
export function systemEnvironment(
  parts: Pick<EngineEnvironment, 'clock' | 'log' | 'registry'> & {
    readonly tls: TransportTls | undefined;
  },
): EngineEnvironment {
  const { clock, log, registry, tls } = parts;
  return {
    clock,
    log,
    registry,
    network: new GrpcNetwork(tls, clock),
    endOfTurn: (callback) => {
      setImmediate(callback);
    },
    createPool: (limitBytes) => createBufferPool({ limitBytes }),
    randomId: (prefix) => `${prefix}-${randomBytes(6).toString('hex')}`,
    processes: PROC,
  };
}

/** The data stream to one member that was opened. */
import { StorageError } from '../../common/errors.js';
import { crc32cBlocks } from '../../native/index.js';
import type { OpenReplicaReply } from '../../proto/control.js';
import { PROTOCOL_VERSION } from '../../proto/io-codec.js';
import { ReplicaLink } from '../core/replica-link.js';
import type { DataPath } from '../data-path.js';
import type { EngineConfig } from '../engine-config.js';
import type { EngineEnvironment } from '../engine-environment.js';

export interface ConnectMember {
  readonly config: EngineConfig;
  readonly environment: EngineEnvironment;
  readonly data: DataPath;
  readonly engineId: string;
  readonly replicaId: string;
  readonly address: string;
  readonly opened: OpenReplicaReply;
  readonly onBroken: (link: ReplicaLink, error: StorageError) => void;
  /** it answered something: the lease may be held again */
  readonly onHeard: () => void;
}

/** Resolves with a link that has said hello (R8, P7).
 *  @throws StorageError why it cannot be connected; the link is broken then */
export async function connectMember(options: ConnectMember): Promise<ReplicaLink> {
  const { config, environment, data, engineId, replicaId, address, opened } = options;
  const { clock, endOfTurn, network } = environment;
  const { tuning } = config;
  const link = new ReplicaLink({
    ...{ index: data.indexOf(replicaId), replicaId, address, clock, endOfTurn },
    local: network.isLocal(address),
    nextId: () => data.drawId(),
    ackedThrough: () => data.fanout.ackedThrough,
    checksumBlocks: crc32cBlocks,
    opDeadlineMs: tuning.opDeadlineMs,
    keepaliveMs: tuning.keepaliveMs,
    pingDeadlineMs: tuning.pingDeadlineMs,
    onBroken: options.onBroken,
  });
  const stream = await network.connectIo({
    address,
    acquire: (lengthBytes) => data.pool.acquire(lengthBytes),
    handlers: {
      onMessage: (message) => {
        link.onMessage(message);
        options.onHeard();
      },
      onDrain: () => undefined,
      onClose: (error) => link.onClose(error),
    },
    deadlineMs: tuning.controlDeadlineMs,
  });
  const sentMs = clock.nowMs();
  const { controlDeadlineMs } = tuning;
  const timer = clock.after(controlDeadlineMs, () => {
    const text = `replica ${replicaId} at ${address} did not say hello in ${controlDeadlineMs} ms`;
    link.break(new StorageError('DEADLINE', text, { replica: replicaId }));
  });
  const hello = {
    ...{ protocolVersion: PROTOCOL_VERSION, volume: config.volume, replicaId, engineId },
    epoch: opened.info.epoch,
  };
  const reply = await link.attach(stream, hello).finally(() => timer.cancel());
  if (reply.incarnation !== opened.incarnation) {
    const text = `replica ${replicaId} at ${address} restarted while it was being opened`;
    const error = new StorageError('UNAVAILABLE', text, { replica: replicaId });
    link.break(error);
    throw error;
  }
  link.confirmedMs = sentMs;
  return link;
}

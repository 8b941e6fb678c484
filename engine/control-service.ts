/** The control socket of one engine: EngineControl in proto/engine.proto. */
import type { Clock } from '../common/clock.js';
import { StorageError } from '../common/errors.js';
import type { Logger } from '../common/log.js';
import { type EngineControlHandlers, engineControlService } from '../proto/control.js';
import { listenTransport, type TransportListener } from '../proto/transport.js';
import type { Engine } from './engine.js';
import type { VolumeEvent } from './events/event-log.js';

export interface ControlServiceOptions {
  /** `unix:PATH` */
  readonly address: string;
  readonly engine: Engine;
  readonly uris: readonly string[];
  readonly onStop: () => void;
  readonly clock: Clock;
  readonly log: Logger;
}

/** @throws StorageError INVALID_ARGUMENT | UNAVAILABLE (cannot listen) */
export function listenControl(options: ControlServiceOptions): Promise<TransportListener> {
  const { address, clock, log } = options;
  if (!address.startsWith('unix:')) {
    throw new StorageError('INVALID_ARGUMENT', `control address "${address}" is not unix:PATH`);
  }
  return listenTransport({
    address,
    acquire: () => {
      throw new StorageError('OVERLOADED', 'the control socket takes no data');
    },
    onIoStream: (stream) => {
      stream.close(new StorageError('UNSUPPORTED', 'the control socket takes no data'));
      return { onMessage: () => undefined, onDrain: () => undefined, onClose: () => undefined };
    },
    services: [engineControlService(handlersOf(options))],
    ...{ clock, log },
  });
}

function handlersOf({ engine, uris, onStop }: ControlServiceOptions): EngineControlHandlers {
  return {
    status: () => engine.status(uris),
    stop: async () => {
      onStop();
      return {};
    },
    events: async ({ afterSeq }) => ({
      events: engine.events.events(afterSeq).map(wireEvent),
    }),
    addReplica: async ({ address }) => ({ replicaId: await engine.members.join(address) }),
    removeReplica: async (request) => engine.members.leave(request),
    scrub: async ({ action }) => {
      if (action === 'start') engine.scrub.start();
      if (action === 'stop') await engine.scrub.stop();
      return engine.scrub.report;
    },
  };
}

function wireEvent(event: VolumeEvent) {
  const { seq, wallMs, lastWallMs, count, kind, text } = event;
  return {
    ...{ seq, wallMs: Math.round(wallMs), lastWallMs: Math.round(lastWallMs), count, kind, text },
    replica: event.replica ?? '',
    code: event.code ?? '',
    errno: event.errno ?? '',
    generation: event.generation ?? 0,
    bytes: event.bytes ?? 0,
    source: event.source ?? '',
  };
}

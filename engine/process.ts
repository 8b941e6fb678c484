/** The engine as a process: frontends and control socket around an Engine, from start to signal. */
import type { Clock } from '../common/clock.js';
import { StorageError, toStorageError } from '../common/errors.js';
import type { Logger } from '../common/log.js';
import { createRegistry, serveMetrics } from '../common/metrics.js';
import { engineControlService } from '../proto/control.js';
import { listenTransport, type TransportListener } from '../proto/transport.js';
import { attachDevice, detachDevice } from './device/device-frontend.js';
import { Engine } from './engine.js';
import type { EngineConfig } from './engine-config.js';
import { systemEnvironment } from './engine-environment.js';
import { type NbdAddress, NbdServer, type NbdTls } from './nbd/server.js';

export interface EngineProcessOptions {
  readonly config: EngineConfig;
  readonly nbd: NbdAddress;
  readonly nbdTls: NbdTls | undefined;
  /** `unix:PATH` of the control socket */
  readonly control: string | undefined;
  /** `HOST:PORT` of the Prometheus endpoint */
  readonly metrics: string | undefined;
  readonly device: boolean;
  readonly runDir: string;
}

interface Environment {
  readonly clock: Clock;
  readonly log: Logger;
}

/** Resolves with the reason to stop: a signal, a stop call, or the fault. */
class StopRequest {
  readonly requested: Promise<{ faulted: boolean }>;
  #resolve!: (why: { faulted: boolean }) => void;

  constructor() {
    this.requested = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  ask(faulted: boolean): void {
    this.#resolve({ faulted });
  }

  /** First signal stops in order, the second at once. */
  onSignals(log: Logger): void {
    let signals = 0;
    const onSignal = (signal: NodeJS.Signals): void => {
      signals += 1;
      if (signals > 1) process.exit(1);
      log.info({ signal }, 'stopping');
      this.ask(false);
    };
    process.on('SIGTERM', onSignal);
    process.on('SIGINT', onSignal);
  }
}

/** Serves until told to stop; prints `ready URI` (and `device PATH`) on stdout. @returns exit code
 *  @throws StorageError why the volume or a frontend could not be opened */
export async function runEngine(
  options: EngineProcessOptions,
  environment: Environment,
): Promise<number> {
  const { log, clock } = environment;
  process.stdout.on('error', () => undefined);
  const stop = new StopRequest();
  stop.onSignals(log);
  const registry = createRegistry('engine');
  const onFaulted = (): void => stop.ask(true);
  const world = systemEnvironment({ clock, log, registry, tls: options.config.tls });
  const engine = await Engine.start(options.config, world, { onFaulted });
  const closers: Array<() => Promise<unknown>> = [() => engine.stop()];
  let code = 1;
  try {
    const nbd = await NbdServer.listen({
      exports: [{ name: options.config.volume, volume: engine.volume }],
      address: options.nbd,
      ...(options.nbdTls === undefined ? {} : { tls: options.nbdTls }),
      log,
      clock,
    });
    let drain = true;
    closers.unshift(() => nbd.close({ drain }));
    if (options.control !== undefined) {
      const control = await listenControl(options.control, engine, nbd, stop, environment);
      closers.unshift(() => control.close());
    }
    if (options.metrics !== undefined) {
      const endpoint = await serveMetrics({ registry, listen: options.metrics });
      closers.unshift(() => endpoint.close());
    }
    process.stdout.write(`ready ${nbd.uri}\n`);
    if (options.device) closers.unshift(await openDevice(options, log));
    const { faulted } = await stop.requested;
    drain = !faulted;
    code = faulted ? 5 : 0;
  } finally {
    for (const close of closers) {
      await close().catch((error: unknown) =>
        log.warn({ err: error }, 'stop: a part did not close'),
      );
    }
  }
  return code;
}

/** Attaches the block device. @returns what detaches it; a device in use stays and waits for the
 *  next engine */
async function openDevice(
  options: EngineProcessOptions,
  log: Logger,
): Promise<() => Promise<void>> {
  if (!('path' in options.nbd)) {
    throw new StorageError('INVALID_ARGUMENT', '--device needs --nbd unix:PATH');
  }
  const name = options.config.volume;
  const { runDir } = options;
  const device = await attachDevice({ name, socketPath: options.nbd.path, runDir, log });
  process.stdout.write(`device ${device.devicePath}\n`);
  return async () => {
    try {
      await detachDevice({ name, runDir });
    } catch (error) {
      log.warn(`device stays: ${toStorageError(error, 'detach').message}`);
    }
  };
}

function listenControl(
  address: string,
  engine: Engine,
  nbd: NbdServer,
  stop: StopRequest,
  environment: Environment,
): Promise<TransportListener> {
  if (!address.startsWith('unix:')) {
    throw new StorageError('INVALID_ARGUMENT', `control address "${address}" is not unix:PATH`);
  }
  const service = engineControlService({
    status: async () => engine.status([nbd.uri]),
    stop: async () => {
      stop.ask(false);
      return {};
    },
  });
  return listenTransport({
    address,
    acquire: () => {
      throw new StorageError('OVERLOADED', 'the control socket takes no data');
    },
    onIoStream: (stream) => {
      stream.close(new StorageError('UNSUPPORTED', 'the control socket takes no data'));
      return { onMessage: () => undefined, onDrain: () => undefined, onClose: () => undefined };
    },
    services: [service],
    ...environment,
  });
}

/** The engine as a process: frontends and control socket around an Engine, from start to signal. */
import path from 'node:path';
import type { Clock } from '../common/clock.js';
import { ERROR_CODES, StorageError, toStorageError } from '../common/errors.js';
import type { Logger } from '../common/log.js';
import { createRegistry, serveMetrics } from '../common/metrics.js';
import { listenControl } from './control-service.js';
import { attachDevice, detachDevice } from './device/device-frontend.js';
import { Engine } from './engine.js';
import type { EngineConfig } from './engine-config.js';
import { systemEnvironment } from './engine-environment.js';
import { EventFile } from './events/event-file.js';
import { describeExport } from './nbd/description.js';
import { type NbdAddress, NbdServer, type NbdTls } from './nbd/server.js';
import { prepareSocketPath } from './nbd/unix-socket-path.js';
import { ScrubFile } from './scrub/scrub-file.js';

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

/** Of earlier engines, for the story that `explain` tells. */
const HISTORY_EVENTS = 300;

interface Environment {
  readonly clock: Clock;
  readonly log: Logger;
}

/** Resolves when to stop: a signal, a stop call, or an end of the engine's own. */
class StopRequest {
  readonly requested: Promise<StorageError | undefined>;
  #resolve!: (why: StorageError | undefined) => void;

  constructor() {
    this.requested = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  /** @param why  the engine ended by itself; undefined: it was asked to */
  ask(why: StorageError | undefined): void {
    this.#resolve(why);
  }

  /** First signal stops in order, the second at once. */
  onSignals(log: Logger): void {
    let signals = 0;
    const onSignal = (signal: NodeJS.Signals): void => {
      signals += 1;
      if (signals > 1) process.exit(1);
      log.info({ signal }, 'stopping');
      this.ask(undefined);
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
  // Before the volume is opened, which fences whoever serves it: a mistake in the path stays one.
  if ('path' in options.nbd) await prepareSocketPath(options.nbd.path);
  const registry = createRegistry('engine');
  const world = systemEnvironment({ clock, log, registry, tls: options.config.tls });
  const base = path.join(options.runDir, options.config.volume);
  const eventFile = new EventFile(`${base}.events.jsonl`);
  const engine = await Engine.start(options.config, world, {
    onEnded: (error) => stop.ask(error),
    onEvent: (event) => {
      eventFile.add(event);
      log.info({ volume: options.config.volume, ...event }, event.text);
    },
    history: await eventFile.tail(HISTORY_EVENTS),
    scrubStore: new ScrubFile(`${base}.scrub.json`),
  });
  const closers: Array<() => Promise<unknown>> = [() => engine.stop(), () => eventFile.flushed()];
  let code = 1;
  try {
    const nbd = await NbdServer.listen({
      exports: [
        {
          name: options.config.volume,
          volume: engine.volume,
          description: describeExport(options.config.volume, engine.era),
        },
      ],
      address: options.nbd,
      ...(options.nbdTls === undefined ? {} : { tls: options.nbdTls }),
      log,
      clock,
    });
    let drain = true;
    closers.unshift(() => nbd.close({ drain }));
    if (options.control !== undefined) {
      const control = await listenControl({
        ...{ address: options.control, engine, uris: [nbd.uri], clock, log },
        onStop: () => stop.ask(undefined),
      });
      closers.unshift(() => control.close());
    }
    if (options.metrics !== undefined) {
      const endpoint = await serveMetrics({ registry, listen: options.metrics });
      closers.unshift(() => endpoint.close());
    }
    process.stdout.write(`ready ${nbd.uri}\n`);
    if (options.device) closers.unshift(await openDevice(options, log));
    const ended = await stop.requested;
    // What waits for lost replicas is not answered: a device sends it again to the next engine.
    drain = ended === undefined && !engine.waiting;
    code = ended === undefined ? 0 : ERROR_CODES[ended.code].exit;
    if (ended !== undefined) process.stderr.write(`error ${ended.code}: ${ended.message}\n`);
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

/**
 * Entry of the device process. Started by attachDevice, lives until the device is detached.
 *
 * Standard output carries one line, the attach's outcome; then nothing more is written there.
 * Standard error is the log.
 */
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { SystemClock } from '../../common/clock.js';
import { StorageError, toStorageError } from '../../common/errors.js';
import { createLogger } from '../../common/log.js';
import { encodeError } from './device-control.js';
import { type DeviceConfig, DeviceProcess } from './device-process.js';

const log = createLogger('device');

/** @throws StorageError INVALID_ARGUMENT */
function parseConfig(argv: string[]): DeviceConfig {
  const names = ['name', 'export', 'socket', 'run-dir', 'connections', 'give-up-ms', 'wait-ms'];
  const options = Object.fromEntries(names.map((name) => [name, { type: 'string' as const }]));
  const { values } = parseArgs({ args: argv, options, strict: true });
  const text = (name: string): string => {
    const value = values[name];
    // The empty export name is a name: the server's default export.
    if (typeof value === 'string' && (value !== '' || name === 'export')) return value;
    throw new StorageError('INVALID_ARGUMENT', `--${name} is missing`);
  };
  const number = (name: string): number => {
    const value = Number(text(name));
    if (Number.isSafeInteger(value) && value >= 0) return value;
    throw new StorageError('INVALID_ARGUMENT', `--${name} is not a whole number`);
  };
  return {
    name: text('name'),
    exportName: text('export'),
    socketPath: text('socket'),
    runDir: text('run-dir'),
    connections: Math.max(1, Math.min(16, number('connections'))),
    giveUpMs: number('give-up-ms'),
    waitMs: number('wait-ms'),
  };
}

/** Memory pressure must not end the process that writes dirty pages away. Refused without
 *  CAP_SYS_RESOURCE. */
async function shunOomKiller(): Promise<void> {
  await writeFile('/proc/self/oom_score_adj', '-900').catch(() => {
    log.info('not protected from the OOM killer: CAP_SYS_RESOURCE is missing');
  });
}

async function run(): Promise<void> {
  process.stdout.on('error', () => undefined);
  // The device outlives the terminal it was attached from.
  for (const signal of ['SIGINT', 'SIGHUP', 'SIGPIPE'] as const) {
    process.on(signal, () => log.info({ signal }, 'signal ignored'));
  }
  await shunOomKiller();
  const device = new DeviceProcess(parseConfig(process.argv.slice(2)), {
    clock: new SystemClock(),
    log,
  });
  process.on('SIGTERM', () => {
    log.info('SIGTERM: detach');
    device.detach().then(
      () => process.exit(0),
      (error: unknown) => {
        log.warn(`SIGTERM: ${toStorageError(error, 'detach').message}`);
        if (device.gone) process.exit(1);
      },
    );
  });
  const report = await device.start();
  log.info(report, 'attached');
  process.stdout.write(`${JSON.stringify({ report })}\n`);
}

run().catch((cause: unknown) => {
  const error = toStorageError(cause, 'attach');
  log.error({ err: error }, 'attach failed');
  process.stdout.write(`${encodeError(error)}\n`, () => process.exit(1));
});

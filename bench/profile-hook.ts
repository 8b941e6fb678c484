/**
 * Loaded into a process with `node --import`: SIGUSR2 starts the CPU profiler, the next SIGUSR2
 * stops it and writes PID.cpuprofile into AUROCHS_PROFILE_DIR. So a profile holds the load alone.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { join } from 'node:path';

const INTERVAL_US = 500;

let session: Session | undefined;

async function start(): Promise<Session> {
  const started = new Session();
  started.connect();
  await started.post('Profiler.enable');
  await started.post('Profiler.setSamplingInterval', { interval: INTERVAL_US });
  await started.post('Profiler.start');
  return started;
}

async function toggle(directory: string): Promise<void> {
  if (session === undefined) {
    session = await start();
    return;
  }
  const { profile } = await session.post('Profiler.stop');
  session.disconnect();
  session = undefined;
  const path = join(directory, `${process.pid}.cpuprofile`);
  writeFileSync(`${path}.tmp`, JSON.stringify(profile));
  renameSync(`${path}.tmp`, path);
}

const directory = process.env['AUROCHS_PROFILE_DIR'];
if (directory !== undefined) {
  // V8 can deadlock when its profiler is first started in a busy process: it takes a lock and lists
  // all compiled code, and a collection in the middle wants the same lock. One profile that runs
  // from the very start, and is thrown away, leaves nothing to list when the real one starts.
  await start();
  process.on('SIGUSR2', () => void toggle(directory));
}

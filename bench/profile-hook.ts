/**
 * Loaded into a process with `node --import`: SIGUSR2 starts the CPU profiler, the next SIGUSR2 stops it and
 * writes PID.cpuprofile into AUROCHS_PROFILE_DIR. So that a profile holds the load and not the start.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { join } from 'node:path';

const INTERVAL_US = 200;

let session: Session | undefined;

async function toggle(directory: string): Promise<void> {
  if (session === undefined) {
    session = new Session();
    session.connect();
    await session.post('Profiler.enable');
    await session.post('Profiler.setSamplingInterval', { interval: INTERVAL_US });
    await session.post('Profiler.start');
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
if (directory !== undefined) process.on('SIGUSR2', () => void toggle(directory));

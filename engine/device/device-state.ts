/** The state file: what a person, or a caller whose process does not answer, can know about a
 *  device. Never a proof: the lock tells whether a process lives, the kernel tells what exists. */
import { readFile, rename, writeFile } from 'node:fs/promises';

export type DevicePhase = 'connecting' | 'mounted' | 'attached' | 'detaching';

export interface DeviceState {
  readonly pid: number;
  readonly phase: DevicePhase;
  readonly socketPath: string;
  readonly exportName: string;
  readonly mountDir: string;
  /** /dev/loopN, '' before there is one */
  readonly devicePath: string;
}

/** Replaces the file as a whole: a reader sees the old or the new state. */
export async function writeDeviceState(path: string, state: DeviceState): Promise<void> {
  const temporary = `${path}.new`;
  await writeFile(temporary, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 });
  await rename(temporary, path);
}

/** The state, or undefined if there is no file or it does not parse. */
export async function readDeviceState(path: string): Promise<DeviceState | undefined> {
  try {
    const parsed: unknown = JSON.parse(await readFile(path, 'utf8'));
    return isDeviceState(parsed) ? parsed : undefined;
  } catch {
    return undefined;
  }
}

function isDeviceState(value: unknown): value is DeviceState {
  if (typeof value !== 'object' || value === null) return false;
  const state = value as Record<string, unknown>;
  const texts = ['phase', 'socketPath', 'exportName', 'mountDir', 'devicePath'];
  return Number.isSafeInteger(state['pid']) && texts.every((key) => typeof state[key] === 'string');
}

/** `--watch`: shows a volume again whenever it changes, until the command is interrupted. */
import { SystemClock } from '../common/clock.js';
import { pollVolume } from './poll-volume.js';
import type { Output } from './report.js';
import type { VolumeClient } from './volume-client.js';

export interface View<T> {
  readonly value: T;
  /** what makes two views the same, where times run on: without a terminal they are shown once */
  readonly key: string;
}

export interface WatchOptions<T> {
  readonly engine: string | undefined;
  readonly output: Output;
  readonly render: (value: T) => string;
}

const EVERY_MS = 1_000;

/** Never resolves. @throws StorageError when the first look fails */
export function watchVolume<T>(
  volume: string,
  options: WatchOptions<T>,
  look: (client: VolumeClient) => Promise<View<T>>,
): Promise<never> {
  const { engine, output, render } = options;
  let shown: string | undefined;
  const polling = {
    ...{ engine, clock: new SystemClock(), everyMs: EVERY_MS },
    onSilent: (reason: string | undefined): void => {
      shown = undefined;
      if (reason !== undefined) output.note(`the engine does not answer: ${reason}`);
    },
  };
  return pollVolume<never>(volume, polling, async (client) => {
    const { value, key } = await look(client);
    if (output.format === 'json') {
      if (key !== shown) output.print(JSON.stringify(value));
    } else if (output.terminal || key !== shown) output.redraw(render(value));
    shown = key;
    return undefined;
  });
}

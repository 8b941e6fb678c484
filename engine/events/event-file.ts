/**
 * The events of a volume on disk, one JSON line each, so that the story survives the engine.
 *
 * Bounded: past FILE_BYTES_MAX the file is set aside as `FILE.1`. Never in the way: what cannot be
 * written is dropped (scenario 78), and the data path does not wait for it.
 */
import { appendFile, open, rename, stat } from 'node:fs/promises';
import { MIB } from '../../common/units.js';
import type { EventKind, VolumeEvent } from './event-log.js';

const FILE_BYTES_MAX = 4 * MIB;
const TAIL_BYTES = 256 * 1024;
/** Lines that may wait to be written. */
const WAITING_MAX = 1000;

export class EventFile {
  readonly #path: string;
  readonly #bytesMax: number;
  #waiting: string[] = [];
  #writing: Promise<void> | undefined;

  constructor(path: string, bytesMax = FILE_BYTES_MAX) {
    this.#path = path;
    this.#bytesMax = bytesMax;
  }

  /** The newest events that were kept, oldest first, at most `max`. Lines that do not parse are
   *  passed over. Never throws. */
  async tail(max: number): Promise<VolumeEvent[]> {
    let text: string;
    try {
      text = await readTail(this.#path);
    } catch {
      return [];
    }
    const events = text.split('\n').flatMap((line) => parseEvent(line) ?? []);
    // A repeated event is written each time with its count: the last line of a number counts.
    return [...new Map(events.map((event) => [event.seq, event])).values()].slice(-max);
  }

  add(event: VolumeEvent): void {
    if (this.#waiting.length >= WAITING_MAX) return;
    this.#waiting.push(`${JSON.stringify(event)}\n`);
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
  }

  /** Resolves when what was added is written or dropped. */
  async flushed(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
  }

  async #write(): Promise<void> {
    while (this.#waiting.length > 0) {
      const text = this.#waiting.splice(0).join('');
      try {
        await this.#rotate();
        await appendFile(this.#path, text, { mode: 0o600 });
      } catch {
        // Dropped: a full disk must not disturb the volume.
      }
    }
  }

  async #rotate(): Promise<void> {
    const size = await stat(this.#path).then(
      (found) => found.size,
      () => 0,
    );
    if (size > this.#bytesMax) await rename(this.#path, `${this.#path}.1`);
  }
}

async function readTail(path: string): Promise<string> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    const from = Math.max(0, size - TAIL_BYTES);
    const { buffer, bytesRead } = await file.read({
      buffer: Buffer.alloc(size - from),
      position: from,
    });
    const text = buffer.toString('utf8', 0, bytesRead);
    return from === 0 ? text : text.slice(text.indexOf('\n') + 1);
  } finally {
    await file.close();
  }
}

function parseEvent(line: string): VolumeEvent | undefined {
  if (line === '') return undefined;
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const found = value as Partial<Record<keyof VolumeEvent, unknown>>;
  const { seq, wallMs, lastWallMs, count, kind, text } = found;
  const numbers = [seq, wallMs, lastWallMs, count];
  if (!numbers.every((n) => typeof n === 'number' && Number.isFinite(n))) return undefined;
  if (typeof kind !== 'string' || typeof text !== 'string') return undefined;
  return { ...(found as VolumeEvent), kind: kind as EventKind, text };
}

/** What happened, for people: only where somebody wants to read it. */
import { type Logger, pino } from 'pino';
import type { Scheduler } from '../kernel/scheduler.js';

const LINES_MAX = 200_000;
const HIDDEN = new Set(['level', 'msg', 'volume', 'replica', 'err']);

export class Story {
  readonly #lines: string[] = [];
  readonly #scheduler: Scheduler;
  readonly #silent = pino({ level: 'silent' });

  constructor(
    scheduler: Scheduler,
    readonly enabled: boolean,
  ) {
    this.#scheduler = scheduler;
  }

  add(who: string, text: string): void {
    if (!this.enabled || this.#lines.length >= LINES_MAX) return;
    const time = this.#scheduler.nowMs.toFixed(3).padStart(12);
    this.#lines.push(`${time} ms  ${who.padEnd(10)} ${text}`);
  }

  lines(): readonly string[] {
    return this.#lines;
  }

  /** What a process logs becomes part of the story. */
  logger(who: string): Logger {
    if (!this.enabled) return this.#silent;
    const write = (line: string): void => this.add(who, told(JSON.parse(line)));
    return pino({ level: 'info', base: null, timestamp: false }, { write });
  }
}

function told(entry: Readonly<Record<string, unknown>>): string {
  const facts = Object.entries(entry)
    .filter(([key]) => !HIDDEN.has(key))
    .map(([key, value]) => `${key}=${JSON.stringify(value)}`);
  const error = entry['err'] as { code?: string; message?: string } | undefined;
  if (error !== undefined) facts.push(`error=${error.code ?? ''} ${error.message ?? ''}`);
  return [String(entry['msg'] ?? ''), ...facts].join(' ');
}

/** Keeps the scrub's report in a file, so that a pass goes on after a restart of the engine. */
import { readFile, rename, writeFile } from 'node:fs/promises';
import { NO_SCRUB, type ScrubReport, type ScrubStore } from './scrub.js';

const STATES: ReadonlySet<string> = new Set(['never', 'running', 'stopped', 'done']);

export class ScrubFile implements ScrubStore {
  constructor(readonly path: string) {}

  /** Undefined: nothing that can be used is there. What is lost is only where a pass was. */
  async load(): Promise<ScrubReport | undefined> {
    try {
      return parseReport(JSON.parse(await readFile(this.path, 'utf8')));
    } catch {
      return undefined;
    }
  }

  async save(report: ScrubReport): Promise<void> {
    const next = `${this.path}.tmp`;
    await writeFile(next, `${JSON.stringify(report)}\n`, { mode: 0o600 });
    await rename(next, this.path);
  }
}

function parseReport(value: unknown): ScrubReport | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const found = value as Record<string, unknown>;
  for (const [key, model] of Object.entries(NO_SCRUB)) {
    const field = found[key];
    if (typeof field !== typeof model) return undefined;
    if (typeof field === 'number' && !(Number.isSafeInteger(field) && field >= 0)) return undefined;
  }
  return STATES.has(String(found['state'])) ? (value as ScrubReport) : undefined;
}

/** A folder with its own fake daemons, and the record of what they did. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Clock, SystemClock, type Timer } from '../../common/clock.js';

const FAKE = fileURLToPath(new URL('./fake-aurochs.mjs', import.meta.url));

/** Waits a hundredth of the time, so that back-off needs no patience. Deadlines shrink with it. */
export class HastyClock extends SystemClock implements Clock {
  constructor(readonly factor = 100) {
    super();
  }

  override after(delayMs: number, callback: () => void): Timer {
    return super.after(delayMs / this.factor, callback);
  }
}

export class FakeInstallation {
  private constructor(readonly dir: string) {}

  static async create(): Promise<FakeInstallation> {
    return new FakeInstallation(await mkdtemp(path.join(tmpdir(), 'aurochs-cli-')));
  }

  /** argv prefix; `script` says how each daemon behaves in each life, see fake-aurochs.mjs */
  program(script: Record<string, readonly string[]> = {}): string[] {
    const env = [`FAKE_LOG=${this.logFile}`, `FAKE_SCRIPT=${JSON.stringify(script)}`];
    return ['/usr/bin/env', ...env, process.execPath, FAKE];
  }

  get logFile(): string {
    return path.join(this.dir, 'fake.log');
  }

  /** What the daemons did, in order: `start node1`, `ready engine`, `stop engine` … */
  async record(): Promise<string[]> {
    const text = await readFile(this.logFile, 'utf8').catch(() => '');
    return text.split('\n').filter((line) => line !== '');
  }

  async remove(): Promise<void> {
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** A listener that a test can await: resolves `next` with each text that arrives. */
export class Notes {
  readonly all: string[] = [];
  #waiters: Array<{ pattern: RegExp; resolve: (text: string) => void }> = [];

  readonly note = (text: string): void => {
    this.all.push(text);
    this.#waiters = this.#waiters.filter((waiter) => {
      if (!waiter.pattern.test(text)) return true;
      waiter.resolve(text);
      return false;
    });
  };

  /** The first text, past or future, that matches. */
  seen(pattern: RegExp): Promise<string> {
    const past = this.all.find((text) => pattern.test(text));
    if (past !== undefined) return Promise.resolve(past);
    return new Promise((resolve) => this.#waiters.push({ pattern, resolve }));
  }
}

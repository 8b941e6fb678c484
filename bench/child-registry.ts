/**
 * Every process the benchmark starts, so that none outlives it: each is the head of its own
 * process group, and the group is what is ended.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type Clock, sleep } from '../common/clock.js';
import { StorageError } from '../common/errors.js';

const READY_MS = 20_000;
const TERM_MS = 5000;
const OUTPUT_CHARACTERS_MAX = 64 * 1024;

export interface ChildSpec {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Ready when stdout has a match (its first group is the result), or a unix socket accepts. */
  readonly ready: { readonly line: RegExp } | { readonly socket: string };
}

export interface RunningChild {
  readonly name: string;
  readonly pid: number;
  /** first group of the ready line; empty for a socket */
  readonly readyText: string;
}

interface Entry {
  readonly name: string;
  readonly process: ChildProcess;
  readonly ended: Promise<void>;
}

export class ChildRegistry {
  #entries: Entry[] = [];
  readonly #stop = new AbortController();

  /** @param logDirectory one log file per child, its stderr */
  constructor(
    readonly logDirectory: string,
    readonly clock: Clock,
  ) {}

  /** Aborted when `stopAll` is called. */
  get stopSignal(): AbortSignal {
    return this.#stop.signal;
  }

  get livePids(): number[] {
    return this.#entries.flatMap(({ process: child }) => child.pid ?? []);
  }

  /** Resolves once the child is ready.
   *  @throws StorageError UNAVAILABLE when it ends or is not ready in time, with its log's end */
  async start(spec: ChildSpec): Promise<RunningChild> {
    const logPath = join(this.logDirectory, `${spec.name}.log`);
    const log = openSync(logPath, 'a');
    const entry = this.#spawn(spec, ['ignore', 'pipe', log]);
    closeSync(log);
    const aborter = new AbortController();
    const ended = entry.ended.then(() => {
      throw new StorageError('UNAVAILABLE', `${spec.name} ended before it was ready`);
    });
    const late = sleep(this.clock, READY_MS, aborter.signal).then(() => {
      throw new StorageError('UNAVAILABLE', `${spec.name} was not ready in ${READY_MS} ms`);
    });
    ended.catch(() => undefined);
    late.catch(() => undefined);
    const ready =
      'line' in spec.ready
        ? readyLine(entry.process, spec.ready.line)
        : this.#socketAccepts(spec.ready.socket, aborter.signal);
    try {
      const readyText = await Promise.race([ready, ended, late]);
      return { name: spec.name, pid: entry.process.pid ?? 0, readyText };
    } catch (error) {
      const tail = (await readFile(logPath, 'utf8').catch(() => '')).trim().slice(-400);
      const text = error instanceof Error ? error.message : String(error);
      throw new StorageError('UNAVAILABLE', `${text}: ${tail}`, {}, { cause: error });
    } finally {
      aborter.abort(new StorageError('ABORTED', 'no longer waited for'));
    }
  }

  /** Runs a program to its end and returns what it printed (the last 64 KiB of it).
   *  @throws StorageError DEADLINE when it had to be ended after `timeoutMs` */
  async run(spec: {
    command: string;
    args: readonly string[];
    timeoutMs: number;
  }): Promise<{ exitCode: number; output: string }> {
    const entry = this.#spawn({ ...spec, name: spec.command }, ['ignore', 'pipe', 'pipe']);
    let output = '';
    const collect = (chunk: Buffer): void => {
      output = (output + chunk.toString('utf8')).slice(-OUTPUT_CHARACTERS_MAX);
    };
    entry.process.stdout?.on('data', collect);
    entry.process.stderr?.on('data', collect);
    let late = false;
    const timer = this.clock.after(spec.timeoutMs, () => {
      late = true;
      if (entry.process.pid !== undefined) killGroup(entry.process.pid);
    });
    await entry.ended;
    timer.cancel();
    if (late) {
      throw new StorageError('DEADLINE', `${spec.command} did not end in ${spec.timeoutMs} ms`);
    }
    return { exitCode: entry.process.exitCode ?? 1, output };
  }

  /** Ends one child: SIGTERM, and SIGKILL for its group when it has not ended in time. */
  async stop(pid: number): Promise<void> {
    const entry = this.#entries.find((candidate) => candidate.process.pid === pid);
    if (entry !== undefined) await this.#end(entry);
  }

  /** Kills one child and its group at once, as a crash would. */
  async kill(pid: number): Promise<void> {
    const entry = this.#entries.find((candidate) => candidate.process.pid === pid);
    killGroup(pid);
    await entry?.ended;
  }

  /** Ends every child, last started first, and refuses new ones. Idempotent. */
  async stopAll(): Promise<void> {
    this.#stop.abort(stopped());
    for (const entry of [...this.#entries].reverse()) await this.#end(entry);
  }

  /** @throws StorageError CLOSED once `stopAll` was called */
  throwIfStopping(): void {
    if (this.#stop.signal.aborted) throw stopped();
  }

  /** The last resort, when the process is about to end without `stopAll`. */
  killAll(): void {
    for (const { process: child } of this.#entries)
      if (child.pid !== undefined) killGroup(child.pid);
  }

  #spawn(
    spec: Pick<ChildSpec, 'name' | 'command' | 'args' | 'env'>,
    stdio: Array<'ignore' | 'pipe' | number>,
  ): Entry {
    this.throwIfStopping();
    const child = spawn(spec.command, spec.args, {
      stdio,
      detached: true,
      env: { ...process.env, ...spec.env },
    });
    const ended = new Promise<void>((resolve) => {
      child.once('close', () => resolve());
      child.once('error', () => resolve());
    });
    const entry = { name: spec.name, process: child, ended };
    this.#entries.push(entry);
    void ended.then(() => {
      this.#entries = this.#entries.filter((other) => other !== entry);
    });
    return entry;
  }

  async #end(entry: Entry): Promise<void> {
    const pid = entry.process.pid;
    if (pid === undefined) return;
    entry.process.kill('SIGTERM');
    const aborter = new AbortController();
    const late = sleep(this.clock, TERM_MS, aborter.signal).catch(() => undefined);
    await Promise.race([entry.ended, late]);
    aborter.abort(new StorageError('ABORTED', 'ended'));
    killGroup(pid);
    await entry.ended;
  }

  async #socketAccepts(path: string, signal: AbortSignal): Promise<string> {
    while (!(await accepts(path))) await sleep(this.clock, 20, signal);
    return '';
  }
}

function stopped(): StorageError {
  return new StorageError('CLOSED', 'the benchmark is being stopped');
}

/** Kills what is left of a group we lead; nobody left is fine. */
function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // ESRCH: all have ended
  }
}

function accepts(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

function readyLine(child: ChildProcess, pattern: RegExp): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      text = (text + chunk.toString('utf8')).slice(-OUTPUT_CHARACTERS_MAX);
      const match = pattern.exec(text);
      if (match !== null) resolve(match[1] ?? '');
    });
  });
}

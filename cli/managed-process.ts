/**
 * One daemon as a child process: started, watched, started again when it dies, stopped.
 *
 * - It runs in its own session: Ctrl-C in the terminal reaches only the parent, which stops the
 *   daemons in order.
 * - Its stdout is the contract (`ready …`, `device …`), its stderr goes to a log file that outlives
 *   it.
 * - It is never started while its predecessor may live: the next start follows the exit event.
 */
import assert from 'node:assert';
import { type ChildProcess, spawn } from 'node:child_process';
import { type FileHandle, open, rename, stat } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { type Clock, sleep } from '../common/clock.js';
import { isErrorCode, StorageError } from '../common/errors.js';
import { MIB } from '../common/units.js';
import { removePidFile, writePidFile } from './pid-file.js';
import { RestartPolicy } from './restart-policy.js';

/** A log file that has passed this size is set aside as `FILE.1` at the next start of its
 *  process. */
const LOG_BYTES_MAX = 16 * MIB;
const LOG_TAIL_BYTES = 8 * 1024;

export interface ProcessSpec {
  /** for people: `node1.replica` */
  readonly name: string;
  readonly argv: readonly string[];
  readonly pidFile: string;
  readonly logFile: string;
}

export interface ProcessListener {
  /** It died unasked and starts again after the delay. */
  onExit(how: string, restartDelayMs: number): void;
  /** It is ready again after a death. */
  onReadyAgain(): void;
}

interface LineWaiter {
  readonly word: string;
  readonly settle: (rest: string | undefined) => void;
}

export class ManagedProcess {
  readonly #clock: Clock;
  readonly #listener: ProcessListener;
  readonly #policy = new RestartPolicy();
  readonly #abort = new AbortController();
  /** newest line of stdout by its first word, of the present life: `ready` -> `nbd+unix:…` */
  readonly #lines = new Map<string, string>();
  #waiters: LineWaiter[] = [];
  #child: ChildProcess | undefined;
  #wasReady = false;
  /** where the present life began in the log file */
  #logStart = 0;
  /** the run loop: settles when the process is gone for good */
  #finished: Promise<void> | undefined;
  #stopped: Promise<boolean> | undefined;

  constructor(
    readonly spec: ProcessSpec,
    options: { clock: Clock; listener: ProcessListener },
  ) {
    this.#clock = options.clock;
    this.#listener = options.listener;
  }

  /** pid of the running child */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  get restarts(): number {
    return this.#policy.restarts;
  }

  /** Starts it and resolves with what follows `ready` on its stdout. A daemon that ends or stays
   *  silent before its first `ready` is not started again: its last words become the error.
   *  @throws StorageError the daemon's own code if it printed `error CODE: …`, else UNAVAILABLE or
   *    DEADLINE */
  async start(readyTimeoutMs: number): Promise<string> {
    assert(this.#finished === undefined, `${this.spec.name}: started twice`);
    const ready = this.waitLine('ready', readyTimeoutMs);
    this.#finished = this.#run();
    const rest = await ready;
    if (rest !== undefined) return rest;
    const silent = this.#child !== undefined;
    const lastWords = await this.lastError();
    await this.stop(0);
    if (lastWords !== undefined) throw lastWords;
    const what = silent ? `was not ready after ${readyTimeoutMs} ms` : 'ended while starting';
    throw new StorageError(silent ? 'DEADLINE' : 'UNAVAILABLE', `${this.spec.name} ${what}`, {
      hint: `see ${this.spec.logFile}`,
    });
  }

  /** What follows `word` on stdout, at once if the line was seen in this life; undefined if it does
   *  not come in time or the process ends first. */
  waitLine(word: string, timeoutMs: number): Promise<string | undefined> {
    const seen = this.#lines.get(word);
    if (seen !== undefined) return Promise.resolve(seen);
    return new Promise((resolve) => {
      const waiter: LineWaiter = {
        word,
        settle: (rest) => {
          timer.cancel();
          this.#waiters = this.#waiters.filter((other) => other !== waiter);
          resolve(rest);
        },
      };
      const timer = this.#clock.after(timeoutMs, () => waiter.settle(undefined));
      this.#waiters.push(waiter);
    });
  }

  /** SIGTERM once (daemons take a second one for impatience), SIGKILL after the deadline; resolves
   *  when the process is gone, and no restart follows. Idempotent: the first deadline counts.
   *  @returns false if it had to be killed */
  stop(deadlineMs: number): Promise<boolean> {
    this.#stopped ??= this.#stop(deadlineMs);
    return this.#stopped;
  }

  /** The last `error CODE: …` that the present life wrote to its log, undefined if none. */
  async lastError(): Promise<StorageError | undefined> {
    const tail = await readTail(this.spec.logFile, this.#logStart);
    const last = tail.slice(tail.lastIndexOf('\nerror ') + 1);
    const [, code, message, hint] = /^error ([A-Z_]+): (.*)(?:\nhint: (.*))?/.exec(last) ?? [];
    if (code === undefined || !isErrorCode(code)) return undefined;
    return new StorageError(code, `${this.spec.name}: ${message}`, {
      hint: hint ?? `see ${this.spec.logFile}`,
    });
  }

  async #stop(deadlineMs: number): Promise<boolean> {
    this.#abort.abort(new StorageError('CLOSED', `${this.spec.name} is being stopped`));
    this.#child?.kill('SIGTERM');
    let inTime = true;
    const timer = this.#clock.after(deadlineMs, () => {
      inTime = this.#child === undefined;
      this.#child?.kill('SIGKILL');
    });
    await this.#finished;
    timer.cancel();
    return inTime;
  }

  async #run(): Promise<void> {
    while (!this.#abort.signal.aborted) {
      const startMs = this.#clock.nowMs();
      const how = await this.#live().catch((error: unknown) => String(error));
      this.#child = undefined;
      this.#lines.clear();
      for (const waiter of [...this.#waiters]) waiter.settle(undefined);
      if (this.#abort.signal.aborted || !this.#wasReady) return;
      const delayMs = this.#policy.nextDelayMs(this.#clock.nowMs() - startMs);
      this.#listener.onExit(how, delayMs);
      await sleep(this.#clock, delayMs, this.#abort.signal).catch(() => undefined);
    }
  }

  /** One life, from the opened log file to the removed pid file. Resolves with how it ended. */
  async #live(): Promise<string> {
    const [command, ...args] = this.spec.argv;
    assert(command !== undefined);
    const log = await openLog(this.spec.logFile);
    try {
      this.#logStart = (await log.stat()).size;
      if (this.#abort.signal.aborted) return 'not started';
      const child = spawn(command, args, { detached: true, stdio: ['ignore', 'pipe', log.fd] });
      // Not `close`: a process that the daemon leaves behind may hold its stdout open.
      const gone = new Promise<string>((resolve) => {
        child.once('error', (error) => resolve(error.message));
        child.once('exit', (code, signal) => resolve(signal ?? `exit status ${code}`));
      });
      if (child.pid === undefined) return await gone;
      this.#child = child;
      assert(child.stdout !== null);
      createInterface({ input: child.stdout }).on('line', (line) => this.#onLine(line));
      try {
        await writePidFile(this.spec.pidFile, child.pid);
      } catch (error) {
        child.kill('SIGTERM');
        await gone;
        throw error;
      }
      const how = await gone;
      child.stdout.destroy();
      return how;
    } finally {
      await log.close();
      await removePidFile(this.spec.pidFile);
    }
  }

  #onLine(line: string): void {
    const [, word, rest = ''] = /^(\S+)\s*(.*)$/.exec(line) ?? [];
    if (word === undefined) return;
    this.#lines.set(word, rest);
    if (word === 'ready') {
      if (this.#wasReady) this.#listener.onReadyAgain();
      this.#wasReady = true;
    }
    for (const waiter of this.#waiters.filter((one) => one.word === word)) waiter.settle(rest);
  }
}

async function openLog(file: string): Promise<FileHandle> {
  const size = await stat(file).then(
    (info) => info.size,
    () => 0,
  );
  if (size > LOG_BYTES_MAX) await rename(file, `${file}.1`);
  return open(file, 'a', 0o640);
}

async function readTail(file: string, startBytes: number): Promise<string> {
  const handle = await open(file, 'r');
  try {
    const { size } = await handle.stat();
    const tail = Buffer.alloc(Math.min(Math.max(size - startBytes, 0), LOG_TAIL_BYTES));
    const { bytesRead } = await handle.read(tail, 0, tail.length, size - tail.length);
    return tail.toString('utf8', 0, bytesRead);
  } finally {
    await handle.close();
  }
}

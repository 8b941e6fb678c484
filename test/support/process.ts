/** A child process under test: lines of its output can be awaited, its end is always known, it
 *  never outlives the test. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';

export const run = promisify(execFile);

export interface ChildOptions {
  readonly args: readonly string[];
  /** its stderr is appended here */
  readonly logPath: string;
  readonly env?: Readonly<Record<string, string>>;
}

const living = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of living) signalTo(child, 'SIGKILL');
});

/** A child that could not be started has no pid, and to signal pid 0 would end our own process
 *  group. */
function signalTo(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid !== undefined) child.kill(signal);
}

export class Child {
  readonly process: ChildProcess;
  /** exit code, or the signal's name */
  readonly ended: Promise<number | string>;
  readonly lines: string[] = [];
  #waiters: Array<() => void> = [];
  #end: number | string | undefined;

  constructor(
    command: string,
    readonly options: ChildOptions,
  ) {
    const env = { ...process.env, ...options.env };
    this.process = spawn(command, options.args, { stdio: ['ignore', 'pipe', 'pipe'], env });
    living.add(this.process);
    this.process.stderr?.pipe(createWriteStream(options.logPath, { flags: 'a' }));
    const lines = createInterface({ input: this.process.stdout as NodeJS.ReadableStream });
    lines.on('line', (line) => {
      this.lines.push(line);
      this.#wake();
    });
    this.ended = new Promise((resolve) => {
      this.process.once('error', (error) => {
        this.#end = error.message;
        this.#wake();
        resolve(error.message);
      });
      this.process.once('close', (code, signal) => {
        living.delete(this.process);
        this.#end ??= signal ?? code ?? -1;
        this.#wake();
        resolve(this.#end ?? -1);
      });
    });
  }

  get pid(): number {
    return this.process.pid ?? -1;
  }

  /** The rest of the first line that begins with `prefix`. Fails when the process ends before it
   *  says that. */
  async line(prefix: string): Promise<string> {
    for (;;) {
      const found = this.lines.find((line) => line.startsWith(prefix));
      if (found !== undefined) return found.slice(prefix.length);
      if (this.#end !== undefined) {
        const { stdout } = await run('tail', ['-n', '20', this.options.logPath]);
        throw new Error(`${this.options.args.join(' ')} ended (${this.#end}):\n${stdout}`);
      }
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
  }

  /** Sends the signal and resolves when the process has ended. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | string> {
    signalTo(this.process, signal);
    return this.ended;
  }

  #wake(): void {
    for (const waiter of this.#waiters.splice(0)) waiter();
  }
}

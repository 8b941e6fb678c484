/** What the command line prints: results on stdout, errors on stderr, both as text or as JSON. */
import Table from 'cli-table3';
import type { Clock } from '../common/clock.js';
import { ERROR_CODES, type StorageError, toStorageError } from '../common/errors.js';
import { LiveLine } from './live-line.js';

export type OutputFormat = 'text' | 'json';

/** Where a command writes. Injected, so that tests read what a person would see. */
export interface Output {
  readonly format: OutputFormat;
  /** one line or block of text on stdout; a newline is added */
  print(text: string): void;
  /** a remark that is no result: stderr in JSON mode, so that stdout stays one JSON document */
  note(text: string): void;
  /** rows of text that replace the ones before on a terminal; elsewhere as `print` */
  redraw(text: string): void;
  /** stdout is a terminal */
  readonly terminal: boolean;
}

const HOME_AND_CLEAR = '\u001b[H\u001b[2J';

export function createOutput(format: OutputFormat): Output {
  const print = (text: string): void => void process.stdout.write(`${text}\n`);
  const note = (text: string): void => void process.stderr.write(`${text}\n`);
  const terminal = process.stdout.isTTY === true;
  const redraw = (text: string): void => {
    if (terminal && format === 'text') process.stdout.write(HOME_AND_CLEAR);
    print(text);
  };
  return { format, print, note: format === 'json' ? note : print, redraw, terminal };
}

/** The line that shows how far a waiting command is. */
export function createLiveLine(clock: Clock): LiveLine {
  const { stderr } = process;
  const columns = stderr.isTTY === true ? stderr.columns : undefined;
  return new LiveLine({ clock, columns, write: (text) => void stderr.write(text) });
}

/** Prints a result: `value` as one JSON document, or the text that `render` makes of it. */
export function printResult<T>(output: Output, value: T, render: (value: T) => string): void {
  output.print(output.format === 'json' ? JSON.stringify(value, undefined, 2) : render(value));
}

/** A plain table without ruling lines, easy to read and to cut with awk. */
export function renderTable(
  head: readonly string[],
  rows: ReadonlyArray<readonly string[]>,
): string {
  const none = { top: '', 'top-mid': '', 'top-left': '', 'top-right': '', mid: '', 'mid-mid': '' };
  const table = new Table({
    head: [...head],
    chars: {
      ...none,
      bottom: '',
      'bottom-mid': '',
      'bottom-left': '',
      'bottom-right': '',
      left: '',
      'left-mid': '',
      right: '',
      'right-mid': '',
      middle: '  ',
    },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  for (const row of rows) table.push([...row]);
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

/** Text and exit code of an error: `error CODE: message`, then the hint on its own line; or the
 *  same as JSON. */
export function describeError(
  error: unknown,
  options: { json: boolean },
): { text: string; exitCode: number } {
  const ours: StorageError = toStorageError(error, 'unexpected');
  const exitCode = ERROR_CODES[ours.code].exit;
  if (options.json) {
    const { hint, ...details } = ours.details;
    const body = { code: ours.code, message: ours.message, hint, details, exitCode };
    return { text: JSON.stringify({ error: body }), exitCode };
  }
  const lines = [`error ${ours.code}: ${ours.message}`];
  if (ours.details.hint !== undefined) lines.push(`hint: ${ours.details.hint}`);
  // Only an INTERNAL error is ours to debug: there the stack is worth more than a tidy screen.
  const cause = ours.code === 'INTERNAL' ? (ours.cause ?? ours) : undefined;
  if (cause instanceof Error && cause.stack !== undefined) lines.push(cause.stack);
  return { text: lines.join('\n'), exitCode };
}

/** Prints the error on stderr and returns the exit code to end with. */
export function reportError(error: unknown, options: { json: boolean }): number {
  const { text, exitCode } = describeError(error, options);
  process.stderr.write(`${text}\n`);
  return exitCode;
}

/** Runs system tools: found by absolute path, arguments as a list, never a shell, bounded in time
 *  and output. */
import { execFile } from 'node:child_process';
import { access, constants } from 'node:fs/promises';
import { StorageError } from '../../common/errors.js';

const TOOL_FOLDERS = ['/usr/sbin', '/sbin', '/usr/bin', '/bin', '/usr/local/sbin'];
const OUTPUT_BYTES_MAX = 1024 * 1024;
const TOOL_TIMEOUT_MS = 20_000;
const found = new Map<string, string>();

export interface ToolOptions {
  /** the tool is killed after this; default 20 s */
  readonly timeoutMs?: number;
}

/** Absolute path of a tool. @throws StorageError UNSUPPORTED if this host does not have it */
export async function findTool(name: string): Promise<string> {
  const known = found.get(name);
  if (known !== undefined) return known;
  for (const folder of TOOL_FOLDERS) {
    const path = `${folder}/${name}`;
    const isThere = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (isThere) {
      found.set(name, path);
      return path;
    }
  }
  throw new StorageError('UNSUPPORTED', `this host has no ${name}`, {
    hint: 'on Debian: apt-get install util-linux mount',
  });
}

/** Standard output of the tool.
 *  @throws StorageError UNSUPPORTED (no such tool) | DEADLINE | IO_ERROR with what the tool said */
export async function runTool(
  name: string,
  argv: readonly string[],
  options: ToolOptions = {},
): Promise<string> {
  const path = await findTool(name);
  const timeoutMs = options.timeoutMs ?? TOOL_TIMEOUT_MS;
  return new Promise((resolve, reject) => {
    const environment = { PATH: TOOL_FOLDERS.join(':'), LC_ALL: 'C' };
    const limits = { timeout: timeoutMs, maxBuffer: OUTPUT_BYTES_MAX, env: environment, cwd: '/' };
    execFile(path, argv, { ...limits, killSignal: 'SIGKILL' }, (error, stdout, stderr) => {
      if (error === null) {
        resolve(stdout);
        return;
      }
      const late = error.killed === true;
      const said = stderr.trim().slice(0, 300) || error.message;
      const text = late ? `${name} does not end within ${timeoutMs} ms` : `${name}: ${said}`;
      const details = typeof error.code === 'number' ? { exitCode: error.code } : {};
      reject(new StorageError(late ? 'DEADLINE' : 'IO_ERROR', text, details, { cause: error }));
    });
  });
}

/** What this host can do; tests that need more are skipped with the reason in their name. */
import { accessSync, constants, existsSync, readdirSync } from 'node:fs';
import path from 'node:path';

export const isRoot = process.getuid?.() === 0;

/** The program's path, or undefined. */
export function findProgram(name: string): string | undefined {
  const dirs = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin'];
  for (const dir of dirs) {
    const file = path.join(dir, name);
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {}
  }
  return undefined;
}

/** Undefined if everything is there; else what is missing. */
export function missing(...needs: Array<'root' | 'fuse' | 'loop' | string>): string | undefined {
  for (const need of needs) {
    if (need === 'root') {
      if (!isRoot) return 'needs root';
    } else if (need === 'fuse') {
      if (!existsSync('/dev/fuse')) return 'needs /dev/fuse';
    } else if (need === 'loop') {
      if (!existsSync('/dev/loop-control')) return 'needs loop devices';
    } else if (findProgram(need) === undefined) return `needs ${need}`;
  }
  return undefined;
}

/** Folder of Debian's newest PostgreSQL server programs; undefined if none is installed. */
export function postgresPrograms(): string | undefined {
  const root = '/usr/lib/postgresql';
  const versions = existsSync(root) ? readdirSync(root).sort((a, b) => Number(b) - Number(a)) : [];
  const bin = versions.map((v) => path.join(root, v, 'bin')).find((d) => existsSync(`${d}/initdb`));
  return bin;
}

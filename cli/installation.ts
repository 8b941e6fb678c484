/** Where this checkout or package lives: programs are started by path, never imported. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { StorageError } from '../common/errors.js';

export interface Installation {
  /** folder of package.json */
  readonly root: string;
  /** argv prefix that runs `aurochs` with this very Node */
  readonly aurochs: readonly string[];
  /** argv prefix that prints what the native module can do, as JSON */
  readonly probe: readonly string[];
}

/** Looks upwards from this module, which runs from `cli/` in tests and from `dist/cli/` in
 *  production.
 *  @throws StorageError NOT_FOUND when no bin/aurochs is above it */
export function findInstallation(): Installation {
  const here = path.dirname(fileURLToPath(import.meta.url));
  for (let folder = here; ; folder = path.dirname(folder)) {
    const program = path.join(folder, 'bin', 'aurochs');
    if (existsSync(program)) {
      return {
        root: folder,
        aurochs: [program],
        probe: [process.execPath, path.join(folder, 'dist', 'native', 'probe.js')],
      };
    }
    if (path.dirname(folder) === folder) {
      throw new StorageError('NOT_FOUND', `no bin/aurochs above ${here}`, {
        hint: 'the installation is incomplete',
      });
    }
  }
}

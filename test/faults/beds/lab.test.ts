/** Nothing of a fault test stays behind, also when it was killed. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { ROOT } from '../../support/cluster.js';
import { Child } from '../../support/process.js';
import { faultDiskLacks } from './fault-disk.js';
import { clearDeadLabs, Lab } from './lab.js';
import { networkLacks } from './network.js';

const VICTIM = path.join(ROOT, 'dist/test/faults/beds/lab-victim.js');
const lacks = faultDiskLacks('mkfs.ext4') ?? networkLacks();

/** Everything on this machine that names the folder, or the device: processes, mounts, loops,
 *  namespaces. */
function traces(dir: string, device: string): string[] {
  const tag = dir.substring(dir.lastIndexOf('-') + 1);
  const shown = [
    execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' }),
    execFileSync('losetup', ['-a'], { encoding: 'utf8' }),
    execFileSync('cat', ['/proc/self/mountinfo'], { encoding: 'utf8' }),
    execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' }),
  ];
  return shown.flatMap((text) =>
    text.split('\n').filter((line) => line.includes(tag) || line.startsWith(`${device}: `)),
  );
}

describe('a lab', () => {
  it('closes twice without complaint and leaves no folder', async () => {
    const lab = await Lab.open();
    await writeFile(path.join(await lab.makeDir('a', 'b'), 'file'), 'x');
    await lab.close();
    expect(existsSync(lab.dir)).toBe(false);
    await lab.close();
  });

  it('of a living process is left alone by others', async () => {
    const lab = await Lab.open();
    await clearDeadLabs();
    expect(await readFile(lab.path('owner'), 'utf8')).toContain(`${process.pid} `);
    await lab.close();
  });

  it.skipIf(lacks !== undefined)(
    `of a killed run is cleared away by the next one ${lacks ?? ''}`,
    async () => {
      const here = await Lab.open();
      const victim = new Child(process.execPath, {
        args: [VICTIM],
        logPath: here.path('victim.log'),
      });
      const [dir = '', device = ''] = (await victim.line('ready ')).split(' ');
      expect(traces(dir, device).length).toBeGreaterThan(8);
      await victim.stop('SIGKILL');
      await clearDeadLabs();
      expect(traces(dir, device)).toEqual([]);
      expect(existsSync(dir)).toBe(false);
      await here.close();
    },
  );
});

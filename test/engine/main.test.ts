/** The command line of one engine: what is refused before anything is touched. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { main } from '../../engine/main.js';

let stderr = '';
beforeEach(() => {
  stderr = '';
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    stderr += text;
    return true;
  });
});
afterEach(() => vi.restoreAllMocks());

const NEEDED = ['--volume', 'v', '--nbd', 'unix:/nowhere/nbd.sock'];
const LOCAL = [...NEEDED, '--replica', 'unix:/nowhere/r.sock'];

describe('aurochs engine: options', () => {
  it.each([
    ['no volume', ['--nbd', 'unix:/x', '--replica', 'unix:/x'], 2, /--volume/],
    ['a time-out that is no number', [...LOCAL, '--io-timeout', 'long'], 2, /from 0 to 604800/],
    ['a time-out past a week', [...LOCAL, '--io-timeout', '604801'], 2, /from 0 to 604800/],
    ['a rate in decimal units', [...LOCAL, '--rebuild-rate', '10MB'], 2, /10GiB/],
    ['days that are no number', [...LOCAL, '--scrub-interval', '1.5'], 2, /from 0 to 3650/],
    ['a relative replica socket', [...NEEDED, '--replica', 'unix:r.sock'], 2, /absolute path/],
    ['a replica in plain TCP', [...NEEDED, '--replica', '10.0.0.1:9601'], 1, /PERMISSION/],
  ])('%s', async (_name, argv, exitCode, text) => {
    expect(await main(argv)).toBe(exitCode);
    expect(stderr).toMatch(text);
  });
});

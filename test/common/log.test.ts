import { Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { createLogger } from '../../common/log.js';

describe('createLogger', () => {
  it('writes one JSON line per entry, with component and pid', () => {
    const lines: string[] = [];
    const log = createLogger('engine', { write: (line: string) => void lines.push(line) });
    log.info({ volume: 'v1' }, 'opened');
    log.debug('not shown');
    expect(lines).toHaveLength(1);
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({
      component: 'engine',
      pid: process.pid,
      volume: 'v1',
      msg: 'opened',
    });
  });

  it('a log that cannot be written disturbs nobody (scenario 78)', async () => {
    const broken = new Writable({
      write: (_chunk, _encoding, done) => done(new Error('ENOSPC')),
    });
    const log = createLogger('engine', broken);
    const closed = new Promise<void>((resolve) => broken.once('close', resolve));
    expect(() => log.info('lost')).not.toThrow();
    await closed;
    expect(() => log.info('lost, too')).not.toThrow();
  });
});

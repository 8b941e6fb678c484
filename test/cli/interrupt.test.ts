import { afterEach, describe, expect, it, vi } from 'vitest';
import { interruptible } from '../../cli/interrupt.js';

afterEach(() => vi.restoreAllMocks());

describe('Ctrl-C while a command only waits', () => {
  it('says that the work goes on, and ends as shells expect', async () => {
    const said: string[] = [];
    vi.spyOn(process.stderr, 'write').mockImplementation((text) => said.push(String(text)) > 0);
    const exit = vi.spyOn(process, 'exit').mockImplementation(() => undefined as never);
    await interruptible('it goes on', async () => process.emit('SIGINT'));
    expect(exit).toHaveBeenCalledWith(130);
    expect(said.join('')).toBe('\nit goes on\n');
  });

  it('means what it always does before and after', async () => {
    const before = process.listenerCount('SIGINT');
    await interruptible('', async () => expect(process.listenerCount('SIGINT')).toBe(before + 1));
    await expect(interruptible('', () => Promise.reject(new Error('x')))).rejects.toThrow('x');
    expect(process.listenerCount('SIGINT')).toBe(before);
  });
});

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, describe, expect, it } from 'vitest';
import {
  engineIdOf,
  isProvedDead,
  PROC,
  type ProcessFacts,
  type ProcessTable,
} from '../../engine/engine-life.js';

const FACTS: ProcessFacts = {
  ...{ boot: 'a'.repeat(32), namespace: '4026531836', pid: 42, startTicks: '1000' },
};

/** @param ticks  of process 42: when it started, `gone`, or undefined: not to be had */
const tableOf = (
  facts: ProcessFacts | undefined,
  ticks: string | 'gone' | undefined,
): ProcessTable => ({
  self: () => facts,
  startTicks: (pid) => (pid === 42 ? ticks : 'gone'),
});

const idOf = (facts: Partial<ProcessFacts> = {}): string =>
  engineIdOf('e-1', tableOf({ ...FACTS, ...facts }, undefined));

describe('whether an engine is dead, from its id (R5)', () => {
  it.each([
    { name: 'it runs', id: idOf(), ticks: '1000', dead: false },
    { name: 'it is gone', id: idOf(), ticks: 'gone', dead: true },
    { name: 'its number belongs to a later process', id: idOf(), ticks: '2000', dead: true },
    { name: 'nothing can be told of its number', id: idOf(), ticks: undefined, dead: false },
    {
      name: 'another boot: maybe another host',
      id: idOf({ boot: 'b'.repeat(32) }),
      ticks: 'gone',
      dead: false,
    },
    { name: 'another PID namespace', id: idOf({ namespace: '7' }), ticks: 'gone', dead: false },
    { name: 'an id that names no process', id: 'e-1', ticks: 'gone', dead: false },
    { name: 'an id with something more', id: `${idOf()}.1`, ticks: 'gone', dead: false },
  ])('$name: $dead', ({ id, ticks, dead }) => {
    expect(isProvedDead(id, tableOf(FACTS, ticks))).toBe(dead);
  });

  it('of itself nothing is known: nothing is proved, and its id is a name alone', () => {
    expect(isProvedDead(idOf(), tableOf(undefined, 'gone'))).toBe(false);
    expect(engineIdOf('e-1', tableOf(undefined, undefined))).toBe('e-1');
  });

  it('an id fits into what a replica daemon takes for one', () => {
    const longest = engineIdOf('e'.repeat(40), tableOf({ ...FACTS, pid: 4_194_304 }, undefined));
    expect(longest.length).toBeLessThanOrEqual(128);
    expect(longest).toMatch(/^[!-~]+$/);
  });
});

describe('processes of this host', () => {
  const children: ChildProcess[] = [];

  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
  });

  function start(): { pid: number; id: string; child: ChildProcess } {
    const child = spawn('sleep', ['60'], { stdio: 'ignore' });
    children.push(child);
    const { pid } = child;
    const self = PROC.self();
    const startTicks = pid === undefined ? undefined : PROC.startTicks(pid);
    if (pid === undefined || self === undefined || startTicks === undefined) {
      throw new Error('no /proc');
    }
    return { pid, child, id: engineIdOf('e', tableOf({ ...self, pid, startTicks }, undefined)) };
  }

  it('this one runs, and says so of itself', () => {
    const self = PROC.self();
    expect(self?.pid).toBe(process.pid);
    expect(PROC.startTicks(process.pid)).toBe(self?.startTicks);
    expect(isProvedDead(engineIdOf('e', PROC), PROC)).toBe(false);
  });

  it('scenario 17: a stopped one is not dead; a killed one is', async () => {
    const { child, id } = start();
    expect(isProvedDead(id, PROC)).toBe(false);
    child.kill('SIGSTOP');
    expect(isProvedDead(id, PROC)).toBe(false);
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
    expect(isProvedDead(id, PROC)).toBe(true);
  });

  it('one that is dead and not waited for (a zombie) has released its sockets: dead', async () => {
    // The shell starts a child, lets it die, and does not wait for it.
    const script = 'sleep 0 & echo $!; exec sleep 60';
    const parent = spawn('sh', ['-c', script], { stdio: ['ignore', 'pipe', 'ignore'] });
    children.push(parent);
    const [line] = (await once(parent.stdout, 'data')) as [Buffer];
    const pid = Number(line.toString().trim());
    for (let n = 0; n < 500 && PROC.startTicks(pid) !== 'gone'; n += 1) {
      await new Promise(setImmediate);
    }
    expect(PROC.startTicks(pid)).toBe('gone');
  });
});

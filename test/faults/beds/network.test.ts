/** The bed of networks: each fault does what it says, to whom it says, and no longer. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Child, run } from '../../support/process.js';
import { Lab } from './lab.js';
import { Network, networkLacks } from './network.js';

const lacks = networkLacks();

describe.skipIf(lacks !== undefined)(`hosts in namespaces ${lacks ?? ''}`, () => {
  let lab: Lab;
  let network: Network;
  let heals: Array<() => Promise<void>> = [];

  beforeAll(async () => {
    lab = await Lab.open();
    network = await Network.create(lab, ['a', 'b', 'c']);
    await echo('b');
  });
  afterEach(async () => {
    for (const heal of heals) await heal();
    heals = [];
  });
  afterAll(() => lab.close());

  /** A server on the host that sends back what it receives; it ends with the lab. */
  async function echo(host: string): Promise<void> {
    const program = `
      const server = require('node:net').createServer((s) => s.on('error', () => {}).pipe(s));
      server.listen(9601, () => console.log('ready ${lab.dir}'));`;
    const [command = '', ...argv] = [...network.on(host), process.execPath, '-e', program];
    const child = new Child(command, { args: [...argv, lab.dir], logPath: lab.path('echo.log') });
    await child.line('ready ');
  }

  /** Sends bytes there and waits for them to come back: `echoed`, `silent` or `refused`. */
  async function talk(from: string, to: string, lengthBytes = 5): Promise<string> {
    const program = `
      const socket = require('node:net').connect(9601, '${network.addressOf(to)}');
      let left = ${lengthBytes};
      socket.on('error', () => { console.log('refused'); process.exit(); });
      socket.on('data', (data) => {
        left -= data.length;
        if (left === 0) { console.log('echoed'); process.exit(); }
      });
      socket.write(Buffer.alloc(left));
      setTimeout(() => { console.log('silent'); process.exit(); }, 600);`;
    const argv = [...network.on(from), process.execPath, '-e', program];
    return (await run(argv[0] ?? '', argv.slice(1))).stdout.trim();
  }

  it('speak to each other until they are cut, both ways or one way', async () => {
    expect(await talk('a', 'b')).toBe('echoed');
    const heal = await network.cut('a', 'b');
    expect(await talk('a', 'b')).toBe('silent');
    expect(await talk('c', 'b')).toBe('echoed');
    await heal();
    expect(await talk('a', 'b')).toBe('echoed');
    for (const [from, to] of [['a', 'b'] as const, ['b', 'a'] as const]) {
      const join = await network.cutOneWay(from, to);
      expect(await talk('a', 'b')).toBe('silent');
      await join();
    }
    expect(await talk('a', 'b')).toBe('echoed');
  }, 20_000);

  it('are refused when connections are reset, and alone when the cable is pulled', async () => {
    heals.push(await network.reset('b'));
    expect(await talk('a', 'b')).toBe('refused');
    for (const heal of heals.splice(0)) await heal();
    await network.link('b', 'down');
    expect(await talk('a', 'b')).toBe('silent');
    await network.link('b', 'up');
    expect(await talk('a', 'b')).toBe('echoed');
  });

  it('lose packets and still get through; a limited rate takes its time', async () => {
    heals.push(await network.lose('b', 5));
    expect(await talk('a', 'b', 20_000)).toBe('echoed');
    await network.limit('a', 8);
    const startedMs = performance.now();
    expect(await talk('a', 'b', 500_000)).toBe('echoed');
    // 500 kB at 1 MB/s
    expect(performance.now() - startedMs).toBeGreaterThan(400);
  });
});

/**
 * Hosts as network namespaces on one bridge: links can be cut in either direction, lose packets, be
 * slow, or go down. Needs root, ip, nft and tc. Nothing of the machine's own network is touched:
 * the bridge has a namespace of its own.
 */
import { missing } from '../../support/host.js';
import { run } from '../../support/process.js';
import type { Lab } from './lab.js';

/** Why no network can be made here, or undefined. */
export function networkLacks(): string | undefined {
  return missing('root', 'ip', 'nft', 'tc', 'nsenter');
}

const SUBNET = '10.77.0';
/** the port that replica daemons listen on, each on its host */
export const PORT = 9601;

interface Rule {
  /** on whose side it stands */
  readonly host: string;
  readonly text: string;
}

export class Network {
  readonly #rules = new Map<number, Rule>();
  #nextRule = 1;

  private constructor(
    readonly lab: Lab,
    readonly hosts: readonly string[],
    /** unique on this machine, short: interface names have 15 characters */
    readonly tag: string,
  ) {}

  static async create(lab: Lab, hosts: readonly string[]): Promise<Network> {
    const tag = lab.dir.substring(lab.dir.lastIndexOf('-') + 1);
    const network = new Network(lab, hosts, tag);
    const bridge = network.namespace('bridge');
    await network.#addNamespace('bridge');
    await ip('-n', bridge, 'link', 'add', 'br0', 'type', 'bridge');
    await ip('-n', bridge, 'link', 'set', 'br0', 'up');
    for (const host of hosts) await network.#addHost(host);
    return network;
  }

  namespace(host: string): string {
    return `aurochs-${this.tag}-${host}`;
  }

  addressOf(host: string): string {
    return `${SUBNET}.${this.hosts.indexOf(host) + 1}`;
  }

  /** Program and arguments that run the rest on a host. Not `ip netns exec`: that has mounts of its
   *  own, and what is mounted there can be found by nobody else. */
  on(host: string): string[] {
    return ['nsenter', `--net=/run/netns/${this.namespace(host)}`];
  }

  /** Packets of `from` do not reach `to`; the other direction is untouched. @returns heals it */
  cutOneWay(from: string, to: string): Promise<() => Promise<void>> {
    return this.#add([{ host: to, text: `ip saddr ${this.addressOf(from)} drop` }]);
  }

  /** Neither reaches the other. @returns heals it */
  cut(a: string, b: string): Promise<() => Promise<void>> {
    return this.#add([
      { host: a, text: `ip saddr ${this.addressOf(b)} drop` },
      { host: b, text: `ip saddr ${this.addressOf(a)} drop` },
    ]);
  }

  /** That many in a hundred packets that arrive at the host are lost. @returns heals it */
  lose(host: string, percent: number): Promise<() => Promise<void>> {
    return this.#add([{ host, text: `numgen random mod 100 < ${percent} drop` }]);
  }

  /** Connections to the daemon on the host are reset, new ones refused. @returns heals it */
  reset(host: string): Promise<() => Promise<void>> {
    return this.#add([{ host, text: `tcp dport ${PORT} reject with tcp reset` }]);
  }

  /** What the host sends is limited to this rate. */
  async limit(host: string, mbit: number): Promise<void> {
    const shape = ['rate', `${mbit}mbit`, 'burst', '16kb', 'latency', '400ms'];
    const device = ['-n', this.namespace(host), 'qdisc', 'replace', 'dev', 'eth0', 'root'];
    await run('tc', [...device, 'tbf', ...shape]);
  }

  /** The cable is pulled or plugged in. */
  async link(host: string, state: 'up' | 'down'): Promise<void> {
    await ip('-n', this.namespace('bridge'), 'link', 'set', `to-${host}`, state);
  }

  async #addNamespace(name: string): Promise<void> {
    await this.lab.noteNamespace(this.namespace(name));
    await ip('netns', 'add', this.namespace(name));
    await ip('-n', this.namespace(name), 'link', 'set', 'lo', 'up');
  }

  async #addHost(host: string): Promise<void> {
    const [here, bridge] = [this.namespace(host), this.namespace('bridge')];
    await this.#addNamespace(host);
    const peer = ['peer', 'name', 'eth0', 'netns', here];
    await ip('-n', bridge, 'link', 'add', `to-${host}`, 'type', 'veth', ...peer);
    await ip('-n', bridge, 'link', 'set', `to-${host}`, 'master', 'br0', 'up');
    await ip('-n', here, 'addr', 'add', `${this.addressOf(host)}/24`, 'dev', 'eth0');
    await ip('-n', here, 'link', 'set', 'eth0', 'up');
  }

  async #add(rules: readonly Rule[]): Promise<() => Promise<void>> {
    const ids = rules.map((rule) => {
      const id = this.#nextRule;
      this.#nextRule += 1;
      this.#rules.set(id, rule);
      return id;
    });
    const hosts = rules.map((rule) => rule.host);
    await this.#apply(hosts);
    return async () => {
      for (const id of ids) this.#rules.delete(id);
      await this.#apply(hosts);
    };
  }

  /** Replaces all rules of the hosts, each host's in one step. */
  async #apply(hosts: readonly string[]): Promise<void> {
    for (const host of hosts) {
      const rules = [...this.#rules.values()].filter((rule) => rule.host === host);
      const script = [
        'table inet faults {}',
        'delete table inet faults',
        'table inet faults {',
        'chain input {',
        'type filter hook input priority 0',
        ...rules.map((rule) => rule.text),
        '}',
        '}',
      ].join('\n');
      const [command = '', ...argv] = [...this.on(host), 'nft', script];
      await run(command, argv);
    }
  }
}

async function ip(...args: string[]): Promise<void> {
  await run('ip', args);
}

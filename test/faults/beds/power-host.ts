/**
 * A host that can lose power: a disk with a volatile cache, ext4 on it, and on that both halves of
 * a replica daemon, its data file and its metadata.
 *
 * A cut freezes the disk, kills the daemon, and decides by seed what of the cache survived. After
 * power-on the file system replays its journal and the daemon finds another boot id: the kernel's
 * own is covered by a bind mount that only the daemon sees.
 */
import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { MIB } from '../../../common/units.js';
import { Cluster, type ClusterOptions, type Launch } from '../../support/cluster.js';
import { run } from '../../support/process.js';
import type { StampedLoad } from '../../support/stamped-load.js';
import type { Fate } from './cached-disk.js';
import { FaultDisk, faultDiskLacks, unmount } from './fault-disk.js';
import type { Lab } from './lab.js';

/** Why no host can lose power here, or undefined. */
export function powerHostLacks(): string | undefined {
  return faultDiskLacks('mkfs.ext4', 'mount', 'unshare');
}

const DISK_BYTES = 256 * MIB;
const BOOT_ID = '/proc/sys/kernel/random/boot_id';

export class PowerHost {
  private constructor(
    readonly disk: FaultDisk,
    /** where the file system is mounted while there is power */
    readonly dir: string,
    readonly bootIdFile: string,
  ) {}

  static async create(lab: Lab, options: { name: string; seed: number }): Promise<PowerHost> {
    const { name, seed } = options;
    const disk = await FaultDisk.create(lab, { name, seed, sizeBytes: DISK_BYTES });
    // Nothing is left to be written later by itself.
    const now = 'lazy_itable_init=0,lazy_journal_init=0';
    await run('mkfs.ext4', ['-q', '-E', now, disk.device]);
    const dir = await lab.makeDir(name, 'mnt');
    const host = new PowerHost(disk, dir, lab.path(name, 'boot_id'));
    await host.#boot();
    return host;
  }

  /** How its daemon is started: with its own mount alone, so that it holds no other host's disk. */
  launch(): Launch {
    const { dir } = this.disk.lab;
    const script = [
      `mount --bind "$0" ${BOOT_ID} || exit 1`,
      `grep -o " ${dir}/[^ ]*" /proc/self/mounts | grep -vx " ${this.dir}" | sort -r |`,
      'xargs -r -n 1 umount --lazy',
      'exec "$@"',
    ].join('\n');
    const alone = ['unshare', '--mount', '--propagation', 'private'];
    return { prefix: [...alone, 'sh', '-c', script, this.bootIdFile] };
  }

  /** The instant of the cut. What the daemon does from now on reaches nobody. */
  freeze(): Promise<void> {
    return this.disk.ask('freeze');
  }

  /** After `freeze`, with the daemon killed or about to be: everything on the host is gone.
   *  @param daemonEnded resolves when the daemon has */
  async off(daemonEnded: Promise<unknown>): Promise<void> {
    await this.disk.ask('powerOff');
    await daemonEnded;
    await unmount(this.dir);
    await this.disk.detach();
  }

  /** @param fate of what no flush had covered */
  async on(fate: Fate): Promise<void> {
    await this.disk.ask('powerOn', fate);
    await this.disk.attach();
    await this.#boot();
  }

  async #boot(): Promise<void> {
    await writeFile(this.bootIdFile, `${randomUUID()}\n`);
    await run('mount', [this.disk.device, this.dir]);
  }
}

/** A volume whose daemons run on hosts that can lose power, each for itself or all at once. */
export class PowerCluster {
  private constructor(
    readonly hosts: readonly PowerHost[],
    readonly cluster: Cluster,
  ) {}

  /** Daemons and engine, ready. */
  static async start(
    lab: Lab,
    options: ClusterOptions & { readonly seed: number },
  ): Promise<PowerCluster> {
    const count = options.replicas ?? 3;
    const hosts: PowerHost[] = [];
    for (let n = 0; n < count; n += 1) {
      hosts.push(await PowerHost.create(lab, { name: `host${n}`, seed: options.seed + n }));
    }
    const hostOf = (index: number): PowerHost => hosts[index] as PowerHost;
    const cluster = await Cluster.make({
      size: '64MiB',
      diskSize: '128MiB',
      ...options,
      dir: lab.dir,
      disk: (index) => path.join(hostOf(index).dir, 'disk.img'),
      dataDir: (index) => path.join(hostOf(index).dir, 'data'),
      launch: (who) => (typeof who === 'number' ? hostOf(who).launch() : {}),
    });
    lab.onClose(() => cluster.stop('SIGKILL'));
    await cluster.startDaemons();
    await cluster.startEngine();
    return new PowerCluster(hosts, cluster);
  }

  /** Cuts the power of these hosts, all at one moment. The engine lives. */
  async cut(indexes: readonly number[] = this.all): Promise<void> {
    await Promise.all(indexes.map((index) => this.hosts[index]?.freeze()));
    await Promise.all(
      indexes.map((index) => {
        const killed = this.cluster.stopDaemon(index, 'SIGKILL');
        return this.hosts[index]?.off(killed);
      }),
    );
  }

  /** Cuts the power of all hosts that hold a copy in sync, under a load, and kills the engine: what
   *  the load was answered before is what counts. */
  async cutAll(load: StampedLoad, indexes = this.all): Promise<void> {
    load.lostPower();
    await this.cut(indexes);
    await load.ended();
    await this.cluster.stopEngine('SIGKILL');
  }

  /** Power, file systems and daemons are back. @param fate by index of the host */
  async restore(fate: (index: number) => Fate, indexes = this.all): Promise<void> {
    await Promise.all(indexes.map((index) => this.hosts[index]?.on(fate(index))));
    await Promise.all(indexes.map((index) => this.cluster.startDaemon(index)));
  }

  get all(): number[] {
    return this.hosts.map((_host, index) => index);
  }
}

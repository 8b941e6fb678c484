/**
 * One simulated host with a disk and a replica daemon on it: everything of the production daemon
 * but its listener, its files and its device, for which the world stands in.
 */
import { toStorageError } from '../../../common/errors.js';
import type { Logger } from '../../../common/log.js';
import { Registry } from '../../../common/metrics.js';
import type { Membership, ReplicaControlHandlers } from '../../../proto/control.js';
import type { ReplicaSummary } from '../../../replica/disk/disk.js';
import type { DaemonIdentity } from '../../../replica/service/daemon-identity.js';
import { DiskSet } from '../../../replica/service/disk-set.js';
import { POOL_BYTES_MIN, ReplicaService } from '../../../replica/service/replica-service.js';
import type { Fate } from '../disk/disk-faults.js';
import { SimDevice } from '../disk/sim-device.js';
import { SimDisk } from '../disk/sim-disk.js';
import { SimKvHome } from '../disk/sim-kv.js';
import { SimBufferPool } from '../disk/sim-pool.js';
import type { Random } from '../kernel/random.js';
import type { SimHost, SimProcess } from '../kernel/sim-process.js';
import type { SimNetwork } from '../network/network.js';
import type { Plants } from './plants.js';
import type { Story } from './story.js';

/** Small, so that records are evicted and loaded again. */
const CACHE_BYTES = 64 * 1024;
export const CLUSTER_ID = 'cluster';

export interface ReplicaNodeOptions {
  readonly host: SimHost;
  readonly address: string;
  readonly diskBytes: number;
  readonly times: { readonly readMs: number; readonly writeMs: number; readonly flushMs: number };
  readonly network: SimNetwork;
  readonly random: Random;
  readonly story: Story;
  readonly plants: Plants;
}

/** The parts of a daemon that runs. */
interface Daemon {
  readonly disks: DiskSet;
  readonly service: ReplicaService;
}

export class ReplicaNode {
  readonly name: string;
  readonly daemonId: string;
  readonly disk: SimDisk;
  readonly metadata: SimKvHome;
  readonly pool = new SimBufferPool(POOL_BYTES_MIN);
  process: SimProcess | undefined;
  /** it lost what was not flushed, since it was last known to be whole */
  lossy = false;
  /** how often */
  losses = 0;
  /** does nothing but start it again when it has died, after a while */
  restartMs: number | undefined = 200;
  readonly #options: ReplicaNodeOptions;
  readonly #random: Random;
  #daemon: Daemon | undefined;
  #starts = 0;
  #stoppedInOrder = true;
  #seen: ReplicaSummary | undefined;

  constructor(options: ReplicaNodeOptions) {
    const { host, random, times, diskBytes } = options;
    this.#options = options;
    this.name = host.name;
    this.#random = random.fork(`replica ${host.name}`);
    this.daemonId = `d-${this.#random.hex(6)}`;
    const name = `/dev/${host.name}`;
    this.disk = new SimDisk(
      host.scheduler,
      { name, sizeBytes: diskBytes, times },
      this.#random.fork('disk'),
    );
    const kvTimes = { batchMs: times.writeMs, syncMs: 2 * times.flushMs, getMs: times.readMs };
    this.metadata = new SimKvHome(host.scheduler, kvTimes, this.#random);
    this.metadata.onSyncFailed = () => this.#loses();
    options.network.name(options.address, host);
  }

  get host(): SimHost {
    return this.#options.host;
  }

  get address(): string {
    return this.#options.address;
  }

  /** Serves, or is about to. */
  get alive(): boolean {
    return this.process?.alive === true;
  }

  get serving(): boolean {
    return this.#daemon !== undefined && this.alive;
  }

  /** The record that the copy holds, as far as anybody was told. */
  membership(): Membership | undefined {
    this.#look();
    return this.#seen?.membership;
  }

  replicaId(): string | undefined {
    this.#look();
    return this.#seen?.replicaId;
  }

  #look(): void {
    this.#seen = this.#daemon?.disks.places()[0]?.disk.replicas()[0] ?? this.#seen;
  }

  /** Starts the daemon if the host has power and none runs. */
  start(): void {
    if (this.alive || !this.host.up) return;
    this.#starts += 1;
    this.#stoppedInOrder = false;
    const process = this.host.start(`${this.name}#${this.#starts}`);
    this.process = process;
    process.onDeath((how) => this.#died(how));
    process.post(process.scheduler.nowMs, () => {
      this.#run(process).catch((error: unknown) => {
        const { code, message } = toStorageError(error, 'start');
        this.#options.story.add(this.name, `does not start: ${code} ${message}`);
        process.die('exit');
      });
    });
  }

  kill(): void {
    this.#options.story.add(this.name, 'is killed');
    this.process?.die('kill');
  }

  /** The host loses power and stays so until `boot`. */
  losePower(fate: Fate): void {
    this.#options.story.add(this.name, `loses power, writes not flushed: ${fate}`);
    // A daemon that was killed before cannot tell whether anything was lost.
    if (this.alive || !this.#stoppedInOrder) this.#loses();
    this.host.losePower();
    this.disk.powerCut(fate);
    this.metadata.powerCut();
  }

  /** A blank disk, and nothing of the old one's metadata. The daemon must not run. */
  replaceDisk(): void {
    this.#options.story.add(this.name, 'gets a blank disk');
    this.disk.blank();
    this.metadata.blank();
    this.#seen = undefined;
    this.lossy = false;
  }

  boot(): void {
    if (this.host.up) return;
    this.#options.story.add(this.name, 'has power again');
    this.host.boot();
    this.#options.network.rebooted(this.host);
    this.start();
  }

  /** Stops in order: answers what runs, makes everything durable. Resolves when the process is
   *  gone. */
  async stop(): Promise<void> {
    const { process } = this;
    const daemon = this.#daemon;
    if (process === undefined || daemon === undefined || !process.alive) return;
    this.#options.story.add(this.name, 'is told to stop');
    this.#look();
    await new Promise<void>((resolve) => {
      process.onDeath(() => resolve());
      // Told again, it goes on stopping.
      this.#daemon = undefined;
      process.post(process.scheduler.nowMs, () => {
        void this.#stopDaemon(daemon).then(() => {
          process.die('exit');
          this.#stoppedInOrder = true;
        });
      });
    });
  }

  async #stopDaemon({ service, disks }: Daemon): Promise<void> {
    await service.stop();
    this.#options.network.unlisten(this.address);
    await disks.close();
  }

  #loses(): void {
    this.lossy = true;
    this.losses += 1;
  }

  #died(how: string): void {
    this.#look();
    this.#daemon = undefined;
    const { restartMs } = this;
    if (how === 'power' || restartMs === undefined) return;
    this.host.scheduler.after(restartMs, () => this.start());
  }

  async #run(process: SimProcess): Promise<void> {
    const { network, story } = this.#options;
    const log = story.logger(this.name);
    const { clock, endOfTurn } = process;
    const incarnation = `i-${this.#random.hex(6)}`;
    const { bootId } = this.host;
    const identity = { daemonId: this.daemonId, clusterId: CLUSTER_ID, incarnation, bootId };
    const { pool } = this;
    pool.usedBytes = 0;
    const disks = await this.#openDisks(process, identity, log);
    const registry = new Registry();
    const service = new ReplicaService({
      ...{ identity, disks, pool, registry, clock, endOfTurn, log },
    });
    this.#daemon = { disks, service };
    network.listen(this.address, {
      process,
      control: service.control as ReplicaControlHandlers,
      onIoStream: (stream) => service.accept(stream),
    });
    story.add(this.name, `serves, incarnation ${incarnation}, boot ${bootId.slice(0, 6)}`);
  }

  async #openDisks(process: SimProcess, identity: DaemonIdentity, log: Logger): Promise<DiskSet> {
    const path = this.disk.options.name;
    const disks = await DiskSet.open([{ path, sizeBytes: undefined }], {
      ...{ metaDir: '/meta', cacheBytes: CACHE_BYTES, pool: this.pool, identity, log },
      clock: process.clock,
      openDevice: async () => new SimDevice(this.disk, process, () => this.#loses()),
      openKv: this.metadata.openKv(process),
      home: this.metadata.files(process),
      randomBytes: (lengthBytes) => this.#random.bytes(lengthBytes),
    });
    return this.#options.plants.disks(this.name, disks);
  }
}

/** A replica service on disks in memory that fail, go away and come back, with time that the test
 *  turns. */
import { pino } from 'pino';
import { StorageError } from '../../../common/errors.js';
import { createRegistry } from '../../../common/metrics.js';
import { BLOCK_SIZE, MIB } from '../../../common/units.js';
import type { OpenReplicaReply, ReplicaInfo } from '../../../proto/control.js';
import { DiskSet } from '../../../replica/service/disk-set.js';
import { ReplicaService } from '../../../replica/service/replica-service.js';
import { MemoryBufferPool, MemoryDisk } from '../../support/memory-device.js';
import { MemoryKvHome } from '../../support/memory-kv.js';
import { MEMBERSHIP, MemoryMetaHome, stamped } from '../store/store-bed.js';
import { FakeStream } from './fake-stream.js';
import { HandClock, turns } from './service-fixture.js';

const SIZE_BYTES = 80 * MIB;

export class DiskBed {
  readonly media: Map<string, MemoryDisk>;
  readonly kvs = new MemoryKvHome();
  readonly home = new MemoryMetaHome(this.kvs);
  readonly pool = new MemoryBufferPool();
  readonly clock = new HandClock();
  /** paths whose device cannot be opened */
  readonly away = new Set<string>();
  /** paths, as they were opened */
  readonly openings: string[] = [];
  starts = 0;
  #disks: DiskSet | undefined;
  #service: ReplicaService | undefined;
  #ids = 0;

  constructor(paths: readonly string[] = ['/dev/a']) {
    const media = paths.map((path, n) => {
      return [path, new MemoryDisk({ sizeBytes: 32 * MIB, seed: n + 1 })] as const;
    });
    this.media = new Map(media);
  }

  get service(): ReplicaService {
    if (this.#service === undefined) throw new Error('the service does not run');
    return this.#service;
  }

  get disks(): DiskSet {
    if (this.#disks === undefined) throw new Error('the service does not run');
    return this.#disks;
  }

  medium(path = '/dev/a'): MemoryDisk {
    const medium = this.media.get(path);
    if (medium === undefined) throw new Error(`no medium ${path}`);
    return medium;
  }

  async start(): Promise<void> {
    this.starts += 1;
    const { pool, clock } = this;
    const log = pino({ level: 'silent' });
    const identity = {
      ...{ daemonId: 'n1', clusterId: 'c1', bootId: 'b1', incarnation: `i${this.starts}` },
    };
    const specs = [...this.media.keys()].map((path) => ({ path, sizeBytes: 32 * MIB }));
    this.#disks = await DiskSet.open(specs, {
      ...{ metaDir: '/meta', identity, pool, cacheBytes: MIB, clock, log },
      home: this.home,
      openDevice: async (path) => {
        this.openings.push(path);
        if (this.away.has(path)) throw new StorageError('NOT_FOUND', `${path} is away`);
        return this.medium(path).open(path);
      },
      openKv: this.kvs.openKv,
      randomBytes: (length) => Buffer.alloc(length, ++this.#ids),
    });
    this.#service = new ReplicaService({
      ...{ identity, disks: this.#disks, pool, clock, log },
      registry: createRegistry('replica'),
      endOfTurn: (callback) => void setImmediate(callback),
    });
  }

  /** In order. */
  async stop(): Promise<void> {
    await this.#service?.stop();
    await this.#disks?.close();
    this.#service = undefined;
    this.#disks = undefined;
  }

  /** The daemon dies, the machine lives. */
  async kill(): Promise<void> {
    for (const medium of this.media.values()) medium.kill();
    for (const kv of this.kvs.disks.values()) kv.kill();
    this.#service = undefined;
    this.#disks = undefined;
    await turns(20);
    this.home.locked.clear();
  }

  /** Lets the time pass, and what it starts come to its end. */
  async pass(ms: number): Promise<void> {
    this.clock.advance(ms);
    await turns(200);
  }

  /** Makes a replica of that volume where there is none, and opens it. */
  async open(volume = 'v1', epoch = 1): Promise<OpenReplicaReply> {
    const subject = { volume, replicaId: `r-${volume}` };
    await this.service.control.createReplica({
      ...{ ...subject, sizeBytes: SIZE_BYTES, membership: MEMBERSHIP },
    });
    return await this.service.control.openReplica({ ...subject, epoch, engineId: 'e1' });
  }

  async stream(volume = 'v1', epoch = 1): Promise<FakeStream> {
    const stream = new FakeStream();
    stream.handlers = this.service.accept(stream);
    const subject = { volume, replicaId: `r-${volume}` };
    stream.say({ protocolVersion: 1, ...subject, epoch, engineId: 'e1' });
    await turns();
    return stream;
  }

  /** One request; tells its code. */
  async write(stream: FakeStream, id: number, block: number): Promise<string> {
    const at = { flags: 0, id, offsetBytes: block * BLOCK_SIZE, lengthBytes: BLOCK_SIZE };
    stream.batch((b) => b.addWrite(at, [stamped(id, 1)]));
    return await this.#codeOf(stream, id);
  }

  async command(stream: FakeStream, id: number, op: number, block = 0): Promise<string> {
    const range = { offsetBytes: block * BLOCK_SIZE, lengthBytes: BLOCK_SIZE };
    stream.batch((b) => b.add({ op, flags: 0, id, arg: 0, ...range }));
    return await this.#codeOf(stream, id);
  }

  async infoOf(volume = 'v1'): Promise<ReplicaInfo | undefined> {
    return (await this.service.control.identify({ volume })).replicas[0];
  }

  async #codeOf(stream: FakeStream, id: number): Promise<string> {
    for (let n = 0; n < 200 && stream.replyTo(id) === undefined; n += 1) await turns(1);
    return stream.replyTo(id)?.code ?? stream.closed?.error?.code ?? 'no answer';
  }
}

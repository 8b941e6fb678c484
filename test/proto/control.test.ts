import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { StorageError } from '../../common/errors.js';
import { GIB, TIB } from '../../common/units.js';
import { CODECS } from '../../proto/control/convert.js';
import {
  type ExtentInfo,
  type Membership,
  type RegionInfo,
  ReplicaControlClient,
  type ReplicaControlHandlers,
  type ReplicaInfo,
  replicaControlService,
} from '../../proto/control.js';
import { aurochs } from '../../proto/generated/messages.js';
import { makeAuthority, type TestAuthority } from './transport/certificates.js';
import { cleanUp, clock, connectClient, later, startServer } from './transport/harness.js';

import v1 = aurochs.v1;

const MEMBERSHIP: Membership = {
  epoch: 2 ** 53 - 1,
  generation: 7,
  engineId: 'e-1',
  era: 2 ** 53 - 1,
  members: [
    { replicaId: 'r-1', address: '10.0.0.1:9600', state: 'in-sync' },
    { replicaId: 'r-2', address: '', state: 'rebuilding' },
  ],
};
const INFO: ReplicaInfo = {
  volume: 'v1',
  replicaId: 'r-1',
  diskId: 'd-1',
  sizeBytes: 64 * TIB,
  epoch: 4,
  membership: MEMBERSHIP,
  allocatedBytes: 12345 * 1048576,
  dirtyRegions: 3,
  failed: true,
  failedReason: 'flush failed: EIO',
  lossy: true,
  restartedDirty: true,
  incarnation: 'i1.1',
};
const TAG = { epoch: 3, counter: 2 ** 53 - 1 };
const REGIONS: readonly RegionInfo[] = [
  { number: 0, dirty: true, allocatedExtents: 64, tag: { epoch: 0, counter: 0 } },
  { number: 1048575, dirty: false, allocatedExtents: 0, tag: TAG },
];
const EXTENTS: readonly ExtentInfo[] = [
  { number: 128, allocated: true, written: false, tag: TAG },
  { number: 67108863, allocated: false, written: true, tag: { epoch: 0, counter: 0 } },
];

class Handlers implements ReplicaControlHandlers {
  seen: unknown[] = [];
  fail: Error | undefined;
  wait: Promise<void> | undefined;
  aborted = false;

  async #note<T>(request: unknown, reply: T, signal: AbortSignal): Promise<T> {
    this.seen.push(request);
    signal.addEventListener('abort', () => {
      this.aborted = true;
    });
    await this.wait;
    if (this.fail !== undefined) throw this.fail;
    return reply;
  }

  identify: ReplicaControlHandlers['identify'] = (request, call) => {
    const disk = { ...{ diskId: 'd-1', path: '/dev/nvme0n1', sizeBytes: 4 * TIB, usedBytes: 1 } };
    const disks = [{ ...disk, reservedBytes: 2, state: 'ready' as const, reason: '' }];
    const reply = { daemonId: 'n1', incarnation: 'i1', bootId: 'b', clusterId: 'c' };
    return this.#note(request, { ...reply, disks, replicas: [INFO] }, call.signal);
  };
  createReplica: ReplicaControlHandlers['createReplica'] = (request, call) =>
    this.#note(request, INFO, call.signal);
  openReplica: ReplicaControlHandlers['openReplica'] = (request, call) => {
    const window = [{ offsetBytes: 4096, lengthBytes: 8192 }];
    const reply = { info: INFO, incarnation: 'i1', lossy: true, dirtyRegions: [0, 5, 1048575] };
    const news = { silentMs: 0.25, previousEngineId: 'e-0' };
    return this.#note(request, { ...reply, ...news, restartedDirty: true, window }, call.signal);
  };
  setMembership: ReplicaControlHandlers['setMembership'] = (request, call) =>
    this.#note(request, {}, call.signal);
  deleteReplica: ReplicaControlHandlers['deleteReplica'] = (request, call) =>
    this.#note(request, {}, call.signal);
  listRegions: ReplicaControlHandlers['listRegions'] = (request, call) =>
    this.#note(request, { regions: REGIONS }, call.signal);
  listExtents: ReplicaControlHandlers['listExtents'] = (request, call) =>
    this.#note(request, { extents: EXTENTS }, call.signal);
  cleanRegion: ReplicaControlHandlers['cleanRegion'] = (request, call) =>
    this.#note(request, {}, call.signal);
  noteComplete: ReplicaControlHandlers['noteComplete'] = (request, call) =>
    this.#note(request, {}, call.signal);
}

let directory: string;
let authority: TestAuthority;

beforeAll(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'aurochs-control-'));
  authority = makeAuthority();
});
afterAll(() => {
  authority.remove();
  rmSync(directory, { recursive: true, force: true });
});
afterEach(cleanUp);

async function setUp(options: { address?: string } = {}) {
  const handlers = new Handlers();
  const server = await startServer({ ...options, services: [replicaControlService(handlers)] });
  const client = new ReplicaControlClient({ address: server.listener.address });
  later(() => client.close());
  return { handlers, server, client };
}

const CREATE = { volume: 'v1', sizeBytes: GIB, replicaId: 'r-1', membership: MEMBERSHIP };
const OPEN = { volume: 'v1', replicaId: 'r-1', epoch: 4, engineId: 'e-1' };
const SET = { volume: 'v1', replicaId: 'r-1', membership: MEMBERSHIP };
const DELETE = { volume: 'v1', replicaId: 'r-1', epoch: 4 };
const LIST = { ...DELETE, firstRegion: 1048575, count: 4096 };
const CLEAN = {
  ...{ ...DELETE, region: 2, tag: TAG },
  extentTags: [
    { extent: 128, tag: TAG },
    { extent: 191, tag: { epoch: 1, counter: 0 } },
  ],
};
const COMPLETE = { ...DELETE, incarnation: 'i-1+2' };

describe('control calls', () => {
  it('carry every field both ways', async () => {
    const { handlers, client } = await setUp();
    const identity = await client.identify({ volume: '' });
    expect(identity).toMatchObject({ daemonId: 'n1', incarnation: 'i1', replicas: [INFO] });
    expect(identity.disks[0]).toMatchObject({ path: '/dev/nvme0n1', sizeBytes: 4 * TIB });
    expect(await client.createReplica(CREATE)).toEqual(INFO);
    expect(await client.openReplica(OPEN)).toEqual({
      ...{ info: INFO, incarnation: 'i1', lossy: true, dirtyRegions: [0, 5, 1048575] },
      ...{ restartedDirty: true, window: [{ offsetBytes: 4096, lengthBytes: 8192 }] },
      ...{ silentMs: 0.25, previousEngineId: 'e-0' },
    });
    expect(await client.setMembership(SET)).toEqual({});
    expect(await client.deleteReplica(DELETE)).toEqual({});
    expect(await client.listRegions(LIST)).toEqual({ regions: REGIONS });
    expect(await client.listExtents({ ...DELETE, region: 2 })).toEqual({ extents: EXTENTS });
    expect(await client.cleanRegion(CLEAN)).toEqual({});
    expect(await client.noteComplete(COMPLETE)).toEqual({});
    const asked = [LIST, { ...DELETE, region: 2 }, CLEAN, COMPLETE];
    expect(handlers.seen).toEqual([{ volume: '' }, CREATE, OPEN, SET, DELETE, ...asked]);
  });

  it('work over a unix socket, beside a data stream; the socket file is private', async () => {
    const address = `unix:${directory}/control`;
    const { client, server } = await setUp({ address });
    const data = await connectClient(address);
    expect(await client.setMembership(SET)).toEqual({});
    expect(statSync(`${directory}/control`).mode & 0o777).toBe(0o600);
    expect(server.listener.connections).toBe(2);
    data.stream.close();
    expect(await data.recorder.closed()).toBeUndefined();
  });

  it('a socket file that a dead process left is replaced, a live one is not', async () => {
    const file = `${directory}/left`;
    const address = `unix:${file}`;
    const dead = net.createServer();
    await new Promise<void>((resolve) => dead.listen(file, resolve));
    await expect(setUp({ address })).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await new Promise<void>((resolve) => dead.close(() => resolve()));
    // Node removes the file on close; a killed process does not.
    const listen = `require('net').createServer().listen(${JSON.stringify(file)}, die)`;
    const die = "function die() { process.kill(process.pid, 'SIGKILL') }";
    spawnSync(process.execPath, ['-e', `${die}; ${listen}`]);
    expect(statSync(file).isSocket()).toBe(true);
    const { client } = await setUp({ address });
    expect(await client.setMembership(SET)).toEqual({});
  });

  it('work with TLS; without certificate nothing is served', async () => {
    const handlers = new Handlers();
    const server = await startServer({
      tls: authority.issue('server', 'IP:127.0.0.1,DNS:replica.node1'),
      services: [replicaControlService(handlers)],
    });
    const address = server.listener.address;
    const tls = authority.issue('client', 'DNS:engine');
    const client = new ReplicaControlClient({ address, tls });
    later(() => client.close());
    expect(await client.setMembership(SET)).toEqual({});
    const named = new ReplicaControlClient({ address, tls: { ...tls, peerName: 'replica.node1' } });
    later(() => named.close());
    expect(await named.setMembership(SET)).toEqual({});
    const bare = new ReplicaControlClient({ address, deadlineMs: 2000 });
    later(() => bare.close());
    await expect(bare.setMembership(SET)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    const wrong = new ReplicaControlClient({ address, tls: { ...tls, peerName: 'other' } });
    later(() => wrong.close());
    await expect(wrong.setMembership(SET)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(handlers.seen).toHaveLength(2);
  });

  it('errors come back with the same code, message and details', async () => {
    const { handlers, client } = await setUp();
    handlers.fail = new StorageError('STALE_EPOCH', 'epoch 3 < 5 – über %', { volume: 'v1' });
    await expect(client.openReplica(OPEN)).rejects.toMatchObject({
      code: 'STALE_EPOCH',
      message: 'epoch 3 < 5 – über %',
      details: { volume: 'v1' },
    });
    handlers.fail = new TypeError('undefined is not a function');
    await expect(client.openReplica(OPEN)).rejects.toMatchObject({ code: 'INTERNAL' });
  });

  it('nobody there: UNAVAILABLE, soon; when somebody comes, the same client works', async () => {
    const { client, server } = await setUp();
    const address = server.listener.address;
    await server.listener.close();
    await expect(client.setMembership(SET)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await startServer({ address, services: [replicaControlService(new Handlers())] });
    for (;;) {
      const reply = await client.setMembership(SET).catch((error: StorageError) => error.code);
      if (reply === 'UNAVAILABLE') {
        await new Promise<void>((resolve) => clock.after(20, resolve));
        continue;
      }
      expect(reply).toEqual({});
      break;
    }
  });

  it('deadline, abort and close stop the waiting and tell the handler', async () => {
    const { handlers, client } = await setUp();
    let proceed = (): void => undefined;
    handlers.wait = new Promise((resolve) => {
      proceed = resolve;
    });
    await expect(client.setMembership(SET, { deadlineMs: 30 })).rejects.toMatchObject({
      code: 'DEADLINE',
    });
    while (!handlers.aborted) await new Promise<void>((resolve) => clock.after(1, resolve));
    const abort = new AbortController();
    const aborted = client.setMembership(SET, { signal: abort.signal });
    abort.abort();
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(client.setMembership(SET, { signal: abort.signal })).rejects.toMatchObject({
      code: 'ABORTED',
    });
    const closed = client.setMembership(SET);
    client.close();
    await expect(closed).rejects.toMatchObject({ code: 'CLOSED' });
    await expect(client.setMembership(SET)).rejects.toMatchObject({ code: 'CLOSED' });
    proceed();
  });
});

describe('what a request must not be: refused before the handler', () => {
  const member = { replicaId: 'r-1', state: 'in-sync' };
  const many = Array.from({ length: 33 }, (_, index) => ({ ...member, replicaId: `r-${index}` }));
  const EXTENT = { extent: 128, tag: TAG };
  const O = 'OUT_OF_RANGE';
  const table: Array<[string, string, Uint8Array, string]> = [
    ['path as volume', 'Identify', enc(v1.IdentifyRequest, { volume: '../x' }), 'INVALID_ARGUMENT'],
    [
      'empty volume',
      'OpenReplica',
      enc(v1.OpenReplicaRequest, { ...OPEN, volume: '' }),
      'INVALID_ARGUMENT',
    ],
    [
      'volume of 64',
      'OpenReplica',
      enc(v1.OpenReplicaRequest, { ...OPEN, volume: 'a'.repeat(64) }),
      'INVALID_ARGUMENT',
    ],
    [
      'look-alike letter',
      'OpenReplica',
      enc(v1.OpenReplicaRequest, { ...OPEN, volume: 'vоl' }),
      'INVALID_ARGUMENT',
    ],
    [
      'empty epoch',
      'OpenReplica',
      enc(v1.OpenReplicaRequest, { ...OPEN, epoch: 0 }),
      'OUT_OF_RANGE',
    ],
    [
      'epoch of 2^53',
      'OpenReplica',
      enc(v1.OpenReplicaRequest, { ...OPEN, epoch: 2 ** 53 }),
      'OUT_OF_RANGE',
    ],
    [
      'epoch of 2^64-1',
      'OpenReplica',
      Buffer.from('0a0276311202723121ffffffffffffffff2a0165', 'hex'),
      'OUT_OF_RANGE',
    ],
    [
      'engine id with a blank',
      'OpenReplica',
      enc(v1.OpenReplicaRequest, { ...OPEN, engineId: 'a b' }),
      'INVALID_ARGUMENT',
    ],
    [
      'size 0',
      'CreateReplica',
      enc(v1.CreateReplicaRequest, { ...CREATE, sizeBytes: 0 } as object),
      'OUT_OF_RANGE',
    ],
    [
      'size past 64 TiB',
      'CreateReplica',
      enc(v1.CreateReplicaRequest, { ...CREATE, sizeBytes: 65 * TIB } as object),
      'OUT_OF_RANGE',
    ],
    [
      'size of 4097',
      'CreateReplica',
      enc(v1.CreateReplicaRequest, { ...CREATE, sizeBytes: 4097 } as object),
      'INVALID_ARGUMENT',
    ],
    [
      'no membership',
      'CreateReplica',
      enc(v1.CreateReplicaRequest, { ...CREATE, membership: null }),
      'INVALID_ARGUMENT',
    ],
    ['unknown state', 'SetMembership', setWith([{ ...member, state: 'fine' }]), 'INVALID_ARGUMENT'],
    ['a replica twice', 'SetMembership', setWith([member, member]), 'INVALID_ARGUMENT'],
    ['33 members', 'SetMembership', setWith(many), 'LIMIT_EXCEEDED'],
    [
      'address with newline',
      'SetMembership',
      setWith([{ ...member, address: 'a\nb' }]),
      'INVALID_ARGUMENT',
    ],
    ['regions of epoch 0', 'ListRegions', listWith({ epoch: 0 }), 'OUT_OF_RANGE'],
    ['no region', 'ListRegions', listWith({ count: 0 }), 'OUT_OF_RANGE'],
    ['4097 regions', 'ListRegions', listWith({ count: 4097 }), 'OUT_OF_RANGE'],
    ['a region past 64 TiB', 'ListRegions', listWith({ firstRegion: 1048576 }), 'OUT_OF_RANGE'],
    ['path as replica', 'ListRegions', listWith({ replicaId: 'a/b' }), 'INVALID_ARGUMENT'],
    [
      'extents of a region past 64 TiB',
      'ListExtents',
      enc(v1.ListExtentsRequest, { ...DELETE, region: 2 ** 32 - 1 }),
      'OUT_OF_RANGE',
    ],
    ['an extent of another region', 'CleanRegion', cleanWith([{ extent: 127, tag: TAG }]), O],
    ['an extent after the region', 'CleanRegion', cleanWith([{ extent: 192, tag: TAG }]), O],
    ['an extent without tag', 'CleanRegion', cleanWith([{ extent: 128 }]), 'INVALID_ARGUMENT'],
    ['an extent twice', 'CleanRegion', cleanWith([EXTENT, EXTENT]), 'INVALID_ARGUMENT'],
    ['65 extents', 'CleanRegion', cleanWith(Array(65).fill(EXTENT)), 'LIMIT_EXCEEDED'],
    [
      'extents and no tag',
      'CleanRegion',
      enc(v1.CleanRegionRequest, { ...CLEAN, tag: null } as object),
      'INVALID_ARGUMENT',
    ],
    ['a tag of 2^53', 'CleanRegion', cleanWith([{ extent: 128, tag: { epoch: 2 ** 53 } }]), O],
    ['era of 2^53', 'SetMembership', setWith([member], { era: 2 ** 53 }), 'OUT_OF_RANGE'],
    [
      'engine id of 129 bytes',
      'SetMembership',
      setWith([member], { engineId: 'e'.repeat(129) }),
      'INVALID_ARGUMENT',
    ],
    ['no protobuf', 'SetMembership', Buffer.from('ffffffffffff', 'hex'), 'CORRUPT_MESSAGE'],
  ];

  function enc<P>(type: { encode(message: P): { finish(): Uint8Array } }, message: P): Uint8Array {
    return type.encode(message).finish();
  }

  function listWith(change: object): Uint8Array {
    return enc(v1.ListRegionsRequest, { ...DELETE, firstRegion: 0, count: 1, ...change });
  }

  function cleanWith(extentTags: object[]): Uint8Array {
    return enc(v1.CleanRegionRequest, { ...CLEAN, extentTags } as object);
  }

  function setWith(members: object[], change: object = {}): Uint8Array {
    const membership = { epoch: 1, generation: 1, members, ...change };
    return enc(v1.SetMembershipRequest, { volume: 'v1', replicaId: 'r-1', membership });
  }

  function rawCall(address: string, method: string, bytes: Uint8Array): Promise<unknown> {
    const client = new Client(address, credentials.createInsecure());
    later(() => client.close());
    const pass = (buffer: Buffer): Buffer => buffer;
    return new Promise((resolve) => {
      client.makeUnaryRequest(
        `/aurochs.v1.ReplicaControl/${method}`,
        pass,
        pass,
        Buffer.from(bytes),
        new Metadata(),
        (error: ServiceError | null) => resolve(error?.metadata.get('aurochs-code')[0] ?? error),
      );
    });
  }

  it.each(table)('%s', async (_name, method, bytes, code) => {
    const { handlers, server } = await setUp();
    expect(await rawCall(server.listener.address, method, bytes)).toBe(code);
    expect(handlers.seen).toEqual([]);
  });

  it('an unknown method, and a message past 4 MiB, are gRPC errors', async () => {
    const { server, handlers } = await setUp();
    const unknown = await rawCall(server.listener.address, 'Nothing', Buffer.alloc(0));
    expect(unknown).toMatchObject({ code: 12 });
    const large = await rawCall(server.listener.address, 'Identify', Buffer.alloc(5 << 20));
    expect(large).toMatchObject({ code: 8 });
    expect(handlers.seen).toEqual([]);
  });

  it('fuzz: whatever the bytes are, decoders throw StorageErrors only', () => {
    const bytes = Buffer.from(v1.OpenReplicaReply.encode({ info: INFO as object }).finish());
    const edits = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 5 });
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), edits, (random, changes) => {
        const changed = Buffer.from(bytes);
        for (const [at, to] of changes) changed[at % changed.length] = to;
        for (const codec of Object.values(CODECS)) {
          for (const input of [Buffer.from(random), changed]) {
            try {
              codec.decode(input);
            } catch (error) {
              if (!(error instanceof StorageError)) throw error;
            }
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  it('a reply that breaks a rule is PROTOCOL_ERROR at the client', async () => {
    const { handlers, client } = await setUp();
    const bad = { ...INFO, volume: '../etc' };
    handlers.createReplica = async () => bad;
    await expect(client.createReplica(CREATE)).rejects.toMatchObject({ code: 'PROTOCOL_ERROR' });
    handlers.createReplica = async () => ({ ...INFO, failedReason: 'line 1\nline 2' });
    expect((await client.createReplica(CREATE)).failedReason).toBe('line 1 line 2');
  });
});

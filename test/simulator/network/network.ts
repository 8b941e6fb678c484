/** The network between the hosts of a simulated world: names, links, listeners, connections. */
import assert from 'node:assert';
import { StorageError } from '../../../common/errors.js';
import { KIB, MIB } from '../../../common/units.js';
import { REPLICA_METHODS } from '../../../proto/control/methods.js';
import type { ControlCallOptions, ReplicaControlHandlers } from '../../../proto/control.js';
import type { MessageStream, MessageStreamHandlers } from '../../../proto/message-stream.js';
import type { Random } from '../kernel/random.js';
import type { Scheduler } from '../kernel/scheduler.js';
import type { SimHost, SimProcess } from '../kernel/sim-process.js';
import { ConnectionEnd } from './connection.js';
import { GOOD_QUALITY, Link, type LinkQuality } from './link.js';
import { MessagePool } from './message-bytes.js';
import { type MethodName, UnaryCall } from './unary-call.js';

export interface Listener {
  readonly process: SimProcess;
  readonly onIoStream: (stream: MessageStream) => MessageStreamHandlers;
  readonly control: ReplicaControlHandlers;
}

/** The methods of ReplicaControlClient. */
export type SimControl = {
  readonly [Name in MethodName]: (request: never, options?: ControlCallOptions) => Promise<unknown>;
} & { close(): void };

const CONNECT_DEADLINE_MS = 10_000;
const CALL_DEADLINE_MS = 10_000;

export class SimNetwork {
  readonly pool = new MessagePool();
  readonly connections = new Set<ConnectionEnd>();
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  readonly #quality: LinkQuality;
  readonly #hosts = new Map<string, SimHost>();
  readonly #listeners = new Map<string, Listener>();
  readonly #links = new Map<string, Link>();

  constructor(scheduler: Scheduler, random: Random, quality: LinkQuality = GOOD_QUALITY) {
    this.#scheduler = scheduler;
    this.#random = random.fork('network');
    this.#quality = quality;
  }

  /** An address belongs to a host, whether or not anybody listens there. */
  name(address: string, host: SimHost): void {
    this.#hosts.set(address, host);
  }

  hostOf(address: string): SimHost {
    const host = this.#hosts.get(address);
    assert(host !== undefined, `nobody has the address ${address}`);
    return host;
  }

  /** Until the process dies. */
  listen(address: string, listener: Listener): void {
    assert(!this.#listeners.has(address), `${address} is in use`);
    this.#listeners.set(address, listener);
    listener.process.onDeath(() => {
      if (this.#listeners.get(address) === listener) this.#listeners.delete(address);
    });
  }

  unlisten(address: string): void {
    this.#listeners.delete(address);
  }

  listener(address: string): Listener | undefined {
    return this.#listeners.get(address);
  }

  /** The direction from one host to another. */
  link(from: SimHost, to: SimHost): Link {
    const key = `${from.name}>${to.name}`;
    let link = this.#links.get(key);
    if (link === undefined) {
      const quality = from === to ? { ...GOOD_QUALITY, delayMs: 0.01, jitterMs: 0.01 } : undefined;
      link = new Link(this.#scheduler, this.#random.fork(key), quality ?? this.#quality);
      this.#links.set(key, link);
    }
    return link;
  }

  linkTo(from: SimProcess, address: string): Link {
    return this.link(from.host, this.hostOf(address));
  }

  links(): Iterable<Link> {
    return this.#links.values();
  }

  /** As `connectIo` of the production transport. */
  connect(
    process: SimProcess,
    options: {
      readonly address: string;
      readonly handlers: MessageStreamHandlers;
      readonly deadlineMs?: number | undefined;
    },
  ): Promise<MessageStream> {
    const { address, handlers } = options;
    const deadlineMs = options.deadlineMs ?? CONNECT_DEADLINE_MS;
    return new Promise((resolve, reject) => {
      let settled = false;
      const settle = (): boolean => {
        const first = !settled;
        settled = true;
        timer.cancel();
        return first;
      };
      const fail = (error: StorageError): void => {
        if (settle()) reject(error);
      };
      const timer = process.clock.after(deadlineMs, () => {
        fail(new StorageError('DEADLINE', `connect to ${address}: not ready in ${deadlineMs} ms`));
      });
      this.linkTo(process, address).carry(() => {
        const listener = this.#listeners.get(address);
        const host = this.hostOf(address);
        if (!host.up || !process.alive) return;
        if (listener === undefined) {
          this.link(host, process.host).carry(() => {
            const error = new StorageError('UNAVAILABLE', `connect to ${address}: refused`);
            process.post(this.#scheduler.nowMs, () => fail(error));
          });
          return;
        }
        listener.process.post(this.#scheduler.nowMs, () => {
          if (!process.alive) return;
          const client: ConnectionEnd = this.#connection(process, listener, address, () => {
            if (!settle()) client.close(new StorageError('ABORTED', 'the caller has given up'));
            else {
              client.handlers = handlers;
              resolve(client);
            }
          });
        });
      });
    });
  }

  /** A client for the control calls of one address. */
  control(process: SimProcess, address: string, deadlineMs = CALL_DEADLINE_MS): SimControl {
    const running = new Set<(error: StorageError) => void>();
    let closed = false;
    const call =
      (name: MethodName) =>
      (request: unknown, options: ControlCallOptions = {}) => {
        if (closed) {
          return Promise.reject(new StorageError('CLOSED', `client of ${address} is closed`));
        }
        const unary = new UnaryCall(this, process, { address, name });
        const limits = { ...options, deadlineMs: options.deadlineMs ?? deadlineMs };
        return unary.run(request, limits, (stop) => {
          running.add(stop);
          return () => running.delete(stop);
        });
      };
    const names = Object.keys(REPLICA_METHODS) as MethodName[];
    const methods = Object.fromEntries(names.map((name) => [name, call(name)]));
    const close = (): void => {
      closed = true;
      const error = new StorageError('CLOSED', `client of ${address} was closed`);
      for (const stop of [...running]) stop(error);
    };
    return { ...methods, close } as unknown as SimControl;
  }

  /** A host that lost power is up again: its peers' connections are found dead. */
  rebooted(host: SimHost): void {
    for (const end of this.#open()) {
      if (end.other.process.host === host && !end.other.process.alive) end.meetReboot();
    }
  }

  /** Connections with both ends alive and in use, one end of each: the client's. */
  clientEnds(): ConnectionEnd[] {
    return this.#open().filter((end) => end.isClient && !end.settled && end.other.process.alive);
  }

  #open(): ConnectionEnd[] {
    for (const end of this.connections) {
      if (!end.process.alive || end.settled) this.connections.delete(end);
    }
    return [...this.connections];
  }

  #connection(
    process: SimProcess,
    listener: Listener,
    address: string,
    onAccept: () => void,
  ): ConnectionEnd {
    const server = listener.process;
    const windowBytes = this.#random.pick([64 * KIB, 256 * KIB, MIB, 4 * MIB]);
    const common = { pool: this.pool, windowBytes };
    const there = this.link(process.host, server.host);
    const back = this.link(server.host, process.host);
    const client = new ConnectionEnd({
      ...{ ...common, role: 'client', process, link: there, peer: address, onAccept },
    });
    const peer = `${process.name}@${process.host.name}`;
    const served = new ConnectionEnd({
      ...{ ...common, role: 'server', process: server, link: back, peer },
    });
    client.other = served;
    served.other = client;
    this.connections.add(client).add(served);
    served.accept(listener.onIoStream(served));
    return client;
  }
}

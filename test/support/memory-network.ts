/** The network between an engine under test and daemons in memory: cuts, calls that hang or fail,
 *  and a count of what is open. */
import type { Clock, Timer } from '../../common/clock.js';
import { StorageError } from '../../common/errors.js';
import type { EngineNetwork, IoConnection } from '../../engine/engine-environment.js';
import type { ReplicaControl } from '../../proto/control.js';
import type { MessageStream } from '../../proto/message-stream.js';
import type { DaemonCalls, FakeDaemon } from './fake-daemon.js';

type CallName = keyof DaemonCalls;

/** Before a call is answered: waits, or throws instead. */
export type BeforeCall = (call: string) => Promise<void> | undefined;

export class MemoryNetwork implements EngineNetwork {
  /** `address:call` of every call that reached a daemon */
  readonly calls: string[] = [];
  before: BeforeCall = () => undefined;
  /** control connections and data streams that nobody has closed */
  openControls = 0;
  openStreams = 0;
  readonly #cut = new Set<string>();

  constructor(
    readonly clock: Clock,
    readonly daemons: ReadonlyMap<string, FakeDaemon>,
  ) {}

  /** Nothing gets through any more, and what was connected breaks. */
  cut(address: string): void {
    this.#cut.add(address);
    this.#daemon(address).replica.cut();
  }

  heal(address: string): void {
    this.#cut.delete(address);
  }

  isLocal(): boolean {
    return true;
  }

  #daemon(address: string): FakeDaemon {
    const daemon = this.daemons.get(address);
    if (daemon === undefined) throw new StorageError('UNAVAILABLE', `nobody is at ${address}`);
    return daemon;
  }

  #reached(address: string): FakeDaemon {
    const daemon = this.#daemon(address);
    if (daemon.up && !this.#cut.has(address)) return daemon;
    throw new StorageError('UNAVAILABLE', `${address} cannot be reached`);
  }

  control(address: string, deadlineMs: number): ReplicaControl {
    if (address.startsWith('!')) {
      throw new StorageError('INVALID_ARGUMENT', `${address} is no address`);
    }
    this.openControls += 1;
    const connection = new Connection(this, address, deadlineMs);
    return connection.control;
  }

  async connectIo({ address, handlers }: IoConnection): Promise<MessageStream> {
    await new Promise(setImmediate);
    await this.before(`${address}:connectIo`);
    const daemon = this.#reached(address);
    this.calls.push(`${address}:connectIo`);
    this.openStreams += 1;
    let open = true;
    const ended = (): void => {
      if (open) this.openStreams -= 1;
      open = false;
    };
    const stream = daemon.connectIo({
      ...handlers,
      onMessage: (message) => handlers.onMessage(message),
      onClose: (error) => {
        ended();
        handlers.onClose(error);
      },
    });
    return {
      ...stream,
      close: (error) => {
        ended();
        stream.close(error);
      },
    };
  }

  /** One call, from the moment it is sent. */
  async call<Reply>(
    address: string,
    name: CallName,
    run: (calls: DaemonCalls) => Promise<Reply>,
  ): Promise<Reply> {
    await new Promise(setImmediate);
    const call = `${address}:${name}`;
    await this.before(call);
    const daemon = this.#reached(address);
    this.calls.push(call);
    return run(daemon.calls);
  }
}

/** One control connection: deadlines, and an end for what is under way when it is closed. */
class Connection {
  readonly #running = new Set<(error: StorageError) => void>();
  #closed = false;
  readonly control: ReplicaControl;

  constructor(
    readonly network: MemoryNetwork,
    readonly address: string,
    readonly deadlineMs: number,
  ) {
    const names: readonly CallName[] = [
      ...(['identify', 'createReplica', 'openReplica', 'setMembership'] as const),
      ...(['deleteReplica', 'listRegions', 'listExtents', 'cleanRegion'] as const),
      'noteComplete',
    ];
    const calls = names.map((name) => [
      name,
      (request: never, options: { readonly deadlineMs?: number } = {}) =>
        this.#call(name, request, options.deadlineMs ?? deadlineMs),
    ]);
    const close = (): void => this.#close();
    this.control = { ...Object.fromEntries(calls), close } as ReplicaControl;
  }

  #call(name: CallName, request: never, deadlineMs: number): Promise<unknown> {
    if (this.#closed) return Promise.reject(new StorageError('CLOSED', `${name} after close`));
    return new Promise((resolve, reject) => {
      let timer: Timer | undefined;
      const settle = (act: () => void): void => {
        timer?.cancel();
        this.#running.delete(stop);
        act();
      };
      const stop = (error: StorageError): void => settle(() => reject(error));
      timer = this.network.clock.after(deadlineMs, () =>
        stop(new StorageError('DEADLINE', `${name} at ${this.address} was not answered`)),
      );
      this.#running.add(stop);
      this.network
        .call(this.address, name, (calls) => calls[name](request) as Promise<unknown>)
        .then(
          (reply) => settle(() => resolve(reply)),
          (error: StorageError) => stop(error),
        );
    });
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.network.openControls -= 1;
    for (const stop of [...this.#running]) stop(new StorageError('CLOSED', 'was closed'));
  }
}

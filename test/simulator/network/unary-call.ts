/**
 * Control calls over the simulated network, in the form in which they travel: encoded, decoded and
 * checked by the production codecs.
 *
 * A request may arrive late, after its caller has given up, and a second time (scenario 31); a
 * reply may be lost. Errors keep code and details.
 */
import { StorageError, toStorageError } from '../../../common/errors.js';
import type { Codec } from '../../../proto/control/codec.js';
import { REPLICA_METHODS } from '../../../proto/control/methods.js';
import type { ControlCallOptions, ReplicaControlHandlers } from '../../../proto/control.js';
import type { SimProcess } from '../kernel/sim-process.js';
import type { SimNetwork } from './network.js';

export type MethodName = keyof typeof REPLICA_METHODS;

/** A method with its types forgotten: the codecs check what goes through them. */
interface AnyMethod {
  readonly request: Codec<unknown>;
  readonly reply: Codec<unknown>;
}

type AnyHandler = (request: unknown, call: unknown) => Promise<unknown>;

const DUPLICATE_LATE_MS = 3_000;

const methodOf = (name: MethodName): AnyMethod => REPLICA_METHODS[name] as AnyMethod;

export type Outcome = { readonly reply: Buffer } | { readonly error: StorageError };

/** Runs a request that has arrived; for the listener. Never rejects. */
export async function serveCall(
  handlers: ReplicaControlHandlers,
  name: MethodName,
  request: Buffer,
): Promise<Outcome> {
  try {
    const method = methodOf(name);
    const handler = handlers[name] as AnyHandler;
    const reply = await handler.call(handlers, method.request.decode(request), {
      signal: new AbortController().signal,
    });
    return { reply: method.reply.encode(reply) };
  } catch (error) {
    return { error: toStorageError(error, name) };
  }
}

/** One call from a process to an address, with a deadline on the caller's clock. */
export class UnaryCall {
  readonly #network: SimNetwork;
  readonly #caller: SimProcess;
  readonly #address: string;
  readonly #name: MethodName;

  constructor(
    network: SimNetwork,
    caller: SimProcess,
    target: { readonly address: string; readonly name: MethodName },
  ) {
    this.#network = network;
    this.#caller = caller;
    this.#address = target.address;
    this.#name = target.name;
  }

  /** @throws StorageError as UnaryClient.call */
  run(
    message: unknown,
    options: ControlCallOptions & { readonly deadlineMs: number },
    onStop: (stop: (error: StorageError) => void) => () => void,
  ): Promise<unknown> {
    const method = methodOf(this.#name);
    const what = `${this.#name} at ${this.#address}`;
    return new Promise((resolve, reject) => {
      let settled = false;
      const settle = (act: () => void): void => {
        if (settled) return;
        settled = true;
        timer.cancel();
        forget();
        options.signal?.removeEventListener('abort', onAbort);
        act();
      };
      const stop = (error: StorageError): void => settle(() => reject(error));
      const onAbort = (): void => stop(new StorageError('ABORTED', `${what} was aborted`));
      const { deadlineMs } = options;
      const timer = this.#caller.clock.after(deadlineMs, () =>
        stop(new StorageError('DEADLINE', `${what}: no answer in ${deadlineMs} ms`)),
      );
      const forget = onStop(stop);
      options.signal?.addEventListener('abort', onAbort, { once: true });
      if (options.signal?.aborted) onAbort();
      const request = method.request.encode(message);
      this.#send(request, (outcome) =>
        settle(() => {
          if ('error' in outcome) reject(copyOf(outcome.error));
          else resolve(method.reply.decode(outcome.reply));
        }),
      );
    });
  }

  #send(request: Buffer, answer: (outcome: Outcome) => void): void {
    const link = this.#network.linkTo(this.#caller, this.#address);
    link.carry(() => this.#arrive(request, answer));
    if (!link.random.chance(link.quality.duplicateRate)) return;
    this.#caller.scheduler.after(link.random.exponential(DUPLICATE_LATE_MS), () =>
      link.carry(() => this.#arrive(request, () => undefined)),
    );
  }

  #arrive(request: Buffer, answer: (outcome: Outcome) => void): void {
    const network = this.#network;
    const host = network.hostOf(this.#address);
    if (!host.up) return;
    const back = (outcome: Outcome): void => {
      network.link(host, this.#caller.host).carry(() => {
        this.#caller.post(this.#caller.scheduler.nowMs, () => answer(outcome));
      });
    };
    const listener = network.listener(this.#address);
    if (listener === undefined) {
      back({ error: unavailable(`${this.#address} refuses the connection`) });
      return;
    }
    const { process, control } = listener;
    let answered = false;
    process.onDeath((how) => {
      if (how !== 'power' && !answered) back({ error: unavailable(`${this.#address} closed`) });
    });
    process.post(process.scheduler.nowMs, () => {
      void serveCall(control, this.#name, request).then((outcome) => {
        answered = true;
        if (process.alive) back(outcome);
      });
    });
  }
}

function unavailable(text: string): StorageError {
  return new StorageError('UNAVAILABLE', text);
}

/** As it comes out of the network: same code, message and details, nothing shared. */
function copyOf(error: StorageError): StorageError {
  return new StorageError(error.code, error.message, { ...error.details });
}

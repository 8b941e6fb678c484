/** Makes control calls: one grpc-js channel, a deadline on the monotonic clock, errors as
 * StorageError. */
import { isIP } from 'node:net';
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { type Clock, SystemClock } from '../../common/clock.js';
import { StorageError } from '../../common/errors.js';
import { formatAddress, parseAddress, type TransportAddress } from '../transport/address.js';
import { CODE_KEY, DETAILS_KEY, errorOfFailure } from '../transport/error-metadata.js';
import { checkPeerName, secureContextOf, type TransportTls } from '../transport/tls.js';
import type { Codec } from './codec.js';
import type { Method } from './methods.js';
import { passBytes } from './service.js';

export interface ControlClientOptions {
  /** `host:port` or `unix:/path` */
  readonly address: string;
  readonly tls?: TransportTls | undefined;
  /** default 10 s */
  readonly deadlineMs?: number | undefined;
  /** default: the system's */
  readonly clock?: Clock | undefined;
}

export interface ControlCallOptions {
  readonly deadlineMs?: number | undefined;
  /** Stops waiting (ABORTED); what was asked for may still happen. */
  readonly signal?: AbortSignal | undefined;
}

const DEADLINE_MS = 10_000;
/** Identify and OpenReplica of a large daemon answer with long lists. */
const REPLY_BYTES_MAX = 16 * 1024 * 1024;

const CHANNEL_OPTIONS = {
  'grpc.enable_http_proxy': 0,
  'grpc.service_config_disable_resolution': 1,
  'grpc.use_local_subchannel_pool': 1,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1000,
  'grpc.max_receive_message_length': REPLY_BYTES_MAX,
  'grpc.enable_retries': 0,
};

/** Connects with the first call and again whenever needed. Safe for any number of calls at once. */
export class UnaryClient {
  readonly #client: Client;
  readonly #clock: Clock;
  readonly #deadlineMs: number;
  readonly #target: string;
  readonly #running = new Set<(error: StorageError) => void>();
  #closed = false;

  /** @throws StorageError INVALID_ARGUMENT: address or TLS files */
  constructor(options: ControlClientOptions) {
    const address = parseAddress(options.address);
    this.#target = formatAddress(address);
    this.#clock = options.clock ?? new SystemClock();
    this.#deadlineMs = options.deadlineMs ?? DEADLINE_MS;
    const { credentials: security, name } = securityOf(options.tls, address);
    this.#client = new Client(this.#target, security, { ...CHANNEL_OPTIONS, ...name });
  }

  /** @throws StorageError: what the other side threw | UNAVAILABLE (no connection) | DEADLINE |
   *  ABORTED | CLOSED | PROTOCOL_ERROR (the reply breaks a rule). After the last five but CLOSED
   *  the call may have had its effect. */
  call<Request, Reply>(
    method: Method<Request, Reply>,
    request: Request,
    options: ControlCallOptions = {},
  ): Promise<Reply> {
    if (this.#closed) {
      return Promise.reject(new StorageError('CLOSED', `client of ${this.#target} is closed`));
    }
    const name = method.path.substring(method.path.lastIndexOf('/') + 1);
    return new Promise((resolve, reject) => {
      const deadlineMs = options.deadlineMs ?? this.#deadlineMs;
      let settled = false;
      const settle = (act: () => void): void => {
        if (settled) return;
        settled = true;
        timer.cancel();
        options.signal?.removeEventListener('abort', onAbort);
        this.#running.delete(stop);
        act();
      };
      const stop = (error: StorageError): void => {
        settle(() => reject(error));
        call.cancel();
      };
      const onAbort = (): void => stop(new StorageError('ABORTED', `${name} was aborted`));
      const call = this.#client.makeUnaryRequest(
        method.path,
        passBytes,
        passBytes,
        method.request.encode(request),
        new Metadata(),
        (error: ServiceError | null, bytes?: Buffer) =>
          settle(() => {
            try {
              if (error !== null) throw errorOfService(error, `${name} at ${this.#target}`);
              resolve(decodeReply(method.reply, bytes ?? Buffer.alloc(0), name));
            } catch (failure) {
              reject(failure);
            }
          }),
      );
      const timer = this.#clock.after(deadlineMs, () =>
        stop(
          new StorageError('DEADLINE', `${name} at ${this.#target}: no answer in ${deadlineMs} ms`),
        ),
      );
      this.#running.add(stop);
      options.signal?.addEventListener('abort', onAbort, { once: true });
      if (options.signal?.aborted) onAbort();
    });
  }

  /** Fails what is in flight with CLOSED and closes the connection. Idempotent. */
  close(): void {
    this.#closed = true;
    for (const stop of [...this.#running]) {
      stop(new StorageError('CLOSED', `client of ${this.#target} was closed`));
    }
    this.#client.close();
  }
}

/** Channel credentials, and the option by which grpc-js learns what name to ask TLS for. */
function securityOf(tls: TransportTls | undefined, address: TransportAddress) {
  if (tls === undefined) return { credentials: credentials.createInsecure(), name: {} };
  const expected = tls.peerName ?? (address.kind === 'tcp' ? address.host : 'localhost');
  // SNI knows no IP addresses (RFC 6066, section 3); what counts is our own check.
  const asked = isIP(expected) === 0 ? expected : 'localhost';
  return {
    credentials: credentials.createFromSecureContext(secureContextOf(tls), {
      checkServerIdentity: (_host, certificate) => checkPeerName(expected, certificate),
    }),
    name: { 'grpc.ssl_target_name_override': asked },
  };
}

function decodeReply<Reply>(codec: Codec<Reply>, bytes: Buffer, name: string): Reply {
  try {
    return codec.decode(bytes);
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause);
    throw new StorageError('PROTOCOL_ERROR', `reply of ${name}: ${text}`, {}, { cause });
  }
}

/** What grpc-js says of a connection that cannot be made, without its wrapping. */
function shortened(details: string): string {
  return details.replace(
    /^No connection established\. Last error: (?:Error: )?(.*?)(?:\. Resolution note: .*)?$/,
    '$1',
  );
}

function errorOfService(error: ServiceError, doing: string): StorageError {
  const text = (key: string): string | undefined => {
    const value = error.metadata.get(key)[0];
    return typeof value === 'string' ? value : undefined;
  };
  const code = text(CODE_KEY);
  return errorOfFailure({
    status: error.code,
    // Without our metadata it is the gRPC layer that speaks: then it helps to know about what.
    message: code === undefined ? `${doing}: ${shortened(error.details)}` : error.details,
    code,
    details: text(DETAILS_KEY),
  });
}

/**
 * Prometheus metrics of one process, and the small HTTP endpoint that shows them.
 *
 * Recording never waits and never allocates per call when the label set is bound once
 * (`histogram.labels(...)` kept in a field). Labels are bounded sets: volume, replica, op; never an
 * offset or a client.
 */
import assert from 'node:assert';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { formatTcpAddress, isLoopback, parseTcpAddress } from './address.js';
import { StorageError } from './errors.js';

export { Counter, Gauge, Histogram, Registry };

/** Upper bounds in seconds, 20 us to 10 s: dense where a healthy volume is, sparse where it is
 *  ill. */
export const LATENCY_BUCKETS_SECONDS: readonly number[] = [
  20e-6, 50e-6, 100e-6, 200e-6, 350e-6, 500e-6, 750e-6, 1e-3, 1.5e-3, 2.5e-3, 5e-3, 10e-3, 25e-3,
  50e-3, 100e-3, 250e-3, 1, 2.5, 10,
];

const EVENT_LOOP_RESOLUTION_MS = 50;
const CONNECTIONS_MAX = 32;
const REQUEST_DEADLINE_MS = 5_000;
const HEADER_BYTES_MAX = 8 * 1024;

/** A registry whose every sample carries `component` (engine, replica, …), with process and
 *  event-loop metrics in it. One per process; tests make as many as they like. */
export function createRegistry(component: string): Registry {
  const registry = new Registry();
  registry.setDefaultLabels({ component });
  addProcessMetrics(registry);
  return registry;
}

/** A histogram over LATENCY_BUCKETS_SECONDS; observe seconds. The name ends in `_seconds`. */
export function latencyHistogram<Label extends string>(
  registry: Registry,
  options: { name: string; help: string; labelNames?: readonly Label[] },
): Histogram<Label> {
  assert(options.name.endsWith('_seconds'), `${options.name} does not end in _seconds`);
  return new Histogram<Label>({
    name: options.name,
    help: options.help,
    labelNames: [...(options.labelNames ?? [])],
    buckets: [...LATENCY_BUCKETS_SECONDS],
    registers: [registry],
  });
}

/** Memory, CPU and uptime, read when scraped, without touching the file system. */
function addProcessMetrics(registry: Registry): void {
  const gauge = (name: string, help: string, read: () => number): Gauge =>
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(read());
      },
    });
  gauge('process_resident_memory_bytes', 'Resident memory.', () => process.memoryUsage.rss());
  gauge('nodejs_heap_used_bytes', 'JavaScript heap in use.', () => process.memoryUsage().heapUsed);
  gauge('nodejs_external_memory_bytes', 'Memory of buffers outside the heap.', () => {
    const usage = process.memoryUsage();
    return usage.external + usage.arrayBuffers;
  });
  gauge('process_uptime_seconds', 'Seconds since the process started.', () => process.uptime());
  new Counter({
    name: 'process_cpu_seconds_total',
    help: 'CPU time by mode.',
    labelNames: ['mode'],
    registers: [registry],
    collect() {
      const usage = process.cpuUsage();
      this.reset();
      this.inc({ mode: 'user' }, usage.user / 1e6);
      this.inc({ mode: 'system' }, usage.system / 1e6);
    },
  });
}

/** How late the event loop ran its timers since the last scrape. The sampling timer runs only while
 *  an endpoint is open, so that a process nobody watches stays idle. */
class EventLoopLag {
  readonly #histogram: IntervalHistogram;
  readonly #gauge: Gauge<'quantile'>;

  constructor(registry: Registry) {
    const histogram = monitorEventLoopDelay({ resolution: EVENT_LOOP_RESOLUTION_MS });
    this.#histogram = histogram;
    this.#gauge = new Gauge({
      name: 'nodejs_event_loop_lag_seconds',
      help: 'Delay of the event loop since the last scrape.',
      labelNames: ['quantile'],
      registers: [registry],
      collect() {
        // The histogram holds whole intervals; what lies above the sampling interval is the delay.
        const lag = (nanoseconds: number): number =>
          Number.isFinite(nanoseconds)
            ? Math.max(0, nanoseconds / 1e9 - EVENT_LOOP_RESOLUTION_MS / 1e3)
            : 0;
        this.set({ quantile: '0.5' }, lag(histogram.percentile(50)));
        this.set({ quantile: '0.99' }, lag(histogram.percentile(99)));
        this.set({ quantile: '1' }, lag(histogram.max));
        histogram.reset();
      },
    });
    histogram.enable();
  }

  stop(registry: Registry): void {
    this.#histogram.disable();
    registry.removeSingleMetric('nodejs_event_loop_lag_seconds');
    this.#gauge.reset();
  }
}

export interface MetricsEndpointOptions {
  readonly registry: Registry;
  /** `HOST:PORT`, port 0 for any. Loopback unless `allowRemote`: metrics name volumes and show
   *  load. */
  readonly listen: string;
  readonly allowRemote?: boolean;
  /** Undefined: healthy. A reason: /healthz answers 503, with the reason only to loopback
   *  listeners. */
  readonly unhealthyReason?: () => string | undefined;
}

export interface MetricsEndpoint {
  /** `HOST:PORT` with the real port */
  readonly address: string;
  /** Ends open connections and resolves when the port is free. Idempotent. */
  close(): Promise<void>;
}

/** Serves GET /metrics and GET /healthz; everything else is 404 or 405. Bounded: 32 connections, 8
 *  KiB of header, 5 s per request, no request body.
 *  @throws StorageError INVALID_ARGUMENT (address) | PERMISSION (not loopback) | UNAVAILABLE
 *    (cannot listen) */
export async function serveMetrics(options: MetricsEndpointOptions): Promise<MetricsEndpoint> {
  const { host, port } = parseTcpAddress(options.listen);
  if (!isLoopback(host) && options.allowRemote !== true) {
    throw new StorageError('PERMISSION', `metrics on ${options.listen} would be open to others`, {
      hint: 'listen on 127.0.0.1, or allow it explicitly',
    });
  }
  const server = createServer(
    {
      maxHeaderSize: HEADER_BYTES_MAX,
      requestTimeout: REQUEST_DEADLINE_MS,
      headersTimeout: REQUEST_DEADLINE_MS,
      keepAliveTimeout: REQUEST_DEADLINE_MS,
      connectionsCheckingInterval: 1_000,
    },
    (request, response) => void answer(options, request, response),
  );
  server.maxConnections = CONNECTIONS_MAX;
  await listen(server, { host, port });
  const lag = new EventLoopLag(options.registry);
  const bound = server.address() as AddressInfo;
  let closed: Promise<void> | undefined;
  return {
    address: formatTcpAddress({ host: bound.address, port: bound.port }),
    close: () => {
      closed ??= new Promise((resolve) => {
        lag.stop(options.registry);
        server.close(() => resolve());
        server.closeAllConnections();
      });
      return closed;
    },
  };
}

async function answer(
  options: MetricsEndpointOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const send = (status: number, type: string, body: string): void => {
    response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) });
    response.end(request.method === 'HEAD' ? undefined : body);
  };
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('allow', 'GET, HEAD');
    response.setHeader('connection', 'close');
    send(405, 'text/plain', 'only GET\n');
    return;
  }
  const path = request.url?.split('?', 1)[0];
  if (path === '/metrics') {
    try {
      send(200, options.registry.contentType, await options.registry.metrics());
    } catch {
      send(500, 'text/plain', 'a metric could not be read\n');
    }
  } else if (path === '/healthz') {
    const reason = options.unhealthyReason?.();
    if (reason === undefined) send(200, 'text/plain', 'ok\n');
    else send(503, 'text/plain', options.allowRemote === true ? 'unhealthy\n' : `${reason}\n`);
  } else {
    send(404, 'text/plain', 'not here: /metrics, /healthz\n');
  }
}

function listen(server: Server, address: { host: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const subject = formatTcpAddress(address);
      reject(
        new StorageError('UNAVAILABLE', `cannot serve metrics on ${subject}: ${error.message}`, {
          ...(error.code === undefined ? {} : { errno: error.code }),
        }),
      );
    });
    server.listen(address, () => {
      server.removeAllListeners('error');
      server.on('error', () => undefined);
      resolve();
    });
  });
}

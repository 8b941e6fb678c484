import { connect } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import * as metrics from '../../common/metrics.js';

const endpoints: metrics.MetricsEndpoint[] = [];

async function serve(
  options: Partial<metrics.MetricsEndpointOptions> = {},
): Promise<metrics.MetricsEndpoint> {
  const registry = options.registry ?? metrics.createRegistry('engine');
  const endpoint = await metrics.serveMetrics({ listen: '127.0.0.1:0', ...options, registry });
  endpoints.push(endpoint);
  return endpoint;
}

afterEach(async () => {
  for (const endpoint of endpoints.splice(0)) await endpoint.close();
});

describe('registry', () => {
  it('labels every sample with the component and observes in seconds', async () => {
    const registry = metrics.createRegistry('replica');
    const latency = metrics.latencyHistogram(registry, {
      name: 'aurochs_write_seconds',
      help: 'Writes.',
      labelNames: ['volume'],
    });
    latency.labels({ volume: 'v1' }).observe(0.0003);
    const text = await registry.metrics();
    expect(text).toMatch(/aurochs_write_seconds_bucket\{le="0\.0002",.*component="replica".*\} 0/);
    expect(text).toMatch(/aurochs_write_seconds_bucket\{le="0\.00035",.*volume="v1".*\} 1/);
    expect(text).toMatch(/process_resident_memory_bytes\{component="replica"\} [1-9]/);
    expect(text).toMatch(/process_cpu_seconds_total\{mode="user".*\} [0-9.]+/);
  });

  it('has ascending buckets', () => {
    const buckets = [...metrics.LATENCY_BUCKETS_SECONDS];
    expect(buckets).toEqual([...buckets].sort((a, b) => a - b));
    expect(new Set(buckets).size).toBe(buckets.length);
  });

  it('insists on the unit in the name', () => {
    const registry = metrics.createRegistry('engine');
    const options = { name: 'aurochs_write', help: 'Writes.' };
    expect(() => metrics.latencyHistogram(registry, options)).toThrow('_seconds');
  });
});

describe('endpoint', () => {
  it('serves metrics, also twice, with the event-loop lag', async () => {
    const { address } = await serve();
    for (let round = 0; round < 2; round += 1) {
      const response = await fetch(`http://${address}/metrics`);
      expect(response.status).toBe(200);
      expect(response.headers.get('content-type')).toContain('text/plain');
      expect(await response.text()).toMatch(/nodejs_event_loop_lag_seconds\{quantile="0.99"/);
    }
  });

  it('tells health, and the reason when ill', async () => {
    let reason: string | undefined;
    const { address } = await serve({ unhealthyReason: () => reason });
    const ask = async (): Promise<[number, string]> => {
      const response = await fetch(`http://${address}/healthz`);
      return [response.status, await response.text()];
    };
    expect(await ask()).toEqual([200, 'ok\n']);
    reason = 'no replica';
    expect(await ask()).toEqual([503, 'no replica\n']);
  });

  it('answers other paths with 404 and other methods with 405', async () => {
    const { address } = await serve();
    expect((await fetch(`http://${address}/../etc/passwd`)).status).toBe(404);
    const posted = await fetch(`http://${address}/metrics`, { method: 'POST', body: 'x' });
    expect(posted.status).toBe(405);
    const head = await fetch(`http://${address}/metrics`, { method: 'HEAD' });
    expect([head.status, await head.text()]).toEqual([200, '']);
  });

  it('a failing metric is a 500, and the next scrape is answered', async () => {
    const registry = metrics.createRegistry('engine');
    let fails = true;
    new metrics.Gauge({
      name: 'aurochs_odd',
      help: 'Fails once.',
      registers: [registry],
      collect() {
        if (fails) throw new Error('odd');
      },
    });
    const { address } = await serve({ registry });
    expect((await fetch(`http://${address}/metrics`)).status).toBe(500);
    fails = false;
    expect((await fetch(`http://${address}/metrics`)).status).toBe(200);
  });

  it('is not open to others unless allowed', async () => {
    const registry = metrics.createRegistry('engine');
    await expect(metrics.serveMetrics({ registry, listen: '0.0.0.0:0' })).rejects.toMatchObject({
      code: 'PERMISSION',
    });
    const endpoint = await serve({ listen: '0.0.0.0:0', allowRemote: true });
    expect(endpoint.address).toMatch(/^0\.0\.0\.0:[0-9]+$/);
  });

  it('says when it cannot listen', async () => {
    const { address } = await serve();
    const registry = metrics.createRegistry('engine');
    await expect(metrics.serveMetrics({ registry, listen: address })).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      details: { errno: 'EADDRINUSE' },
    });
  });

  it('refuses garbage and endless headers, and goes on serving', async () => {
    const { address } = await serve();
    const port = Number(address.split(':')[1]);
    for (const bytes of ['\0\x01\x02\r\n\r\n', `GET / HTTP/1.1\r\nx: ${'y'.repeat(20_000)}`]) {
      const answer = await new Promise<string>((resolve, reject) => {
        let text = '';
        const socket = connect(port, '127.0.0.1', () => socket.write(bytes));
        socket.on('data', (chunk) => {
          text += chunk.toString();
        });
        socket.on('close', () => resolve(text));
        socket.on('error', reject);
      });
      expect(answer).toMatch(/^HTTP\/1\.1 4(00|31)/);
    }
    expect((await fetch(`http://${address}/healthz`)).status).toBe(200);
  });

  it('closing ends open connections and frees the port', async () => {
    const { address, close } = await serve();
    const socket = connect(Number(address.split(':')[1]), '127.0.0.1');
    await new Promise((resolve) => socket.once('connect', resolve));
    const ended = new Promise((resolve) => socket.once('close', resolve));
    await close();
    await ended;
    await close();
    const again = await serve({ listen: address });
    expect(again.address).toBe(address);
  });
});

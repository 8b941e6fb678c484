import { describe, expect, it } from 'vitest';
import { checkReplicaAddress, type ExposureConfig, mayDial } from '../../engine/exposure.js';

const PLAIN: ExposureConfig = { tls: undefined };
const TLS: ExposureConfig = { tls: { ca: 'ca.pem', cert: 'c.pem', key: 'k.pem' } };
const INSECURE: ExposureConfig = { tls: undefined, insecure: true };

describe('the exposure rule for replica daemons', () => {
  it.each([
    ['unix:/run/r.sock', PLAIN, 'ok'],
    ['127.0.0.1:9601', PLAIN, 'ok'],
    ['[::1]:9601', PLAIN, 'ok'],
    ['localhost:9601', PLAIN, 'ok'],
    ['10.0.0.1:9601', PLAIN, 'PERMISSION'],
    ['storage-1:9601', PLAIN, 'PERMISSION'],
    ['10.0.0.1:9601', TLS, 'ok'],
    ['10.0.0.1:9601', INSECURE, 'ok'],
    ['unix:relative', INSECURE, 'INVALID_ARGUMENT'],
    ['nowhere', INSECURE, 'INVALID_ARGUMENT'],
    ['', INSECURE, 'INVALID_ARGUMENT'],
  ] as const)('%s with %j: %s', (address, config, want) => {
    let found = 'ok';
    try {
      checkReplicaAddress(address, config);
    } catch (error) {
      found = (error as { code: string }).code;
    }
    expect(found).toBe(want);
    expect(mayDial(address, config)).toBe(want === 'ok');
  });
});

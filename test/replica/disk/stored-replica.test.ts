/** The record of a replica as it was stored by older programs, and what is not believed. */
import { describe, expect, it } from 'vitest';
import {
  howItWasLeft,
  parseStoredReplica,
  type StoredReplica,
  storedReplicaBody,
} from '../../../replica/disk/stored-replica.js';
import { replicaKey } from '../../../replica/store/keys.js';
import { seal } from '../../../replica/store/sealed-value.js';

const KEY = replicaKey(3);

/** Written before membership had an engine and an era, and the record a previous engine. */
const OLD_TEXT =
  '{"volume":"v1","sizeBytes":83886080,"replicaId":"r1","membership":{"epoch":7,"generation":3,' +
  '"members":[{"replicaId":"r1","address":"10.0.0.1:9601","state":"in-sync"}]},"epoch":7,' +
  '"engineId":"e-1","lossy":false,"closed":true,"deleting":false,"lastIncarnation":"i-1",' +
  '"bootId":"b-1"}';
const OLD = Buffer.concat([
  ...[Buffer.of(1), Buffer.from(OLD_TEXT), Buffer.from('b75f76c4', 'hex')],
]);

const RECORD: StoredReplica = {
  ...{ volume: 'v1', replicaId: 'r1', sizeBytes: 83886080 },
  ...{ epoch: 7, engineId: 'e-1', previousEngineId: '' },
  membership: {
    ...{ epoch: 7, generation: 3, engineId: '', era: 0 },
    members: [{ replicaId: 'r1', address: '10.0.0.1:9601', state: 'in-sync' }],
  },
  ...{ lastIncarnation: 'i-1', bootId: 'b-1', lossy: false, closed: true, deleting: false },
};

describe('the stored record of a replica', () => {
  it('of an older program: fields that came later are empty', () => {
    expect(parseStoredReplica(KEY, OLD)).toEqual(RECORD);
  });

  it('keeps every field', () => {
    const record = {
      ...RECORD,
      previousEngineId: 'e-0',
      membership: { ...RECORD.membership, engineId: 'e-1', era: 2 ** 53 - 1 },
    };
    const { value } = seal(KEY, storedReplicaBody(record));
    expect(parseStoredReplica(KEY, value)).toEqual(record);
  });

  const { membership } = RECORD;
  it.each([
    ['era of text', { membership: { ...membership, era: '1' } }],
    ['negative era', { membership: { ...membership, era: -1 } }],
    ['engine of the membership that is a number', { membership: { ...membership, engineId: 7 } }],
    ['previous engine that is a number', { previousEngineId: 7 }],
    ['no membership', { membership: null }],
  ])('R7: with an %s is CORRUPT_METADATA', (_name, change) => {
    const body = storedReplicaBody({ ...RECORD, ...change } as unknown as StoredReplica);
    const { value } = seal(KEY, body);
    expect(() => parseStoredReplica(KEY, value)).toThrow(
      expect.objectContaining({ code: 'CORRUPT_METADATA' }),
    );
  });
});

describe('P7, P10: how a replica was left', () => {
  const table: Array<[string, Partial<StoredReplica>, number, boolean, boolean]> = [
    ['closed in order, nothing dirty', {}, 0, false, false],
    ['closed in order, dirty, other boot', { bootId: 'b-0' }, 2, false, true],
    ['killed, dirty, same boot', { closed: false }, 2, false, true],
    ['power lost, dirty', { closed: false, bootId: 'b-0' }, 2, true, true],
    ['power lost, nothing dirty', { closed: false, bootId: 'b-0' }, 0, false, false],
    ['lossy before, dirty', { lossy: true }, 1, true, true],
    ['lossy before, nothing dirty any more', { lossy: true }, 0, false, false],
  ];
  it.each(table)('%s', (_name, change, dirtyRegions, lossy, restartedDirty) => {
    const left = howItWasLeft({ ...RECORD, ...change }, dirtyRegions, 'b-1');
    expect(left).toEqual({ lossy, restartedDirty });
  });
});

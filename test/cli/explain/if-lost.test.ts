import { describe, expect, it } from 'vitest';
import { type Consequence, consequenceText, ifLost } from '../../../cli/explain/if-lost.js';
import type { EngineStatus } from '../../../proto/control.js';
import { replicaWith, statusWith, threeCopies } from '../volume-facts.js';

const OUT = { state: 'failed', recordedState: 'failed' } as const;
const FILLING = { state: 'rebuilding', recordedState: 'failed' } as const;
const AWAY = { state: 'failed', recordedState: 'in-sync' } as const;

interface Case {
  readonly name: string;
  readonly status: Partial<EngineStatus>;
  readonly lost: readonly string[];
  readonly want: Pick<Consequence, 'lost' | 'left' | 'verdict'>;
  readonly io: RegExp;
  readonly start: RegExp;
}

describe('explain --if-lost', () => {
  it.each<Case>([
    {
      name: 'one of three: excluded, I/O goes on (R3)',
      status: {},
      lost: ['r-2'],
      want: { lost: ['r-2'], left: ['r-1', 'r-3'], verdict: 'goes-on' },
      io: /^goes on with r-1, r-3 .* exclusion \(generation 41 -> 42\)/,
      start: /^works with r-1, r-3 once the exclusion .* \(MEMBERSHIP_UNPROVEN\) until r-2 is back/,
    },
    {
      name: 'two of three, by host and address: one is left',
      status: {},
      lost: ['10.0.0.1', '10.0.0.2:9601'],
      want: { lost: ['r-1', 'r-2'], left: ['r-3'], verdict: 'goes-on' },
      io: /^goes on with r-3 /,
      start: /until r-1, r-2 are back, for the record names them in sync \(R4\)/,
    },
    {
      name: 'all: I/O waits, then fails; a start is refused (R4)',
      status: {},
      lost: ['r-1', 'r-2', 'r-3'],
      want: { lost: ['r-1', 'r-2', 'r-3'], left: [], verdict: 'waits' },
      io: /^waits, after 60 s it fails with EIO; .* r-1, r-2, r-3 are back \(if they go one after/,
      start: /^is refused \(MEMBERSHIP_UNPROVEN\) until r-1, r-2, r-3 are back/,
    },
    {
      name: 'the last one in sync, while one catches up: that one cannot stand in (R6)',
      status: { state: 'degraded', replicas: threeCopies({}, FILLING, OUT) },
      lost: ['r-1'],
      want: { lost: ['r-1'], left: [], verdict: 'waits' },
      io: /r-2, r-3 do not have every acknowledged write and cannot stand in \(R6\)/,
      start: /^is refused \(MEMBERSHIP_UNPROVEN\) until r-1 is back \(R4\)$/,
    },
    {
      name: 'one that is out: nothing',
      status: { state: 'degraded', replicas: threeCopies({}, {}, OUT) },
      lost: ['r-3'],
      want: { lost: ['r-3'], left: ['r-1', 'r-2'], verdict: 'nothing' },
      io: /^goes on: r-3 is not in sync, so nothing is read from it$/,
      start: /^works with r-1, r-2/,
    },
    {
      name: 'one that catches up: only that stops',
      status: { state: 'degraded', replicas: threeCopies({}, {}, FILLING) },
      lost: ['r-3'],
      want: { lost: ['r-3'], left: ['r-1', 'r-2'], verdict: 'nothing' },
      io: /the catch-up of r-3 stops, and goes on where it was/,
      start: /^works with/,
    },
    {
      name: 'a volume that does not serve: one that it needs',
      status: { state: 'faulted', replicas: threeCopies(AWAY, AWAY, OUT) },
      lost: ['r-1'],
      want: { lost: ['r-1'], left: ['r-2'], verdict: 'stays-faulted' },
      io: /needs r-1, r-2; r-1 among them$/,
      start: /^is refused \(MEMBERSHIP_UNPROVEN\) until r-1 is back/,
    },
    {
      name: 'a volume that does not serve: one that it does not need',
      status: { state: 'faulted', replicas: threeCopies(AWAY, OUT, OUT) },
      lost: ['r-3'],
      want: { lost: ['r-3'], left: ['r-1'], verdict: 'stays-faulted' },
      io: /needs r-1; r-3 is not among them$/,
      start: /^is possible when r-1 is there$/,
    },
  ])('$name', ({ status, lost, want, io, start }) => {
    const consequence = ifLost(statusWith(status), lost);
    expect(consequence).toMatchObject(want);
    expect(consequence.io).toMatch(io);
    expect(consequence.start).toMatch(start);
    const text = consequenceText(consequence);
    expect(text).toContain(`If demo lost ${want.lost.join(', ')}:`);
    for (const todo of consequence.todo) expect(text).toContain(todo);
  });

  it('says what to do before the last but one goes', () => {
    const two = ifLost(statusWith(), ['r-1', 'r-2']);
    expect(two.todo[0]).toMatch(/add a copy, for only r-3 would be left$/);
    const filling = statusWith({ replicas: threeCopies({}, {}, FILLING) });
    expect(ifLost(filling, ['r-1']).todo[0]).toMatch(
      /wait until the one that catches up is in sync/,
    );
  });

  it('warns while the copies are being made equal after an unclean stop (P10)', () => {
    expect(ifLost(statusWith({ unequalExtents: 5 }), ['r-1']).todo[0]).toMatch(/P10/);
  });

  it('offers salvage only where a copy would be left for it (F4)', () => {
    const faulted = (lost: readonly string[]): string =>
      ifLost(
        statusWith({ state: 'faulted', replicas: threeCopies(AWAY, AWAY, OUT) }),
        lost,
      ).todo.join('; ');
    expect(faulted(['r-1'])).toMatch(/--salvage would open r-2, and may lose acknowledged writes/);
    expect(faulted(['r-1', 'r-2'])).toMatch(/no copy would be left to salvage/);
  });

  it('knows a copy by id, address, host, and a host in brackets', () => {
    const replicas = [
      replicaWith({ replicaId: 'r-1', address: '[fd00::1]:9601' }),
      replicaWith({ replicaId: 'r-2', address: 'unix:/run/r.sock' }),
    ];
    const lost = (name: string): readonly string[] => ifLost(statusWith({ replicas }), [name]).lost;
    expect([lost('fd00::1'), lost('[fd00::1]'), lost('unix:/run/r.sock')]).toEqual([
      ['r-1'],
      ['r-1'],
      ['r-2'],
    ]);
  });

  it('refuses a name that fits nothing, and says what there is', () => {
    expect(() => ifLost(statusWith(), ['r-1', 'r-9'])).toThrow(
      expect.objectContaining({
        code: 'NOT_FOUND',
        details: expect.objectContaining({ hint: expect.stringContaining('r-2 (10.0.0.2:9601)') }),
      }),
    );
  });
});

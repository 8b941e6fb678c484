import { describe, expect, it } from 'vitest';
import { type LeaseMember, ReadLease } from '../../../engine/core/read-lease.js';
import { ManualClock } from '../../common/manual-clock.js';

const LEASE_MS = 5_000;

class Member implements LeaseMember {
  asked = 0;

  constructor(public confirmedMs: number) {}

  confirm(): void {
    this.asked += 1;
  }
}

function makeLease(...confirmedMs: number[]) {
  const clock = new ManualClock();
  const now = clock.nowMs();
  const members = confirmedMs.map((ms) => new Member(now + ms));
  const state: { needed: readonly LeaseMember[] | undefined } = { needed: members };
  const lease = new ReadLease({ clock, leaseMs: LEASE_MS, members: () => state.needed });
  return { clock, members, state, lease };
}

describe('read lease (P13, R5)', () => {
  it.each([
    { name: 'all confirmed just now', confirmed: [0, 0, 0], held: true },
    { name: 'the oldest confirmation counts', confirmed: [0, -LEASE_MS + 1, 0], held: true },
    { name: 'one is as old as the lease', confirmed: [0, -LEASE_MS, 0], held: false },
    { name: 'one has never confirmed', confirmed: [0, Number.NEGATIVE_INFINITY], held: false },
    { name: 'nobody is there', confirmed: [], held: false },
  ])('$name', ({ confirmed, held }) => {
    expect(makeLease(...confirmed).lease.held).toBe(held);
  });

  it('ends by itself, to the millisecond, however long this process was stopped', () => {
    const { clock, lease, members } = makeLease(0, 0);
    expect(lease.held).toBe(true);
    clock.advance(LEASE_MS - 1);
    expect(lease.held).toBe(true);
    clock.advance(1);
    expect(lease.held).toBe(false);
    clock.advance(3_600_000);
    expect(lease.held).toBe(false);
    for (const m of members) m.confirmedMs = clock.nowMs();
    expect(lease.held).toBe(true);
  });

  it('is not held while a member that a record may name in-sync cannot confirm', () => {
    const { lease, state } = makeLease(0, 0);
    state.needed = undefined;
    expect(lease.held).toBe(false);
  });

  it('what was held before the members changed counts no more', () => {
    const { lease, state, clock } = makeLease(0, 0);
    expect(lease.held).toBe(true);
    state.needed = [new Member(clock.nowMs() - LEASE_MS)];
    lease.reset();
    expect(lease.held).toBe(false);
  });

  it('a renewal asks every member that is needed', () => {
    const { lease, members, state } = makeLease(0, -9_999);
    lease.renew();
    expect(members.map((m) => m.asked)).toEqual([1, 1]);
    state.needed = undefined;
    lease.renew();
    expect(members.map((m) => m.asked)).toEqual([1, 1]);
  });
});

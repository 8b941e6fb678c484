/**
 * Keeps overlapping changes apart: a write, trim or zeroing that overlaps one which is not answered
 * yet waits for it.
 *
 * Why: after a broken connection every unanswered request is sent again, so a change may take
 * effect twice. That is harmless exactly when no overlapping change was completed between the two
 * effects. Block clients hardly ever have overlapping writes in flight, so the check is made cheap
 * and the waiting is left simple. (N1, N3)
 */
import assert from 'node:assert';

export interface OrderedChange {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** place in the table of active changes, or -1; owned by WriteOrder */
  orderIndex: number;
}

export class WriteOrder<Change extends OrderedChange> {
  readonly #starts: Float64Array;
  readonly #ends: Float64Array;
  readonly #active: Change[] = [];
  #held: Change[] = [];

  /** @param changesMax active ones; the caller bounds its requests in flight to this */
  constructor(changesMax: number) {
    this.#starts = new Float64Array(changesMax);
    this.#ends = new Float64Array(changesMax);
  }

  get heldCount(): number {
    return this.#held.length;
  }

  /** True: the change is active now and may be sent. False: it is held until `finish` hands it
   *  out. */
  begin(change: Change): boolean {
    assert(change.orderIndex === -1);
    if (this.#overlapsActive(change) || overlapsAny(this.#held, change)) {
      this.#held.push(change);
      return false;
    }
    this.#activate(change);
    return true;
  }

  /** The change was answered. Returns changes that are active now and must be sent, in the order
   *  they came. */
  finish(change: Change): readonly Change[] {
    const index = change.orderIndex;
    assert(this.#active[index] === change, 'finished change is not active');
    const last = this.#active.pop() as Change;
    if (last !== change) {
      this.#active[index] = last;
      this.#starts[index] = last.offsetBytes;
      this.#ends[index] = last.offsetBytes + last.lengthBytes;
      last.orderIndex = index;
    }
    change.orderIndex = -1;
    return this.#held.length === 0 ? NOTHING : this.#releaseHeld();
  }

  #releaseHeld(): readonly Change[] {
    const ready: Change[] = [];
    const stillHeld: Change[] = [];
    for (const change of this.#held) {
      if (this.#overlapsActive(change) || overlapsAny(stillHeld, change)) {
        stillHeld.push(change);
      } else {
        this.#activate(change);
        ready.push(change);
      }
    }
    this.#held = stillHeld;
    return ready;
  }

  #activate(change: Change): void {
    const index = this.#active.length;
    assert(index < this.#starts.length, 'more changes in flight than were announced');
    this.#active.push(change);
    this.#starts[index] = change.offsetBytes;
    this.#ends[index] = change.offsetBytes + change.lengthBytes;
    change.orderIndex = index;
  }

  #overlapsActive(change: Change): boolean {
    const start = change.offsetBytes;
    const end = start + change.lengthBytes;
    for (let i = 0; i < this.#active.length; i += 1) {
      if ((this.#starts[i] as number) < end && start < (this.#ends[i] as number)) return true;
    }
    return false;
  }
}

const NOTHING: readonly never[] = [];

function overlapsAny(changes: readonly OrderedChange[], change: OrderedChange): boolean {
  const end = change.offsetBytes + change.lengthBytes;
  return changes.some(
    (other) =>
      other.offsetBytes < end && change.offsetBytes < other.offsetBytes + other.lengthBytes,
  );
}

/**
 * Knows which copies have lost what no flush covered, and so which crashes are hard (F3): when a
 * new engine serves and every copy of its record has lost something since it was last made equal.
 *
 * A copy is whole again when the engine says so: nothing was suspect when it began to serve, all
 * suspect regions were made equal, or the copy was promoted. What it says is believed only of
 * copies that lost nothing meanwhile.
 */
/** What the oracle knows of a copy. */
export interface LossyCopy {
  /** it lost what was not flushed, since it was last known to be whole */
  lossy: boolean;
  /** how often it lost something */
  readonly losses: number;
}

export class LossOracle {
  /** copies that a recovery or a catch-up under way will make whole, and their losses until then */
  #recovering = new Map<LossyCopy, number>();
  readonly #rebuilding = new Map<LossyCopy, number>();

  /** An engine begins to serve from these copies. @returns true: the crash before it was hard */
  serving(members: readonly LossyCopy[], suspects: boolean): boolean {
    const hard = members.length > 0 && members.every((member) => member.lossy);
    this.#rebuilding.clear();
    this.#recovering = new Map(members.map((member) => [member, member.losses]));
    // The copy that counts is as whole as anything can be.
    if (!suspects) this.recovered();
    return hard;
  }

  /** All suspect regions are equal. */
  recovered(): void {
    for (const [member, losses] of this.#recovering) {
      if (member.losses === losses) member.lossy = false;
    }
    this.#recovering.clear();
  }

  rebuilding(member: LossyCopy): void {
    this.#rebuilding.set(member, member.losses);
  }

  promoted(member: LossyCopy): void {
    if (this.#rebuilding.get(member) === member.losses) member.lossy = false;
    this.#rebuilding.delete(member);
  }
}

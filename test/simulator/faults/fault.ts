/** What may go wrong in a run: plain data, so that a plan can be printed, shortened and
 *  repeated. */
import type { Fate } from '../disk/disk-faults.js';

interface Common {
  /** after the operation at this place of the plan has begun … */
  readonly afterOperations: number;
  /** … and so long */
  readonly delayMs: number;
}

export type FaultAct =
  | { readonly kind: 'engine-kill'; readonly downMs: number }
  | { readonly kind: 'engine-stop'; readonly downMs: number }
  | { readonly kind: 'engine-pause'; readonly forMs: number }
  /** stopped, another engine started elsewhere, continued */
  | { readonly kind: 'engine-zombie'; readonly forMs: number; readonly startMs: number }
  /** killed while one replica is behind the others: what was in flight differs (P5) */
  | {
      readonly kind: 'engine-kill-uneven';
      readonly replica: number;
      readonly behindMs: number;
      readonly afterMs: number;
      readonly downMs: number;
    }
  | { readonly kind: 'engine-kill-again'; readonly times: number; readonly everyMs: number }
  | { readonly kind: 'replica-kill'; readonly replica: number; readonly downMs: number }
  | { readonly kind: 'replica-stop'; readonly replica: number; readonly downMs: number }
  | { readonly kind: 'replica-pause'; readonly replica: number; readonly forMs: number }
  | {
      readonly kind: 'replica-crash-loop';
      readonly replica: number;
      readonly times: number;
      readonly everyMs: number;
    }
  | {
      readonly kind: 'power';
      readonly replica: number;
      readonly fate: Fate;
      readonly downMs: number;
    }
  /** the disk is lost for good; a person puts in a blank one and replaces the replica */
  | { readonly kind: 'replace'; readonly replica: number; readonly downMs: number }
  | { readonly kind: 'all-kill'; readonly downMs: number }
  | {
      readonly kind: 'all-power';
      readonly fates: readonly Fate[];
      readonly downMs: number;
      /** the last host comes so much later than the first */
      readonly spreadMs: number;
      /** again, so often, while they recover */
      readonly again: number;
      readonly againMs: number;
    }
  | {
      readonly kind: 'cut';
      /** undefined: every replica */
      readonly replica: number | undefined;
      readonly way: 'both' | 'requests' | 'replies';
      readonly forMs: number;
    }
  | {
      readonly kind: 'flap';
      readonly replica: number;
      readonly times: number;
      readonly everyMs: number;
    }
  | { readonly kind: 'reset'; readonly replica: number; readonly way: 'requests' | 'replies' }
  | {
      readonly kind: 'bad-link';
      readonly replica: number;
      readonly forMs: number;
      readonly extraMs: number;
      readonly lossRate: number;
      readonly bytesPerMs: number;
      readonly duplicateRate: number;
      readonly flipRate: number;
    }
  | {
      readonly kind: 'disk-error';
      readonly replica: number;
      readonly op: 'read' | 'write' | 'flush' | 'zeroes';
      readonly errno: 'EIO' | 'ENOSPC';
      readonly rate: number;
      readonly count: number;
      readonly forMs: number;
    }
  | {
      readonly kind: 'metadata-error';
      readonly replica: number;
      readonly op: 'write' | 'flush';
      readonly errno: 'EIO' | 'ENOSPC';
      readonly count: number;
      readonly forMs: number;
    }
  | {
      readonly kind: 'disk-slow';
      readonly replica: number;
      readonly factor: number;
      readonly hangRate: number;
      readonly forMs: number;
    }
  | { readonly kind: 'flush-stall'; readonly replica: number; readonly forMs: number }
  | { readonly kind: 'disk-stall'; readonly replica: number; readonly forMs: number }
  | { readonly kind: 'disk-gone'; readonly replica: number; readonly forMs: number }
  | { readonly kind: 'rot'; readonly replica: number; readonly pages: number }
  | {
      readonly kind: 'lying-write';
      readonly replica: number;
      readonly how: 'lost' | 'misdirected';
      readonly count: number;
    }
  | { readonly kind: 'clock-jump'; readonly host: number; readonly byMs: number };

export type FaultKind = FaultAct['kind'];

export type Fault = Common & { readonly act: FaultAct };

/** One line, for stories and for people. */
export function faultText({ afterOperations, delayMs, act }: Fault): string {
  const { kind, ...rest } = act;
  const facts = Object.entries(rest).map(([key, value]) => `${key}=${JSON.stringify(value)}`);
  const when = `after operation ${afterOperations} and ${delayMs.toFixed(1)} ms`;
  return `${kind} ${facts.join(' ')} (${when})`;
}

/** The seam between the measurement and what is measured. */
import type { BenchCase } from '../cases.js';
import type { ChildRegistry } from '../child-registry.js';
import type { FioEndpoint } from '../fio.js';

export interface TargetContext {
  readonly children: ChildRegistry;
  /** of this target alone, on the file system under test */
  readonly directory: string;
  readonly sizeBytes: number;
  /** folder of package.json */
  readonly root: string;
  /** added to the environment of Aurochs' and the floor's processes */
  readonly env?: Readonly<Record<string, string>>;
}

export interface MeasuredProcess {
  /** engine, replica1 … */
  readonly role: string;
  readonly pid: number;
}

export interface RunningTarget {
  readonly endpoint: FioEndpoint;
  readonly processes: readonly MeasuredProcess[];
  /** Waits until what the last run left behind (dirty page cache) cannot disturb the next one. */
  settle?(): Promise<void>;
}

export interface Target {
  readonly name: string;
  /** copies of every block */
  readonly copies: 1 | 3;
  /** programs it needs */
  readonly commands: readonly string[];
  /** how it is built and what its acknowledgements promise: printed and stored with the results */
  readonly note: string;
  /** I/Os of fio per I/O of the client: 3 where fio itself writes three copies */
  readonly fioCopies: number;
  measures(benchCase: BenchCase): boolean;
  /** @throws StorageError UNAVAILABLE when it cannot be started; the session goes on without it */
  start(context: TargetContext): Promise<RunningTarget>;
}

/** What Prometheus reads of one engine when it scrapes: states, recovery, scrub. Nothing here is
 *  touched by the data path. */
import { Counter, Gauge, type Registry } from '../common/metrics.js';
import type { EngineReplicaStatus } from '../proto/control.js';
import type { DataPath } from './data-path.js';
import { type EngineView, VOLUME_SUBJECT } from './engine-view.js';
import type { Scrub } from './scrub/scrub.js';

export interface GaugeSource {
  readonly volume: string;
  readonly view: EngineView;
  readonly data: DataPath;
  readonly scrub: Scrub;
}

const STATES = ['healthy', 'degraded', 'faulted'] as const;
const SECOND = 1000;

/** Adds them to the registry, which must have none of them yet. */
export function addEngineGauges(registry: Registry, source: GaugeSource): void {
  addVolumeGauges(registry, source);
  addStateTimes(registry, source);
  addReplicaGauges(registry, source);
  addScrubGauges(registry, source);
}

interface Metric {
  readonly name: string;
  readonly help: string;
  readonly read: () => number;
}

function addGauge(registry: Registry, volume: string, { name, help, read }: Metric): void {
  new Gauge({
    ...{ name, help, labelNames: ['volume'], registers: [registry] },
    collect() {
      this.set({ volume }, read());
    },
  });
}

/** A total that somebody else counts. */
function addCounter(registry: Registry, volume: string, { name, help, read }: Metric): void {
  new Counter({
    ...{ name, help, labelNames: ['volume'], registers: [registry] },
    collect() {
      this.reset();
      this.inc({ volume }, read());
    },
  });
}

function addVolumeGauges(registry: Registry, { volume, view, data }: GaugeSource): void {
  const gauge = (name: string, help: string, read: () => number): void =>
    addGauge(registry, volume, { name: `aurochs_volume_${name}`, help, read });
  const counter = (name: string, help: string, read: () => number): void =>
    addCounter(registry, volume, { name: `aurochs_volume_${name}`, help, read });
  gauge('size_bytes', 'Size of the volume.', () => data.volume.sizeBytes);
  gauge('in_flight', 'Client operations under way.', () => data.volume.inFlight);
  gauge('dirty_regions', 'Regions written since they were last cleaned.', () => data.tracker.count);
  gauge('epoch', 'Epoch of the tenure over the volume.', () => view.record.epoch);
  gauge('generation', 'Generation of the membership record.', () => view.record.generation);
  gauge(
    'parked_operations',
    'Operations that wait for an in-sync replica or the read lease.',
    () => view.parkedOperations,
  );
  gauge('refusing', '1 while I/O fails because no replica is in sync.', () =>
    view.refusing ? 1 : 0,
  );
  gauge(
    'unequal_extents',
    'Extents that are not yet made equal after an unclean stop.',
    () => data.unequal.progress.left,
  );
  counter(
    'lease_misses_total',
    'Reads whose answer had to wait for the read lease.',
    () => data.reads.leaseMisses,
  );
  counter(
    'hedged_reads_total',
    'Slow reads that were asked of a second replica.',
    () => data.reads.hedges,
  );
}

function addStateTimes(registry: Registry, { volume, view }: GaugeSource): void {
  new Gauge({
    name: 'aurochs_volume_state',
    help: '1 for the state that the volume is in.',
    labelNames: ['volume', 'state'],
    registers: [registry],
    collect() {
      for (const state of STATES) this.set({ volume, state }, view.state === state ? 1 : 0);
    },
  });
  new Counter({
    name: 'aurochs_volume_state_seconds_total',
    help: 'Time that the volume was in each state.',
    labelNames: ['volume', 'state'],
    registers: [registry],
    collect() {
      view.note();
      this.reset();
      for (const { subject, state, ms } of view.times.totals()) {
        if (subject === VOLUME_SUBJECT) this.inc({ volume, state }, ms / SECOND);
      }
    },
  });
  new Counter({
    name: 'aurochs_volume_replica_state_seconds_total',
    help: 'Time that each replica was in each state.',
    labelNames: ['volume', 'replica', 'state'],
    registers: [registry],
    collect() {
      view.note();
      this.reset();
      for (const { subject, state, ms } of view.times.totals()) {
        if (subject === VOLUME_SUBJECT) continue;
        this.inc({ volume, replica: subject, state }, ms / SECOND);
      }
    },
  });
}

function addReplicaGauges(registry: Registry, { volume, view }: GaugeSource): void {
  new Gauge({
    name: 'aurochs_volume_replica_state',
    help: '1 for the state that each replica is in.',
    labelNames: ['volume', 'replica', 'state'],
    registers: [registry],
    collect() {
      this.reset();
      for (const { replicaId, state } of view.replicas()) {
        this.set({ volume, replica: replicaId, state }, 1);
      }
    },
  });
  const gauge = (
    name: string,
    help: string,
    read: (replica: EngineReplicaStatus) => number | undefined,
  ): void =>
    void new Gauge({
      name: `aurochs_volume_replica_${name}`,
      help,
      labelNames: ['volume', 'replica'],
      registers: [registry],
      collect() {
        this.reset();
        for (const replica of view.replicas()) {
          const value = read(replica);
          if (value !== undefined) this.set({ volume, replica: replica.replicaId }, value);
        }
      },
    });
  gauge('in_flight', 'Operations on their way to the replica.', (r) => r.inFlight);
  gauge('read_latency_seconds', 'Smoothed latency of reads.', (r) => r.readLatencyMs / SECOND);
  gauge('write_latency_seconds', 'Smoothed latency of changes.', (r) => r.writeLatencyMs / SECOND);
  gauge('attempts', 'Attempts to bring the replica back since it was well.', (r) => r.attempts);
  gauge('rebuild_done_bytes', 'What the catch-up has done.', (r) => r.progress?.doneBytes);
  gauge('rebuild_size_bytes', 'What the catch-up has to do.', (r) => r.progress?.totalBytes);
  gauge('rebuild_bytes_per_second', 'Rate of the catch-up.', (r) => r.progress?.bytesPerSecond);
  gauge('rebuild_remaining_seconds', 'What the catch-up will still take; 0: not known.', (r) =>
    r.progress === undefined ? undefined : r.progress.etaMs / SECOND,
  );
}

function addScrubGauges(registry: Registry, { volume, scrub }: GaugeSource): void {
  const gauge = (name: string, help: string, read: () => number): void =>
    addGauge(registry, volume, { name: `aurochs_volume_scrub_${name}`, help, read });
  gauge('running', '1 while a scrub reads the volume.', () =>
    scrub.report.state === 'running' ? 1 : 0,
  );
  gauge('done_bytes', 'How far the newest pass is.', () => scrub.report.doneBytes);
  gauge('size_bytes', 'What the newest pass has to look at.', () => scrub.report.totalBytes);
  gauge('hashed_bytes', 'Read by the newest pass on all replicas.', () => scrub.report.hashedBytes);
  gauge(
    'finished_timestamp_seconds',
    'When the newest whole pass ended; 0: never.',
    () => scrub.report.finishedMs / SECOND,
  );
  gauge(
    'proved_timestamp_seconds',
    'All that was written before this time was proved equal on all replicas; 0: never.',
    () => scrub.report.provedMs / SECOND,
  );
  new Gauge({
    name: 'aurochs_volume_scrub_blocks',
    help: 'Blocks that the newest pass found, by what was wrong, and repaired.',
    labelNames: ['volume', 'finding'],
    registers: [registry],
    collect() {
      const { report } = scrub;
      const found = {
        bad: report.badBlocks,
        divergent: report.divergentBlocks,
        undecided: report.undecidedBlocks,
        lost: report.lostBlocks,
        repaired: report.repairedBlocks,
      };
      for (const [finding, blocks] of Object.entries(found)) this.set({ volume, finding }, blocks);
    },
  });
}

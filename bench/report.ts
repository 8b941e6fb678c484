/** The tables for people. Pure: returns text. */
import Table from 'cli-table3';
import { MIB } from '../common/units.js';
import type { BenchCase } from './cases.js';
import type { MachineFacts } from './machine.js';
import type { Spread } from './statistics.js';
import { type CaseSummary, ratio } from './summary.js';
import type { Measured, Verdict } from './verdict.js';

const FACTS_LABEL_COLUMNS = 8;

/** [shown target, reference for writes, reference for reads] */
const RATIOS: ReadonlyArray<readonly [string, string, string]> = [
  ['floor-1', 'raw', 'raw'],
  ['aurochs-1', 'raw', 'raw'],
  ['aurochs-1', 'floor-1', 'floor-1'],
  ['aurochs-1', 'nbdkit-file', 'nbdkit-file'],
  ['floor-3', 'raw-x3', 'raw'],
  ['aurochs-3', 'raw-x3', 'raw'],
  ['aurochs-3', 'floor-3', 'floor-3'],
  ['aurochs-3', 'qemu-quorum-3', 'qemu-quorum-3'],
];

export function machineText(facts: MachineFacts): string {
  const line = (label: string, text: string): string =>
    `  ${label.padEnd(FACTS_LABEL_COLUMNS)}${text}`;
  return [
    line('cpu', `${facts.cpuCount} x ${facts.cpuModel}, load ${facts.loadAverage.toFixed(2)}`),
    line('kernel', `${facts.kernel}, Node ${facts.node}, commit ${facts.gitCommit}`),
    line('disk', facts.fileSystem),
    line(
      'tools',
      `${facts.fio}; ${facts.qemuNbd || 'no qemu-nbd'}; ${facts.nbdkit || 'no nbdkit'}`,
    ),
  ].join('\n');
}

/** One case on all its targets. */
export function caseText(benchCase: BenchCase, summaries: readonly CaseSummary[]): string {
  const small = benchCase.blockBytes < MIB;
  const unit = small ? 'IOPS' : 'MiB/s';
  const table = plainTable([
    'target',
    `${unit} median`,
    'min - max',
    'p50 us',
    'p99 us',
    'p99.9 us',
    'CPU s per 100k: fio',
    'engine',
    'replicas',
  ]);
  for (const summary of summaries) {
    if (summary.caseName !== benchCase.name) continue;
    const rate = small ? summary.iops : summary.mibPerSecond;
    const latency = summary.flushLatencyUs ?? summary.latencyUs;
    const cpu = summary.cpuSecondsPer100k;
    const replicas = Object.keys(cpu).filter((role) => role.startsWith('replica'));
    table.push([
      summary.target,
      rate.median.toFixed(0),
      range(rate),
      latency.p50.toFixed(0),
      latency.p99.toFixed(0),
      latency.p999.toFixed(0),
      seconds(cpu['fio']),
      seconds(cpu['engine']),
      replicas.map((role) => seconds(cpu[role])).join(' ') || '-',
    ]);
  }
  const what = benchCase.flushEach ? ' (commits: write, then flush; latency is the flush)' : '';
  return `${benchCase.name}${what}\n${table.toString()}`;
}

export function ratioText(cases: readonly BenchCase[], summaries: readonly CaseSummary[]): string {
  const shown = RATIOS.filter(([target, write, read]) =>
    [target, write, read].every((name) => summaries.some((s) => s.target === name)),
  );
  if (shown.length === 0) return '';
  const heads = shown.map(([target, write, read]) => {
    return `${target} / ${write === read ? write : `${write} (reads: ${read})`}`;
  });
  const table = plainTable(['IOPS ratio', ...heads]);
  for (const benchCase of cases) {
    const row = shown.map(([target, write, read]) => {
      const reference = benchCase.direction === 'write' ? write : read;
      return ratio(summaries, { caseName: benchCase.name, target, reference })?.toFixed(2) ?? '-';
    });
    if (row.some((cell) => cell !== '-')) table.push([benchCase.name, ...row]);
  }
  return table.toString();
}

export function processText(measured: Measured): string {
  const table = plainTable(['process', 'peak RSS MiB', 'idle % of a core']);
  for (const { target, role, bytes } of measured.memory) {
    const idle = measured.idle.find((one) => one.target === target && one.role === role);
    const share = idle === undefined ? '-' : (idle.coreShare * 100).toFixed(2);
    table.push([`${target} ${role}`, (bytes / MIB).toFixed(0), share]);
  }
  return table.toString();
}

export function verdictText(list: readonly Verdict[]): string {
  const table = plainTable(['outcome', 'target', 'measured'], 3);
  for (const { outcome, target, measured } of list) table.push([outcome, target, measured]);
  return table.toString();
}

function plainTable(head: string[], textColumns = 1): Table.Table {
  const empty = ['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left'];
  const also = ['bottom-right', 'left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid'];
  return new Table({
    head,
    chars: { ...Object.fromEntries([...empty, ...also].map((name) => [name, ''])), middle: '  ' },
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
    colAligns: head.map((_, index) => (index < textColumns ? 'left' : 'right')),
  });
}

function range(of: Spread): string {
  return `${of.min.toFixed(0)} - ${of.max.toFixed(0)}`;
}

function seconds(value: number | undefined): string {
  return value === undefined ? '-' : value.toFixed(2);
}

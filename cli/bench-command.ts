/** `aurochs bench URI`: a quick measure of one volume. `npm run bench` is the thorough one, with
 *  peers beside it. */
import type { Command } from 'commander';
import { StorageError } from '../common/errors.js';
import { formatSize, KIB, MIB } from '../common/units.js';
import { type FioJob, type FioResult, runFio } from './fio.js';
import { countArgument, outputOption } from './options.js';
import { createOutput, type OutputFormat, printResult, renderTable } from './report.js';

const READS: readonly FioJob[] = [
  { name: 'read-4k-qd1', kind: 'randread', blockBytes: 4 * KIB, depth: 1 },
  { name: 'read-4k-qd64', kind: 'randread', blockBytes: 4 * KIB, depth: 64 },
  { name: 'read-1m-qd4', kind: 'read', blockBytes: MIB, depth: 4 },
];
const WRITES: readonly FioJob[] = [
  { name: 'write-4k-qd1', kind: 'randwrite', blockBytes: 4 * KIB, depth: 1 },
  { name: 'write-4k-qd64', kind: 'randwrite', blockBytes: 4 * KIB, depth: 64 },
  { name: 'write-flush-4k-qd1', kind: 'randwrite', blockBytes: 4 * KIB, depth: 1, flush: true },
  { name: 'write-1m-qd4', kind: 'write', blockBytes: MIB, depth: 4 },
];

const NOTES = `
Reads only, unless --write is given: that OVERWRITES THE WHOLE VOLUME with random data.
Reads of a volume that was never written measure no disk: its blocks are known to be zero.

Example:
  aurochs bench 'nbd+unix:///demo?socket=.aurochs/run/demo.nbd.sock' --seconds 5`;

interface BenchFlags {
  readonly seconds: number;
  readonly write?: true;
  readonly output: OutputFormat;
}

export function addBenchCommand(program: Command): void {
  program
    .command('bench')
    .description('a quick measure of a volume with fio')
    .argument('<uri>', 'NBD URI, as printed after `ready`')
    .option('--seconds <count>', 'per row', countArgument(1, 3600), 5)
    .option('--write', 'measure writes, too: destroys the contents of the volume')
    .addOption(outputOption())
    .addHelpText('after', NOTES)
    .action(async (uri: string, flags: BenchFlags) => {
      if (!/^nbd(\+unix|s)?:\/\//.test(uri)) {
        throw new StorageError('INVALID_ARGUMENT', `${uri.slice(0, 80)} is not an NBD URI`, {
          hint: 'nbd+unix:///NAME?socket=PATH or nbd://HOST:PORT/NAME',
        });
      }
      const output = createOutput(flags.output);
      const jobs = flags.write === true ? [...WRITES, ...READS] : READS;
      const results: FioResult[] = [];
      for (const job of jobs) {
        process.stderr.write(`${job.name} …\n`);
        results.push(await runFio(job, { uri, seconds: flags.seconds }));
      }
      printResult(output, results, renderResults);
    });
}

export function renderResults(results: readonly FioResult[]): string {
  const us = (value: number): string => `${value < 10 ? value.toFixed(1) : Math.round(value)}us`;
  return renderTable(
    ['WORKLOAD', 'IOPS', 'RATE', 'P50', 'P99', 'P99.9'],
    results.map((row) => [
      row.name,
      String(Math.round(row.iops)),
      `${formatSize(Math.round(row.bytesPerSecond))}/s`,
      us(row.p50Us),
      us(row.p99Us),
      us(row.p999Us),
    ]),
  );
}

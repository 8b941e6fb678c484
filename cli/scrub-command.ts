/** `aurochs scrub start|stop|status`: are all copies as they were written, and equal? */
import type { Command } from 'commander';
import { SystemClock } from '../common/clock.js';
import { ERROR_CODES } from '../common/errors.js';
import type { ScrubReport, ScrubRequest } from '../proto/control.js';
import { interruptible } from './interrupt.js';
import { engineOption, nameArgument, outputOption } from './options.js';
import { pollVolume } from './poll-volume.js';
import { createLiveLine, createOutput, type OutputFormat, printResult } from './report.js';
import { openBlocks, scrubLine, scrubText } from './scrub-text.js';
import { zoneMinutesAt } from './time-text.js';
import { withVolume } from './volume-client.js';

interface Flags {
  readonly engine?: string;
  readonly output: OutputFormat;
  readonly wait?: true;
}

const EVERY_MS = 500;

const ACTIONS = {
  start: 'begin a pass, or go on with one that was stopped',
  stop: 'stop the pass; start goes on from there',
  status: 'how far the pass is, what was found, what is proved',
} as const satisfies Record<ScrubRequest['action'], string>;

/** @param setExitCode  called with 1 when a pass that was waited for has left blocks open */
export function addScrubCommand(program: Command, setExitCode: (code: number) => void): void {
  const scrub = program.command('scrub').description('compare all copies, and mend what differs');
  for (const action of ['start', 'stop', 'status'] as const) {
    const command = scrub
      .command(action)
      .description(ACTIONS[action])
      .argument('<volume>', 'name of the volume', nameArgument)
      .addOption(engineOption())
      .addOption(outputOption())
      .addHelpText('after', examplesOf(action))
      .action(async (volume: string, flags: Flags) => {
        const report = await run(volume, action, flags);
        if (flags.wait === true && openBlocks(report) > 0) setExitCode(ERROR_CODES.IO_ERROR.exit);
      });
    if (action !== 'stop') command.option('--wait', 'wait for the end of the pass');
  }
}

function examplesOf(action: string): string {
  const wait = action === 'stop' ? '' : ' --wait';
  return `
Example:
  aurochs scrub ${action} demo${wait} --engine unix:.aurochs/run/demo.control.sock`;
}

async function run(
  volume: string,
  action: ScrubRequest['action'],
  flags: Flags,
): Promise<ScrubReport> {
  const access = { engine: flags.engine };
  const first = await withVolume(volume, access, async (client) => ({
    report: await client.scrub(action),
    nowMs: (await client.status()).wallMs,
  }));
  const last = flags.wait === true ? await waitForEnd(volume, access) : first;
  printResult(createOutput(flags.output), last.report, (report) =>
    scrubText(report, { volume, nowMs: last.nowMs, zoneMinutes: zoneMinutesAt(last.nowMs) }),
  );
  return last.report;
}

interface Seen {
  readonly report: ScrubReport;
  /** wall time of the engine */
  readonly nowMs: number;
}

async function waitForEnd(
  volume: string,
  access: { readonly engine: string | undefined },
): Promise<Seen> {
  const clock = new SystemClock();
  const live = createLiveLine(clock);
  const text = 'not waiting any more: the scrub goes on';
  const onSilent = (reason: string | undefined): void => {
    if (reason !== undefined) live.show(`the engine does not answer: ${reason}`, 'silent');
  };
  try {
    return await interruptible(text, () =>
      pollVolume(volume, { ...access, clock, everyMs: EVERY_MS, onSilent }, async (client) => {
        const report = await client.scrub('status');
        if (report.state !== 'running') return { report, nowMs: (await client.status()).wallMs };
        live.show(scrubLine(report), report.state);
        return undefined;
      }),
    );
  } finally {
    live.clear();
  }
}

/** `aurochs doctor`: what this host offers, and what to do about the rest. */
import type { Command } from 'commander';
import { diagnose, type Finding } from './diagnosis.js';
import { readHostFacts } from './host-facts.js';
import { findInstallation } from './installation.js';
import { outputOption } from './options.js';
import { createOutput, type OutputFormat, printResult } from './report.js';

const NOTES = `
Exit code 1 if something is found without which Aurochs does not work (FAIL).

Examples:
  aurochs doctor
  aurochs doctor -o json`;

export function addDoctorCommand(program: Command, setExitCode: (code: number) => void): void {
  program
    .command('doctor')
    .description('what this host offers: kernel, io_uring, devices, disks, tools')
    .addOption(outputOption())
    .addHelpText('after', NOTES)
    .action(async (flags: { output: OutputFormat }) => {
      const findings = diagnose(await readHostFacts({ probe: findInstallation().probe }));
      printResult(createOutput(flags.output), findings, renderFindings);
      if (findings.some((finding) => finding.level === 'fail')) setExitCode(1);
    });
}

export function renderFindings(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map((finding) => finding.subject.length)) + 2;
  return findings
    .map(({ level, subject, found, advice }) => {
      const line = `${level.toUpperCase().padEnd(6)}${subject.padEnd(width)}${found}`;
      return advice === undefined ? line : `${line}\n${' '.repeat(6 + width)}-> ${advice}`;
    })
    .join('\n');
}

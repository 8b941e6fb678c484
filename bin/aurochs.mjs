// Chooses the program: a daemon or the command line tool. Each lives in its own module, so that the
// replica daemon does not load the engine, nor the other way round. Everything runs from dist/
// (`npm run build`).
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const dist = new URL('../dist/', import.meta.url);
const [command, subcommand] = process.argv.slice(2);
// The rest of `replica` is the daemon, and what looks at its disks.
const ABOUT_COPIES = ['ls', 'add', 'remove', 'replace'];

function programOf() {
  if (command === 'replica' && !ABOUT_COPIES.includes(subcommand)) return 'replica/main.js';
  if (command === 'engine') return 'engine/main.js';
  return 'cli/main.js';
}

// A terminal or a pipe that went away must end nobody: `up` still has daemons to stop in order.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

const program = programOf();
if (!existsSync(fileURLToPath(new URL(program, dist)))) {
  console.error(`error UNAVAILABLE: ${program} is not built`);
  console.error('hint: run `npm run setup` in the checkout');
  process.exit(5);
}

// The tool wants all arguments; a daemon wants those after its name.
const argv = program === 'cli/main.js' ? process.argv.slice(2) : process.argv.slice(3);
try {
  const { main } = await import(new URL(program, dist));
  const status = await main(argv);
  if (typeof status === 'number') process.exitCode = status;
  // A daemon has closed everything by now. A connection attempt to a host that does not answer
  // would keep the process for as long as TCP tries, two minutes, and whoever starts it anew waits.
  if (program !== 'cli/main.js') process.exit();
} catch (error) {
  const { reportError } = await import(new URL('cli/report.js', dist));
  process.exitCode = reportError(error, { json: argv.includes('json') });
}

// Stands in for `aurochs replica` and `aurochs engine`: `ready`, then waits for SIGTERM. It writes
// what happens to $FAKE_LOG, and behaves as $FAKE_SCRIPT says: a JSON object from role to a list of
//   words, one per life. ok        ready, ends with 0 on SIGTERM       deaf     ready, ignores
//   SIGTERM fail      prints an error, exit status 4      die      ready, then exit status 1
//   nodevice  ready, then an error, exit status 1
//   silent    neither ready nor ends              device   as ok, with a device line
import { appendFileSync, existsSync, readFileSync } from 'node:fs';

const [role, ...args] = process.argv.slice(2);
const nodeName = args
  .find((arg) => arg.includes('.replica.sock'))
  ?.match(/(node\d+)\.replica/)?.[1];
const name = role === 'replica' ? nodeName : role;
const log = process.env.FAKE_LOG;
const lives = existsSync(log)
  ? readFileSync(log, 'utf8')
      .split('\n')
      .filter((line) => line === `start ${name}`).length
  : 0;
const note = (text) => appendFileSync(log, `${text} ${name}\n`);

const script = JSON.parse(process.env.FAKE_SCRIPT ?? '{}')[name] ?? ['ok'];
const word = script[Math.min(lives, script.length - 1)];
note('start');

process.on('SIGTERM', () => {
  if (word === 'deaf') return;
  note('stop');
  setImmediate(() => process.exit(0));
});
if (word === 'fail') {
  process.stderr.write('error DISK_LOCKED: disk is in use\nhint: stop the other one\n');
  process.exit(4);
}
if (word !== 'silent') {
  process.stdout.write(role === 'engine' ? 'ready nbd+unix:///demo?socket=/s\n' : 'ready\n');
  note('ready');
}
if (word === 'device') process.stdout.write('device /dev/loop77\n');
if (word === 'nodevice') {
  process.stderr.write('error UNSUPPORTED: no fuse here\n');
  process.exit(1);
}
if (word === 'die') process.exit(1);
setInterval(() => undefined, 1 << 30);

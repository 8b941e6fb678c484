import { cellStory } from '../checker/check-history.js';
import { MIXES, mixNamed } from '../faults/mixes.js';
import { makePlan } from './plan.js';
import { runPlan } from './run-plan.js';

const [, , mixes = 'calm', start = '1', n = '1', ops = '2000', story] = process.argv;
const t = performance.now();
let events = 0;
let total = 0;
const list = mixes === 'every' ? MIXES.map((m) => m.name) : mixes.split(',');
for (const mix of list)
  for (let seed = Number(start); seed < Number(start) + Number(n); seed += 1) {
    const plan = makePlan(seed, mixNamed(mix), { operations: Number(ops) });
    const r = await runPlan(plan, { story: story !== undefined });
    events += r.events;
    total += 1;
    if (story !== undefined)
      for (const line of r.story.filter((l) => !l.includes('data stream')).slice(0, 600))
        console.log(line.slice(0, 250));
    if (r.findings.length > 0 || story)
      console.log(
        seed,
        mix,
        r.digest,
        'findings',
        r.findings.length,
        'ev',
        r.events,
        'sim',
        Math.round(r.simulatedMs),
        'faults',
        r.faults,
        'tenures',
        r.tenures,
        'ops',
        r.history.operations.length,
        'und',
        r.undecided,
      );
    if (story === 'cell')
      for (const f of r.findings)
        if (f.kind === 'history') {
          for (const l of cellStory(r.history, f.cell)) console.log(l);
          break;
        }
    for (const f of r.findings.slice(0, 2)) console.log('   ', f.kind, f.text.slice(0, 600));
  }
console.log(
  total,
  'runs',
  Math.round((performance.now() - t) / total),
  'ms each',
  Math.round(events / total),
  'events each',
  process.cpuUsage().user / 1000 / total,
  'cpu ms each',
);

// Makes proto/generated/messages.{js,d.ts} from proto/*.proto with pbjs, and copies the code to
// dist/ for the compiled project. Skipped when neither the .proto files nor this script nor the
// generator changed since the last run (--force: never skipped).
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const generated = path.join(root, 'proto', 'generated');
const compiled = path.join(root, 'dist', 'proto', 'generated');

// Encode and decode only: checks are ours (proto/control/), services are registered by hand
// (proto/control.ts).
const PBJS_OPTIONS = [
  ...['-t', 'static-module', '-w', 'esm', '--dts', '-r', 'aurochs'],
  ...['--no-delimited', '--no-typeurl', '--no-service', '--no-verify', '--no-convert'],
];

async function protoFiles() {
  const names = await readdir(path.join(root, 'proto'));
  return names.filter((name) => name.endsWith('.proto')).sort();
}

async function fingerprint(files) {
  const hash = createHash('sha256');
  hash.update(require('protobufjs-cli/package.json').version);
  hash.update(await readFile(fileURLToPath(import.meta.url)));
  for (const file of files) {
    hash.update(`\n${file}\n`);
    hash.update(await readFile(path.join(root, 'proto', file)));
  }
  return hash.digest('hex');
}

async function generate(files, wanted) {
  // Aside first, then renamed: other processes may be reading the old files.
  const aside = `${generated}.${process.pid}`;
  await mkdir(aside, { recursive: true });
  try {
    const pbjs = path.join(
      path.dirname(require.resolve('protobufjs-cli/package.json')),
      'bin/pbjs',
    );
    execFileSync(
      process.execPath,
      [pbjs, ...PBJS_OPTIONS, '-o', path.join(aside, 'messages.js'), ...files],
      { cwd: path.join(root, 'proto'), stdio: ['ignore', 'inherit', 'inherit'] },
    );
    await writeFile(path.join(aside, '.fingerprint'), wanted);
    await mkdir(generated, { recursive: true });
    for (const name of ['messages.js', 'messages.d.ts', '.fingerprint']) {
      await rename(path.join(aside, name), path.join(generated, name));
    }
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
}

const files = await protoFiles();
const wanted = await fingerprint(files);
const stamp = path.join(generated, '.fingerprint');
const current = existsSync(stamp) ? await readFile(stamp, 'utf8') : '';
if (current === wanted && !process.argv.includes('--force')) {
  console.log(`proto: ${files.length} files unchanged`);
} else {
  await generate(files, wanted);
  console.log(`proto: generated from ${files.join(', ')}`);
}
await mkdir(compiled, { recursive: true });
await copyFile(path.join(generated, 'messages.js'), path.join(compiled, 'messages.js'));

// Compiles native/src/*.cc to native/build/Release/aurochs_native.node with the system's C++
// compiler.
//
//   node scripts/build-native.mjs [--sanitize] [--force]
//
// --sanitize builds native/build-asan/Release instead, with AddressSanitizer and
// UndefinedBehaviorSanitizer. Skipped when neither sources, flags, compiler nor Node's headers
// changed. No network: the headers are those beside node.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';

const run = promisify(execFile);
const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const sources = path.join(root, 'native', 'src');
const MODULE_NAME = 'aurochs_native.node';

const WARNINGS = ['-Wall', '-Wextra', '-Werror'];
const LANGUAGE = ['-std=c++20', '-fno-exceptions', '-fno-rtti', '-fPIC', '-fvisibility=hidden'];
const RELEASE = ['-O2', '-g1', '-D_FORTIFY_SOURCE=2', '-fstack-protector-strong'];
const SANITIZE = ['-O1', '-g', '-fno-omit-frame-pointer', '-fsanitize=address,undefined'];
// A finding of UBSan must end the process, or no test would see it.
const SANITIZE_STRICT = ['-fno-sanitize-recover=all'];
/** The one file that may use instructions which not every processor has; chosen at run time. */
const HARDWARE_FILE = 'crc32c-hardware.cc';
const HARDWARE_FLAGS = { x64: ['-msse4.2'], arm64: ['-march=armv8-a+crc'] };

class BuildError extends Error {}

function headersFolder() {
  const found = [
    path.resolve(process.execPath, '..', '..', 'include', 'node'),
    '/usr/include/node',
  ].find((folder) => existsSync(path.join(folder, 'node_api.h')));
  if (found !== undefined && existsSync(path.join(found, 'uv.h'))) return found;
  throw new BuildError(
    `Node's C headers (node_api.h, uv.h) are not beside ${process.execPath}. For Debian's own ` +
      'node: apt-get install libnode-dev. Others: use the full archive of https://nodejs.org, ' +
      'which has include/node in it',
  );
}

async function compilerVersion(compiler) {
  try {
    return (await run(compiler, ['--version'])).stdout.split('\n', 1)[0];
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    throw new BuildError(`no C++ compiler "${compiler}"; Debian: apt-get install g++`);
  }
}

async function fingerprint(plan) {
  const hash = createHash('sha256');
  hash.update(await readFile(fileURLToPath(import.meta.url)));
  hash.update(JSON.stringify([plan, process.versions.modules, process.version, process.arch]));
  for (const name of (await readdir(sources)).sort()) {
    hash.update(`\n${name}\n`);
    hash.update(await readFile(path.join(sources, name)));
  }
  return hash.digest('hex');
}

async function compile(plan, name, folder) {
  const object = path.join(folder, `${name}.o`);
  const extra = name === HARDWARE_FILE ? (HARDWARE_FLAGS[process.arch] ?? []) : [];
  const include = ['-isystem', plan.headers, '-DNAPI_VERSION=8'];
  const input = path.join(sources, name);
  await run(plan.compiler, [...plan.flags, ...extra, ...include, '-c', input, '-o', object]);
  return object;
}

async function compileAll(plan, folder) {
  const names = (await readdir(sources)).filter((name) => name.endsWith('.cc')).sort();
  const objects = [];
  const worker = async () => {
    for (let name = names.pop(); name !== undefined; name = names.pop()) {
      objects.push(await compile(plan, name, folder));
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  return objects.sort();
}

async function build(plan, output) {
  await mkdir(path.dirname(output), { recursive: true });
  const folder = await mkdtemp(path.join(path.dirname(output), 'objects-'));
  try {
    const objects = await compileAll(plan, folder);
    const linked = path.join(folder, MODULE_NAME);
    await run(plan.compiler, ['-shared', '-pthread', ...plan.flags, ...objects, '-o', linked]);
    await rename(linked, output); // whole or not at all, also for a process that loads it meanwhile
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function main() {
  const { values } = parseArgs({
    options: { sanitize: { type: 'boolean' }, force: { type: 'boolean' } },
  });
  if (process.platform !== 'linux') throw new BuildError('the native module is for Linux only');
  const compiler = process.env.CXX ?? 'g++';
  const mode = values.sanitize === true ? [...SANITIZE, ...SANITIZE_STRICT] : RELEASE;
  const plan = {
    compiler,
    version: await compilerVersion(compiler),
    headers: headersFolder(),
    flags: [...LANGUAGE, ...WARNINGS, ...mode],
  };
  const folder = values.sanitize === true ? 'build-asan' : 'build';
  const output = path.join(root, 'native', folder, 'Release', MODULE_NAME);
  const stamp = `${output}.built-from`;
  const wanted = await fingerprint(plan);
  const last = existsSync(output) ? await readFile(stamp, 'utf8').catch(() => '') : '';
  if (last === wanted && values.force !== true) return;
  const start = process.hrtime.bigint();
  await build(plan, output);
  await writeFile(stamp, wanted);
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  console.log(`build-native: ${path.relative(root, output)} in ${seconds.toFixed(1)} s`);
}

main().catch((error) => {
  const text = error instanceof BuildError ? error.message : (error.stderr ?? error.stack);
  console.error(`build-native: error: ${text}`);
  process.exitCode = 1;
});

// Exit 0 when node_modules holds what package-lock.json asks for; else 1 and the reason on stdout.
// npm notes in node_modules/.package-lock.json what it installed: the two are compared, package by
// package.
import { existsSync, readFileSync } from 'node:fs';

function packagesOf(path) {
  return JSON.parse(readFileSync(path, 'utf8')).packages;
}

function staleReason() {
  if (!existsSync('node_modules/.package-lock.json')) return 'node_modules is missing';
  const installed = packagesOf('node_modules/.package-lock.json');
  for (const [path, wanted] of Object.entries(packagesOf('package-lock.json'))) {
    if (path === '') continue;
    const present = installed[path];
    // Optional packages are for other processors and systems; npm leaves those out.
    if (present === undefined && wanted.optional !== true) return `${path} is missing`;
    if (present !== undefined && present.version !== wanted.version) {
      return `${path} is ${present.version}, wanted ${wanted.version}`;
    }
  }
  return undefined;
}

const reason = staleReason();
if (reason !== undefined) {
  console.log(reason);
  process.exitCode = 1;
}

/** The files of the checkout as the tidy tests see them: read once, parsed once. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** Folders with code that runs in production. */
export const PRODUCTION = ['common', 'proto', 'native', 'replica', 'engine', 'cli', 'csi-driver'];

/** Made by tools or by runs, never by hand. */
const SKIPPED_NAMES = ['.git', 'node_modules', 'dist', 'coverage', '.aurochs', 'bench/results'];
const SKIPPED_PREFIXES = ['native/build', 'proto/generated'];

const isSkipped = (name: string): boolean =>
  SKIPPED_NAMES.includes(name) || SKIPPED_PREFIXES.some((prefix) => name.startsWith(prefix));

export interface TextFile {
  /** from the root of the checkout, with `/` */
  readonly name: string;
  readonly text: string;
  readonly lines: readonly string[];
}

export function readTree(): TextFile[] {
  return listFiles('').map((name) => {
    const text = readFileSync(path.join(ROOT, name), 'utf8');
    return { name, text, lines: text.replace(/\n$/, '').split('\n') };
  });
}

function listFiles(folder: string): string[] {
  return readdirSync(path.join(ROOT, folder), { withFileTypes: true }).flatMap((entry) => {
    const name = path.posix.join(folder, entry.name);
    if (isSkipped(name) || entry.isSymbolicLink()) return [];
    if (entry.isDirectory()) return listFiles(name);
    const isText = /\.(ts|mjs|js|json|md|sh|proto|cc|h|c|gyp|svg)$/.test(name);
    return isText || /^(bin|\.ci)\//.test(name) ? [name] : [];
  });
}

export interface ParsedTree {
  readonly checker: ts.TypeChecker;
  /** by name from the root of the checkout */
  readonly sources: ReadonlyMap<string, ts.SourceFile>;
}

/** Parses what tsconfig.json includes. Types are computed only where a test asks for them. */
export function parseTree(): ParsedTree {
  const configFile = path.join(ROOT, 'tsconfig.json');
  const { config } = ts.readConfigFile(configFile, ts.sys.readFile);
  const parsed = ts.parseJsonConfigFileContent(config, ts.sys, ROOT);
  const program = ts.createProgram(parsed.fileNames, { ...parsed.options, incremental: false });
  const sources = new Map<string, ts.SourceFile>();
  const checker = program.getTypeChecker();
  for (const source of program.getSourceFiles()) {
    const name = path.relative(ROOT, source.fileName).split(path.sep).join('/');
    const ours = !name.startsWith('..') && !/^node_modules\/|^proto\/generated\//.test(name);
    if (ours) sources.set(name, source);
  }
  return { checker, sources };
}

/** Every node of the file, parents before children. */
export function* nodesOf(node: ts.Node): Generator<ts.Node> {
  yield node;
  for (const child of childrenOf(node)) yield* nodesOf(child);
}

function childrenOf(node: ts.Node): ts.Node[] {
  const children: ts.Node[] = [];
  ts.forEachChild(node, (child) => void children.push(child));
  return children;
}

/** `name:line`, counted from one. */
export function place(name: string, node: ts.Node): string {
  return `${name}:${lineOf(node, node.getStart())}`;
}

export function lineOf(node: ts.Node, position: number): number {
  return node.getSourceFile().getLineAndCharacterOfPosition(position).line + 1;
}

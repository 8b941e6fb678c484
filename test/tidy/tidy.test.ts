/** The rules of style that a machine can check. Each test lists every place that breaks its
 *  rule. */
import path from 'node:path';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';
import { ERROR_CODES } from '../../common/errors.js';
import { importFault, importsOf } from './imports.js';
import { brokenLinks } from './links.js';
import { lineOf, nodesOf, PRODUCTION, parseTree, place, readTree } from './source-tree.js';

const TS_LINES_MAX = 500;
const CPP_LINES_MAX = 400;
const FUNCTION_LINES_MAX = 70;
const COLUMNS_MAX = 100;

const files = readTree();
const byName = new Map(files.map((file) => [file.name, file]));
const { checker, sources } = parseTree();

const isTs = (name: string): boolean => name.endsWith('.ts');
const isCpp = (name: string): boolean => /\.(cc|h|c)$/.test(name);
const isProduction = (name: string): boolean => PRODUCTION.includes(name.split('/')[0] ?? '');

/** `place: what` for every node that `fault` has something to say about. */
function faults(
  fault: (node: ts.Node, name: string) => string | undefined,
  where: (name: string) => boolean = () => true,
): string[] {
  return [...sources].flatMap(([name, source]) =>
    where(name)
      ? [...nodesOf(source)].flatMap((node) => {
          const what = fault(node, name);
          return what === undefined ? [] : [`${place(name, node)}: ${what}`];
        })
      : [],
  );
}

describe('tidy: sizes', () => {
  it('has no TypeScript file over 500 lines and no C++ file over 400', () => {
    const long = files.flatMap(({ name, lines }) => {
      const max =
        isTs(name) || name.endsWith('.mjs') ? TS_LINES_MAX : isCpp(name) ? CPP_LINES_MAX : Infinity;
      return lines.length > max ? [`${name}: ${lines.length} lines, at most ${max}`] : [];
    });
    expect(long).toEqual([]);
  });

  it('has no line over 100 columns in code', () => {
    const code = files.filter(({ name }) => /\.(ts|mjs|cc|h|c|sh|proto)$|^bin\//.test(name));
    const long = code.flatMap(({ name, lines }) =>
      lines.flatMap((line, index) => {
        const columns = [...line].length;
        return columns > COLUMNS_MAX ? [`${name}:${index + 1}: ${columns} columns`] : [];
      }),
    );
    expect(long).toEqual([]);
  });

  it('has no function over 70 lines', () => {
    const long = faults((node) => {
      if (!isFunction(node) || isDescribeBody(node)) return undefined;
      const length = lineOf(node, node.getEnd()) - lineOf(node, node.getStart()) + 1;
      return length > FUNCTION_LINES_MAX ? `${length} lines` : undefined;
    });
    expect(long).toEqual([]);
  });
});

function isFunction(node: ts.Node): boolean {
  return ts.isFunctionLike(node) && 'body' in node && node.body !== undefined;
}

/** A `describe` body is a list of tests, not a piece of logic. */
function isDescribeBody(node: ts.Node): boolean {
  const call = node.parent;
  if (!ts.isCallExpression(call)) return false;
  return /^describe\b/.test(call.expression.getText());
}

describe('tidy: words', () => {
  it('has no `any`', () => {
    const isAny = (node: ts.Node): boolean => node.kind === ts.SyntaxKind.AnyKeyword;
    expect(faults((node) => (isAny(node) ? 'any' : undefined))).toEqual([]);
  });

  it('has no non-null assertion', () => {
    expect(faults((node) => (ts.isNonNullExpression(node) ? '!' : undefined))).toEqual([]);
  });

  it('leaves no promise marks behind', () => {
    // Written apart, or this file would find itself.
    const mark = new RegExp(`\\b(${['FIX' + 'ME', 'TO' + 'DO', 'XX' + 'X'].join('|')})\\b`);
    const found = files.flatMap(({ name, lines }) =>
      lines.flatMap((line, index) => (mark.test(line) ? [`${name}:${index + 1}: ${line}`] : [])),
    );
    expect(found).toEqual([]);
  });

  it('mentions no path and no document that is outside the checkout', () => {
    const outside = new RegExp(`${['', 'work', ''].join('/')}|${'design'} sections? [0-9]`);
    const found = files.flatMap(({ name, lines }) =>
      lines.flatMap((line, index) => (outside.test(line) ? [`${name}:${index + 1}`] : [])),
    );
    expect(found).toEqual([]);
  });

  it('calls slice on no Buffer: it means a view there and a copy everywhere else', () => {
    const found = faults((node) => {
      if (!ts.isCallExpression(node) || !ts.isPropertyAccessExpression(node.expression)) return;
      const { expression: receiver, name } = node.expression;
      if (name.text !== 'slice') return undefined;
      return checker.getTypeAtLocation(receiver).getSymbol()?.name === 'Buffer'
        ? 'slice'
        : undefined;
    });
    expect(found).toEqual([]);
  });

  it('sets timers only in common/clock.ts', () => {
    const found = faults(
      (node) => {
        if (ts.isImportDeclaration(node)) {
          return /node:timers/.test(node.moduleSpecifier.getText()) ? 'node:timers' : undefined;
        }
        if (!ts.isCallExpression(node)) return undefined;
        const callee = node.expression.getText();
        return /^(globalThis\.)?set(Timeout|Interval)$/.test(callee) ? callee : undefined;
      },
      (name) => isProduction(name) && name !== 'common/clock.ts',
    );
    expect(found).toEqual([]);
  });

  it('names files in kebab-case, and none util or helpers', () => {
    const odd = [...sources.keys()].filter((name) => {
      const base = path.basename(name).replace(/(\.test|\.d)?\.ts$/, '');
      return !/^[a-z0-9]+(-[a-z0-9]+)*$/.test(base) || /^(utils?|helpers?|misc)$/.test(base);
    });
    expect(odd).toEqual([]);
  });
});

describe('tidy: imports', () => {
  const manifest = JSON.parse(byName.get('package.json')?.text ?? '{}');
  const production = Object.keys(manifest.dependencies);
  const all = [...production, ...Object.keys(manifest.devDependencies)];

  it('point one way, to declared packages, and only replica uses level', () => {
    const found = [...sources].flatMap(([name, source]) =>
      importsOf(source).flatMap(({ specifier, node }) => {
        const fault = importFault(name, specifier, { production, all });
        return fault === undefined ? [] : [`${place(name, node)}: ${fault}`];
      }),
    );
    expect(found).toEqual([]);
  });

  it.each([
    ['engine/a.ts', '../replica/b.js', 'engine may not import replica/b.js'],
    ['replica/a.ts', '../engine/b.js', 'replica may not import engine/b.js'],
    ['common/a.ts', '../proto/b.js', 'common may not import proto/b.js'],
    ['cli/a.ts', '../native/index.js', 'cli may not import native/index.js'],
    ['proto/io/a.ts', '../../common/b.js', undefined],
    ['engine/a.ts', 'level', 'only replica imports level'],
    ['replica/store/a.ts', 'level', undefined],
    ['engine/a.ts', 'vitest', 'vitest is not a declared dependency of engine'],
    ['test/engine/a.test.ts', 'vitest', undefined],
    ['test/engine/a.test.ts', '../../engine/b.js', undefined],
    ['engine/a.ts', './b', './b has no .js suffix'],
    ['engine/a.ts', '@grpc/grpc-js/build/x', undefined],
  ])('%s importing %s: %s', (file, specifier, fault) => {
    expect(importFault(file, specifier, { production, all })).toBe(fault);
  });
});

describe('tidy: tests', () => {
  const tests = files.filter(({ name }) => name.endsWith('.test.ts'));

  it('assert something, each file', () => {
    const asserts = (text: string): boolean => /\b(expect|assert)\b/.test(text);
    const silent = tests.filter(({ name, text }) => {
      const source = sources.get(name);
      const imported = (source === undefined ? [] : importsOf(source)).map(({ specifier }) =>
        path.posix.join(path.posix.dirname(name), specifier.replace(/\.js$/, '.ts')),
      );
      const shared = imported.filter((target) => target.startsWith('test/'));
      return !asserts(text) && !shared.some((target) => asserts(byName.get(target)?.text ?? ''));
    });
    expect(silent.map((file) => file.name)).toEqual([]);
  });

  it('run all of themselves: no .only, and a skip has its condition', () => {
    const chosen = faults((node, name) => {
      if (!name.startsWith('test/') || !ts.isPropertyAccessExpression(node)) return undefined;
      const isTest = /^(it|test|describe)\b/.test(node.expression.getText());
      return isTest && /^(only|skip|todo)$/.test(node.name.text) ? node.getText() : undefined;
    });
    expect(chosen).toEqual([]);
  });
});

describe('tidy: documents', () => {
  const documents = files.filter(({ name }) => name.endsWith('.md'));

  it('docs/errors.md has exactly one heading per error code', () => {
    const text = byName.get('docs/errors.md')?.text ?? '';
    const headings = [...text.matchAll(/^### `?([A-Z_]+)`?$/gm)].map(([, code]) => code);
    expect(headings.sort()).toEqual(Object.keys(ERROR_CODES).sort());
  });

  it('docs/errors.md states errno and exit code as the table has them', () => {
    const text = byName.get('docs/errors.md')?.text ?? '';
    const wrong = Object.entries(ERROR_CODES).filter(
      ([code, { errno, exit }]) => !text.includes(`### ${code}\n\n*${errno}, exit ${exit}.*`),
    );
    expect(wrong.map(([code]) => code)).toEqual([]);
  });

  it('docs/testing.md names only tests that exist', () => {
    const text = byName.get('docs/testing.md')?.text ?? '';
    const named = [...text.matchAll(/`([a-z/-]+\.test\.ts)`/g)].map(([, name = '']) => name);
    expect(named.length).toBeGreaterThan(0);
    expect(named.filter((name) => !byName.has(`test/${name}`))).toEqual([]);
  });

  it('have no link that leads nowhere', () => {
    expect(documents.flatMap((file) => brokenLinks(file, byName))).toEqual([]);
  });
});

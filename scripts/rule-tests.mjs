// Fills the last column of the tables in docs/testing.md: which test files name which rule or
// scenario in the title of a test. A row without such a test keeps what a person wrote there.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const document = path.join(root, 'docs', 'testing.md');
const RULE = /\b(?:[NDFR][1-8]|P1[0-3]|P[1-9])\b/g;
const SCENARIOS = /\bscenarios? ((?:[0-9]+(?:, | and |-)?)+)/g;

/** Titles of `describe`, `it` and `test` calls; of `.each` tables too, since titles come from
 *  them. */
function titlesOf(source) {
  const titles = [];
  const visit = (node) => {
    if (
      ts.isCallExpression(node) &&
      /^(describe|it|test)\b/.test(node.expression.getText(source))
    ) {
      const [title] = node.arguments;
      if (title !== undefined && !ts.isFunctionLike(title)) titles.push(title.getText(source));
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return titles;
}

function scenariosOf(title) {
  return [...title.matchAll(SCENARIOS)].flatMap(([, list]) =>
    list.split(/, | and /).flatMap((part) => {
      const [first, last = first] = part.split('-').map(Number);
      return Array.from({ length: last - first + 1 }, (_, index) => String(first + index));
    }),
  );
}

function filesByKey() {
  const byKey = new Map();
  const folder = path.join(root, 'test');
  const names = readdirSync(folder, { recursive: true }).filter((name) =>
    name.endsWith('.test.ts'),
  );
  for (const name of names.sort()) {
    const text = readFileSync(path.join(folder, name), 'utf8');
    const source = ts.createSourceFile(name, text, ts.ScriptTarget.Latest, true);
    for (const title of titlesOf(source)) {
      for (const key of [...(title.match(RULE) ?? []), ...scenariosOf(title)]) {
        byKey.set(key, (byKey.get(key) ?? new Set()).add(name));
      }
    }
  }
  return byKey;
}

const byKey = filesByKey();
const filled = readFileSync(document, 'utf8').replace(
  /^\| ([NDFRP]?[0-9]+) \| ([^|]*) \| ([^|]*)\|$/gm,
  (_row, key, says, last) => {
    const tests = [...(byKey.get(key) ?? [])].map((name) => `\`${name}\``).join(', ');
    const kept = last.includes('.test.ts') ? '' : last.trim();
    return `| ${key} | ${says} | ${tests === '' ? kept : tests} |`;
  },
);
writeFileSync(document, filled);

/** What each file imports, and which imports the layout allows. */
import path from 'node:path';
import ts from 'typescript';
import { nodesOf } from './source-tree.js';

/** Left: a top folder. Right: the top folders it may import from. Tests may import everything. */
export const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  common: ['common'],
  proto: ['proto', 'common'],
  native: ['native', 'common'],
  replica: ['replica', 'common', 'proto', 'native'],
  engine: ['engine', 'common', 'proto', 'native'],
  cli: ['cli', 'common', 'proto'],
  'csi-driver': ['csi-driver', 'common', 'proto'],
  bench: ['bench', 'common', 'proto', 'native'],
};

export interface Import {
  readonly specifier: string;
  readonly node: ts.Node;
}

/** Static, re-exporting, dynamic and type imports, with a constant specifier. */
export function importsOf(source: ts.SourceFile): Import[] {
  const found: Import[] = [];
  for (const node of nodesOf(source)) {
    const specifier = specifierOf(node);
    if (specifier !== undefined && ts.isStringLiteralLike(specifier)) {
      found.push({ specifier: specifier.text, node });
    }
  }
  return found;
}

function specifierOf(node: ts.Node): ts.Node | undefined {
  if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return node.moduleSpecifier;
  if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument))
    return node.argument.literal;
  if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
    return node.arguments[0];
  }
  return undefined;
}

/** Why the import is not allowed in `file`, or undefined. */
export function importFault(
  file: string,
  specifier: string,
  packages: { production: readonly string[]; all: readonly string[] },
): string | undefined {
  const top = file.split('/')[0] ?? '';
  const allowed = ALLOWED[top];
  if (specifier.startsWith('.')) {
    const target = path.posix.join(path.posix.dirname(file), specifier);
    if (target.startsWith('..')) return `${specifier} leaves the checkout`;
    if (!specifier.endsWith('.js')) return `${specifier} has no .js suffix`;
    if (allowed === undefined || allowed.includes(target.split('/')[0] ?? '')) return undefined;
    return `${top} may not import ${target}`;
  }
  if (specifier.startsWith('node:')) return undefined;
  const name = specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
  if (name === 'level' && top !== 'replica' && top !== 'test') return 'only replica imports level';
  const declared = allowed === undefined ? packages.all : packages.production;
  return declared.includes(name) ? undefined : `${name} is not a declared dependency of ${top}`;
}

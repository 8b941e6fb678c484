/** Links in Markdown: to files of the checkout and to headings in them. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { ROOT, type TextFile } from './source-tree.js';

/** Anchors as GitHub makes them of headings. */
export function anchorsOf(text: string): Set<string> {
  const anchors = new Set<string>();
  for (const [, title = ''] of withoutCode(text).matchAll(/^#{1,6} +(.*)$/gm)) {
    const plain = title.replace(/[`*]/g, '').trim().toLowerCase();
    anchors.add(plain.replace(/[^\p{L}\p{N}\s_-]/gu, '').replace(/\s/g, '-'));
  }
  return anchors;
}

/** `file: link` for each link of `file` that leads nowhere. Links to other sites are not
 *  followed. */
export function brokenLinks(file: TextFile, files: ReadonlyMap<string, TextFile>): string[] {
  const links = withoutCode(file.text).matchAll(/\]\(([^)\s]+)[^)]*\)|(?:src|href)="([^"]+)"/g);
  return [...links].flatMap(([, markdown, html]) => {
    const link = markdown ?? html ?? '';
    if (/^[a-z]+:/.test(link)) return [];
    const [target = '', anchor] = link.split('#', 2);
    const name = target === '' ? file.name : path.posix.join(path.posix.dirname(file.name), target);
    const text = files.get(name)?.text;
    const exists = existsSync(path.join(ROOT, name));
    const found = anchor === undefined || text === undefined || anchorsOf(text).has(anchor);
    return exists && found ? [] : [`${file.name}: ${link}`];
  });
}

function withoutCode(text: string): string {
  return text.replace(/^```[\s\S]*?^```/gm, '').replace(/`[^`\n]*`/g, (code) => code.slice(1, -1));
}

// test-summary.mjs REPORT VITEST_STATUS LINT_FAILED: the closing line of `npm test`, and its exit
// status. What vitest's report leaves out must not look green: a file that does not load, a crash
// of the runner, the lint.
import { readFileSync } from 'node:fs';

function countsOf(reportPath) {
  try {
    const report = JSON.parse(readFileSync(reportPath, 'utf8'));
    const broken = report.testResults.filter(
      (file) =>
        file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed'),
    );
    return {
      passed: report.numPassedTests,
      failed: report.numFailedTests + broken.length,
      skipped: report.numPendingTests + report.numTodoTests,
    };
  } catch (error) {
    console.log(`no test report: ${error.message}`);
    return { passed: 0, failed: 0, skipped: 0 };
  }
}

const [reportPath, vitestStatus, lintFailed] = process.argv.slice(2);
const { passed, failed, skipped } = countsOf(reportPath);
let failures = failed;
if (lintFailed !== '0') {
  console.log('lint failed');
  failures += 1;
}
if (vitestStatus !== '0' && failed === 0) {
  console.log(`vitest ended with status ${vitestStatus} although no test failed`);
  failures += 1;
}
if (skipped > 0) console.log(`${skipped} skipped`);
console.log(`${passed} passed, ${failures} failed`);
process.exitCode = failures === 0 && passed > 0 ? 0 : 1;

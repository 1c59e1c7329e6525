const { execFileSync } = require('child_process');
const fs = require('fs');
const { Worker, isMainThread, parentPort } = require('worker_threads');
if (isMainThread) {
  fs.mkdirSync('/node/a/b', { recursive: true });
  fs.writeFileSync('/node/a/b/file', 'x'.repeat(100000));
  fs.copyFileSync('/node/a/b/file', '/node/copy');
  console.log(process.execPath, process.getuid(), execFileSync('id', ['-un']).toString().trim());
  console.log(fs.readdirSync('/node').join(), fs.statSync('/node/copy').size);
  new Worker(__filename).on('message', (text) => console.log(text));
} else {
  fs.promises.readFile('/node/copy').then((data) => parentPort.postMessage('worker ' + data.length));
}

// Arrays, buffers, strings and maps made and dropped until the collector has to work.
'use strict';
let sum = 0;
for (let round = 0; round < 60; round++) {
  const rows = [];
  for (let i = 0; i < 2000; i++) rows.push(new Array(50).fill(i + round));
  sum += rows.reduce((total, row) => total + row[7], 0);
  const buffer = Buffer.alloc(1 << 20, round);
  sum += buffer[buffer.length - 1];
  const map = new Map(rows.map((row, i) => ['key' + i, row]));
  sum += map.get('key1999')[0];
}
const typed = new Float64Array(4 << 20).fill(0.5);
console.log(sum, typed.reduce((a, b) => a + b));
let text = '';
for (let i = 0; i < 100000; i++) text += i % 10;
console.log(text.length, /9012345/.test(text));
console.log('churn done');

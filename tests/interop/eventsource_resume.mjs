// npm eventsource: reads until COUNT numbered events were seen, while the server side cuts it; prints what it saw.
import { EventSource } from 'eventsource';

const [url, token, count] = process.argv.slice(2);
const seen = [];
let opens = 0;
const source = new EventSource(`${url}/v1/devices/events/n`, {
  fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${token}` } }),
});
source.addEventListener('open', () => {
  opens += 1;
  if (opens === 1) console.log('ready');
});
source.addEventListener('n', (event) => {
  seen.push(JSON.parse(event.data).data);
  if (seen.length >= Number(count)) {
    console.log(JSON.stringify({ seen, opens }));
    process.exit(0);
  }
});

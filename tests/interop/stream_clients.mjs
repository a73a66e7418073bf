// Clients of event streams that run in Node, by their name; prints a line of JSON for each thing that they tell.
import { EventSource } from 'eventsource';
import polyfill from 'event-source-polyfill';
import Particle from 'particle-api-js';

const [client, url, token, prefix, query] = process.argv.slice(2);
const address = `${url}/v1/devices/events/${prefix}?${query ?? ''}`;
const headers = { Authorization: `Bearer ${token}` };
const say = (what) => console.log(JSON.stringify(what));

function watch(source) {
  source.addEventListener('open', () => say({ open: true }));
  source.addEventListener('error', () => say({ error: source.readyState }));
  // What has no name of its own, or no data, would come as a message.
  for (const name of ['message', `${prefix}/1`, `${prefix}/2`]) {
    source.addEventListener(name, (event) => say({ name, data: JSON.parse(event.data).data }));
  }
}

const clients = {
  eventsource: () => watch(new EventSource(address, {
    fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...headers } }),
  })),
  'event-source-polyfill': () => watch(new polyfill.EventSourcePolyfill(address, { headers })),
  'particle-api-js': async () => {
    const particle = new Particle({ baseUrl: url });
    const stream = await particle.getEventStream({ deviceId: 'mine', name: prefix, auth: token });
    say({ open: true });
    stream.on('reconnect-success', () => say({ open: true }));
    stream.on('event', (event) => say({ name: event.name, data: event.data }));
  },
};
await clients[client]();

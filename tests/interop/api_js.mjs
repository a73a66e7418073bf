// particle-api-js: log in, make a webhook, publish, and see the answer on the stream.
import Particle from 'particle-api-js';

const [baseUrl, username, password, target] = process.argv.slice(2);
const particle = new Particle({ baseUrl });
const say = (what, value) => console.log(JSON.stringify({ what, value }));

const login = await particle.login({ username, password });
const auth = login.body.access_token;
say('login', { type: login.body.token_type, life: login.body.expires_in });
say('user', (await particle.getUserInfo({ auth })).body.username);
say('devices', (await particle.listDevices({ auth })).body);

const hook = await particle.createWebhook({
  event: 'temperature', url: target, auth, hook: { json: { celsius: '{{PARTICLE_EVENT_VALUE}}' } },
});
say('webhook', hook.body);
say('webhooks', (await particle.listWebhooks({ auth })).body.map((each) => each.id));

const integration = await particle.createIntegration({
  event: 'other', settings: { integration_type: 'Webhook', url: target, requestType: 'POST', noDefaults: true }, auth,
});
say('integration', integration.body.id);
const edited = await particle.editIntegration({
  integrationId: integration.body.id, event: 'another', settings: { integration_type: 'Webhook', url: target }, auth,
});
say('edited', edited.body.event);
say('integrations', (await particle.listIntegrations({ auth })).body.map((each) => each.integration_type));
say('deleted', (await particle.deleteIntegration({ integrationId: integration.body.id, auth })).statusCode);

const stream = await particle.getEventStream({ deviceId: 'mine', auth });
const seen = [];
const answered = new Promise((resolve) => {
  stream.on('event', (event) => {
    seen.push(event);
    if (event.name.startsWith('hook-response/')) resolve();
  });
});
say('published', (await particle.publishEvent({ name: 'temperature', data: '21.5 °C', isPrivate: true, auth })).body);
await answered;
stream.abort();
say('stream', seen);

say('unhooked', (await particle.deleteWebhook({ hookId: hook.body.id, auth })).body);
for (const [what, call] of Object.entries({
  badToken: () => particle.listDevices({ auth: 'nonsense' }),
  badPassword: () => particle.login({ username, password: 'wrong' }),
  unknownDevice: () => particle.getDevice({ deviceId: '0123456789abcdef01234567', auth }),
  badStream: () => particle.getEventStream({ deviceId: 'mine', auth: 'nonsense' }),
  product: () => particle.listDevices({ product: 'nothing', auth }),
})) {
  try {
    await call();
    say(what, 'no error');
  } catch (error) {
    say(what, { status: error.statusCode, text: error.shortErrorDescription ?? error.errorDescription });
  }
}
say('logout', (await particle.deleteCurrentAccessToken({ auth })).body);
process.exit(0);

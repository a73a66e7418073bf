// particle-api-js and a device: its key, a claim code, functions, variables, signal. The test is the device.
import Particle from 'particle-api-js';

const [baseUrl, auth, deviceId, publicKey] = process.argv.slice(2);
const particle = new Particle({ baseUrl });
const say = (what, value) => console.log(JSON.stringify({ what, value }));

const claim = (await particle.getClaimCode({ auth })).body;
say('claimCode', { length: claim.claim_code.length, devices: claim.device_ids });
say('key', (await particle.sendPublicKey({ deviceId, key: publicKey, algorithm: 'ecc', auth })).body);
say('sent', null);
// The device connects now.
let shown = {};
while (!shown.online || shown.functions.length === 0) {
  await new Promise((resolve) => setTimeout(resolve, 50));
  shown = (await particle.getDevice({ deviceId, auth })).body;
}
say('device', { online: shown.online, functions: shown.functions, variables: shown.variables });
say('called', (await particle.callFunction({ deviceId, name: 'set', argument: 'high', auth })).body);
say('read', (await particle.getVariable({ deviceId, name: 'temp', auth })).body);
say('signalled', (await particle.signalDevice({ deviceId, signal: true, auth })).body);
for (const [what, call] of Object.entries({
  noFunction: () => particle.callFunction({ deviceId, name: 'nothing', argument: '', auth }),
  noVariable: () => particle.getVariable({ deviceId, name: 'nothing', auth }),
  foreign: () => particle.sendPublicKey({ deviceId: 'f'.repeat(24), key: publicKey, algorithm: 'ecc', auth }),
})) {
  try {
    await call();
    say(what, 'no error');
  } catch (error) {
    say(what, error.statusCode);
  }
}
process.exit(0);

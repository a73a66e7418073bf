// What particle-api-js asks beside the main job: lists of what is not there, OAuth clients, passwords.
// Prints one JSON line per step.
import Particle from 'particle-api-js';

const [baseUrl, username, password, device] = process.argv.slice(2);
const say = (what, value) => console.log(JSON.stringify({ what, value }));
const failure = (error) => ({ status: error.statusCode, text: error.shortErrorDescription });
const particle = new Particle({ baseUrl });
const login = async () => (await particle.login({ username, password, tokenDuration: 3600 })).body;

const { access_token: auth, refresh_token } = await login();
particle.setDefaultAuth(auth);

say('products', (await particle.listProducts({})).body.products);
say('orgs', (await particle.get({ uri: '/v1/orgs', auth })).body.organizations);
say('own products', (await particle.get({ uri: '/v1/user/products', auth })).body.products);
say('sims', (await particle.listSIMs({})).body.sims);
say('libraries', await particle.client({ auth }).libraries());
say('ledgers', (await particle.listLedgers({})).body.ledger_definitions);
say('logic', (await particle.listLogicFunctions({})).body.logic_functions);
say('versions', (await particle.listDeviceOsVersions({})).body);
say('targets', await particle.client({ auth }).listBuildTargets());
say('variables', (await particle.listEnvVars({ sandbox: true })).body.latest.own);
say('identity', (await particle.trackingIdentity({ full: true })).body.email);
say('product', await particle.getProduct({ product: 'x' }).catch(failure));
say('flash', await particle.flashDevice({ deviceId: device, files: { file: './package.json' } }).catch(failure));
say('reset', await particle.resetPassword({ username }).catch(failure));

const made = (await particle.createOAuthClient({ name: 'dashboard', type: 'installed' })).body.client;
say('made', Object.keys(made).sort());
say('listed', (await particle.listOAuthClients({})).body.clients.map((each) => [each.id === made.id, each.name, each.secret]));
say('updated', (await particle.updateOAuthClient({ clientId: made.id, name: 'another', scope: 'devices:list' })).body.client.name);
const owner = new Particle({ baseUrl, clientId: made.id, clientSecret: made.secret });
const { body: asOwner } = await owner.loginAsClientOwner({});
say('as owner', (await owner.listDevices({ auth: asOwner.access_token })).body.map((each) => each.id));
say('as owner, more', await owner.listOAuthClients({ auth: asOwner.access_token }).catch(failure));
const refreshed = await particle.request({
  uri: '/oauth/token', method: 'post', form: { grant_type: 'refresh_token', refresh_token },
});
say('refreshed', refreshed.body.expires_in);
say('deleted', (await particle.deleteOAuthClient({ clientId: made.id })).statusCode);
say('after', await owner.listDevices({ auth: asOwner.access_token }).catch(failure));

const changed = await particle.changeUserPassword({ currentPassword: password, password, invalidateTokens: true });
say('changed', changed.body.ok);
say('own token', await particle.getUserInfo({}).catch(failure));
say('again', Boolean((await login()).access_token));

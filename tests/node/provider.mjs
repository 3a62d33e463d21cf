// A real OpenID provider as the issuer of the black-box tests: client credentials, JWT access tokens, key rotation; and a
// browser of alice, who logs in to the client `web` and out again, of which the provider tells by back-channel logout.
// usage: node provider.mjs NODE_MODULES ALG; commands arrive on standard input, one JSON line answers each.

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

console.info = console.error; // the provider's notices must not mix with the answers
const [modules, alg] = process.argv.slice(2);
const { default: Provider } = await import(pathToFileURL(join(modules, 'oidc-provider/lib/index.js')));

const AUDIENCE = 'https://api.example.com';
const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

function newKey() {
  const pair = alg.startsWith('ES')
    ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
    : alg === 'EdDSA' ? generateKeyPairSync('ed25519') : generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...pair.privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg };
}

const REDIRECT = 'https://client.example.com/callback';

const server = createServer((request, response) => {
  const handle = request.url.startsWith('/interaction/') ? interact(request, response) : current.callback()(request, response);
  Promise.resolve(handle).catch((error) => { response.writeHead(500).end(String(error)); });
});
await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
const issuer = `http://127.0.0.1:${server.address().port}`;

function provider(keys, logout) {
  const made = new Provider(issuer, {
    jwks: { keys },
    cookies: { keys: ['a-key-for-cookies'] },
    findAccount: (_ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    pkce: { required: () => false },
    // The provider itself promises `sid` in ID tokens only.
    extraTokenClaims: (ctx) => {
      const sid = ctx.oidc.entities.AuthorizationCode?.sid;
      return sid ? { sid } : undefined;
    },
    async loadExistingGrant(ctx) {
      const grant = new ctx.oidc.provider.Grant({ accountId: ctx.oidc.session.accountId, clientId: ctx.oidc.client.clientId });
      grant.addOIDCScope('openid');
      grant.addResourceScope(AUDIENCE, 'read:deals');
      await grant.save();
      return grant;
    },
    clients: [{
      client_id: 'web', client_secret: 'web-secret', grant_types: ['authorization_code'], response_types: ['code'],
      redirect_uris: [REDIRECT], id_token_signed_response_alg: alg,
      ...(logout && { backchannel_logout_uri: logout, backchannel_logout_session_required: true }),
    }, {
      client_id: 'app', client_secret: 'a-secret', grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
      id_token_signed_response_alg: alg,
    }],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      backchannelLogout: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => AUDIENCE,
        getResourceServerInfo: (_ctx, resource) => ({
          scope: 'read:deals', audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg } },
        }),
      },
    },
  });
  made.on('backchannel.success', () => { told = 'told'; });
  made.on('backchannel.error', (_ctx, error) => { told = String(error); });
  return made;
}

// Logs alice in, whoever asks.
async function interact(request, response) {
  await current.interactionFinished(request, response, { login: { accountId: 'alice' } }, { mergeWithLastSubmission: false });
}

// What the last logout came to.
let told;

// The browser: its cookies, and the ID token of each log-in.
const jar = new Map();
let idToken;

async function browse(url, options = {}) {
  const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join('; ');
  const answer = await fetch(new URL(url, issuer), { redirect: 'manual', ...options, headers: { ...options.headers, cookie } });
  for (const line of answer.headers.getSetCookie()) {
    const [pair] = line.split(';');
    const at = pair.indexOf('=');
    if (pair.length === at + 1) jar.delete(pair.slice(0, at)); else jar.set(pair.slice(0, at), pair.slice(at + 1));
  }
  return answer;
}

let keys = [newKey()];
let current = provider(keys);

const commands = {
  // The new key first: the provider signs with the first that fits.
  rotate() { keys = [newKey(), ...keys]; current = provider(keys); return { kid: keys[0].kid }; },
  replace() { keys = [newKey()]; current = provider(keys); return { kid: keys[0].kid }; },
  register(url) { current = provider(keys, url); return {}; },
  async login() {
    const wanted = { client_id: 'web', response_type: 'code', redirect_uri: REDIRECT, scope: 'openid read:deals', resource: AUDIENCE };
    let url = `${issuer}/auth?${new URLSearchParams(wanted)}`;
    while (!url.startsWith(REDIRECT)) {
      const answer = await browse(url);
      if (answer.status >= 400) return { error: await answer.text() };
      url = answer.headers.get('location');
      if (url.startsWith('/')) url = issuer + url;
    }
    const code = new URL(url).searchParams.get('code');
    const answer = await fetch(`${issuer}/token`, {
      method: 'POST',
      headers: { authorization: `Basic ${Buffer.from('web:web-secret').toString('base64')}` },
      body: new URLSearchParams({ grant_type: 'authorization_code', code, redirect_uri: REDIRECT, resource: AUDIENCE }),
    });
    const tokens = await answer.json();
    idToken = tokens.id_token;
    return tokens;
  },
  async logout() {
    told = undefined;
    const page = await (await browse(`/session/end?${new URLSearchParams({ id_token_hint: idToken, client_id: 'web' })}`)).text();
    const xsrf = /name="xsrf" value="([^"]+)"/.exec(page)?.[1];
    await browse('/session/end/confirm', { method: 'POST', body: new URLSearchParams({ xsrf, logout: 'yes' }) });
    return { told: told ?? page };
  },
  async token() {
    const answer = await fetch(`${issuer}/token`, {
      method: 'POST',
      headers: { authorization: `Basic ${Buffer.from('app:a-secret').toString('base64')}` },
      body: new URLSearchParams({ grant_type: 'client_credentials', scope: 'read:deals' }),
    });
    return answer.json();
  },
};

say({ issuer });
for await (const line of createInterface({ input: process.stdin })) {
  const [word, ...rest] = line.trim().split(' ');
  say(await commands[word](...rest));
}
process.exit(0);

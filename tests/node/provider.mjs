// A real OpenID provider as the issuer of the black-box tests: client credentials, JWT access tokens, key rotation.
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

const server = createServer((request, response) => current(request, response));
await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
const issuer = `http://127.0.0.1:${server.address().port}`;

function provider(keys) {
  return new Provider(issuer, {
    jwks: { keys },
    clients: [{
      client_id: 'app', client_secret: 'a-secret', grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
      id_token_signed_response_alg: alg,
    }],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => AUDIENCE,
        getResourceServerInfo: () => ({
          scope: 'read:deals', audience: AUDIENCE, accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg } },
        }),
      },
    },
  }).callback();
}

let keys = [newKey()];
let current = provider(keys);

const commands = {
  // The new key first: the provider signs with the first that fits.
  rotate() { keys = [newKey(), ...keys]; current = provider(keys); return { kid: keys[0].kid }; },
  replace() { keys = [newKey()]; current = provider(keys); return { kid: keys[0].kid }; },
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
for await (const line of createInterface({ input: process.stdin })) say(await commands[line.trim()]());
process.exit(0);

// oauth4webapi, which validates every answer strictly: discovery, tokens, the API and its challenges, introspection, revocation,
// key ids. Prints how many checks it made.

import { ALGORITHM, CLIENT_ID, CLIENT_SECRET, ISSUER, fails, finish, holds, load, same } from './checks.mjs';

const oauth = await load('oauth4webapi/build/index.js');
const jose = await load('jose/dist/webapi/index.js');
const issuer = new URL(ISSUER);
const client = { client_id: CLIENT_ID };

const discovery = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2' });
const server = await oauth.processDiscoveryResponse(issuer, discovery);
same(server.issuer, ISSUER);
holds(server.grant_types_supported.includes('client_credentials'));
for (const name of ['token_endpoint', 'jwks_uri', 'revocation_endpoint', 'introspection_endpoint']) {
  holds(server[name].startsWith(`${ISSUER}/`), name);
}
for (const [name, value] of Object.entries(server)) {
  holds(!Array.isArray(value) || value.length > 0, `${name}: empty lists are left out`);
}

const { keys } = await (await fetch(server.jwks_uri)).json();
for (const key of keys) {
  same(key.kid, await jose.calculateJwkThumbprint(key), 'the key id is the thumbprint of RFC 7638');
  same([key.use, key.alg], ['sig', ALGORITHM]);
  holds(['d', 'p', 'q', 'dp', 'dq', 'qi', 'k'].every((secret) => !(secret in key)), 'nothing private is published');
}

async function token(authentication, parameters = {}) {
  const response = await oauth.clientCredentialsGrantRequest(server, client, authentication, parameters);
  return oauth.processClientCredentialsResponse(server, client, response);
}

const deals = `${ISSUER}/deals/7`;
const call = (bearer, url = deals) => oauth.protectedResourceRequest(bearer, 'GET', new URL(url));

// This package form-encodes every "_" of a client id in the Basic header: the strict reading of RFC 6749, section 2.3.1.
for (const authentication of [oauth.ClientSecretBasic(CLIENT_SECRET), oauth.ClientSecretPost(CLIENT_SECRET)]) {
  const issued = await token(authentication, { scope: 'read:deals' });
  same([issued.token_type, issued.expires_in], ['bearer', 3600]);
  const request = new Request(deals, { headers: { authorization: `Bearer ${issued.access_token}` } });
  const claims = await oauth.validateJwtAccessToken(server, request, ISSUER, { signingAlgorithms: [ALGORITHM] });
  same([claims.client_id, claims.scope, claims.roles], [CLIENT_ID, 'read:deals', ['case-reader']]);
  same(claims.exp - claims.iat, issued.expires_in);
  holds(claims.sub !== claims.client_id && claims.jti.length > 15);
  same(jose.decodeProtectedHeader(issued.access_token).typ, 'at+jwt');
  const verified = await jose.jwtVerify(issued.access_token, jose.createRemoteJWKSet(new URL(server.jwks_uri)), {
    issuer: ISSUER, audience: ISSUER, typ: 'at+jwt',
  });
  same(verified.payload.jti, claims.jti);
  same((await call(issued.access_token)).status, 200);

  // The challenges, parsed by somebody who is strict about them.
  const lacking = await fails(call(issued.access_token, `${ISSUER}/users`));
  holds(lacking instanceof oauth.WWWAuthenticateChallengeError);
  same([lacking.status, lacking.cause.length, lacking.cause[0].scheme], [403, 1, 'bearer']);
  same([lacking.cause[0].parameters.error, lacking.cause[0].parameters.scope], ['insufficient_scope', 'read:users']);

  const introspect = async () => {
    const response = await oauth.introspectionRequest(server, client, authentication, issued.access_token);
    return oauth.processIntrospectionResponse(server, client, response);
  };
  const active = await introspect();
  same([active.active, active.client_id, active.scope, active.jti], [true, CLIENT_ID, 'read:deals', claims.jti]);
  const revoke = async (bearer) => {
    await oauth.processRevocationResponse(await oauth.revocationRequest(server, client, authentication, bearer));
  };
  await revoke(issued.access_token);
  await revoke(issued.access_token);
  await revoke('nonsense');
  same(await introspect(), { active: false });
  const revoked = await fails(call(issued.access_token));
  same([revoked.status, revoked.cause[0].parameters.error], [401, 'invalid_token']);
  holds(revoked.cause[0].parameters.error_description.length > 0);
}

const bare = await fetch(deals);
same([bare.status, bare.headers.get('www-authenticate')], [401, 'Bearer realm="portcullis"']);

for (const wrong of [oauth.ClientSecretBasic('wrong'), oauth.ClientSecretPost('wrong')]) {
  const refused = await fails(token(wrong));
  // A 401 of the token endpoint carries a challenge, which this package reads first.
  holds(refused instanceof oauth.WWWAuthenticateChallengeError, refused.message);
  same([refused.status, refused.cause[0].scheme], [401, 'basic']);
}
const beyond = await fails(token(oauth.ClientSecretBasic(CLIENT_SECRET), { scope: 'read:users' }));
holds(beyond instanceof oauth.ResponseBodyError, beyond.message);
same([beyond.status, beyond.error], [400, 'invalid_scope']);
const stranger = await oauth.introspectionRequest(server, client, oauth.ClientSecretPost('wrong'), 'x');
same(stranger.status, 401);
finish();

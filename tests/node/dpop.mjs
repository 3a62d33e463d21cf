// oauth4webapi and openid-client with DPoP: a token bound to a key of the client, and the API called with a proof of it. Follows
// use_dpop_nonce as the packages do, so it runs against authorities with nonces and without.

import { CLIENT_ID, CLIENT_SECRET, ISSUER, fails, finish, holds, load, same } from './checks.mjs';

const oauth = await load('oauth4webapi/build/index.js');
const oidc = await load('openid-client/build/index.js');
const jose = await load('jose/dist/webapi/index.js');
const issuer = new URL(ISSUER);
const client = { client_id: CLIENT_ID };
const authentication = oauth.ClientSecretBasic(CLIENT_SECRET);
const NONCES = process.env.NONCES === 'required';

const discovery = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2' });
const server = await oauth.processDiscoveryResponse(issuer, discovery);
holds(['ES256', 'Ed25519', 'PS256'].every((alg) => server.dpop_signing_alg_values_supported.includes(alg)));
same('tls_client_certificate_bound_access_tokens' in server, false, 'no certificates are verified here');

let refusals = 0;

/** Does something with a proof, and once more with the nonce that is asked for. */
async function proven(what) {
  try {
    return await what();
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error;
    refusals += 1;
    return what();
  }
}

for (const alg of ['ES256', 'Ed25519', 'PS256']) {
  const keyPair = await oauth.generateKeyPair(alg);
  const DPoP = oauth.DPoP(client, keyPair);
  const grant = { scope: 'read:deals' };
  const issued = await proven(async () => {
    const response = await oauth.clientCredentialsGrantRequest(server, client, authentication, grant, { DPoP });
    return oauth.processClientCredentialsResponse(server, client, response);
  });
  same(issued.token_type, 'dpop');
  const jkt = await DPoP.calculateThumbprint();
  same(jose.decodeJwt(issued.access_token).cnf, { jkt });

  const deals = new URL(`${ISSUER}/deals/7?page=1`);
  const call = (dpop, url = deals) => oauth.protectedResourceRequest(issued.access_token, 'GET', url, undefined, null, { DPoP: dpop });
  for (let times = 0; times < 3; times += 1) same((await proven(() => call(DPoP))).status, 200);

  // Without the key it is worth nothing.
  const bearer = await fails(call(undefined));
  same([bearer.status, bearer.cause[0].scheme, bearer.cause[0].parameters.error], [401, 'dpop', 'invalid_token']);
  holds(bearer.cause[0].parameters.algs.split(' ').includes(alg));
  const thief = oauth.DPoP(client, await oauth.generateKeyPair(alg));
  const stolen = await fails(proven(() => call(thief)));
  same([stolen.status, stolen.cause[0].scheme, stolen.cause[0].parameters.error], [401, 'dpop', 'invalid_dpop_proof']);
  const lacking = await fails(proven(() => call(DPoP, new URL(`${ISSUER}/users`))));
  same([lacking.status, lacking.cause[0].scheme, lacking.cause[0].parameters.error], [403, 'dpop', 'insufficient_scope']);

  const introspected = await oauth.processIntrospectionResponse(
    server, client, await oauth.introspectionRequest(server, client, authentication, issued.access_token),
  );
  same([introspected.active, introspected.token_type, introspected.cnf], [true, 'DPoP', { jkt }]);
  await oauth.processRevocationResponse(await oauth.revocationRequest(server, client, authentication, issued.access_token));
  const revoked = await fails(proven(() => call(DPoP)));
  same([revoked.status, revoked.cause[0].scheme, revoked.cause[0].parameters.error], [401, 'dpop', 'invalid_token']);
}
// One for each new key: the answers that pass bring the next nonce. What the thief sends is refused for its key alone.
same(refusals, NONCES ? 3 : 0);

const config = await oidc.discovery(issuer, CLIENT_ID, undefined, oidc.ClientSecretPost(CLIENT_SECRET), { algorithm: 'oauth2' });
const DPoP = oidc.getDPoPHandle(config, await oidc.randomDPoPKeyPair('ES256'));
const tokens = await oidc.clientCredentialsGrant(config, { scope: 'read:deals' }, { DPoP });
same(tokens.token_type, 'dpop');
const protectedCall = (options) =>
  oidc.fetchProtectedResource(config, tokens.access_token, new URL(`${ISSUER}/deals/7`), 'GET', null, undefined, options);
same((await protectedCall({ DPoP })).status, 200);
same((await protectedCall({ DPoP })).status, 200);
const unbound = await fails(protectedCall());
same([unbound.status, unbound.cause[0].parameters.error], [401, 'invalid_token']);
finish();

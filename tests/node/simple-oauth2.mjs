// simple-oauth2 in its four ways to send a secret: in the header or the body, form-encoded or as it is.

import { CLIENT_ID, CLIENT_SECRET, ISSUER, fails, finish, holds, load, same } from './checks.mjs';

const { default: { ClientCredentials } } = await load('simple-oauth2/index.js');

const as = (secret, authorizationMethod, credentialsEncodingMode) => new ClientCredentials({
  client: { id: CLIENT_ID, secret },
  auth: { tokenHost: ISSUER, tokenPath: '/OAuth/Token', revokePath: '/oauth/revoke' },
  options: { authorizationMethod, credentialsEncodingMode },
});
const call = async (bearer) => (await fetch(`${ISSUER}/deals/7`, { headers: { authorization: `Bearer ${bearer}` } })).status;

for (const method of ['header', 'body']) {
  for (const encoding of ['strict', 'loose']) {
    const issued = await as(CLIENT_SECRET, method, encoding).getToken({ scope: ['read:deals', 'read:activity'] });
    const bearer = issued.token.access_token;
    same([issued.token.token_type, issued.expired(), issued.expired(3700)], ['Bearer', false, true]);
    same(await call(bearer), 200, `${method} ${encoding}`);
    await issued.revoke('access_token');
    same(await call(bearer), 401, 'revoked');
    const refused = await fails(as('wrong', method, encoding).getToken({}));
    same([refused.output.statusCode, refused.data.payload.error], [401, 'invalid_client']);
    holds(refused.data.payload.error_description.length > 0);
  }
}
finish();

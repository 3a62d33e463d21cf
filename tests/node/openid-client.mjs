// openid-client as an application would use it: one discovery, then tokens, the API, introspection and revocation.

import { CLIENT_ID, CLIENT_SECRET, ISSUER, fails, finish, holds, load, same } from './checks.mjs';

const oidc = await load('openid-client/build/index.js');

for (const authentication of [oidc.ClientSecretBasic(CLIENT_SECRET), oidc.ClientSecretPost(CLIENT_SECRET)]) {
  const config = await oidc.discovery(new URL(ISSUER), CLIENT_ID, undefined, authentication, { algorithm: 'oauth2' });
  same(config.serverMetadata().issuer, ISSUER);

  const whole = await oidc.clientCredentialsGrant(config);
  same(whole.scope, 'read:deals read:activity', 'what was not asked for is told');
  const issued = await oidc.clientCredentialsGrant(config, { scope: 'read:deals' });
  same([issued.token_type, issued.expiresIn() > 3500], ['bearer', true]);
  const call = (bearer, path) => oidc.fetchProtectedResource(config, bearer, new URL(`${ISSUER}${path}`), 'GET');
  for (const { access_token: bearer } of [whole, issued]) same((await call(bearer, '/deals/7')).status, 200);
  const lacking = await fails(call(issued.access_token, '/users/1'));
  same([lacking.status, lacking.cause[0].parameters.error], [403, 'insufficient_scope']);

  same((await oidc.tokenIntrospection(config, issued.access_token)).active, true);
  await oidc.tokenRevocation(config, issued.access_token);
  same(await oidc.tokenIntrospection(config, issued.access_token), { active: false });
  const revoked = await fails(call(issued.access_token, '/deals/7'));
  same([revoked.status, revoked.cause[0].parameters.error], [401, 'invalid_token']);
  same((await call(whole.access_token, '/deals/7')).status, 200, 'the other token lives on');

  const beyond = await fails(oidc.clientCredentialsGrant(config, { scope: 'read:users' }));
  holds(beyond instanceof oidc.ResponseBodyError, beyond.message);
  same(beyond.error, 'invalid_scope');
}
finish();

// The Model Context Protocol as people use it: the client and the server of its TypeScript SDK, revision 2026-07-28, with the
// gate between them. Starts the server and says where it is, is told where the gate is, and plays the client's story:
// 401, discovery, a token, tools, one that is refused for its scope, and a stream that a revocation ends.
// Each line of standard output is a step that the test answers, or the number of checks at the end.

import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

import { fails, finish, holds, load, same } from './checks.mjs';

const mcp = await load('@modelcontextprotocol/client/dist/index.mjs');
const served = await load('@modelcontextprotocol/server/dist/index.mjs');
const { toNodeHandler } = await load('@modelcontextprotocol/node/dist/index.mjs');
const jose = await load('jose/dist/webapi/index.js');

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (step, more = {}) => console.log(JSON.stringify({ step, ...more }));
const told = async () => JSON.parse((await lines.next()).value);

// The server knows nothing of tokens.
const seen = [];
const handler = served.createMcpHandler(() => {
  const server = new served.McpServer({ name: 'deals', version: '1.0.0' }, { capabilities: { tools: { listChanged: true } } });
  for (const name of ['read_deals', 'read_café', 'close_deal', 'drop_deals']) {
    server.registerTool(name, { description: name }, () => ({ content: [{ type: 'text', text: `did ${name}` }] }));
  }
  return server;
}, { keepAliveMs: 300 });
const handle = toNodeHandler(handler);
let listening = 0;
const http = createServer((request, response) => {
  const method = request.headers['mcp-method'];
  seen.push({ method, name: request.headers['mcp-name'], who: request.headers['x-auth-client'] });
  if (method === 'subscriptions/listen') {
    listening += 1;
    response.on('close', () => { listening -= 1; });
  }
  handle(request, response);
});
await new Promise((resolve) => { http.listen(0, '127.0.0.1', resolve); });
say('serving', { url: `http://127.0.0.1:${http.address().port}` });

const { url, issuer, id, secret, needs, all, widens } = await told();
const metadata = `${new URL(url).origin}/.well-known/oauth-protected-resource${new URL(url).pathname}`;

function client(options = {}) {
  const provider = new mcp.ClientCredentialsProvider({ clientId: id, clientSecret: secret, expectedIssuer: issuer });
  const transport = new mcp.StreamableHTTPClientTransport(new URL(url), { authProvider: provider, ...options });
  const made = new mcp.Client({ name: 'test', version: '1.0.0' }, { versionNegotiation: { mode: { pin: '2026-07-28' } } });
  return { made, provider, transport };
}

// What a client learns from its first refusal.
const call = (headers = {}) => fetch(url, {
  method: 'POST',
  headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream', ...headers },
  body: '{"jsonrpc":"2.0","id":1,"method":"server/discover"}',
});
const discover = { 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'server/discover' };
const bare = await call(discover);
same(bare.status, 401);
const challenge = mcp.extractWWWAuthenticateParams(bare);
same([challenge.resourceMetadataUrl?.href, challenge.scope, challenge.error], [metadata, needs, undefined]);
for (const options of [{ resourceMetadataUrl: challenge.resourceMetadataUrl }, undefined]) {
  // By the challenge, and by the well-known path alone.
  const found = await mcp.discoverOAuthProtectedResourceMetadata(new URL(url), options);
  same([found.resource, found.authorization_servers, found.bearer_methods_supported], [url, [issuer], ['header']]);
  same(found.scopes_supported, all.split(' '));
}
const server = await mcp.discoverAuthorizationServerMetadata(issuer);
same(server.issuer, issuer);
holds(server.authorization_endpoint && server.token_endpoint, 'the metadata is one that the SDK accepts');
same((await call({ ...discover, authorization: 'Bearer nonsense' })).status, 401);
same((await call({ 'mcp-method': 'server/discover' })).status, 400, 'no revision');
same((await call({ ...discover, 'mcp-protocol-version': '2025-11-25' })).status, 400, 'an old revision');

// The SDK finds its own way from there to a token for the resource, and to the tools.
const { made, provider, transport } = client({ onInsufficientScope: 'throw' });
await made.connect(transport);
const claims = jose.decodeJwt(provider.tokens().access_token);
same([claims.aud, claims.scope], [url, needs]);
same((await made.listTools()).tools.map((tool) => tool.name).sort(), ['close_deal', 'drop_deals', 'read_café', 'read_deals']);
const text = async (caller, name) => (await caller.callTool({ name, arguments: {} })).content[0].text;
same(await text(made, 'read_deals'), 'did read_deals');
same(await text(made, 'read_café'), 'did read_café', 'a name that goes in base64');
same(seen.at(-1), { method: 'tools/call', name: '=?base64?cmVhZF9jYWbDqQ==?=', who: id });

// A tool that asks for more, and one that nobody listed.
const lacking = await fails(made.callTool({ name: 'close_deal', arguments: {} }));
holds(lacking instanceof mcp.InsufficientScopeError, String(lacking));
same([lacking.requiredScope, lacking.resourceMetadataUrl?.href], [all, metadata]);
const denied = await fails(made.callTool({ name: 'drop_deals', arguments: {} }));
same([denied.data?.status ?? denied.status, denied instanceof mcp.InsufficientScopeError], [403, false], String(denied));
holds(seen.every(({ name }) => !['close_deal', 'drop_deals'].includes(name)), 'neither reached the server');

// A client that gets itself the scopes of the challenge.
const wider = client();
await wider.made.connect(wider.transport);
if (widens) {
  same(await text(wider.made, 'close_deal'), 'did close_deal');
  same(jose.decodeJwt(wider.provider.tokens().access_token).scope.split(' ').sort(), all.split(' ').sort());
} else {
  holds(await fails(wider.made.callTool({ name: 'close_deal', arguments: {} })), 'the issuer does not grant them');
}
await wider.made.close();

// A stream of notifications, until what it was opened with is revoked.
let changes = 0;
made.setNotificationHandler('notifications/tools/list_changed', () => { changes += 1; });
const subscription = await made.listen({ toolsListChanged: true });
handler.notify.toolsChanged();
while (changes === 0) await new Promise((resolve) => { setTimeout(resolve, 20); });
same(listening, 1);
say('listening', { sub: claims.sub, jti: claims.jti });
await told();
same(await subscription.closed, 'remote', 'the stream ends by itself');
while (listening > 0) await new Promise((resolve) => { setTimeout(resolve, 20); });
holds(true, 'the server is let go');
const after = await call({ ...discover, authorization: `Bearer ${provider.tokens().access_token}` });
same([after.status, mcp.extractWWWAuthenticateParams(after).error], [401, 'invalid_token']);
same(mcp.extractWWWAuthenticateParams(after).resourceMetadataUrl?.href, metadata);
await made.close().catch(() => {});
finish();
process.exit(0);

// Version 1 of the SDK (`@modelcontextprotocol/sdk`), whose revisions have no fields to decide by: discovery, a token and tools on
// a route for any request. Speaks with the test as `mcp.mjs` does.

import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

import { fails, finish, holds, load, same } from './checks.mjs';

const sdk = (file) => load(`@modelcontextprotocol/sdk/dist/esm/${file}.js`);
const { Client } = await sdk('client/index');
const { StreamableHTTPClientTransport } = await sdk('client/streamableHttp');
const { ClientCredentialsProvider } = await sdk('client/auth-extensions');
const { McpServer } = await sdk('server/mcp');
const { StreamableHTTPServerTransport } = await sdk('server/streamableHttp');
const jose = await load('jose/dist/webapi/index.js');

const http = createServer(async (request, response) => {
  const server = new McpServer({ name: 'deals', version: '1.0.0' });
  server.registerTool('read_deals', { description: 'reads' }, () => ({ content: [{ type: 'text', text: 'did read_deals' }] }));
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse: true });
  response.on('close', () => { transport.close(); server.close(); });
  await server.connect(transport);
  await transport.handleRequest(request, response);
});
await new Promise((resolve) => { http.listen(0, '127.0.0.1', resolve); });
console.log(JSON.stringify({ step: 'serving', url: `http://127.0.0.1:${http.address().port}` }));
const { value } = await createInterface({ input: process.stdin })[Symbol.asyncIterator]().next();
const { url, issuer, id, secret, needs } = JSON.parse(value);

const provider = new ClientCredentialsProvider({ clientId: id, clientSecret: secret, expectedIssuer: issuer });
const client = new Client({ name: 'test', version: '1.0.0' });
await client.connect(new StreamableHTTPClientTransport(new URL(url), { authProvider: provider }));
const claims = jose.decodeJwt(provider.tokens().access_token);
same([claims.aud, claims.scope], [url, needs]);
same((await client.listTools()).tools.map((tool) => tool.name), ['read_deals']);
same((await client.callTool({ name: 'read_deals', arguments: {} })).content[0].text, 'did read_deals');
await client.close();

// A wrong secret gets no token, and without one there is no way in.
const stranger = new ClientCredentialsProvider({ clientId: id, clientSecret: 'wrong', expectedIssuer: issuer });
const lost = new Client({ name: 'test', version: '1.0.0' });
holds(await fails(lost.connect(new StreamableHTTPClientTransport(new URL(url), { authProvider: stranger }))));
same(stranger.tokens(), undefined);
finish();
process.exit(0);

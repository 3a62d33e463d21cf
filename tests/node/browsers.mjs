// Pages of other origins in a real Chromium: what they can read of the gate's answers, and what not.
// SCENARIO says which story is played; it prints how many checks it made.

import { finish, holds, load, same } from './checks.mjs';

const { GATE, APP, STRANGER, DEAD, SCENARIO } = process.env;
const TOKENS = JSON.parse(process.env.TOKENS);
const { chromium } = await load('playwright-core/index.mjs');

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});

/** A page of an origin. */
async function page(origin) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const opened = await context.newPage();
  opened.setDefaultTimeout(60_000);
  await opened.goto(`${origin}/`);
  return opened;
}

/** What a script of the page learns of a request: the answer, or only that there is none. */
const ask = (opened, url, options = {}) => opened.evaluate(async ([target, init]) => {
  try {
    const answer = await fetch(target, { cache: 'no-store', ...init });
    const fields = Object.fromEntries(answer.headers);
    return { status: answer.status, type: answer.type, fields, text: await answer.text() };
  } catch (error) {
    return { error: `${error.name}: ${error.message}` };
  }
}, [url, options]);

const bearer = (name) => ({ headers: { authorization: `Bearer ${TOKENS[name]}` } });
const UNREADABLE = { error: 'TypeError: Failed to fetch' };

/** A WebSocket of the page: its first message back, or that it failed. */
const socket = (opened, path, protocols) => opened.evaluate(([url, offered]) => new Promise((resolve) => {
  const ws = new WebSocket(url, offered);
  ws.onopen = () => ws.send('hello');
  ws.onmessage = ({ data }) => { resolve({ protocol: ws.protocol, data }); ws.close(); };
  ws.onerror = () => resolve({ failed: true });
}), [GATE.replace(/^http/, 'ws') + path, protocols]);

const stories = {
  /** An expired token is told from a dead network. */
  async refusals() {
    const app = await page(APP);
    const expired = await ask(app, `${GATE}/deals`, bearer('expired'));
    same(expired.status, 401, 'the status can be read');
    holds(expired.fields['www-authenticate'].includes('error="invalid_token"'), 'so can the challenge');
    holds(expired.fields['www-authenticate'].includes('expired'), 'which says why');
    same(JSON.parse(expired.text).error, 'invalid_token', 'and the body');
    holds(/^[0-9a-f]{32}$/.test(expired.fields['x-request-id']), 'and the id to tell the operator');
    same(await ask(app, DEAD, bearer('expired')), UNREADABLE, 'a dead network is something else');

    const missing = await ask(app, `${GATE}/deals`);
    same([missing.status, missing.fields['www-authenticate']], [401, 'Bearer realm="portcullis"'], 'no token');
    const scope = await ask(app, `${GATE}/admin`, bearer('good'));
    same([scope.status, /scope="admin"/.test(scope.fields['www-authenticate'])], [403, true], 'a scope is missing');
    same((await ask(app, `${GATE}/dead`, bearer('good'))).status, 502, 'the upstream is down');
    const long = await ask(app, `${GATE}/deals`, { method: 'POST', body: 'x'.repeat(101), ...bearer('good') });
    same(long.status, 413, 'the body is too long');
    const good = await ask(app, `${GATE}/deals`, bearer('good'));
    same([good.status, good.text, good.type], [200, 'deals', 'cors'], 'a good token');
    same([good.fields['x-total'], good.fields['x-secret']], ['7', undefined], 'what is exposed, and what is not');

    const plain = await ask(app, `${GATE}/plain`, bearer('good'));
    same(plain, UNREADABLE, 'without CORS there is no answer to the preflight');
    same(await ask(app, `${GATE}/plain`), UNREADABLE, 'nor can a 401 be read');
  },

  /** Preflights: methods, fields, how long they are remembered. */
  async preflights() {
    const app = await page(APP);
    const put = { method: 'PUT', body: 'x', ...bearer('good') };
    same((await ask(app, `${GATE}/deals`, put)).status, 200, 'a listed method');
    same(await ask(app, `${GATE}/deals`, { ...put, method: 'PATCH' }), UNREADABLE, 'another method');
    const fields = (more) => ({ headers: { ...bearer('good').headers, ...more } });
    same((await ask(app, `${GATE}/deals`, fields({ 'content-type': 'application/json' }))).status, 200, 'a listed field');
    same(await ask(app, `${GATE}/deals`, fields({ 'x-other': '1' })), UNREADABLE, 'another field');
    same((await ask(app, `${GATE}/any`, { method: 'REPORT', ...bearer('good') })).status, 200, 'any method');
    same((await ask(app, `${GATE}/public`, bearer('good'))).status, 200, 'every origin');
  },

  /** Cookies go with requests where they are allowed, and only to origins that are listed. */
  async credentials() {
    const app = await page(APP);
    await app.context().addCookies([{ name: 'session', value: '1', url: GATE, sameSite: 'Lax' }]);
    const include = { credentials: 'include', ...bearer('good') };
    const allowed = await ask(app, `${GATE}/cookies`, include);
    same([allowed.status, allowed.text], [200, 'session=1'], 'with the cookie');
    same((await ask(app, `${GATE}/cookies`, bearer('good'))).text, '', 'not asked for: without');
    same((await ask(app, `${GATE}/cookies`, { credentials: 'include', ...bearer('expired') })).status, 401, 'a refusal');
    same(await ask(app, `${GATE}/deals`, include), UNREADABLE, 'not allowed');
    same(await ask(app, `${GATE}/public`, include), UNREADABLE, 'never for every origin');
  },

  /** Another origin: nothing can be read, and with `origins` nothing happens either. */
  async strangers() {
    const stranger = await page(STRANGER);
    same(await ask(stranger, `${GATE}/deals`, bearer('good')), UNREADABLE, 'a preflight is refused');
    same(await ask(stranger, `${GATE}/deals`), UNREADABLE, 'an answer cannot be read');
    same((await ask(stranger, `${GATE}/listed`, { mode: 'no-cors', method: 'POST', body: 'x' })).type, 'opaque',
      'it is sent, and rejected');
    const app = await page(APP);
    same((await ask(app, `${GATE}/listed`, { method: 'POST', body: 'x' })).status, 200, 'the same of a listed one');
    // A frame in a sandbox has the origin `null`, whosever page it is in.
    const sandboxed = await app.evaluate((url) => new Promise((resolve) => {
      addEventListener('message', ({ data }) => resolve(data));
      const frame = document.createElement('iframe');
      frame.sandbox = 'allow-scripts';
      frame.srcdoc = `<script>fetch(${JSON.stringify(url)}, { method: 'POST', body: 'x' })
        .then((answer) => parent.postMessage(answer.status, '*'), (error) => parent.postMessage(error.message, '*'))</script>`;
      document.body.append(frame);
    }), `${GATE}/listed`);
    same(sandboxed, 'Failed to fetch', 'null is an origin like others');
  },

  /** A WebSocket with its token as a sub-protocol, beside a preflight that an anonymous OPTIONS route forwards. */
  async sockets() {
    const app = await page(APP);
    same(await socket(app, '/feed', ['bearer', TOKENS.good]), { protocol: 'bearer', data: 'hello' }, 'its token');
    same(await socket(app, '/feed', ['bearer', TOKENS.expired]), { failed: true }, 'an expired one');
    same(await socket(app, '/feed', ['chat']), { failed: true }, 'none');
    same(await socket(app, '/feed/listed', ['bearer', TOKENS.good]), { protocol: 'bearer', data: 'hello' }, 'an origin');
    const stranger = await page(STRANGER);
    same(await socket(stranger, '/feed', ['bearer', TOKENS.good]), { protocol: 'bearer', data: 'hello' },
      'CORS says nothing about WebSockets');
    same(await socket(stranger, '/feed/listed', ['bearer', TOKENS.good]), { failed: true }, 'origins does');
    const upstreams = await ask(app, `${GATE}/own/deals`, bearer('good'));
    same([upstreams.status, upstreams.text], [200, 'own'], 'the upstream answers preflights itself');
    same(await ask(app, `${GATE}/own/deals`, bearer('expired')), UNREADABLE, 'then a refusal cannot be read');
  },
};

await stories[SCENARIO]();
await browser.close();
finish();

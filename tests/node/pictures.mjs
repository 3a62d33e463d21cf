// Makes the pictures of docs/console.md: a demo with a few users and their applications, which call the API for some minutes,
// and each page of the console in light and dark. tests/pictures starts it.

import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { load } from './checks.mjs';

const { BINARY, PICTURES, MINUTES } = process.env;
const { chromium } = await load('playwright-core/index.mjs');
/** The live page shows the last ten minutes. */
const MILLISECONDS = 60_000 * Number(MINUTES);
const DAY = 86_400_000;

/** A demo, and where its printed lines say that everything is. */
const demo = spawn(BINARY, ['demo'], { stdio: ['ignore', 'pipe', 'inherit'] });
process.on('exit', () => demo.kill('SIGINT'));
const printed = await new Promise((resolve, reject) => {
  let text = '';
  demo.stdout.setEncoding('utf8').on('data', (more) => {
    text += more;
    if (text.includes('The gate logs your requests here')) resolve(text);
  });
  demo.on('exit', () => reject(new Error(`the demo ended: ${text}`)));
});
demo.removeAllListeners('exit');
const found = (pattern) => printed.match(pattern)[1];
const GATE = found(/gate +(https:\S+)/);
const ADMIN = found(/admin +(http:\S+)/);
const ADMIN_TOKEN = found(/PORTCULLIS_ADMIN_TOKEN=(\S+)/);
const PASSWORD = found(/password: (\S+)/);
const FOLDER = found(/configuration +(\S+)\/portcullis.toml/);
const agent = new Agent({ ca: readFileSync(join(FOLDER, 'ca.pem')), keepAlive: true });

/** A call to the gate; status and text of the response. */
const call = (method, path, { token, form } = {}) => new Promise((resolve, reject) => {
  const headers = {
    ...(token && { authorization: `Bearer ${token}` }),
    ...(form && { 'content-type': 'application/x-www-form-urlencoded' }),
  };
  const sent = request(GATE + path, { method, agent, headers }, (response) => {
    let text = '';
    response.setEncoding('utf8').on('data', (more) => { text += more; });
    response.on('end', () => resolve({ status: response.statusCode, text }));
  });
  sent.on('error', reject).end(form);
});

/** A call of an operator; the document of the response. */
async function operate(method, path, body) {
  const response = await fetch(ADMIN + path, {
    method,
    headers: { authorization: `Bearer ${ADMIN_TOKEN}`, 'content-type': 'application/json' },
    body: body && JSON.stringify(body),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
  return text && JSON.parse(text);
}

async function token(credential) {
  const { client_id: id, client_secret: secret } = credential;
  const { text } = await call('POST', '/oauth/token', {
    form: `grant_type=client_credentials&client_id=${id}&client_secret=${secret}`,
  });
  return JSON.parse(text).access_token;
}

const credential = (owner, name, roles, scopes, days) => operate('POST', '/v1/credentials', {
  name, owner, roles, scopes, ...(days && { expires_at: new Date(Date.now() + days * DAY).toISOString() }),
});

/** Users, applications, and what ends some of their tokens. */
async function populate() {
  const both = ['case-reader', 'case-writer'];
  await operate('POST', '/v1/users', { id: 'grace', name: 'Grace Hopper', roles: [...both, 'auditor'] });
  await operate('PUT', '/v1/users/grace/password', { password: 'correct horse battery staple' });
  await operate('POST', '/v1/users', { id: 'linus', name: 'Linus', roles: ['case-reader'] });
  await operate('PUT', '/v1/users/ada/roles', { roles: [...both, 'case-approver'] });
  const robot = Object.fromEntries(new URLSearchParams(readFileSync(join(FOLDER, 'client'), 'utf8').trim()));
  await credential('ada', 'Old CRM sync', ['case-reader'], ['read:deals'], 2000 / DAY);
  const nightly = await credential('ada', 'Nightly export', ['case-reader'], ['read:deals', 'read:activity'], 5);
  const claims = await credential('ada', 'Claims form', ['case-writer'], [], 365);
  const report = await credential('ada', 'Month-end report', ['case-reader', 'case-approver'], ['read:deals'], 90);
  const before = await token(report);
  await call('GET', '/deals/1', { token: before });
  await operate('PUT', '/v1/users/ada/roles', { roles: both });

  const bot = await credential('grace', 'Ticket bot', both, ['read:users'], 30);
  const sales = await credential('grace', 'Sales dashboard', [], ['read:deals', 'read:activity']);
  const trial = await credential('linus', 'Trial client', ['case-reader'], ['read:deals']);
  const tried = await token(trial);
  await call('GET', '/deals/1', { token: tried });
  await operate('POST', '/v1/events', { type: 'client-revoked', issuer: GATE, client: trial.client_id });
  const leaked = await token(sales);
  const { jti } = JSON.parse(Buffer.from(leaked.split('.')[1], 'base64url'));
  await operate('POST', '/v1/events', { type: 'token-revoked', issuer: GATE, jti });
  const { items: [ended] } = await operate('POST', '/v1/events', { type: 'subject-revoked', issuer: GATE, subject: 'linus' })
    .then(() => operate('GET', '/v1/revocations?subject=linus'));
  await operate('DELETE', `/v1/revocations/${ended.id}`);
  const tokens = {};
  for (const [name, made] of Object.entries({ robot, nightly, claims, report, bot, sales })) tokens[name] = await token(made);
  return { ...tokens, before, tried };
}

/** What is called how often, of all. */
const calls = ({ robot, nightly, claims, report, bot, sales, before, tried }) => [
  [24, 'GET', '/deals', robot], [6, 'GET', '/cases', robot], [3, 'GET', '/users', robot],
  [14, 'GET', '/deals', nightly], [7, 'GET', '/activity', nightly], [1, 'POST', '/cases', nightly],
  [4, 'POST', '/cases', claims], [4, 'GET', '/deals', report], [3, 'GET', '/deals', before],
  [5, 'GET', '/cases', bot], [3, 'GET', '/users', bot], [10, 'GET', '/deals', sales], [5, 'GET', '/activity', sales],
  [1, 'GET', '/deals', tried], [1, 'GET', '/deals', undefined], [1, 'GET', '/reports', robot],
  [0.7, 'GET', '/cases', `${robot.slice(0, -6)}AAAAAA`], [0.5, 'GET', '/deals', 'no-token'],
];

let isOver = false;
/** Calls at a rate that rises and falls. */
async function traffic(table) {
  const sum = table.reduce((all, [weight]) => all + weight, 0);
  for (const began = Date.now(); !isOver;) {
    const rate = 4 + 14 * Math.max(0, Math.sin((Date.now() - began) / 45_000)) ** 2 * (0.8 + 0.4 * Math.random());
    let drawn = Math.random() * sum;
    const [, method, path, bearer] = table.find(([weight]) => (drawn -= weight) < 0);
    call(method, `${path}/${Math.ceil(Math.random() * 500)}`, { token: bearer }).catch((error) => { if (!isOver) throw error; });
    await sleep(1000 / rate);
  }
}

/** A picture of the whole page, in light and in dark. */
async function picture(page, name) {
  // Nothing has the focus, as for somebody who only reads.
  await page.evaluate(() => document.activeElement?.blur());
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: join(PICTURES, `${name}-${colorScheme}.png`), fullPage: true });
  }
}

async function visitor() {
  const context = await browser.newContext({ viewport: { width: 1200, height: 300 }, timezoneId: 'UTC' });
  const page = await context.newPage();
  await page.setViewportSize({ width: 1200, height: 300 });
  return page;
}

/** What ada sees. */
async function developer() {
  const page = await visitor();
  const go = (path) => page.goto(`${ADMIN}/console/${path}`);
  await go('sign-in');
  await picture(page, 'sign-in');
  await page.fill('#f-user', 'ada');
  await page.fill('#f-password', PASSWORD);
  await page.click('form:has(#f-user) button');
  await go('credentials');
  await picture(page, 'credentials');
  await page.click('a:has-text("Nightly export")');
  await picture(page, 'credential');
  await go('credentials');
  await page.click('a:has-text("Month-end report")');
  await picture(page, 'credential-lost');
  await go('credentials');
  await page.click('a:has-text("New credential")');
  await page.fill('#f-name', 'Invoice archive');
  await page.check('label:text-is("case-reader")');
  await page.check('label:text-is("read:deals")');
  await picture(page, 'new-credential');
  await page.click('button:has-text("Generate")');
  await picture(page, 'secret');
  await page.click('a:has-text("I have copied it")');
  await page.click('a:has-text("Delete")');
  await picture(page, 'delete');
  await page.click('button:has-text("Delete")');
}

/** What an operator sees. */
async function operator(tokens) {
  const page = await visitor();
  const go = (path) => page.goto(`${ADMIN}/console/${path}`);
  await go('sign-in');
  await page.fill('#f-token', ADMIN_TOKEN);
  await page.click('form:has(#f-token) button');
  for (const path of ['users', 'explain', 'events', 'revocations', 'sessions', 'usage']) {
    await go(path);
    await picture(page, path);
  }
  await go('explain?reason=role_changed');
  await page.click('tbody a >> nth=0');
  await picture(page, 'refusal');
  await go('explain');
  await page.fill('#f-token', tokens.robot);
  await page.fill('#f-path', '/users/7');
  await page.click('button:text-is("Explain")');
  await picture(page, 'verdict');
  await go('events');
  await page.click('a:has-text("New event")');
  await page.selectOption('#f-type', 'subject-revoked');
  await page.fill('#f-subject', 'grace');
  await page.click('main button[type=submit], main form button >> nth=-1');
  await picture(page, 'event');
  await go('users/ada');
  await picture(page, 'user');
  await page.fill('#f-roles', 'case-writer');
  await page.click('button:has-text("Change roles")');
  await picture(page, 'roles');
  await go('live');
  // Its figures come a moment after the page.
  await sleep(5000);
  await picture(page, 'live');
}

mkdirSync(PICTURES, { recursive: true });
const tokens = await populate();
const calling = traffic(calls(tokens));
await sleep(MILLISECONDS);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
});
await developer();
await operator(tokens);
await browser.close();
isOver = true;
await calling;
agent.destroy();
demo.kill('SIGINT');
